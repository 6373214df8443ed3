//! The output of the tracker for its user: events, deaths and their proof.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::fact::Evidence;
use super::peer::{Peer, PeerId, Step, Transition};
use super::policy::Policy;
use super::state::Cause;
use crate::frame::FrameError;
use crate::time::Instant;

/// What a verdict rests on: the observations at that time.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Proof {
    /// The errno that `recv` returned (positive), if an error ended the connection.
    pub errno: Option<i32>,
    /// What was wrong with the peer's bytes, if they ended the connection.
    pub frame: Option<FrameError>,
    /// Whether a BYE announced the end.
    pub bye: bool,
    /// The socket at the time of the verdict.
    pub evidence: Evidence,
    /// The last proof of life, or the accept. Never before the accept.
    pub last_life: Instant,
    /// What the peer's kernel did while its program was silent.
    pub transport: Transport,
    /// Whether at least half of all peers were silent too, which means a broken path rather than a broken peer.
    pub outage: bool,
}

words! {
    /// The transport axis of a verdict: what the peer's kernel did.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Transport {
        /// It acknowledged something after the peer's last life: the machine works, the program does not.
        Answering = "answering",
        /// It was asked and did not answer: the machine or the path is gone.
        Silent = "silent",
        /// Nothing was sent that it should have answered.
        Unasked = "unasked",
    }
}

/// The end of a peer, with its cause and proof.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Death {
    /// The id of the peer, as its earlier events named it.
    pub peer: PeerId,
    /// The address and port of the peer's end of the connection.
    pub address: SocketAddr,
    /// The number of the local address it was connected to, as the driver counts them.
    pub local: u16,
    /// The cause of the death.
    pub cause: Cause,
    /// What the verdict rests on.
    pub proof: Proof,
    /// The time of the accept.
    pub accepted_at: Instant,
    /// The time of the verdict.
    pub at: Instant,
    /// For an expiry, the deadline that had passed: `at` is never before it.
    pub deadline: Option<Instant>,
    /// The number of bytes that it had sent in order.
    pub bytes: u64,
    /// The last transitions, oldest first; unused places are `None`.
    pub history: [Option<Transition>; crate::limits::HISTORY],
}

impl Death {
    /// The time from the last proof of life to the verdict.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        self.at.since(self.proof.last_life)
    }

    /// How long after its deadline an expiry was judged; `None` for a death without a deadline.
    #[must_use]
    pub fn lateness(&self) -> Option<Duration> {
        self.deadline.map(|deadline| self.at.since(deadline))
    }
}

/// Something that the tracker reports to its user.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The time of the verdict, not of the delivery.
    pub at: Instant,
    /// The peer it is about; `None` for events of the whole tracker.
    pub subject: Option<Subject>,
    /// The kind of the event, with its details.
    pub kind: EventKind,
}

/// The peer that an event is about.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Subject {
    /// The id by which the tracker's methods name the peer.
    pub peer: PeerId,
    /// The address and port of the peer's end of the connection.
    pub address: SocketAddr,
    /// The number of the local address it is connected to, as the driver counts them.
    pub local: u16,
    /// The identity in its HELLO, if it gave one.
    pub identity: Option<Arc<str>>,
}

/// The kind of an event, with what belongs to it.
#[allow(clippy::large_enum_variant)] // a box would be an allocation a death, and deaths come in storms
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// The connection was accepted: the first event of every peer.
    Up,
    /// The peer was silent for the [suspicion time](super::Policy::suspicion_time), or its path does not deliver. It is
    /// being probed.
    Suspected {
        /// The time from the last life to the suspicion.
        silent_for: Duration,
        /// Whether the path is the reason.
        doubt: bool,
    },
    /// The suspect gave a proof of life.
    Recovered {
        /// The time from the suspicion to the recovery.
        suspected_for: Duration,
    },
    /// The FIN was seen, and the policy grants a grace.
    HalfClosed,
    /// The peer gave an identity in its HELLO that another living peer has. The newest of several is named.
    Duplicate {
        /// The id of the older peer.
        of: PeerId,
        /// The address and port of the older peer.
        address: SocketAddr,
    },
    /// The peer is dead: its last event.
    Died(Death),
    /// The loop was held up; deadlines were put off by as much.
    Stall {
        /// The length of the stall.
        held: Duration,
    },
    /// At least half of the peers are silent and their kernels do not answer: a path is down.
    PathOutage {
        /// The number of peers that are suspect at this time.
        suspects: u32,
        /// The number of living peers, the suspects included.
        peers: u32,
    },
    /// A limit was reached; new connections wait in the backlog.
    Saturated {
        /// The name of the limit.
        limit: &'static str,
    },
    /// Connections are accepted again, after a [`Saturated`](EventKind::Saturated).
    Resumed,
}

impl EventKind {
    /// The event of a transition of `peer`, which `before` preceded. `None` for a death, which the log of deaths tells.
    pub(super) fn of(
        transition: Transition,
        before: Option<Transition>,
        peer: &Peer,
        policy: &Policy,
    ) -> Option<EventKind> {
        let at = transition.at();
        Some(match transition.step() {
            Step::Up => EventKind::Up,
            step @ (Step::Suspected | Step::Doubted) => {
                // The record's last life may be newer than the suspicion, and then says nothing of the silence before.
                let silent = at.since(peer.last_life);
                let doubt = step == Step::Doubted;
                let at_least = if doubt { Duration::ZERO } else { policy.suspicion_time() };
                EventKind::Suspected { silent_for: silent.max(at_least), doubt }
            }
            Step::Recovered => {
                let suspected_at = before.map_or(peer.accepted_at, Transition::at);
                EventKind::Recovered { suspected_for: at.since(suspected_at) }
            }
            Step::HalfClosed => EventKind::HalfClosed,
            Step::Died(_) => return None,
        })
    }
}
