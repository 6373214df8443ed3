//! What a client has done, and how its connections stand.

/// What has happened since the client began. Only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that came up, every renewal counted.
    pub established: u64,
    /// Connects that the server's machine refused: nobody listens there.
    pub refused: u64,
    /// Connects that failed in another way: unreachable, or not answered.
    pub failed: u64,
    /// Connections that the server ended with a FIN.
    pub lost_closed: u64,
    /// Connections that the server ended with a RST.
    pub lost_reset: u64,
    /// Connections that the path ended: timed out, unreachable.
    pub lost_path: u64,
    /// Connections that we ended because the server's bytes were no frames.
    pub lost_protocol: u64,
    /// Heartbeats sent.
    pub beats: u64,
    /// PINGs answered.
    pub pongs_answered: u64,
    /// Beats and answers that were not sent, because the connection was stuck or we were late by
    /// more than a beat.
    pub skipped: u64,
    /// Connections left with a BYE.
    pub byes: u64,
    /// The error of the last connect that failed or connection whose path ended, as an `errno`.
    pub last_errno: Option<i32>,
}

impl Totals {
    /// Connections that ended without our will.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost_closed + self.lost_reset + self.lost_path + self.lost_protocol
    }
}

/// How things stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Connections that are up and beat.
    pub connected: usize,
    /// Connects in flight.
    pub connecting: usize,
    /// Connections that wait for their turn to connect, or for the end of their backoff.
    pub waiting: usize,
    /// What happened until now.
    pub totals: Totals,
}
