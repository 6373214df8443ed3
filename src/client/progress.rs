//! Counts of a client: what it did, and the states of its connections.

/// Counts since the client started. They never decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that came up, reconnects included.
    pub established: u64,
    /// Connects that the server's machine refused: no program listens there.
    pub refused: u64,
    /// Connects that failed otherwise: the server was unreachable or did not answer.
    pub failed: u64,
    /// Connections that the server ended with a FIN.
    pub lost_closed: u64,
    /// Connections that the server ended with a RST.
    pub lost_reset: u64,
    /// Connections that the network path ended: a timeout, or an unreachable host.
    pub lost_path: u64,
    /// Connections that the client ended because the server's bytes were no frames.
    pub lost_protocol: u64,
    /// The number of heartbeats that were sent, answers to PINGs not included.
    pub beats: u64,
    /// The number of PINGs of the server that were answered.
    pub pongs_answered: u64,
    /// Heartbeats and answers that were not sent, because the socket was full or the client's thread was late by more
    /// than one interval.
    pub skipped: u64,
    /// Connections that the client ended with a BYE.
    pub byes: u64,
    /// The `errno` of the last connect that failed, or of the last connection that the path ended.
    pub last_errno: Option<i32>,
}

impl Totals {
    /// Connections that ended although the client wanted to keep them.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost_closed + self.lost_reset + self.lost_path + self.lost_protocol
    }
}

/// The states of all connections, and the totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Connections that are up, on which heartbeats are sent.
    pub connected: usize,
    /// Connects that are not answered yet.
    pub connecting: usize,
    /// Connections that wait to connect, or for the end of their backoff.
    pub waiting: usize,
    /// The counts since the client started.
    pub totals: Totals,
}
