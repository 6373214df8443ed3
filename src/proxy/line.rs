//! What one thread of the proxy reports.

use std::time::Duration;

use super::event::{Parties, ProxyEvent};
use crate::time::Instant;

/// What the client's socket showed last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The mask of its poll.
    pub mask: u16,
    /// Its error.
    pub errno: Option<i32>,
}

/// What one thread has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Something happened to a client or its upstream.
    Told {
        /// When.
        at: Instant,
        /// To whom.
        parties: Parties,
        /// What the client's socket showed.
        shown: Shown,
        /// What.
        told: ProxyEvent,
    },
    /// How many exchanges were passed on whole since the line before; at most one line a second.
    Completed {
        /// When.
        at: Instant,
        /// So many.
        completed: u64,
        /// Of this thread, so far.
        completed_total: u64,
        /// Of this thread, so far.
        interrupted_total: u64,
    },
    /// Our own loop was held up.
    Stall {
        /// When it went on.
        at: Instant,
        /// For so long.
        held: Duration,
    },
    /// New connections wait.
    Saturated {
        /// Since when.
        at: Instant,
        /// For what.
        limit: &'static str,
    },
    /// They are taken again.
    Resumed {
        /// Since when.
        at: Instant,
    },
}
