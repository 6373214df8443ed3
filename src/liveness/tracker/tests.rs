//! The tracker held against its rules: pair by pair, in sequences that nobody would write, and
//! beside a model that is too simple to be wrong.

use std::net::SocketAddr;
use std::time::Duration;

use super::Tracker;
use crate::frame::{FrameError, Identity, Kind};
use crate::limits;
use crate::liveness::state::{self, Input};
use crate::liveness::*;
use crate::time::Instant;

mod model;
mod rules;
mod scene;
mod sequences;
mod table;

/// A fixed hour, far from the origin of the clock and on no grid.
const START: Instant = Instant::from_nanos(1_000_003_000_700);

fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, (number % 250) as u8], 40_000))
}

fn actions(tracker: &mut Tracker) -> Vec<Action> {
    std::iter::from_fn(|| tracker.poll_action()).collect()
}

fn events(tracker: &mut Tracker) -> Vec<Event> {
    std::iter::from_fn(|| tracker.poll_event()).collect()
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
