//! The counts of a relay.

use crate::liveness::Cause;
use crate::proxy::event::{Interrupted, Phase, ProbeOutcome};

/// The statuses that the proxy itself answers with.
pub const ANSWERS: [u16; 6] = [400, 408, 431, 502, 503, 504];

/// What the relay of one thread has counted since its start.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Connections of clients that were accepted.
    pub opened: u64,
    /// Connections of clients that are open now.
    pub open: u64,
    /// Exchanges that were passed on whole.
    pub completed: u64,
    /// Of those, how many were not told yet.
    pub untold_completed: u64,
    /// Interruptions, of all phases and causes.
    pub interrupted: u64,
    /// Interruptions by phase and [`Cause::code`].
    pub by_phase: [[u64; Cause::ALL.len()]; Phase::ALL.len()],
    /// Of those, how often the upstream was spared the rest.
    pub saved: u64,
    /// How often an upstream failed, one that could not be reached included.
    pub upstream_failed: u64,
    /// How often an upstream was put out of use because it failed.
    pub upstream_down: u64,
    /// Answers of the proxy's own, in the order of [`ANSWERS`].
    pub answered: [u64; ANSWERS.len()],
    /// Idle clients whose places others needed.
    pub gave_way: u64,
    /// Connections that did not begin with the PROXY header that was expected.
    pub header_refused: u64,
    /// Connections to upstreams that were begun.
    pub connects: u64,
    /// Exchanges that took an idle connection.
    pub reused: u64,
    /// Requests that waited for a place at an upstream.
    pub waited: u64,
    /// Requests that were sent again, because the upstream had closed the idle connection that was taken.
    pub repeated: u64,
    /// Connections that were not followed any more.
    pub not_followed: u64,
    /// Bytes that came from clients.
    pub client_bytes: u64,
    /// Bytes that came from upstreams.
    pub upstream_bytes: u64,
    /// Half-close probes that were sent to clients.
    pub asked: u64,
    /// Of those, how many a RST answered.
    pub asked_gone: u64,
    /// Of those, how many were acknowledged.
    pub asked_here: u64,
    /// The number of the loop's own stalls.
    pub stalls: u64,
    /// Exchanges and tunnels that the end of the proxy has cut off, by phase.
    pub cut: [u64; Phase::ALL.len()],
    /// Events that were dropped because their output took none.
    pub dropped: u64,
    /// Lines of the access log that its output did not take.
    pub log_dropped: u64,
}

impl Counts {
    pub(super) fn answer(&mut self, status: u16) {
        let place = ANSWERS.iter().position(|&answer| answer == status);
        debug_assert!(place.is_some(), "{status} is no answer of ours");
        self.answered[place.unwrap_or(0)] += 1;
    }

    pub(super) fn interrupt(&mut self, told: &Interrupted) {
        self.interrupted += 1;
        self.by_phase[told.phase as usize][usize::from(told.cause.code())] += 1;
        self.saved += u64::from(told.saved);
    }

    pub(super) fn probe(&mut self, outcome: ProbeOutcome) {
        *match outcome {
            ProbeOutcome::Asked => &mut self.asked,
            ProbeOutcome::Gone => &mut self.asked_gone,
            ProbeOutcome::Here => &mut self.asked_here,
        } += 1;
    }

    /// Adds the counts of another thread.
    pub fn add(&mut self, other: &Counts) {
        self.opened += other.opened;
        self.open += other.open;
        self.completed += other.completed;
        self.untold_completed += other.untold_completed;
        self.interrupted += other.interrupted;
        for (sum, one) in self.by_phase.iter_mut().flatten().zip(other.by_phase.iter().flatten()) {
            *sum += one;
        }
        self.saved += other.saved;
        self.upstream_failed += other.upstream_failed;
        self.upstream_down += other.upstream_down;
        for (sum, one) in self.answered.iter_mut().zip(other.answered) {
            *sum += one;
        }
        self.gave_way += other.gave_way;
        self.header_refused += other.header_refused;
        self.connects += other.connects;
        self.reused += other.reused;
        self.waited += other.waited;
        self.repeated += other.repeated;
        self.not_followed += other.not_followed;
        self.client_bytes += other.client_bytes;
        self.upstream_bytes += other.upstream_bytes;
        self.asked += other.asked;
        self.asked_gone += other.asked_gone;
        self.asked_here += other.asked_here;
        self.stalls += other.stalls;
        for (sum, one) in self.cut.iter_mut().zip(other.cut) {
            *sum += one;
        }
        self.dropped += other.dropped;
        self.log_dropped += other.log_dropped;
    }
}
