//! Events for people: one line each.

use std::sync::Arc;

use crate::daemon::counters::Totals;
use crate::daemon::jsonl::{Closing, Listening};
use crate::daemon::sink::Locals;
use crate::liveness::Event;
use crate::time::{Instant, WallClock};

/// Turns events into lines for a terminal.
#[derive(Debug)]
pub struct Printer {}

#[allow(missing_docs, clippy::missing_const_for_fn)]
impl Printer {
    pub fn new(_locals: Arc<Locals>, _colour: bool, _status: bool) -> Printer {
        Printer {}
    }
    pub fn set_clock(&mut self, _wall: WallClock) {}
    pub fn listening(&mut self, _listening: &Listening, _out: &mut Vec<u8>) {}
    pub fn event(&mut self, _thread: usize, _event: &Event, _out: &mut Vec<u8>) {}
    pub fn summary(&mut self, _closing: &Closing, _out: &mut Vec<u8>) {}
    pub fn clear_status(&mut self, _out: &mut Vec<u8>) {}
    pub fn status(&mut self, _totals: Totals, _now: Instant, _out: &mut Vec<u8>) {}
}
