//! The encoder of both services.
//!
//! # Model
//!
//! ```text
//!   TrackerStream ─┐                                    ┌─ JsonEncoder   envelope, safe strings
//!                  ├─ Stream ─► Encoder<S>: filter ─► ──┤
//!   ProxyStream ───┘                                    └─ HumanEncoder  columns, folding, status line
//! ```
//!
//! A [`Stream`] knows the fields and the sentence of each event. The envelope, the filter, and the layout of lines are
//! written once.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use crate::events::counters::{Counters, Totals};
use crate::events::encode::Encode;
use crate::events::human::{Colour, HumanEncoder, Screen};
use crate::events::json::JsonEncoder;
use crate::events::sink::{Callback, Outlet, Output, Sink, SinkError};
use crate::reactor::EventSink;
use crate::time::{Instant, WallClock};

/// The events of one service.
pub trait Stream: Send + 'static {
    /// The names of all its events, between the first line and the last one.
    const NAMES: &'static [&'static str];
    /// The first line.
    type Opening: Send + 'static;
    /// An event of the service.
    type Event: Send + 'static;
    /// The last line.
    type Closing: Send + 'static;
    /// What a loop counts.
    type Counts;

    /// What an event is.
    fn kind(event: &Self::Event) -> Kind;

    /// The counts of the status line.
    fn totals(counts: &Self::Counts) -> Totals;

    /// The counts that an event brings, where the loop does not store them.
    fn totals_of(event: &Self::Event) -> Option<Totals> {
        let _ = event;
        None
    }

    /// The text of the status line. `rates` are the totals' growth a second.
    fn status(totals: &Totals, rates: &[f64; 5]) -> String;

    /// Appends the first line for programs.
    fn json_opening(&mut self, opening: &Self::Opening, json: &mut JsonEncoder, out: &mut Vec<u8>);

    /// Appends an event for programs.
    fn json_event(&mut self, ring: usize, event: &Self::Event, json: &mut JsonEncoder, out: &mut Vec<u8>);

    /// Appends the last line for programs.
    fn json_closing(&mut self, closing: &Self::Closing, json: &mut JsonEncoder, out: &mut Vec<u8>);

    /// Appends the first lines for people.
    fn human_opening(&mut self, opening: &Self::Opening, human: &mut HumanEncoder, out: &mut Vec<u8>);

    /// Appends the sentence of an event.
    fn sentence(&mut self, ring: usize, event: &Self::Event, text: &mut String);

    /// Appends the last lines for people.
    fn human_closing(&mut self, closing: &Self::Closing, human: &mut HumanEncoder, out: &mut Vec<u8>);
}

/// What an event is, whatever its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name: the field `event`, and a value of `--only`.
    pub name: &'static str,
    /// When it was so.
    pub at: Instant,
    /// The colour of its name.
    pub colour: Colour,
    /// The word that it is counted by where many of its kind are folded; `None` for a problem, which is always shown.
    pub routine: Option<&'static str>,
}

/// The format of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For programs: one JSON object a line.
    JsonLines,
    /// For people: one sentence a line.
    Human {
        /// Colour the names of events.
        colour: bool,
        /// The terminal, which has a status line at the bottom.
        screen: Screen,
    },
}

impl Format {
    /// For people on standard output: with colour and a status line on a terminal that can show them (not
    /// `TERM=dumb`), and without colour where `NO_COLOR` is set.
    #[must_use]
    pub fn human_on_stdout() -> Format {
        Format::human(io::stdout().is_terminal(), Screen::Stdout)
    }

    /// The same on standard error.
    #[must_use]
    pub fn human_on_stderr() -> Format {
        Format::human(io::stderr().is_terminal(), Screen::Stderr)
    }

    fn human(terminal: bool, screen: Screen) -> Format {
        let capable = terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let colourless = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Format::Human { colour: capable && !colourless, screen: if capable { screen } else { Screen::None } }
    }
}

/// The events that are written. The first line and the last one always are for programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The names of events that are written; all if it is empty.
    pub only: Vec<String>,
    /// Only problems are written, and for people no first line and no status line.
    pub quiet: bool,
}

impl Filter {
    fn passes(&self, kind: &Kind) -> bool {
        let named = self.only.is_empty() || self.only.iter().any(|name| name == kind.name);
        named && !(self.quiet && kind.routine.is_some())
    }
}

#[derive(Debug)]
enum Form {
    Json(JsonEncoder),
    Human(HumanEncoder),
}

/// Writes the events of a service in either format.
#[derive(Debug)]
pub struct Encoder<S> {
    stream: S,
    form: Form,
    filter: Filter,
    /// Each loop's counts, for the status line.
    counters: Arc<[Counters]>,
    /// The sentence that is being written.
    text: String,
}

impl<S: Stream> Encoder<S> {
    /// An encoder that shares no counts with loops. It reads the clock.
    #[must_use]
    pub fn new(stream: S, format: Format, filter: Filter) -> Encoder<S> {
        Encoder::with_counters(stream, format, filter, Arc::new([]))
    }

    fn with_counters(stream: S, format: Format, filter: Filter, counters: Arc<[Counters]>) -> Encoder<S> {
        let form = match format {
            Format::JsonLines => Form::Json(JsonEncoder::new()),
            Format::Human { colour, screen } => {
                Form::Human(HumanEncoder::new(colour, if filter.quiet { Screen::None } else { screen }))
            }
        };
        Encoder { stream, form, filter, counters, text: String::new() }
    }
}

impl<S: Stream> Encode for Encoder<S> {
    type Opening = S::Opening;
    type Event = S::Event;
    type Closing = S::Closing;

    fn set_clock(&mut self, wall: WallClock) {
        match &mut self.form {
            Form::Json(json) => json.set_clock(wall),
            Form::Human(human) => human.set_clock(wall),
        }
    }

    fn opening(&mut self, opening: &S::Opening, into: &mut Vec<u8>) {
        match &mut self.form {
            Form::Json(json) => self.stream.json_opening(opening, json, into),
            Form::Human(_) if self.filter.quiet => {}
            Form::Human(human) => self.stream.human_opening(opening, human, into),
        }
    }

    fn event(&mut self, ring: usize, event: &S::Event, into: &mut Vec<u8>) {
        if let (Some(counters), Some(totals)) = (self.counters.get(ring), S::totals_of(event)) {
            counters.store(totals);
        }
        let kind = S::kind(event);
        if !self.filter.passes(&kind) {
            return;
        }
        match &mut self.form {
            Form::Json(json) => self.stream.json_event(ring, event, json, into),
            Form::Human(human) => {
                if kind.routine.is_some_and(|word| human.folds(kind.at, word, into)) {
                    return;
                }
                self.text.clear();
                self.stream.sentence(ring, event, &mut self.text);
                // An event without a sentence is for programs, and for the status line.
                if !self.text.is_empty() {
                    human.line(kind.at, kind.name, kind.colour, &self.text, into);
                }
            }
        }
    }

    fn closing(&mut self, closing: &S::Closing, into: &mut Vec<u8>) {
        match &mut self.form {
            Form::Json(json) => self.stream.json_closing(closing, json, into),
            Form::Human(human) => {
                human.unfold_all(into);
                self.stream.human_closing(closing, human, into);
            }
        }
    }

    fn has_status(&self) -> bool {
        matches!(&self.form, Form::Human(human) if human.has_status())
    }

    fn clear_status(&mut self, into: &mut Vec<u8>) {
        if let Form::Human(human) = &mut self.form {
            human.clear_status(into);
        }
    }

    fn status(&mut self, now: Instant, into: &mut Vec<u8>) {
        if let Form::Human(human) = &mut self.form {
            let totals = Counters::sum(&self.counters);
            let rates = human.rates(&totals, now);
            human.status(&S::status(&totals, &rates), now, into);
        }
    }
}

/// A sink that runs, and the ways to it.
#[derive(Debug)]
pub struct Spawned<S: Stream> {
    /// The thread that writes.
    pub sink: Sink<Encoder<S>>,
    /// One for each loop.
    pub outlets: Vec<LoopOutlet<S>>,
    /// The counts of all loops.
    pub counters: Arc<[Counters]>,
}

/// Starts the sink of a service; see [`Sink::spawn`].
///
/// # Errors
///
/// When the output cannot be opened or the thread cannot be started.
pub fn spawn<S: Stream>(
    stream: S,
    format: Format,
    filter: Filter,
    output: Output,
    loops: usize,
) -> Result<Spawned<S>, SinkError> {
    let counters: Arc<[Counters]> = std::iter::repeat_with(Counters::default).take(loops).collect();
    let encoder = Encoder::with_counters(stream, format, filter, Arc::clone(&counters));
    let (sink, outlets) = Sink::spawn(encoder, output, loops)?;
    let of = |outlet| LoopOutlet { outlet, counters: Arc::clone(&counters) };
    Ok(Spawned { sink, outlets: outlets.into_iter().map(of).collect(), counters })
}

impl<S: Stream> Encoder<S> {
    /// The status line as of now. Reads the clocks.
    pub fn status_now(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.set_clock(WallClock::read());
        self.status(Instant::now(), &mut line);
        line
    }
}

/// An encoder for people on standard error, where the stream itself goes elsewhere. It shows the first lines and the
/// status line.
#[must_use]
pub fn console<S: Stream>(stream: S, counters: &Arc<[Counters]>) -> Encoder<S> {
    let format = Format::human_on_stderr();
    Encoder::with_counters(stream, format, Filter::default(), Arc::clone(counters))
}

/// One loop's way to the sink: its events, and its counts for the status line.
pub struct LoopOutlet<S: Stream> {
    outlet: Outlet<S::Event>,
    counters: Arc<[Counters]>,
}

impl<S: Stream> fmt::Debug for LoopOutlet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.outlet.fmt(f)
    }
}

impl<S: Stream> LoopOutlet<S> {
    /// Sets what is called when there is room after a refusal; see [`Outlet::set_waker`].
    pub fn set_waker(&mut self, waker: Callback) {
        self.outlet.set_waker(waker);
    }
}

impl<S: Stream> EventSink<S::Event, S::Counts> for LoopOutlet<S> {
    fn offer(&mut self, batch: Vec<S::Event>) -> Result<Vec<S::Event>, Vec<S::Event>> {
        self.outlet.offer(batch)
    }

    /// Stores the counts for the status line.
    fn progress(&mut self, counts: &S::Counts) {
        self.counters[self.outlet.ring()].store(S::totals(counts));
    }
}
