//! The access log: what each exchange was, how it ended, and the lines that wait for their output.

use std::time::Duration;

use super::counts::Counts;
use super::event::{Failure, Parties};
use super::told::{EventsStall, Queued, Told};
use crate::limits::EVENT_BATCH;
use crate::liveness::{Cause, LocalCause};
use crate::reactor::EventSink;
use crate::time::Instant;

words! {
    /// The side that ended an exchange.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum By {
        /// The client.
        Peer = "peer",
        /// The upstream.
        Server = "server",
        /// The path to a side, or the machine at its end: nothing answers.
        Path = "path",
        /// The kernel of this machine.
        Kernel = "kernel",
        /// The proxy.
        Us = "us",
    }
}

impl By {
    /// The side that ended a client's connection, by the cause of its end.
    pub(super) const fn of_cause(cause: Cause) -> By {
        match cause {
            Cause::Closed | Cause::Aborted | Cause::Protocol => By::Peer,
            Cause::HeartbeatExpired | Cause::KeepaliveExpired | Cause::UserTimeout => By::Path,
            Cause::HandshakeExpired | Cause::Unreachable(_) => By::Path,
            Cause::Local(LocalCause::Destroyed | LocalCause::Unwatchable) => By::Kernel,
            Cause::Local(LocalCause::Shutdown | LocalCause::Replaced | LocalCause::SendTimeout) => By::Us,
        }
    }

    /// The side to which an upstream's failure is due. `connected`: whether the upstream was connected.
    pub(super) const fn of_failure(failure: Failure, connected: bool) -> By {
        match failure {
            Failure::Unreachable => By::Path,
            Failure::TimedOut if !connected => By::Path,
            Failure::Local => By::Kernel,
            Failure::Full => By::Us,
            Failure::Refused
            | Failure::TimedOut
            | Failure::Closed
            | Failure::Reset
            | Failure::Truncated
            | Failure::Status => By::Server,
        }
    }
}

/// A request, as the access log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedRequest {
    /// The method, such as `GET`.
    pub method: Box<str>,
    /// The target, such as `/a?b=c`, without its query where that is not to be logged.
    pub target: Box<str>,
    /// The minor version of HTTP/1.
    pub minor: u8,
    /// The field `Referer`.
    pub referer: Option<Box<str>>,
    /// The field `User-Agent`.
    pub user_agent: Option<Box<str>>,
}

/// An exchange that is over, or a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its end.
    pub at: Instant,
    /// The request; none if its head did not become whole, or was not followed.
    pub request: Option<LoggedRequest>,
    /// Whether it is a connection of which nothing is followed, or not any more.
    pub tunnel: bool,
    /// The status of the response, the proxy's own included; none if the client got none.
    pub status: Option<u16>,
    /// Bytes of the request that had come.
    pub request_bytes: u64,
    /// Bytes of the response that were passed on, with its heads.
    pub response_bytes: u64,
    /// Of those, bytes of the body.
    pub body_bytes: u64,
    /// Time since the request's head was whole, or since the connection began.
    pub elapsed: Duration,
    /// How much of it passed before the response began.
    pub first_byte: Option<Duration>,
    /// Why it ended.
    pub cause: &'static str,
    /// Who ended it.
    pub by: By,
}

/// A line of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLine {
    /// An exchange.
    Exchange {
        /// The client and the upstream.
        parties: Parties,
        /// What it was.
        logged: Box<Logged>,
    },
    /// Lines were dropped here, because the output took none.
    Dropped {
        /// When there was room again.
        at: Instant,
        /// How many.
        dropped: u64,
        /// The time since the first of them.
        during: Duration,
    },
}

impl Queued for AccessLine {
    fn at(&self) -> Instant {
        match self {
            AccessLine::Exchange { logged, .. } => logged.at,
            AccessLine::Dropped { at, .. } => *at,
        }
    }

    fn dropped(at: Instant, dropped: u64, during: Duration) -> AccessLine {
        AccessLine::Dropped { at, dropped, during }
    }
}

/// Where the lines of one thread go.
pub type AccessSink = Box<dyn EventSink<AccessLine, Counts>>;

/// The access log of one thread.
pub(super) struct AccessLog {
    sink: AccessSink,
    pub(super) told: Told<AccessLine>,
    /// The batch that is being filled, or that the sink did not take.
    batch: Vec<AccessLine>,
}

impl AccessLog {
    pub(super) fn new(sink: AccessSink, on_stall: EventsStall) -> AccessLog {
        AccessLog { sink, told: Told::new(on_stall), batch: Vec::with_capacity(EVENT_BATCH) }
    }

    /// Hands lines over as long as the sink takes them. Returns whether it took all.
    pub(super) fn hand_over(&mut self, now: Instant) -> bool {
        loop {
            while self.batch.len() < EVENT_BATCH
                && let Some(line) = self.told.pop(now)
            {
                self.batch.push(line);
            }
            if self.batch.is_empty() {
                return true;
            }
            match self.sink.offer(std::mem::take(&mut self.batch)) {
                Ok(empty) => self.batch = empty,
                Err(batch) => {
                    self.batch = batch;
                    return false;
                }
            }
        }
    }

    /// Lines that no output has taken.
    pub(super) fn left(&self) -> u64 {
        self.told.dropped + (self.batch.len() + self.told.len()) as u64
    }
}
