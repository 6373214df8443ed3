//! Deaths of peers: the cause, the proof, and the release of the slot.

use super::{Tracker, TrackerCounts};
use crate::frame::FrameError;
use crate::liveness::event::{Death, Event, EventKind, Proof, Transport};
use crate::liveness::fact::{Evidence, TcpState};
use crate::liveness::peer::{Flags, PeerId, PendingActions, Step};
use crate::liveness::policy::Heartbeat;
use crate::liveness::silence::Silence;
use crate::liveness::state::{Cause, Input, State};
use crate::time::Instant;

/// Suspects below this number are no outage, whatever their share.
const MIN_OUTAGE: u32 = 16;

impl Tracker {
    pub(super) fn die(&mut self, index: u32, ending: Ending, evidence: &Evidence, now: Instant) {
        let outage = self.outage(ending.cause, evidence, index, now);
        let transport = self.transport(ending.cause, evidence, index, now);
        let heartbeat = self.config.policy.heartbeat;
        let peer = self.at(index);
        let id = PeerId::new(index, peer.generation);
        // An expiry was judged by the life in the record; any other end may find newer bytes or acknowledgements that woke
        // no poll.
        if ending.deadline.is_none() {
            match heartbeat {
                Heartbeat::Bytes if evidence.received > 0 => peer.last_life = evidence.last_data.min(now),
                // A socket that could not be looked at says nothing.
                Heartbeat::None if evidence.last_ack > Instant::ZERO => {
                    peer.last_life = evidence.last_data.max(evidence.last_ack).min(now);
                }
                Heartbeat::Bytes | Heartbeat::Frames | Heartbeat::None => {}
            }
        }
        // It may have been silent while it waited for its accept; a death tells of the time since.
        peer.last_life = peer.last_life.max(peer.accepted_at);
        // In CLOSE the kernel's count has the FIN in it, if one came before the end. Such a peer was
        // drained to the end, unless its own bytes ended it: one byte more than was taken is that FIN.
        let fin = evidence.tcp_state == TcpState::Close
            && evidence.received == peer.taken + 1
            && ending.frame.is_none()
            && !ending.bye;
        let bytes = if fin { peer.taken } else { evidence.received.max(peer.taken) };
        peer.flags.clear(Flags::VISITING);
        let was = peer.step(ending.input(), Step::Died(ending.cause), now);
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
        self.identities.release(index);
        self.wheel.cancel(index);
        self.counts.died[usize::from(ending.cause.code())] += 1;
        self.counts.living -= 1;
        match was {
            State::Suspect => self.left_suspicion(),
            State::HalfClosed => self.counts.half_closed -= 1,
            State::Alive | State::Dead => {}
        }
        // A peer that is there answers a FIN. The others get a RST.
        let orderly = matches!(ending.cause, Cause::Closed | Cause::Aborted);
        self.request(index, if orderly { PendingActions::CLOSE } else { PendingActions::ABORT });
        self.queue_event(index);
    }

    /// What the peer's kernel did during its silence, which for this never began before the accept.
    fn transport(&self, cause: Cause, evidence: &Evidence, index: u32, now: Instant) -> Transport {
        let peer = &self.peers[index as usize];
        let pinged = self.config.policy.heartbeat == Heartbeat::Frames && peer.probes > 0;
        let last_life = peer.last_life.max(peer.accepted_at);
        let silence = Silence { policy: &self.config.policy, stalls: &self.stalls, last_life };
        silence.transport(cause, evidence, pinged, now)
    }

    /// Whether at least half of all peers share this silence. Queues the event of an outage once.
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
            self.identities.forget(index);
        }
    }
}

/// The parts of a death that only the judging code knows.
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
        match self.deadline {
            Some(_) => Input::Expired,
            None => self.cause.input(),
        }
    }
}
