//! Time: whom the wheel names, what a silence amounts to, and when to look again.

use super::ending::Ending;
use super::{AGAIN, Tracker, Wake, drain_schedule};
use crate::limits;
use crate::liveness::fact::Evidence;
use crate::liveness::peer::{Flags, PendingActions, Step};
use crate::liveness::policy::Heartbeat;
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
        // Bytes first where they must be read to be judged; Emptied then asks for the evidence. What
        // comes after the drain has begun is not seen by it, so its beginning is kept.
        if heartbeat == Heartbeat::Frames && peer.state != State::HalfClosed {
            peer.flags.clear(Flags::FRAMED);
            peer.set_due(now);
            self.request(index, PendingActions::DRAIN);
        } else {
            self.request(index, PendingActions::INSPECT);
        }
    }

    /// An appointment with a living peer that is not for judging, but for its bytes. In lazy mode one
    /// that was foreseen; in beat mode one at which bytes are found that lay there at the last one too,
    /// since a window that filled in one stroke gives no second wake. `false` when it is judging's.
    pub(super) fn look_after(&mut self, index: u32, now: Instant) -> bool {
        let (policy, wake) = (self.config.policy, self.config.wake);
        let peer = self.at(index);
        let foreseen = peer.flags.has(Flags::DRAIN_DUE);
        peer.flags.clear(Flags::DRAIN_DUE);
        if policy.heartbeat == Heartbeat::Frames || peer.is_mute(&policy) || peer.flags.has(Flags::FIN) {
            return false;
        }
        let life = peer.last_life;
        let missed = self.stalls.put_off(life, policy.idle);
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
            // In case that nothing is found; what is found says better when to come again.
            self.foresee(index, drain_schedule::point(now, steps * drain_schedule::FORESIGHT));
        }
        true
    }

    /// Weighs the silence of a peer that is alive or suspect, and makes its next appointment. `looked`
    /// is the instant up to which its life is known: not after `now`.
    pub(super) fn judge(&mut self, index: u32, evidence: &Evidence, looked: Instant, now: Instant) {
        let policy = self.config.policy;
        let peer = self.at(index);
        debug_assert!(matches!(peer.state, State::Alive | State::Suspect));
        let (life, accepted_at, doubt) = (peer.last_life, peer.accepted_at, peer.flags.has(Flags::DOUBT));
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
        let missed = self.stalls.put_off(life, policy.idle);
        let expired = self.stalls.put_off(life, policy.detection_time());
        if looked >= expired {
            let cause = match policy.heartbeat {
                Heartbeat::Bytes | Heartbeat::Frames => Cause::HeartbeatExpired,
                Heartbeat::None => Cause::KeepaliveExpired,
            };
            let ending = Ending { deadline: Some(expired), ..Ending::of(cause) };
            self.die(index, ending, evidence, now);
        } else if looked >= missed || doubt {
            let step = if looked >= missed { Step::Suspected } else { Step::Doubted };
            if state == State::Alive && !self.suspect(index, step, now) {
                self.appoint(index, (now + AGAIN).min(expired));
                return;
            }
            let next = self.probe(index, looked, now);
            self.appoint(index, next.min(expired));
        } else {
            self.rest(index, now);
            match state {
                // A look that nobody asked for does not say whether frames are there.
                State::Suspect if now >= missed => {}
                State::Suspect => self.recover(index, now),
                _ => self.wake_on_mark(index),
            }
        }
    }

    /// Counts the probes that are due by `looked`, sends one where the server speaks, and says when the
    /// next is due. A stall puts probes off like everything else.
    pub(super) fn probe(&mut self, index: u32, looked: Instant, now: Instant) -> Instant {
        let policy = self.config.policy;
        let (life, sent) = (self.at(index).last_life, self.at(index).probes);
        let due = |number: u8| self.stalls.put_off(life, policy.idle + policy.interval * u32::from(number));
        let silent = looked >= due(0);
        let mut asked = sent.max(1); // a path in doubt is asked at once
        while silent && u32::from(asked) < policy.probes && looked >= due(asked) {
            asked += 1;
        }
        let next = if silent { due(asked) } else { now + policy.interval };
        self.at(index).probes = asked;
        if asked > sent && policy.heartbeat == Heartbeat::Frames {
            self.request(index, PendingActions::PROBE);
        }
        next
    }

    /// Leaves a peer that was heard from alone until it could be missed; in beat mode until its bytes
    /// have to be looked after.
    pub(super) fn rest(&mut self, index: u32, now: Instant) {
        let life = self.at(index).last_life;
        let missed = self.stalls.put_off(life, self.config.policy.idle);
        let quiet = self.quiet_until(missed);
        let due = match self.config.wake {
            Wake::Lazy => quiet,
            Wake::Beat => quiet.min(drain_schedule::round_up(now + limits::MAX_UNDRAINED)),
        };
        self.appoint(index, due);
    }

    /// When a living peer whose idle time ends at `missed` is visited. On the grid where that is fine
    /// enough, so that one wake serves many: a suspicion may come a little late, a verdict does not.
    pub(super) fn quiet_until(&self, missed: Instant) -> Instant {
        if self.config.policy.interval >= 4 * drain_schedule::GRID {
            drain_schedule::round_up(missed)
        } else {
            missed
        }
    }
}
