//! Transitions of a peer: along the table, noted for the sink, and counted.

use super::{AGAIN, Tracker, Wake};
use crate::liveness::peer::{Flags, PendingActions, Step};
use crate::liveness::state::{Input, State};
use crate::time::Instant;

impl Tracker {
    /// From Alive to Suspect. `false` when the sink has to take an event first.
    pub(super) fn suspect(&mut self, index: u32, step: Step, now: Instant) -> bool {
        if !self.step(index, Input::Missed, step, now) {
            return false;
        }
        self.counts.suspected += 1;
        self.counts.suspects += 1;
        self.wake_on_byte(index);
        true
    }

    /// Makes every byte of a peer wake its poll: it is awaited.
    pub(super) fn wake_on_byte(&mut self, index: u32) {
        let lazy = self.config.wake == Wake::Lazy;
        if lazy && self.at(index).flags.raise(Flags::WAKE_ON_BYTE) {
            self.request(index, PendingActions::WAKE_ON_BYTE);
        }
    }

    /// From Suspect to Alive, or a new try a little later when the sink has no room.
    pub(super) fn recover(&mut self, index: u32, now: Instant) {
        if !self.step(index, Input::Life, Step::Recovered, now) {
            self.appoint(index, now + AGAIN);
            return;
        }
        self.counts.recovered += 1;
        self.at(index).probes = 0;
        self.left_suspicion();
        // A death leaves the suspects too, and does not end the outage for the others.
        if self.counts.suspects * 4 < self.counts.living {
            self.outage = false;
        }
        self.wake_on_mark(index);
        self.rest(index, now);
    }

    /// Lets a peer that was heard from wake its poll by the low-water mark again.
    pub(super) fn wake_on_mark(&mut self, index: u32) {
        let lazy = self.config.wake == Wake::Lazy;
        let peer = self.at(index);
        if lazy && peer.flags.has(Flags::WAKE_ON_BYTE) {
            peer.flags.clear(Flags::WAKE_ON_BYTE);
            self.request(index, PendingActions::WAKE_ON_MARK);
        }
    }

    pub(super) fn half_close(&mut self, index: u32, now: Instant) {
        let was_suspect = self.at(index).state == State::Suspect;
        if self.step(index, Input::Fin, Step::HalfClosed, now) {
            self.counts.half_closed += 1;
            if was_suspect {
                self.left_suspicion();
            }
            let grace = self.config.policy.half_closed_grace;
            self.appoint(index, now + grace);
        } else {
            self.appoint(index, now + AGAIN);
        }
    }

    /// Moves a peer along the table and queues the event. `false` when there is no room for it.
    pub(super) fn step(&mut self, index: u32, input: Input, step: Step, now: Instant) -> bool {
        let peer = self.at(index);
        if !peer.has_room() {
            return false;
        }
        peer.step(input, step, now);
        self.queue_event(index);
        true
    }

    pub(super) fn queue_event(&mut self, index: u32) {
        if self.at(index).flags.raise(Flags::EVENT_QUEUED) {
            self.event_queue.push(index);
        }
    }

    pub(super) fn left_suspicion(&mut self) {
        self.counts.suspects -= 1;
        if self.counts.suspects == 0 {
            self.outage = false;
        }
    }
}
