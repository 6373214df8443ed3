//! What one thread of the proxy reports.

use std::time::Duration;

use super::event::{Failure, Parties, ProxyEvent};
use crate::reactor::Address;
use crate::time::Instant;

/// What the client's socket showed last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The mask of its poll.
    pub mask: u16,
    /// The errno of the socket, if it had one.
    pub errno: Option<i32>,
}

words! {
    /// What has found out that an upstream works or fails.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Sign {
        /// A client's request.
        Request = "request",
        /// A check.
        Check = "check",
    }
}

/// What one thread has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Something happened to a client or its upstream.
    Told {
        /// The time of the event.
        at: Instant,
        /// The client and the upstream.
        parties: Parties,
        /// What the client's socket showed.
        shown: Shown,
        /// The event of the session.
        told: ProxyEvent,
    },
    /// How many exchanges were passed on whole since the line before; at most one line a second.
    Completed {
        /// The time of the event.
        at: Instant,
        /// The number of exchanges completed since the last such line.
        completed: u64,
        /// Of this thread, so far.
        completed_total: u64,
        /// Of this thread, so far.
        interrupted_total: u64,
    },
    /// An upstream is left out because it failed in this way, or is in use again.
    Upstream {
        /// The time of the event.
        at: Instant,
        /// Its address.
        upstream: Address,
        /// How it failed; none if it is in use again.
        failure: Option<Failure>,
        /// What has found that out.
        sign: Sign,
    },
    /// A drain has begun.
    Draining {
        /// The time at which it began.
        at: Instant,
        /// Exchanges that are under way, with responses that their clients have not taken.
        exchanges: u64,
        /// Tunnels that are open.
        tunnels: u64,
        /// Clients for which nothing is under way.
        idle: u64,
    },
    /// The addresses of an upstream's name, or why they could not be had.
    Resolved {
        /// The time of the event.
        at: Instant,
        /// The name and the port.
        name: String,
        /// The addresses that requests go to from now on.
        addresses: Vec<Address>,
        /// Why there are no newer ones.
        error: Option<String>,
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
        /// The time at which it began.
        at: Instant,
        /// The limit that is reached.
        limit: &'static str,
    },
    /// They are taken again.
    Resumed {
        /// The time at which it began.
        at: Instant,
    },
    /// Events were dropped here, because the output took none.
    Dropped {
        /// When there was room again.
        at: Instant,
        /// How many.
        dropped: u64,
        /// The time since the first of them.
        during: Duration,
    },
}

impl Line {
    /// The time of the event.
    pub(super) fn at(&self) -> Instant {
        match *self {
            Line::Told { at, .. }
            | Line::Completed { at, .. }
            | Line::Upstream { at, .. }
            | Line::Draining { at, .. }
            | Line::Resolved { at, .. }
            | Line::Stall { at, .. }
            | Line::Saturated { at, .. }
            | Line::Resumed { at }
            | Line::Dropped { at, .. } => at,
        }
    }
}
