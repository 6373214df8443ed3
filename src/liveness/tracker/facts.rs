//! What each fact changes in the record, and which actions follow.

use std::time::Duration;

use super::ending::Ending;
use super::{AGAIN, Tracker, Wake, drain_schedule};
use crate::limits;
use crate::liveness::errno::{self, Meaning};
use crate::liveness::fact::{Evidence, PollMask, TcpState};
use crate::liveness::peer::{Flags, PendingActions};
use crate::liveness::policy::Heartbeat;
use crate::liveness::silence::{HEAP_BYTES, cause_of_close, cause_of_errno, is_in_doubt};
use crate::liveness::state::{Cause, LocalCause, State};
use crate::time::Instant;

/// Beat mode: at most this many bytes a beat are a heartbeat.
const CALM_BYTES: u32 = 256;
/// Beat mode: this many drains of heartbeats in a row make an eager peer calm.
const CALM_DRAINS: u16 = 4;

impl Tracker {
    pub(super) fn on_ready(&mut self, index: u32, mask: PollMask, now: Instant) {
        let heartbeat = self.config.policy.heartbeat;
        let drain_every = self.config.drain_every;
        let wake = self.config.wake;
        let peer = self.at(index);
        if mask.is_end() {
            if peer.state == State::HalfClosed {
                // recv returns 0 from now on; only the socket's state shows a reset.
                self.request(index, PendingActions::INSPECT);
            } else {
                peer.flags.set(Flags::ENDING);
                self.request(index, PendingActions::DRAIN_TO_END);
            }
            return;
        }
        if !mask.has(PollMask::IN) || peer.state == State::HalfClosed {
            return;
        }
        match (peer.state, heartbeat, wake) {
            // When the mark is lowered, old bytes below it wake the poll too, so the age of the newest is read.
            (State::Suspect, Heartbeat::Bytes | Heartbeat::None, _) => {
                self.request(index, PendingActions::DRAIN);
                self.request(index, PendingActions::INSPECT);
            }
            (_, Heartbeat::Frames, _) => self.request(index, PendingActions::DRAIN),
            (_, Heartbeat::Bytes | Heartbeat::None, Wake::Lazy) => {
                peer.flags.set(Flags::SPOKE);
                peer.last_life = peer.last_life.max(now);
                self.request(index, PendingActions::DRAIN);
            }
            (_, Heartbeat::Bytes | Heartbeat::None, Wake::Beat) => {
                let gap = now.since(peer.last_life);
                let first = !peer.flags.has(Flags::SPOKE);
                peer.flags.set(Flags::SPOKE);
                peer.last_life = peer.last_life.max(now);
                if peer.flags.has(Flags::EAGER) {
                    self.request(index, PendingActions::DRAIN);
                    return;
                }
                peer.pace = peer.pace.saturating_add(1);
                let streams = !first && gap < limits::STREAM_GAP;
                if peer.pace >= u16::from(drain_every) || streams {
                    peer.pace = 0;
                    peer.flags.clear(Flags::DRAIN_DUE);
                    self.request(index, PendingActions::DRAIN);
                }
            }
        }
    }

    pub(super) fn on_taken(&mut self, index: u32, bytes: u32, now: Instant) {
        let (wake, drain_every) = (self.config.wake, u32::from(self.config.drain_every));
        let (heartbeat, idle) = (self.config.policy.heartbeat, self.config.policy.idle);
        let unread = self.config.unread;
        let peer = self.at(index);
        peer.taken += u64::from(bytes);
        if wake == Wake::Lazy {
            let first = peer.flags.raise(Flags::DRAINED);
            let steps = drain_schedule::steps_since(peer.pace, now);
            peer.pace = drain_schedule::stamp(now);
            // These bytes came after the last drain. A peer that is drained more often than it could be missed needs no
            // other look.
            let heard = drain_schedule::steps_before(now, steps);
            let busy = Flags::VISITING | Flags::DOUBT | Flags::ENDING;
            let quiet = peer.state == State::Alive && !peer.flags.has(busy);
            if heartbeat == Heartbeat::Bytes && quiet && peer.flags.has(Flags::SPOKE) {
                // Where visits are rarer than that, the stamp may have come round since the last drain.
                if idle < drain_schedule::ROUND / 2 {
                    peer.last_life = peer.last_life.max(heard);
                }
                // A peer that could be missed already has an appointment for that.
                let life = peer.last_life;
                if self.stalls.put_off(life, idle) > now {
                    self.rest(index, now);
                }
            }
            // The same number of bytes in the same time again; none of them is there yet.
            let foresight = if first { drain_schedule::FIRST_FORESIGHT } else { drain_schedule::FORESIGHT };
            if let Some(rest) = drain_schedule::steps_to_full(u64::from(bytes), steps, unread, foresight) {
                self.foresee(index, drain_schedule::point(now, rest));
            } else if first {
                // It began with more than the mark, which tells nothing about its pace.
                self.foresee(index, drain_schedule::round_up(now + drain_schedule::FIRST_LOOK));
            }
            return;
        }
        if bytes > CALM_BYTES * drain_every {
            peer.flags.set(Flags::EAGER);
            peer.pace = 0;
        } else if peer.flags.has(Flags::EAGER) {
            peer.pace = if bytes <= CALM_BYTES { peer.pace + 1 } else { 0 };
            if peer.pace >= CALM_DRAINS {
                peer.flags.clear(Flags::EAGER);
                peer.pace = 0;
                let due = peer.due().min(drain_schedule::round_up(now + limits::MAX_UNDRAINED));
                if peer.state == State::Alive && !peer.flags.has(Flags::VISITING) {
                    self.appoint(index, due);
                }
            }
        }
    }

    /// A complete frame. While the drain of a visit is under way it may have waited in the socket: its age is judged by the
    /// evidence that follows. Otherwise it has just woken the poll.
    pub(super) fn on_frame(&mut self, index: u32, now: Instant) {
        let peer = self.at(index);
        peer.flags.set(Flags::FRAMED);
        let first = peer.flags.raise(Flags::SPOKE);
        let visiting = peer.flags.has(Flags::VISITING);
        if visiting {
            return;
        }
        peer.last_life = peer.last_life.max(now);
        match peer.state {
            // The peer's frames arrive; the socket tells whether those of this side do.
            State::Suspect if peer.flags.has(Flags::DOUBT) => self.request(index, PendingActions::INSPECT),
            State::Suspect => self.recover(index, now),
            State::Alive if peer.probes > 0 => {
                peer.probes = 0;
                self.wake_on_mark(index);
                self.rest(index, now);
            }
            State::Alive if first => self.wake_on_mark(index),
            State::Alive | State::HalfClosed | State::Dead => {}
        }
    }

    /// The socket was looked at. `soft`: because it had an error that it survives.
    pub(super) fn on_inspected(&mut self, index: u32, evidence: &Evidence, soft: bool, now: Instant) {
        let peer = self.at(index);
        let visited = peer.flags.has(Flags::VISITING);
        peer.flags.clear(Flags::VISITING);
        if self.end_replaced(index, evidence, now) {
            return;
        }
        let peer = self.at(index);
        if peer.flags.has(Flags::FIN) {
            self.look_after_its_fin(index, evidence, now);
        } else if evidence.tcp_state.is_ending() {
            // Its end has come and the completion is on the way: first its last bytes are read.
            if peer.flags.raise(Flags::ENDING) || visited {
                self.request(index, PendingActions::DRAIN_TO_END);
            }
            self.appoint(index, now + AGAIN);
        } else {
            self.take_in(index, evidence, soft, visited, now);
            self.weigh(index, evidence, visited, now);
        }
    }

    /// A look at a peer that has sent its FIN. Its silence is not judged.
    fn look_after_its_fin(&mut self, index: u32, evidence: &Evidence, now: Instant) {
        let peer = self.at(index);
        let half_closed = peer.state == State::HalfClosed;
        // Its last transition was the half-close; its microsecond was rounded down.
        let since = peer.last_transition().at() + Duration::from_micros(1);
        let end = self.stalls.put_off(since, self.config.policy.half_closed_grace);
        if evidence.tcp_state == TcpState::Close {
            self.die(index, Ending::of(cause_of_close(evidence)), evidence, now);
        } else if !half_closed {
            self.half_close(index, now); // the sink had no room for the event before
        } else if now >= end {
            self.die(index, Ending::of(Cause::Closed), evidence, now);
        } else {
            self.appoint(index, end);
        }
    }

    /// Notes what the evidence says about the last life and about the path.
    fn take_in(&mut self, index: u32, evidence: &Evidence, soft: bool, visited: bool, now: Instant) {
        let heartbeat = self.config.policy.heartbeat;
        let peer = self.at(index);
        let earliest = if peer.flags.has(Flags::ADOPTED) { peer.accepted_at } else { Instant::ZERO };
        let last_data = evidence.last_data.max(earliest);
        match heartbeat {
            Heartbeat::Bytes if evidence.received > 0 => {
                peer.flags.set(Flags::SPOKE);
                peer.last_life = last_data.min(now);
            }
            Heartbeat::None => peer.last_life = last_data.max(evidence.last_ack).min(now),
            Heartbeat::Frames if peer.flags.has(Flags::SPOKE) => {
                let framed = last_data.min(now);
                if peer.flags.has(Flags::FRAMED) && visited && framed > peer.last_life {
                    peer.last_life = framed;
                    peer.probes = 0; // what was asked before is answered
                }
                // No frame is newer than the newest byte. A frame that waited for a late wake, or was found by another
                // wake, was taken for new until here.
                peer.last_life = peer.last_life.min(last_data);
            }
            Heartbeat::Bytes | Heartbeat::Frames => {}
        }
        peer.flags.clear(Flags::FRAMED);
        if soft || is_in_doubt(evidence) {
            peer.flags.set(Flags::DOUBT);
        } else {
            peer.flags.clear(Flags::DOUBT);
        }
    }

    /// Reads unread bytes if they are many or old, judges, and plans the next read.
    fn weigh(&mut self, index: u32, evidence: &Evidence, visited: bool, now: Instant) {
        let (heartbeat, idle) = (self.config.policy.heartbeat, self.config.policy.idle);
        let (wake, mark) = (self.config.wake, self.config.unread);
        let peer = self.at(index);
        let life = peer.last_life;
        // Frames that came after the drain began are unseen: a deadline that has passed since then is judged after another
        // drain.
        let looked = match heartbeat {
            Heartbeat::Bytes | Heartbeat::None => now,
            Heartbeat::Frames if visited => peer.due(),
            Heartbeat::Frames => life,
        };
        // Lazy mode: a visit also drains a peer that is past half of the mark, and one that was not drained yet or not for
        // long, so that its pace is counted from now. Beat mode: a window may have filled in one stroke.
        let unread = evidence.received.saturating_sub(peer.taken);
        let steps = drain_schedule::steps_since(peer.pace, now);
        let fresh = !peer.flags.has(Flags::DRAINED);
        let bound = match wake {
            Wake::Lazy if peer.state == State::Alive && (fresh || steps > drain_schedule::LONG) => 1,
            Wake::Lazy => u64::from(mark / 2),
            Wake::Beat => HEAP_BYTES,
        };
        let drain = heartbeat != Heartbeat::Frames && unread >= bound.max(1);
        if drain {
            self.request(index, PendingActions::DRAIN);
        }
        // The window may be full, and then it is this side that keeps the peer from speaking. Its bytes are read first, and
        // it gets the time to go on. Its kernel answers with a full window too.
        let heap = u64::from(mark.saturating_mul(2)).max(HEAP_BYTES);
        if heartbeat == Heartbeat::Bytes && unread >= heap && now >= self.stalls.put_off(life, idle) {
            self.appoint(index, now + AGAIN);
            return;
        }
        self.judge(index, evidence, looked, now);
        if wake == Wake::Beat || drain {
            return;
        }
        let peer = self.at(index);
        if unread == 0 {
            // Nothing is unread: the pace is counted from now. A new peer is looked at once more.
            peer.pace = drain_schedule::stamp(now);
            let second_look = peer.accepted_at + 4 * drain_schedule::FIRST_LOOK;
            if fresh && now < second_look {
                self.foresee(index, drain_schedule::round_up(second_look));
            }
        } else if let Some(full) =
            drain_schedule::steps_to_full(unread, steps, mark, drain_schedule::FORESIGHT)
            && let Some(rest) = full.checked_sub(u64::from(steps))
        {
            self.foresee(index, drain_schedule::point(now, rest));
        }
    }

    /// Makes an appointment for reading bytes at `point`, unless the peer is visited before that anyway. Frames are read when
    /// they are judged.
    pub(super) fn foresee(&mut self, index: u32, point: Instant) {
        let heartbeat = self.config.policy.heartbeat;
        let peer = self.at(index);
        if peer.state == State::Alive
            && heartbeat != Heartbeat::Frames
            && !peer.flags.has(Flags::VISITING)
            && point < peer.due()
        {
            peer.flags.set(Flags::DRAIN_DUE);
            self.appoint(index, point);
        }
    }

    pub(super) fn on_end(&mut self, index: u32, evidence: &Evidence, now: Instant) {
        let grace = self.config.policy.half_closed_grace;
        // By the state alone: the mask may still show an old soft error.
        if evidence.tcp_state == TcpState::Close {
            self.die(index, Ending::of(cause_of_close(evidence)), evidence, now);
        } else if evidence.tcp_state == TcpState::Established {
            // No FIN came: the reading side of this socket was shut.
            self.die(index, Ending::of(Cause::Local(LocalCause::Shutdown)), evidence, now);
        } else if grace.is_zero() || evidence.tcp_state != TcpState::CloseWait {
            self.die(index, Ending::of(Cause::Closed), evidence, now);
        } else {
            let peer = self.at(index);
            if peer.flags.raise(Flags::FIN) {
                peer.flags.clear(Flags::VISITING);
                self.half_close(index, now);
            }
        }
    }

    pub(super) fn on_failed(&mut self, index: u32, errno: i32, evidence: &Evidence, now: Instant) {
        let gone = evidence.tcp_state == TcpState::Close;
        let cause = match errno::meaning(errno) {
            Meaning::Reset | Meaning::TimedOut | Meaning::HostUnreachable | Meaning::NetUnreachable
                if !gone =>
            {
                // A soft error, of an ICMP message for example: the connection stands and may recover. A real reset
                // leaves the socket closed.
                self.on_inspected(index, evidence, true, now);
                return;
            }
            _ => cause_of_errno(errno, evidence),
        };
        self.die(index, Ending { errno: Some(errno), ..Ending::of(cause) }, evidence, now);
    }
}
