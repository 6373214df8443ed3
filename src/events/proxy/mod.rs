//! The events of `deadpeer proxy`, for programs and for people. `docs/HTTP.md` shows one of each line.
//!
//! - `event`: the events between the first line and the last one;
//! - `opening`: the first line, `listening`;
//! - `closing`: the last line, `summary`.

mod closing;
mod event;
mod opening;

pub use closing::Closing;
pub use opening::Listening;

use crate::events::counters::Totals;
use crate::events::encoder::{Encoder, Kind, Stream};
use crate::events::human::HumanEncoder;
use crate::events::json::JsonEncoder;
use crate::proxy::{Counts, Line};

/// Writes the events of the proxy.
pub type ProxyEncoder = Encoder<ProxyStream>;

/// The events of the proxy.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProxyStream;

impl Stream for ProxyStream {
    const NAMES: &'static [&'static str] = event::NAMES;
    type Opening = Listening;
    type Event = Line;
    type Closing = Closing;
    type Counts = Counts;

    fn kind(line: &Line) -> Kind {
        event::kind(line)
    }

    /// Completed and interrupted exchanges.
    fn totals(counts: &Counts) -> Totals {
        [counts.completed, counts.interrupted(), 0, 0, 0]
    }

    fn totals_of(line: &Line) -> Option<Totals> {
        match *line {
            Line::Completed { completed_total, interrupted_total, .. } => {
                Some([completed_total, interrupted_total, 0, 0, 0])
            }
            _ => None,
        }
    }

    fn status(&[completed, interrupted, ..]: &Totals, rates: &[f64; 5]) -> String {
        let [completing, interrupting, ..] = rates;
        format!("completed {completed}, interrupted {interrupted}  (+{completing:.0}/s, {interrupting:.0}/s)")
    }

    fn json_opening(&mut self, listening: &Listening, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        listening.json(json, out);
    }

    fn json_event(&mut self, ring: usize, line: &Line, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        event::json(ring, line, json, out);
    }

    fn json_closing(&mut self, closing: &Closing, json: &mut JsonEncoder, out: &mut Vec<u8>) {
        closing.json(json, out);
    }

    fn human_opening(&mut self, listening: &Listening, human: &mut HumanEncoder, out: &mut Vec<u8>) {
        listening.human(human, out);
    }

    fn sentence(&mut self, _ring: usize, line: &Line, text: &mut String) {
        event::sentence(line, text);
    }

    fn human_closing(&mut self, closing: &Closing, human: &mut HumanEncoder, out: &mut Vec<u8>) {
        closing.human(human, out);
    }
}

#[cfg(test)]
mod tests;
