//! What comes out for people: events, deaths and their proof.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::fact::Evidence;
use super::peer::{PeerId, Transition};
use super::state::Cause;
use crate::frame::FrameError;
use crate::time::Instant;

/// Why a verdict is right: what was seen when it was given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proof {
    /// The errno that `recv` gave, where an error was the end.
    pub errno: Option<i32>,
    /// What was wrong with the peer's bytes.
    pub frame: Option<FrameError>,
    /// Whether a BYE announced the end.
    pub bye: bool,
    /// The socket at the verdict.
    pub evidence: Evidence,
    /// The last proof of life.
    pub last_life: Instant,
    /// What the peer's kernel did while its program was silent.
    pub transport: Transport,
    /// Whether at least half of all peers were silent too: rather a broken path than a broken peer.
    pub outage: bool,
}

/// The transport axis of a verdict: what the peer's kernel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// It answered, later than the peer's last life: the machine is there, the program is not.
    Answering,
    /// It was asked and did not answer: the machine or the path is gone.
    Silent,
    /// Nothing was sent that it should have answered.
    Unasked,
}

impl Transport {
    /// The word used in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::Answering => "answering",
            Transport::Silent => "silent",
            Transport::Unasked => "unasked",
        }
    }
}

/// The end of a peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Death {
    /// Who it was.
    pub peer: PeerId,
    /// Its address.
    pub address: SocketAddr,
    /// Which of the driver's local addresses it was connected to.
    pub local: u16,
    /// Why.
    pub cause: Cause,
    /// Why that is right.
    pub proof: Proof,
    /// When it was accepted.
    pub accepted_at: Instant,
    /// The verdict.
    pub at: Instant,
    /// For an expiry, the deadline that had passed: `at` is never before it.
    pub deadline: Option<Instant>,
    /// Bytes that it had sent, in order.
    pub bytes: u64,
    /// Its last transitions, oldest first; unused places are `None`.
    pub history: [Option<Transition>; crate::limits::HISTORY],
}

impl Death {
    /// Last proof of life to verdict.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        self.at.since(self.proof.last_life)
    }

    /// How long after its deadline an expiry was judged.
    #[must_use]
    pub fn lateness(&self) -> Option<Duration> {
        self.deadline.map(|deadline| self.at.since(deadline))
    }
}

/// Something that people want to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When it was so: the verdict, not the printing.
    pub at: Instant,
    /// About whom; `None` for events of the whole tracker.
    pub subject: Option<Subject>,
    /// What.
    pub kind: EventKind,
}

/// The peer that an event is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Its id.
    pub peer: PeerId,
    /// Its address.
    pub address: SocketAddr,
    /// Which of the driver's local addresses it is connected to.
    pub local: u16,
    /// What its HELLO said, if it said one.
    pub identity: Option<Arc<str>>,
}

/// What an event says.
#[allow(clippy::large_enum_variant)] // a box would be an allocation a death, and deaths come in storms
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// Accepted.
    Up,
    /// Silent for its idle time, or its path does not deliver; being probed.
    Suspected {
        /// Last life to suspicion.
        silent_for: Duration,
        /// Whether it is for its path.
        doubt: bool,
    },
    /// Spoke again.
    Recovered {
        /// Suspicion to recovery.
        suspected_for: Duration,
    },
    /// FIN seen, grace granted.
    HalfClosed,
    /// Gone.
    Died(Death),
    /// Our own loop was held up; deadlines were put off by as much.
    Stall {
        /// For how long.
        held: Duration,
    },
    /// At least half of the peers are silent and their kernels do not answer: a path is down.
    PathOutage {
        /// How many are suspect.
        suspects: u32,
        /// Of how many.
        peers: u32,
    },
    /// At a limit; new connections wait in the backlog.
    Saturated {
        /// Which limit.
        limit: &'static str,
    },
    /// Accepting again.
    Resumed,
}
