//! Deaths: the cause, the proof, and what is left of a peer.

use std::time::Duration;

use super::{Tracker, TrackerCounts};
use crate::frame::FrameError;
use crate::liveness::errno::{self, Meaning};
use crate::liveness::event::{Death, Event, EventKind, Proof, Transport};
use crate::liveness::fact::{Evidence, TcpState};
use crate::liveness::peer::{Flags, PeerId, PendingActions};
use crate::liveness::policy::{Heartbeat, Policy};
use crate::liveness::state::{self, Cause, Hop, Input, LocalCause, State};
use crate::time::Instant;

/// Suspects below this number are no outage, whatever their share.
const MIN_OUTAGE: u32 = 16;

impl Tracker {
    pub(super) fn die(&mut self, index: u32, ending: Ending, evidence: &Evidence, now: Instant) {
        let outage = self.outage(ending.cause, evidence, index, now);
        let transport = self.transport(ending.cause, evidence, index, now);
        let heartbeat = self.config.policy.heartbeat;
        let peer = self.at(index);
        let was = peer.state;
        assert!(was != State::Dead, "a peer dies once");
        debug_assert_eq!(state::next(was, ending.input()), State::Dead);
        let id = PeerId::new(index, peer.generation());
        // An expiry was judged by the life in the record; any other end may find newer bytes or
        // acknowledgements that nobody was woken for.
        if ending.deadline.is_none() {
            match heartbeat {
                Heartbeat::Bytes if evidence.received > 0 => peer.last_life = evidence.last_data.min(now),
                // A socket that could not be looked at says nothing.
                Heartbeat::None if evidence.last_ack > Instant::ZERO => {
                    peer.last_life = evidence.last_data.max(evidence.last_ack).min(now);
                }
                Heartbeat::Bytes | Heartbeat::Frames | Heartbeat::None => {}
            }
            peer.last_life = peer.last_life.max(peer.accepted_at);
        }
        // In CLOSE the kernel's count has the FIN in it, if one came before the end. Such a peer was
        // drained to the end, unless its own bytes ended it: one byte more than was taken is that FIN.
        let fin = evidence.tcp_state == TcpState::Close
            && evidence.received == peer.taken + 1
            && ending.frame.is_none()
            && !ending.bye;
        let bytes = if fin { peer.taken } else { evidence.received.max(peer.taken) };
        peer.flags.clear(Flags::VISITING);
        peer.die(now, ending.cause);
        let death = Death {
            peer: id,
            address: peer.address(),
            local: peer.local,
            cause: ending.cause,
            proof: Proof {
                errno: ending.errno,
                frame: ending.frame,
                bye: ending.bye,
                evidence: *evidence,
                last_life: peer.last_life,
                transport,
                outage,
            },
            accepted_at: peer.accepted_at,
            at: now,
            deadline: ending.deadline,
            bytes,
            history: peer.history(),
        };
        let place = self.death_log.push(death);
        self.at(index).set_death(place);
        self.wheel.cancel(index);
        self.counts.died[usize::from(ending.cause.code())] += 1;
        self.counts.living -= 1;
        match was {
            State::Suspect => self.left_suspicion(),
            State::HalfClosed => self.counts.half_closed -= 1,
            State::Alive | State::Dead => {}
        }
        // Whoever is there answers a FIN; the silent and the babbling get a RST.
        let orderly = matches!(ending.cause, Cause::Closed | Cause::Aborted);
        self.request(index, if orderly { PendingActions::CLOSE } else { PendingActions::ABORT });
        self.queue_event(index);
    }

    /// What the peer's kernel did while its program was silent.
    pub(super) fn transport(
        &mut self,
        cause: Cause,
        evidence: &Evidence,
        index: u32,
        now: Instant,
    ) -> Transport {
        let (policy, asked_after) = (self.config.policy, self.asked_after);
        let peer = self.at(index);
        let pinged = policy.heartbeat == Heartbeat::Frames && peer.probes > 0;
        transport(cause, evidence, &Silence { policy, asked_after, last_life: peer.last_life, pinged }, now)
    }

    /// Whether this silence is shared by at least half of all peers, and says so once.
    pub(super) fn outage(&mut self, cause: Cause, evidence: &Evidence, index: u32, now: Instant) -> bool {
        if !matches!(cause, Cause::HeartbeatExpired | Cause::KeepaliveExpired)
            || self.transport(cause, evidence, index, now) != Transport::Silent
        {
            return false;
        }
        let TrackerCounts { suspects, living, .. } = self.counts;
        if !self.outage && suspects >= MIN_OUTAGE && suspects * 2 >= living {
            self.outage = true;
            let kind = EventKind::PathOutage { suspects, peers: living };
            self.notice(Event { at: now, subject: None, kind });
        }
        self.outage
    }

    pub(super) fn free_if_done(&mut self, index: u32) {
        let peer = &self.peers[index as usize];
        if peer.state == State::Dead
            && peer.flags.has(Flags::RELEASED)
            && !peer.flags.has(Flags::EVENT_QUEUED)
        {
            assert!(peer.pending == 0, "released with actions outstanding");
            if peer.flags.has(Flags::ACTION_QUEUED) {
                self.action_queue.remove(index);
            }
            self.peers.remove(index as usize);
            self.identities.remove(&index);
        }
    }
}

/// What a silence is weighed by.
pub(in crate::liveness) struct Silence {
    pub(in crate::liveness) policy: Policy,
    /// Silence after which the kernel's keepalive has asked.
    pub(in crate::liveness) asked_after: Duration,
    /// The last proof of life.
    pub(in crate::liveness) last_life: Instant,
    /// Whether we have asked ourselves.
    pub(in crate::liveness) pinged: bool,
}

/// The transport axis of a verdict.
pub(in crate::liveness) fn transport(
    cause: Cause,
    evidence: &Evidence,
    silence: &Silence,
    now: Instant,
) -> Transport {
    match cause {
        Cause::Closed | Cause::Aborted | Cause::Protocol => Transport::Answering,
        Cause::KeepaliveExpired | Cause::UserTimeout | Cause::Unreachable(_) => Transport::Silent,
        Cause::HeartbeatExpired | Cause::HandshakeExpired => {
            // Nobody asks before the idle time has passed; an acknowledgement soon after the last
            // life belongs to what was sent until then.
            let late = silence.policy.interval.min(silence.policy.idle);
            // Keepalive counts from the last segment, whatever it was.
            let heard = evidence.last_ack.max(evidence.last_data);
            // A PING behind a closed window has not left and asks nobody, and keepalive rests then.
            let left = evidence.notsent == 0;
            let kernel_asked = evidence.probes > 0
                || evidence.retransmits > 0
                || (left && evidence.unacked == 0 && now.since(heard) >= silence.asked_after);
            if evidence.last_ack.since(silence.last_life) >= late {
                Transport::Answering
            } else if kernel_asked || (silence.pinged && left) {
                Transport::Silent
            } else {
                Transport::Unasked
            }
        }
        Cause::Local(_) => Transport::Unasked,
    }
}

/// How a peer ends: the parts of a death that only the one who judged knows.
pub(super) struct Ending {
    pub(super) cause: Cause,
    pub(super) errno: Option<i32>,
    pub(super) frame: Option<FrameError>,
    pub(super) bye: bool,
    pub(super) deadline: Option<Instant>,
}

impl Ending {
    pub(super) const fn of(cause: Cause) -> Ending {
        Ending { cause, errno: None, frame: None, bye: false, deadline: None }
    }

    const fn input(&self) -> Input {
        match self.cause {
            Cause::Closed => Input::Ended,
            Cause::HeartbeatExpired | Cause::HandshakeExpired => Input::Expired,
            Cause::KeepaliveExpired if self.deadline.is_some() => Input::Expired,
            Cause::Aborted
            | Cause::KeepaliveExpired
            | Cause::UserTimeout
            | Cause::Unreachable(_)
            | Cause::Protocol
            | Cause::Local(_) => Input::Cut,
        }
    }
}

/// The cause of a socket that is closed although `recv` gave no error: by `SO_ERROR` where that was
/// still there, otherwise a reset whose error somebody else took.
pub(super) fn cut_cause(evidence: &Evidence) -> Cause {
    match evidence.so_error {
        Some(errno) if errno != 0 => cause_of(errno, evidence),
        _ => Cause::Aborted,
    }
}

pub(super) fn cause_of(errno: i32, evidence: &Evidence) -> Cause {
    match errno::meaning(errno) {
        Meaning::Reset => Cause::Aborted,
        // Keepalive rests while anything of ours is out or waits to go. The kernel has thrown it away by
        // now, `unacked` with it, but not the counts: of repetitions where it had left, of bytes where
        // it had not, since our own route was broken or the peer's window closed.
        Meaning::TimedOut if evidence.retransmits > 0 || evidence.notsent > 0 => Cause::UserTimeout,
        Meaning::TimedOut => Cause::KeepaliveExpired,
        Meaning::HostUnreachable => Cause::Unreachable(Hop::Host),
        Meaning::NetUnreachable => Cause::Unreachable(Hop::Net),
        Meaning::LocalAbort => Cause::Local(LocalCause::Destroyed),
        Meaning::Again | Meaning::Resources | Meaning::Cancelled | Meaning::Fault => {
            Cause::Local(LocalCause::Unwatchable)
        }
    }
}
