//! What the proxy tells.

use std::net::SocketAddr;
use std::time::Duration;

use crate::http::Reason;
use crate::liveness::Cause;

/// What is going on between a client and its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing: no request, or the last was answered.
    Idle,
    /// A request is coming.
    Receiving,
    /// The upstream works.
    Waiting,
    /// A response is passed on.
    Sending,
    /// Bytes are relayed and not followed.
    Tunnel,
}

impl Phase {
    /// All of them.
    pub const ALL: [Phase; 5] =
        [Phase::Idle, Phase::Receiving, Phase::Waiting, Phase::Sending, Phase::Tunnel];

    /// Its name in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Receiving => "receiving",
            Phase::Waiting => "waiting",
            Phase::Sending => "sending",
            Phase::Tunnel => "tunnel",
        }
    }
}

/// What was done to the upstream whose client had left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamAction {
    /// Nothing: it had not been asked.
    Nothing,
    /// Its connection was aborted with a RST.
    Reset,
    /// Its connection was closed.
    Close,
    /// It works on.
    Ignored,
}

impl UpstreamAction {
    /// Its name in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            UpstreamAction::Nothing => "nothing",
            UpstreamAction::Reset => "reset",
            UpstreamAction::Close => "close",
            UpstreamAction::Ignored => "ignored",
        }
    }
}

/// How an upstream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It refused the connection.
    Refused,
    /// It did not answer in time.
    TimedOut,
    /// It, or the way to it, cannot be reached.
    Unreachable,
    /// It closed without a response.
    Closed,
    /// It reset its connection without a response.
    Reset,
    /// It ended in the middle of a response.
    Truncated,
    /// We had no descriptor, port or memory for a connection to it.
    Local,
}

impl Failure {
    /// Its name in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::TimedOut => "timed_out",
            Failure::Unreachable => "unreachable",
            Failure::Closed => "closed",
            Failure::Reset => "reset",
            Failure::Truncated => "truncated",
            Failure::Local => "local",
        }
    }
}

/// A half-closed client is asked whether it is there. What becomes of it is counted: a question may stay without an
/// answer, since the response begins first or the client is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It is asked.
    Asked,
    /// It has left: its kernel answered with a RST.
    Gone,
    /// It is here: its kernel acknowledged the question.
    Here,
}

/// A client left in the middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// Of what.
    pub phase: Phase,
    /// `GET`, say; not known before the head is whole, nor in a tunnel.
    pub method: Option<Box<str>>,
    /// What was asked for.
    pub target: Option<Box<str>>,
    /// Of the response, if its head had come.
    pub status: Option<u16>,
    /// Bytes of the request that had come.
    pub request_bytes: u64,
    /// Bytes of the response that were passed on.
    pub response_bytes: u64,
    /// Since the request's head was whole, or since the connection began.
    pub elapsed: Duration,
    /// Since the response began.
    pub after: Option<Duration>,
    /// How it left.
    pub cause: Cause,
    /// How long it took to ask, where it was asked.
    pub asked: Option<Duration>,
    /// What was done to the upstream.
    pub action: UpstreamAction,
    /// Whether the upstream was spared the rest.
    pub saved: bool,
}

/// An upstream did not do its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamFailed {
    /// How.
    pub failure: Failure,
    /// While what.
    pub phase: Phase,
    /// `GET`, say.
    pub method: Option<Box<str>>,
    /// What was asked for.
    pub target: Option<Box<str>>,
    /// Of the response, if its head had come.
    pub status: Option<u16>,
    /// Bytes of the response that were passed on.
    pub response_bytes: u64,
    /// What we answered in its place; otherwise the client's connection was ended.
    pub answered: Option<u16>,
}

/// What a session tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyEvent {
    /// A client left in the middle.
    Interrupted(Box<Interrupted>),
    /// An exchange was passed on whole.
    Completed,
    /// An upstream did not do its part.
    UpstreamFailed(Box<UpstreamFailed>),
    /// A connection is not followed any more.
    NotFollowed {
        /// Why.
        reason: Reason,
        /// Whether it was refused; otherwise it is relayed as it is.
        refused: bool,
    },
}

/// Of whom it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parties {
    /// The client.
    pub client: SocketAddr,
    /// The upstream, if one was chosen.
    pub upstream: Option<SocketAddr>,
}
