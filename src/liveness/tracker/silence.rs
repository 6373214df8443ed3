//! Visits: what happens when the wheel names a peer, what its silence means, and when to visit it again.

use super::ending::Ending;
use super::{AGAIN, Tracker, Wake, drain_schedule};
use crate::limits;
use crate::liveness::fact::Evidence;
use crate::liveness::peer::{Flags, PendingActions, Step};
use crate::liveness::policy::Heartbeat;
use crate::liveness::silence::{Silence, cause_of_silence};
use crate::liveness::state::{Cause, State};
use crate::time::Instant;

impl Tracker {
    pub(super) fn visit(&mut self, index: u32, now: Instant) {
        let heartbeat = self.config.policy.heartbeat;
        let peer = self.at(index);
        if peer.due() > now {
            let due = peer.due();
            self.wheel.schedule(index, due);
            return;
        }
        if peer.state == State::Alive && self.look_after(index, now) {
            return;
        }
        self.counts.visits += 1;
        let peer = self.at(index);
        if peer.flags.has(Flags::FIN) && peer.state != State::HalfClosed {
            self.half_close(index, now);
            return;
        }
        peer.flags.set(Flags::VISITING);
        // Frames must be read to be judged; Emptied then asks for the evidence. The drain does not see what comes after it
        // has begun, so the time of its beginning is kept.
        if heartbeat == Heartbeat::Frames && peer.state != State::HalfClosed {
            peer.flags.clear(Flags::FRAMED);
            peer.set_due(now);
            self.request(index, PendingActions::DRAIN);
        } else {
            self.request(index, PendingActions::INSPECT);
        }
    }

    /// A visit for reading bytes, not for judging. In lazy mode it was foreseen. In beat mode it finds bytes that lay there
    /// at the last visit too, since a window that filled in one stroke gives no second wake. `false` when the visit is for
    /// judging.
    pub(super) fn look_after(&mut self, index: u32, now: Instant) -> bool {
        let (policy, wake) = (self.config.policy, self.config.wake);
        let peer = self.at(index);
        let foreseen = peer.flags.has(Flags::DRAIN_DUE);
        peer.flags.clear(Flags::DRAIN_DUE);
        if policy.heartbeat == Heartbeat::Frames || peer.is_mute(&policy) || peer.flags.has(Flags::FIN) {
            return false;
        }
        let missed = self.silence(index).missed_at();
        if now >= missed || (wake == Wake::Lazy && !foreseen) {
            return false;
        }
        let mut due = self.quiet_until(missed);
        let peer = self.at(index);
        let steps = u64::from(drain_schedule::steps_since(peer.pace, now));
        match wake {
            Wake::Lazy => self.request(index, PendingActions::DRAIN),
            Wake::Beat => {
                if peer.pace > 0 && !peer.flags.has(Flags::EAGER) {
                    if foreseen {
                        peer.pace = 0;
                        self.request(index, PendingActions::DRAIN);
                    } else {
                        peer.flags.set(Flags::DRAIN_DUE);
                    }
                }
                due = due.min(drain_schedule::round_up(now + limits::MAX_UNDRAINED));
            }
        }
        self.appoint(index, due);
        if wake == Wake::Lazy {
            // In case that nothing is found; what is found tells better when to visit again.
            self.foresee(index, drain_schedule::point(now, steps * drain_schedule::FORESIGHT));
        }
        true
    }

    /// Judges the silence of a peer that is alive or suspect, and makes its next appointment. `looked`, not after `now`, is
    /// the instant up to which its life is known.
    pub(super) fn judge(&mut self, index: u32, evidence: &Evidence, looked: Instant, now: Instant) {
        let policy = self.config.policy;
        let peer = self.at(index);
        debug_assert!(matches!(peer.state, State::Alive | State::Suspect));
        let (accepted_at, doubt) = (peer.accepted_at, peer.flags.has(Flags::DOUBT));
        let (state, mute) = (peer.state, peer.is_mute(&policy));
        if mute {
            let deadline = self.stalls.put_off(accepted_at, policy.handshake);
            if looked >= deadline {
                let ending = Ending { deadline: Some(deadline), ..Ending::of(Cause::HandshakeExpired) };
                self.die(index, ending, evidence, now);
            } else {
                self.appoint(index, deadline.min(now + policy.idle));
            }
            return;
        }
        let silence = self.silence(index);
        let (missed, expired) = (silence.missed_at(), silence.expires_at());
        if looked >= expired {
            let cause = cause_of_silence(policy.heartbeat);
            let ending = Ending { deadline: Some(expired), ..Ending::of(cause) };
            self.die(index, ending, evidence, now);
        } else if looked >= missed || doubt {
            let silent = looked >= silence.suspect_at();
            let step = if silent { Step::Suspected } else { Step::Doubted };
            if state == State::Alive && (silent || doubt) && !self.suspect(index, step, now) {
                self.appoint(index, (now + AGAIN).min(expired));
                return;
            }
            let next = self.probe(index, looked, now);
            self.appoint(index, next.min(expired));
        } else {
            self.rest(index, now);
            // A look that nothing asked for does not say whether frames are there.
            if now < missed {
                match state {
                    // What was asked counts until there is room for the recovery.
                    State::Suspect => self.recover(index, now),
                    State::Alive | State::HalfClosed | State::Dead => {
                        self.at(index).probes = 0;
                        self.wake_on_mark(index);
                    }
                }
            }
        }
    }

    /// Counts the probes that are due by `looked`, sends one where the server speaks, and returns when the next is due.
    /// A stall puts probes off like everything else.
    fn probe(&mut self, index: u32, looked: Instant, now: Instant) -> Instant {
        let policy = &self.config.policy;
        let (sent, frames) = (self.peers[index as usize].probes, policy.heartbeat == Heartbeat::Frames);
        let silence = self.silence(index);
        let silent = looked >= silence.missed_at();
        let mut asked = sent.max(1); // a path in doubt is asked at once
        while silent && u32::from(asked) < policy.probes && looked >= silence.probe_at(asked) {
            asked += 1;
        }
        let next = if silent { silence.probe_at(asked) } else { now + policy.interval };
        self.at(index).probes = asked;
        if asked > sent && frames {
            self.request(index, PendingActions::PROBE);
            self.wake_on_byte(index); // so that the time of the answer is seen
        }
        next
    }

    fn silence(&self, index: u32) -> Silence<'_> {
        let last_life = self.peers[index as usize].last_life;
        Silence { policy: &self.config.policy, stalls: &self.stalls, last_life }
    }

    /// Makes the next appointment of a peer that was heard from: when it could be missed, or in beat mode when its bytes have
    /// to be read.
    pub(super) fn rest(&mut self, index: u32, now: Instant) {
        let quiet = self.quiet_until(self.silence(index).missed_at());
        let due = match self.config.wake {
            Wake::Lazy => quiet,
            Wake::Beat => quiet.min(drain_schedule::round_up(now + limits::MAX_UNDRAINED)),
        };
        self.appoint(index, due);
    }

    /// The time of the visit to a living peer whose idle time ends at `missed`: on the grid where that is fine enough, so that
    /// one wake serves many peers. A suspicion may come a little late by that, a verdict does not.
    pub(super) fn quiet_until(&self, missed: Instant) -> Instant {
        if self.config.policy.interval >= 4 * drain_schedule::GRID {
            drain_schedule::round_up(missed)
        } else {
            missed
        }
    }
}
