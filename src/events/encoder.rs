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

use std::io::{self, IsTerminal};
use std::ops::Range;
use std::sync::Arc;

use crate::events::body::Body;
use crate::events::counters::{Counters, Totals};
use crate::events::human::{Colour, HumanEncoder, Screen};
use crate::events::json::JsonEncoder;
use crate::time::{Instant, WallClock};

/// The name of the event that stands for events that were dropped.
pub(super) const DROPPED: &str = "events_dropped";

/// The events of one service.
pub trait Stream: Send + 'static {
    /// The names of all its events, between the first line and the last one.
    const NAMES: &'static [&'static str];
    /// The first line: everything is ready.
    type Opening: Record;
    /// An event of the service.
    type Event: Send + 'static;
    /// The last line: the summary.
    type Closing: Record;
    /// What a loop counts.
    type Counts;

    /// What an event is.
    fn kind(event: &Self::Event) -> Kind;

    /// Appends the fields and the sentence of an event of the loop `ring`. An event without a sentence is for programs, and
    /// for the status line.
    fn describe(&mut self, ring: usize, event: &Self::Event, body: &mut Body<'_>);

    /// Appends the line of an event in a format of the stream's own.
    fn plain(&mut self, event: &Self::Event, wall: WallClock, out: &mut Vec<u8>) {
        let _ = (event, wall, out);
    }

    /// The counts of the status line.
    fn totals(counts: &Self::Counts) -> Totals;

    /// The text of the status line. `rates` are the totals' growth a second.
    fn status(totals: &Totals, rates: &[f64; 5]) -> String;
}

/// The first or the last line of a stream. For people it may have several.
pub trait Record: Send + 'static {
    /// Appends it for programs.
    fn json(&self, json: &mut JsonEncoder, out: &mut Vec<u8>);

    /// Appends it for people.
    fn human(&self, human: &mut HumanEncoder, out: &mut Vec<u8>);
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
    /// The stream's [own](Stream::plain), without a first line and a last one.
    Plain,
    /// For people: one sentence a line.
    Human {
        /// Colour the names of events.
        colour: bool,
        /// The terminal, which has a status line at the bottom.
        screen: Screen,
    },
}

impl Format {
    /// For people on standard output or standard error: with colour and a status line on a terminal that can show them
    /// (not `TERM=dumb`), and without colour where `NO_COLOR` is set.
    #[must_use]
    pub fn human_on(screen: Screen) -> Format {
        let terminal = match screen {
            Screen::Stdout => io::stdout().is_terminal(),
            Screen::Stderr => io::stderr().is_terminal(),
            Screen::None | Screen::Columns(_) => false,
        };
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

#[derive(Debug)]
enum Form {
    Json(JsonEncoder),
    Plain(WallClock),
    Human(HumanEncoder),
}

/// Writes the events of a service in either format: appends them to a buffer, and neither fails nor blocks.
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

    pub(super) fn with_counters(
        stream: S,
        format: Format,
        filter: Filter,
        counters: Arc<[Counters]>,
    ) -> Encoder<S> {
        let form = match format {
            Format::JsonLines => Form::Json(JsonEncoder::new()),
            Format::Plain => Form::Plain(WallClock::read()),
            Format::Human { colour, screen } => {
                Form::Human(HumanEncoder::new(colour, if filter.quiet { Screen::None } else { screen }))
            }
        };
        Encoder { stream, form, filter, counters, text: String::new() }
    }

    /// An encoder for people on standard error, where the stream itself goes elsewhere. It shows the first lines and the
    /// status line.
    #[must_use]
    pub fn console(stream: S, counters: &Arc<[Counters]>) -> Encoder<S> {
        Encoder::with_counters(
            stream,
            Format::human_on(Screen::Stderr),
            Filter::default(),
            Arc::clone(counters),
        )
    }

    /// Writes the status line as of now. Reads the clocks.
    pub fn status_now(&mut self, into: &mut Vec<u8>) {
        self.set_clock(WallClock::read());
        self.status(Instant::now(), into);
    }

    /// Sets the relation between clock and date. Called before everything that is written together.
    pub fn set_clock(&mut self, wall: WallClock) {
        match &mut self.form {
            Form::Json(json) => json.set_clock(wall),
            Form::Plain(clock) => *clock = wall,
            Form::Human(human) => human.set_clock(wall),
        }
    }

    /// Appends the first line.
    pub fn opening(&mut self, opening: &S::Opening, into: &mut Vec<u8>) {
        match &mut self.form {
            Form::Json(json) => opening.json(json, into),
            Form::Plain(_) => {}
            Form::Human(_) if self.filter.quiet => {}
            Form::Human(human) => opening.human(human, into),
        }
    }

    /// Appends an event of the loop `ring`, or nothing.
    pub fn event(&mut self, ring: usize, event: &S::Event, into: &mut Vec<u8>) {
        let Kind { name, at, colour, routine } = S::kind(event);
        let named = self.filter.only.is_empty() || self.filter.only.iter().any(|only| only == name);
        if !named || self.filter.quiet && routine.is_some() {
            return;
        }
        match &mut self.form {
            Form::Json(json) => json.line(name, at, into, |body| self.stream.describe(ring, event, body)),
            Form::Plain(wall) => self.stream.plain(event, *wall, into),
            Form::Human(human) => {
                if routine.is_some_and(|word| human.folds(at, word, into)) {
                    return;
                }
                self.text.clear();
                self.stream.describe(ring, event, &mut Body::human(&mut self.text));
                if !self.text.is_empty() {
                    human.line(at, name, colour, &self.text, into);
                }
            }
        }
    }

    /// Appends the last line.
    pub fn closing(&mut self, closing: &S::Closing, into: &mut Vec<u8>) {
        match &mut self.form {
            Form::Json(json) => closing.json(json, into),
            Form::Plain(_) => {}
            Form::Human(human) => {
                human.unfold_all(into);
                closing.human(human, into);
            }
        }
    }

    /// Appends that `count` events were dropped behind this encoder: `lines`, where lines have numbers.
    pub(super) fn dropped(&mut self, count: u64, lines: Option<Range<u64>>, into: &mut Vec<u8>) {
        if !self.filter.only.is_empty() && !self.filter.only.iter().any(|only| only == DROPPED) {
            return;
        }
        let now = Instant::now();
        match &mut self.form {
            Form::Json(json) => json.line(DROPPED, now, into, |body| {
                body.field("dropped", count);
                if let Some(lines) = lines {
                    body.field("first_seq", lines.start).field("last_seq", lines.end - 1);
                }
            }),
            Form::Plain(_) => {}
            Form::Human(human) => {
                let text = format!("{count}: the output took none");
                human.line(now, DROPPED, Colour::Magenta, &text, into);
            }
        }
    }

    /// Whether each event is one line. For people it may have several, or none.
    pub(super) fn has_a_line_each(&self) -> bool {
        !matches!(self.form, Form::Human(_))
    }

    /// The number of the next line, where lines have numbers.
    pub(super) fn next_line(&self) -> Option<u64> {
        match &self.form {
            Form::Json(json) => Some(json.next()),
            Form::Plain(_) | Form::Human(_) => None,
        }
    }

    /// Gives the next line this number: none of the lines behind it was written, and nobody misses them.
    pub(super) fn go_back(&mut self, line: Option<u64>) {
        if let (Form::Json(json), Some(line)) = (&mut self.form, line) {
            json.go_back(line);
        }
    }

    /// Whether there is a status line, written anew when nothing happens.
    #[must_use]
    pub fn has_status(&self) -> bool {
        matches!(&self.form, Form::Human(human) if human.has_status())
    }

    /// Clears the status line, if there is one, so that lines can take its place.
    pub fn clear_status(&mut self, into: &mut Vec<u8>) {
        if let Form::Human(human) = &mut self.form {
            human.clear_status(into);
        }
    }

    /// Writes the status line, if there is one, without an end of line.
    pub fn status(&mut self, now: Instant, into: &mut Vec<u8>) {
        if let Form::Human(human) = &mut self.form
            && human.has_status()
        {
            let totals = Counters::sum(&self.counters);
            let rates = human.rates(&totals, now);
            human.status(&S::status(&totals, &rates), now, into);
        }
    }
}
