//! What the daemon's [sink](crate::events::sink) says: events for programs or for people.
//!
//! # Model
//!
//! ```text
//!   ring 0: RingOutlet --batch--> sink's thread --> EventVoice: Encoder or Printer
//!                      --counts-> Counters of ring 0 --\
//!   ring 1: RingOutlet --counts-> Counters of ring 1 ---> status line
//! ```
//!
//! The counts of the status line do not queue behind events: each ring stores its own, and the voice
//! adds them up when the line is written.
//!
//! # Example
//!
//! ```
//! # use deadpeer::events::json::tracker::{Closing, Listening};
//! # use deadpeer::events::tracker;
//! # use deadpeer::{reactor::EventSink, tracking::LocalAddresses};
//! # use deadpeer::liveness::{Event, EventKind, Policy};
//! # use deadpeer::events::sink::{Finish, Format, Output};
//! # use deadpeer::time::Instant;
//! # use std::io::Read;
//! # use std::sync::Arc;
//! # use std::time::Duration;
//! let listening = Listening {
//!     addresses: vec!["127.0.0.1:7400".parse().unwrap()],
//!     pid: 1,
//!     engine: "io_uring",
//!     host: None,
//!     why_not: None,
//!     features: vec!["defer_taskrun"],
//!     threads: 1,
//!     policy_name: "standard",
//!     policy: Policy::STANDARD,
//!     wake: "lazy",
//!     unread: 1024,
//!     capacity: 1000,
//!     batch_window: Duration::ZERO,
//!     at: Instant::now(),
//! };
//! let (mut reader, writer) = std::io::pipe().unwrap();
//! let output = Output::Writer { name: "a pipe".into(), writer: Box::new(writer) };
//! let locals = Arc::new(LocalAddresses::new());
//! let (sink, mut outlets) = tracker::spawn(Format::JsonLines, output, 1, locals).unwrap();
//! sink.announce(listening);
//!
//! let batch = vec![Event { at: Instant::now(), subject: None, kind: EventKind::Resumed }];
//! let next = outlets[0].offer(batch).expect("there is room");
//! assert!(next.is_empty());
//!
//! assert!(matches!(sink.finish(Closing::default(), Duration::from_secs(9)), Finish::Delivered));
//! let mut text = String::new();
//! reader.read_to_string(&mut text).unwrap();
//! let events: Vec<_> = text.lines().map(|line| line.split('"').nth(3).unwrap()).collect();
//! assert_eq!(events, ["listening", "resumed", "summary"]);
//! ```

use std::sync::Arc;

use crate::events::counters::Counters;
use crate::events::human::tracker::Printer;
use crate::events::json::tracker::{Closing, Encoder, Listening};
use crate::events::sink::{Callback, Format, Outlet, Output, Sink, SinkError, Voice};
use crate::liveness::{Event, TrackerCounts};
use crate::reactor::EventSink;
use crate::time::{Instant, WallClock};
use crate::tracking::LocalAddresses;

/// Starts the daemon's sink, with one outlet for each ring thread; see [`Sink::spawn`].
///
/// # Errors
///
/// When the output cannot be opened or the thread cannot be started.
pub fn spawn(
    format: Format,
    output: Output,
    rings: usize,
    locals: Arc<LocalAddresses>,
) -> Result<(Sink<EventVoice>, Vec<RingOutlet>), SinkError> {
    let counters: Arc<[Counters]> = std::iter::repeat_with(Counters::default).take(rings).collect();
    let voice = match format {
        Format::JsonLines => EventVoice::Json(Encoder::new(locals)),
        Format::Human { colour, status } => {
            let printer = Printer::new(locals, colour, status);
            EventVoice::Human { printer, counters: Arc::clone(&counters) }
        }
    };
    let (sink, outlets) = Sink::spawn(voice, output, rings)?;
    let outlets =
        outlets.into_iter().map(|outlet| RingOutlet { outlet, counters: Arc::clone(&counters) }).collect();
    Ok((sink, outlets))
}

/// Says what trackers tell.
#[derive(Debug)]
pub enum EventVoice {
    /// To programs; see [`jsonl`](crate::events::json::tracker).
    Json(Encoder),
    /// To people; see [`human`](crate::events::human::tracker).
    Human {
        /// Writes the lines.
        printer: Printer,
        /// Each ring's counters, for the status line.
        counters: Arc<[Counters]>,
    },
}

impl Voice for EventVoice {
    type Opening = Listening;
    type Event = Event;
    type Closing = Closing;

    fn set_clock(&mut self, wall: WallClock) {
        match self {
            EventVoice::Json(encoder) => encoder.set_clock(wall),
            EventVoice::Human { printer, .. } => printer.set_clock(wall),
        }
    }

    fn opening(&mut self, listening: &Listening, into: &mut Vec<u8>) {
        match self {
            EventVoice::Json(encoder) => encoder.listening(listening, into),
            EventVoice::Human { printer, .. } => printer.listening(listening, into),
        }
    }

    fn event(&mut self, ring: usize, event: &Event, into: &mut Vec<u8>) {
        match self {
            EventVoice::Json(encoder) => encoder.event(ring, event, into),
            EventVoice::Human { printer, .. } => printer.event(ring, event, into),
        }
    }

    fn closing(&mut self, closing: &Closing, into: &mut Vec<u8>) {
        match self {
            EventVoice::Json(encoder) => encoder.summary(closing, into),
            EventVoice::Human { printer, .. } => printer.summary(closing, into),
        }
    }

    fn has_status(&self) -> bool {
        match self {
            EventVoice::Json(_) => false,
            EventVoice::Human { printer, .. } => printer.has_status(),
        }
    }

    fn clear_status(&mut self, into: &mut Vec<u8>) {
        match self {
            EventVoice::Json(_) => {}
            EventVoice::Human { printer, .. } => printer.clear_status(into),
        }
    }

    fn status(&mut self, now: Instant, into: &mut Vec<u8>) {
        match self {
            EventVoice::Json(_) => {}
            EventVoice::Human { printer, counters } => {
                printer.status(counters.iter().map(Counters::load).sum(), now, into);
            }
        }
    }
}

/// One ring thread's way to the daemon's sink: its events, and its counts for the status line.
#[derive(Debug)]
pub struct RingOutlet {
    outlet: Outlet<Event>,
    counters: Arc<[Counters]>,
}

impl RingOutlet {
    /// Sets what is called when there is room after a refusal; see [`Outlet::set_waker`].
    pub fn set_waker(&mut self, waker: Callback) {
        self.outlet.set_waker(waker);
    }
}

impl EventSink for RingOutlet {
    fn offer(&mut self, batch: Vec<Event>) -> Result<Vec<Event>, Vec<Event>> {
        self.outlet.offer(batch)
    }

    /// Five stores.
    fn progress(&mut self, counts: &TrackerCounts) {
        self.counters[self.outlet.ring()].store(counts);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::time::Duration;

    use super::*;
    use crate::events::counters::Totals;
    use crate::events::json::tracker::tests::samples;
    use crate::events::sink::Finish;

    /// Far longer than anything here takes, so that a test that hangs says where.
    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn people_get_sentences_and_the_status_line_is_gone_at_the_end() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = Output::Writer { name: "a pipe".to_owned(), writer: Box::new(writer) };
        let format = Format::Human { colour: false, status: true };
        let (sink, mut outlets) = spawn(format, output, 2, samples::locals()).unwrap();
        sink.announce(samples::listening());
        for (outlet, living) in outlets.iter_mut().zip([5, 2]) {
            let counts = TrackerCounts { opened: 5, living, suspects: 1, ..TrackerCounts::default() };
            outlet.progress(&counts);
        }
        let totals: Totals = outlets[0].counters.iter().map(Counters::load).sum();
        assert_eq!((totals.opened, totals.alive, totals.suspects), (10, 5, 2));
        assert!(outlets[0].offer(vec![samples::reset()]).is_ok());
        assert!(matches!(sink.finish(samples::closing(), PATIENCE), Finish::Delivered));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.contains("died         127.0.0.1:40312        aborted"), "{text}");
        let last = text.rsplit("\x1b[K").next().unwrap();
        assert!(last.contains("151 died") && last.ends_with('\n'), "{last}");
        assert!(!last.contains("half-closed, "), "{last}");
    }
}
