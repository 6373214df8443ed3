//! The limits of a client: what it holds at once, and how long it waits.

use std::time::Duration;

/// Connections of one client: the unprivileged ports of one local address. [`Client::new`](super::Client::new) refuses
/// more.
pub const MAX_COUNT: usize = 64_512;

/// The shortest interval between heartbeats. The poll's resolution is a millisecond.
pub const MIN_EVERY: Duration = Duration::from_millis(1);

/// The longest interval: a day. Every policy's detection time is shorter.
pub const MAX_EVERY: Duration = Duration::from_secs(86_400);

/// Connects in flight; the others wait. Larger bursts overflow the backlog of common listeners (often 128, at most
/// 4,096), and a dropped SYN costs a second.
pub const MAX_IN_FLIGHT: usize = 256;

/// The longest time of a connect. The kernel alone would try for two minutes.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// The wait before the first reconnect; it doubles with each attempt that fails.
pub const MIN_BACKOFF: Duration = Duration::from_millis(100);

/// The longest wait before a reconnect.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Events taken from one poll; the rest come with the next poll.
pub(super) const MAX_EVENTS: usize = 1_024;

/// Timers that fire in one turn; the rest fire in the next. At about 5 us a heartbeat they delay reading by at most 5 ms.
pub(super) const MAX_TIMERS_PER_TURN: usize = 1_024;

/// The size of the read buffer in bytes: 256 frames.
pub(super) const READ_BYTES: usize = 4_096;

/// Reads from one connection in one turn, so that a server that floods one connection does not starve the others.
pub(super) const MAX_READS_PER_TURN: usize = 4;
