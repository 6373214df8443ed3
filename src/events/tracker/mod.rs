//! The events of `deadpeer run`, for programs and for people.
//!
//! - `event`: the events between the first line and the last one;
//! - `death`: `died`, its proof and its sentence;
//! - `peers`: what the lines name a peer by;
//! - `opening`: the first line, `listening`;
//! - `closing`: the last line, `summary`.

mod closing;
mod death;
mod event;
mod opening;
mod peers;

use std::sync::Arc;

pub use closing::{Closing, RingTotals};
pub use opening::Listening;

use crate::events::counters::Totals;
use crate::events::encoder::{Encoder, Kind, Stream};
use crate::events::human::HumanEncoder;
use crate::events::json::JsonEncoder;
use crate::liveness::{Event, TrackerCounts};
use crate::tracking::LocalAddresses;
use peers::Peers;

/// Writes the events of trackers.
pub type TrackerEncoder = Encoder<TrackerStream>;

/// The events of trackers.
#[derive(Debug)]
pub struct TrackerStream(Peers);

impl TrackerStream {
    /// The events of trackers that share a table of local addresses.
    #[must_use]
    pub fn new(locals: Arc<LocalAddresses>) -> TrackerStream {
        TrackerStream(Peers::new(locals))
    }
}

impl Stream for TrackerStream {
    const NAMES: &'static [&'static str] = event::NAMES;
    type Opening = Listening;
    type Event = Event;
    type Closing = Closing;
    type Counts = TrackerCounts;

    fn kind(event: &Event) -> Kind {
        event::kind(event)
    }

    /// Opened, alive, suspect, half-closed, died.
    fn totals(counts: &TrackerCounts) -> Totals {
        let doubtful = counts.suspects + counts.half_closed;
        [
            counts.opened,
            u64::from(counts.living.saturating_sub(doubtful)),
            u64::from(counts.suspects),
            u64::from(counts.half_closed),
            counts.died.iter().sum(),
        ]
    }

    fn status(&[_, alive, suspects, half_closed, died]: &Totals, rates: &[f64; 5]) -> String {
        let [opening, .., dying] = rates;
        format!(
            "{alive} alive, {suspects} suspect, {half_closed} half-closed, {died} died  \
             (+{opening:.0}/s -{dying:.0}/s)"
        )
    }

    fn json_opening(&mut self, listening: &Listening, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        listening.json(json, out);
    }

    fn json_event(&mut self, ring: usize, event: &Event, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        event::json(&mut self.0, ring, event, json, out);
    }

    fn json_closing(&mut self, closing: &Closing, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        closing.json(json, out);
    }

    fn human_opening(&mut self, listening: &Listening, human: &mut HumanEncoder, out: &mut Vec<u8>) {
        listening.human(human, out);
    }

    fn sentence(&mut self, ring: usize, event: &Event, text: &mut String) {
        event::sentence(&mut self.0, ring, event, text);
    }

    fn human_closing(&mut self, closing: &Closing, human: &mut HumanEncoder, out: &mut Vec<u8>) {
        closing.human(human, out);
    }
}

#[cfg(test)]
mod tests;
