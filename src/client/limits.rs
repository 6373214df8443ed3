//! The limits of a client: what it holds at once, and how long it waits.

use std::time::Duration;

/// Connections of one client: the ports that one address has towards one listener, without the
/// privileged ones. More are refused.
pub const MAX_COUNT: usize = 64_512;

/// The shortest interval between beats. Below it the poll's millisecond would decide the rate.
pub const MIN_EVERY: Duration = Duration::from_millis(1);

/// The longest interval: a day. Every policy has long given up by then.
pub const MAX_EVERY: Duration = Duration::from_secs(86_400);

/// Connects that have not been answered yet. Larger bursts overflow the backlog of ordinary
/// listeners (4,096 at most, often 128), and a dropped SYN costs a second; the rest wait.
pub const MAX_IN_FLIGHT: usize = 256;

/// How long a connect may take. The kernel alone would try for two minutes.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// The wait before the first new attempt at a connection; it doubles with each that fails.
pub const MIN_BACKOFF: Duration = Duration::from_millis(100);

/// The longest wait between attempts.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Completions taken from one poll; the rest come with the next.
pub(super) const MAX_EVENTS: usize = 1_024;

/// Timers that fire in one turn. At about 5 us a beat they hold up reading for 5 ms at most.
pub(super) const MAX_TIMERS_PER_TURN: usize = 1_024;

/// Bytes of one read: 256 frames.
pub(super) const READ_BYTES: usize = 4_096;

/// Reads from one connection in one turn: a server that floods one does not starve the others.
pub(super) const MAX_READS_PER_TURN: usize = 4;
