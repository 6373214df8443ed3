//! What a fact changes: the record, and what is asked for next.

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

/// Beat mode: drains of at most this many bytes a beat are a heartbeat's.
const CALM_BYTES: u32 = 256;
/// Beat mode: so many calm drains in a row make a peer calm.
const CALM_DRAINS: u16 = 4;

impl Tracker {
    pub(super) fn on_ready(&mut self, index: u32, mask: PollMask, now: Instant) {
        let heartbeat = self.config.policy.heartbeat;
        let drain_every = self.config.drain_every;
        let wake = self.config.wake;
        let peer = self.at(index);
        if mask.is_end() {
            if peer.state == State::HalfClosed {
                // Its recv gives 0 for ever; only the socket's state tells a reset now.
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
            // Old bytes below the mark wake too when the mark is lowered, so the age of the newest
            // is asked for.
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
            // Whatever is found came after the last drain. That is life enough to need no look at who is
            // drained more often than it could be missed.
            let heard = drain_schedule::steps_before(now, steps);
            let busy = Flags::VISITING | Flags::DOUBT | Flags::ENDING;
            let quiet = peer.state == State::Alive && !peer.flags.has(busy);
            if heartbeat == Heartbeat::Bytes && quiet && peer.flags.has(Flags::SPOKE) {
                // Where looks are rarer than that, the stamp may have come round since the last drain.
                if idle < drain_schedule::ROUND / 2 {
                    peer.last_life = peer.last_life.max(heard);
                }
                // Who could be missed already has an appointment that says when, and why not before.
                let life = peer.last_life;
                if self.stalls.put_off(life, idle) > now {
                    self.rest(index, now);
                }
            }
            // As many bytes in as much time again; nothing of them is there yet.
            let foresight = if first { drain_schedule::FIRST_FORESIGHT } else { drain_schedule::FORESIGHT };
            if let Some(rest) = drain_schedule::steps_to_full(u64::from(bytes), steps, unread, foresight) {
                self.foresee(index, drain_schedule::point(now, rest));
            } else if first {
                // It began with a mark and more, which says nothing of its pace.
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

    /// A complete frame. While a visit's drain is under way it may have waited in the socket: its
    /// age is judged by the evidence that follows. Otherwise it has just woken us.
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
            // What it says comes through; whether what we say does, the socket knows.
            State::Suspect if peer.flags.has(Flags::DOUBT) => self.request(index, PendingActions::INSPECT),
            State::Suspect => self.recover(index, now),
            State::Alive if first || peer.probes > 0 => {
                peer.probes = 0;
                self.wake_on_mark(index);
            }
            State::Alive | State::HalfClosed | State::Dead => {}
        }
    }

    /// The socket was looked at; `soft`: because it told an error that it survives.
    pub(super) fn on_inspected(&mut self, index: u32, evidence: &Evidence, soft: bool, now: Instant) {
        let peer = self.at(index);
        let visited = peer.flags.has(Flags::VISITING);
        peer.flags.clear(Flags::VISITING);
        if peer.flags.has(Flags::FIN) {
            self.look_after_its_fin(index, evidence, now);
        } else if evidence.tcp_state.is_ending() {
            // Its end is there and its completion on the way: first what it said before.
            if peer.flags.raise(Flags::ENDING) || visited {
                self.request(index, PendingActions::DRAIN_TO_END);
            }
            self.appoint(index, now + AGAIN);
        } else {
            self.take_in(index, evidence, soft, visited, now);
            self.weigh(index, evidence, visited, now);
        }
    }

    /// A look at one that has sent its FIN. No silence of it is held against it.
    fn look_after_its_fin(&mut self, index: u32, evidence: &Evidence, now: Instant) {
        let peer = self.at(index);
        let half_closed = peer.state == State::HalfClosed;
        // Its last transition was the half-close; its microsecond was rounded down.
        let since = peer.last_transition().at() + Duration::from_micros(1);
        let end = self.stalls.put_off(since, self.config.policy.half_closed_grace);
        if evidence.tcp_state == TcpState::Close {
            self.die(index, Ending::of(cause_of_close(evidence)), evidence, now);
        } else if !half_closed {
            self.half_close(index, now); // the sink had no room for it before
        } else if now >= end {
            self.die(index, Ending::of(Cause::Closed), evidence, now);
        } else {
            self.appoint(index, end);
        }
    }

    /// Notes what the evidence says of its last life and of its path.
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
                // No frame is newer than the newest byte: those that waited for a late wake, or were
                // found when something else woke us, were taken for new until here.
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

    /// Sees to the bytes that lie there unread, and judges.
    fn weigh(&mut self, index: u32, evidence: &Evidence, visited: bool, now: Instant) {
        let (heartbeat, idle) = (self.config.policy.heartbeat, self.config.policy.idle);
        let (wake, mark) = (self.config.wake, self.config.unread);
        let peer = self.at(index);
        let life = peer.last_life;
        // Frames that came after the drain began lie there unseen: a deadline that has passed since then
        // is judged by another drain.
        let looked = match heartbeat {
            Heartbeat::Bytes | Heartbeat::None => now,
            Heartbeat::Frames if visited => peer.due(),
            Heartbeat::Frames => life,
        };
        // In lazy mode who is past half of the mark is drained while we are here anyway, and whoever was not drained
        // yet or not for long, so that its pace is counted from now; in beat mode a window may have filled in one
        // stroke.
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
        // Far more than a heartbeat's lies there, so the window may be full, and then it is we who keep
        // the peer silent. Its bytes are taken off first, and it gets the time to go on. Its kernel
        // answers with a full window too.
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
            // Nothing lies there: its pace is counted from now. Who is new is looked at once more.
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

    /// Makes an appointment for taking bytes off at `point`, unless it is visited before that anyway.
    /// Frames are read when they are judged.
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
        // By the state alone: the mask may still show the soft error of an hour ago.
        if evidence.tcp_state == TcpState::Close {
            self.die(index, Ending::of(cause_of_close(evidence)), evidence, now);
        } else if evidence.tcp_state == TcpState::Established {
            // No FIN came: our own reading side was shut.
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
                // A soft error, of an ICMP message say: the connection stands and may recover. A real
                // reset leaves the socket closed.
                self.on_inspected(index, evidence, true, now);
                return;
            }
            _ => cause_of_errno(errno, evidence),
        };
        self.die(index, Ending { errno: Some(errno), ..Ending::of(cause) }, evidence, now);
    }
}
