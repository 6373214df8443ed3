//! The judgement of connections: what the observations of a socket mean for its peer.
//!
//! # Intuition
//!
//! A peer is alive until something says otherwise: a FIN, an error, or a silence that is longer than its policy allows.
//! The first two come by themselves; a silence must be looked for. So every peer has one appointment in a
//! [timing wheel](crate::wheel), at the first instant at which it *could* be overdue. Then it is *visited*: its evidence is
//! read, and it is put off to its real deadline, or suspected, or declared dead.
//!
//! # Model
//!
//! [`Fact`]s go in (what was seen). [`Action`]s come out (what to do next), and [`Event`]s (what it meant). The
//! [`Tracker`] between them has no descriptor, no clock and no log; `now` is an argument. Its states and their [transition table](state::next) are in [`state`], the times in
//! [`Policy`], the reading of completions in [`decode`].
//!
//! # Contract
//!
//! - After every `handle_*`, drain [`Tracker::poll_action`] and perform what it says; after that,
//!   [`Tracker::poll_event`] as far as the sink has room. Events wait in the tracker until taken.
//! - Feed all completions that were reaped before calling [`Tracker::handle_time`]: no peer is judged
//!   before what has already arrived was looked at.
//! - A stale [`PeerId`] changes nothing.
//! - Exactly one [`EventKind::Died`] ends a peer, and its slot is free only after that event was
//!   taken *and* the driver said [`Tracker::release`].
//!
//! # Example
//!
//! ```
//! use deadpeer::liveness::{Action, EventKind, Policy, Tracker, TrackerConfig};
//! use deadpeer::time::Instant;
//!
//! let mut now = Instant::from_nanos(1);
//! let mut tracker = Tracker::new(TrackerConfig::new(Policy::STRICT, 100), now);
//! let peer = tracker.accept("192.0.2.7:50000".parse().unwrap(), 0, now).unwrap();
//! assert!(matches!(tracker.poll_event().unwrap().kind, EventKind::Up));
//!
//! // It never speaks: at its handshake deadline the tracker pending to see the evidence.
//! now = tracker.next_due().unwrap();
//! tracker.handle_time(now);
//! assert_eq!(tracker.poll_action(), Some(Action::Inspect(peer)));
//! ```

pub mod decode;
pub mod errno;
pub mod event;
pub mod fact;
mod peer;
pub mod policy;
pub(crate) mod silence;
pub(crate) mod stalls;
pub mod state;
mod tracker;
pub mod watch;

pub use event::{Death, Event, EventKind, Proof, Subject, Transport};
pub use fact::{Action, Evidence, Fact, PollMask, TcpState};
pub use peer::{PeerId, PeerView, Step, Transition};
pub use policy::{Heartbeat, KeepalivePlan, Policy, PolicyError, Preset};
#[cfg(feature = "proxy")]
pub(crate) use silence::{Silence, cause_of_errno};
#[cfg(feature = "proxy")]
pub(crate) use stalls::Stalls;
pub use state::{Cause, Hop, LocalCause, State};
pub use tracker::{OnDuplicate, Tracker, TrackerConfig, TrackerCounts, Wake};
