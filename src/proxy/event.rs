//! The events of a session.

use std::time::Duration;

use super::proxy_protocol::ProxyFault;
use crate::http::Reason;
use crate::liveness::Cause;
use crate::liveness::errno::{self, Meaning};
use crate::reactor::Address;

/// The phase of an exchange between a client and its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// There is no request, or the last one was answered.
    Idle,
    /// The head or the body of a request is coming.
    Receiving,
    /// The upstream works on the request.
    Waiting,
    /// The response is passed on.
    Sending,
    /// Bytes are relayed and not followed.
    Tunnel,
}

impl Phase {
    /// All phases, in the order of the variants.
    pub const ALL: [Phase; 5] =
        [Phase::Idle, Phase::Receiving, Phase::Waiting, Phase::Sending, Phase::Tunnel];

    /// The word used in events.
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

/// What was done to the upstream's connection when its client had left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamAction {
    /// Nothing: the upstream had not seen the request.
    Nothing,
    /// It was aborted with a RST.
    Reset,
    /// It was closed with a FIN.
    Close,
    /// It stays open, and the upstream works on.
    Ignored,
}

impl UpstreamAction {
    /// The word used in events.
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

/// The way in which an upstream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It refused the connection: no program listens at its port.
    Refused,
    /// It did not answer in time.
    TimedOut,
    /// Its host or network cannot be reached.
    Unreachable,
    /// It closed its connection without a response.
    Closed,
    /// It reset its connection without a response.
    Reset,
    /// It ended in the middle of a response.
    Truncated,
    /// It answered a check with a status of an error, or with something that is not HTTP.
    Status,
    /// All upstreams had as many requests as they may have, for too long.
    Full,
    /// The proxy had no descriptor, port or memory for a connection to it.
    Local,
}

impl Failure {
    /// How an upstream has failed whose socket gave this errno (positive).
    pub(super) fn of_errno(errno: i32) -> Failure {
        match errno {
            libc::ECONNREFUSED | libc::ENOENT => Failure::Refused,
            libc::ECONNRESET | libc::EPIPE => Failure::Reset,
            _ => match errno::meaning(errno) {
                Meaning::Reset => Failure::Reset,
                Meaning::TimedOut => Failure::TimedOut,
                Meaning::HostUnreachable | Meaning::NetUnreachable => Failure::Unreachable,
                _ => Failure::Local,
            },
        }
    }

    /// The word used in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::Full => "full",
            Failure::TimedOut => "timed_out",
            Failure::Unreachable => "unreachable",
            Failure::Closed => "closed",
            Failure::Reset => "reset",
            Failure::Truncated => "truncated",
            Failure::Status => "status",
            Failure::Local => "local",
        }
    }
}

words! {
    /// Why the proxy answers a request itself, although no upstream has failed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Refusal {
        /// The head did not become whole in time.
        HeadTimeout = "head_timeout",
        /// The body stood still for too long.
        BodyTimeout = "body_timeout",
        /// The head has more bytes or fields than a head may have.
        HeadTooLarge = "head_too_large",
        /// The memory for requests is used up.
        RequestMemory = "request_memory",
        /// The request could be read in two ways, and such ones are refused.
        AmbiguousRequest = "ambiguous_request",
        /// The response could be read in two ways, and such ones are refused.
        AmbiguousResponse = "ambiguous_response",
    }
}

impl Refusal {
    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Refusal::AmbiguousRequest => 400,
            Refusal::HeadTimeout | Refusal::BodyTimeout => 408,
            Refusal::HeadTooLarge => 431,
            Refusal::AmbiguousResponse => 502,
            Refusal::RequestMemory => 503,
        }
    }
}

/// A half-close probe, or its outcome, to be counted. A probe may stay without outcome, because the response begins
/// first or the client is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// A half-closed client was asked whether it is there.
    Asked,
    /// The client has left: its kernel answered with a RST.
    Gone,
    /// The client is there: its kernel acknowledged the probe.
    Here,
}

/// A half-close probe, as the end behind it shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The time since the probe.
    pub ago: Duration,
    /// Whether a kernel had acknowledged it: the client's, or that of a forwarder in between. Otherwise the end is the
    /// answer to it.
    pub acknowledged: bool,
}

/// A client has left in the middle of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// The phase in which it left.
    pub phase: Phase,
    /// The method, such as `GET`; unknown before the head is whole, and in a tunnel.
    pub method: Option<Box<str>>,
    /// The target of the request.
    pub target: Option<Box<str>>,
    /// The status of the response, if its head had come.
    pub status: Option<u16>,
    /// Bytes of the request that had come.
    pub request_bytes: u64,
    /// Bytes of the response that were passed on.
    pub response_bytes: u64,
    /// Time since the request's head was whole, or since the connection began.
    pub elapsed: Duration,
    /// Time since the response began.
    pub after: Option<Duration>,
    /// How the client left: by a RST, a FIN, or a silence of its kernel.
    pub cause: Cause,
    /// The last half-close probe before it left, if there was one.
    pub asked: Option<Asked>,
    /// What was done to the upstream's connection.
    pub action: UpstreamAction,
    /// Whether the upstream was spared the rest of its work.
    pub saved: bool,
}

/// An upstream has failed before it had sent its whole response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamFailed {
    /// The way in which it failed.
    pub failure: Failure,
    /// The phase in which it failed.
    pub phase: Phase,
    /// The method, such as `GET`.
    pub method: Option<Box<str>>,
    /// The target of the request.
    pub target: Option<Box<str>>,
    /// The status of the response, if its head had come.
    pub status: Option<u16>,
    /// Bytes of the response that were passed on.
    pub response_bytes: u64,
    /// The status of the proxy's own answer. Without one, the client's connection was ended.
    pub answered: Option<u16>,
}

/// The proxy has answered a request itself, although no upstream has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Why, and with which status.
    pub refusal: Refusal,
    /// The phase of the exchange.
    pub phase: Phase,
    /// The method, such as `GET`; unknown before the head is whole.
    pub method: Option<Box<str>>,
    /// The target of the request.
    pub target: Option<Box<str>>,
    /// Bytes of the request that had come.
    pub request_bytes: u64,
}

/// An event of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyEvent {
    /// A client has left in the middle of an exchange.
    Interrupted(Box<Interrupted>),
    /// An exchange was passed on whole.
    Completed,
    /// An upstream has failed before it had sent its whole response.
    UpstreamFailed(Box<UpstreamFailed>),
    /// The proxy has answered a request itself, although no upstream has failed.
    Answered(Box<Answered>),
    /// A connection does not begin with the PROXY header that is expected, and was reset.
    HeaderRefused(ProxyFault),
    /// A connection is no longer followed.
    NotFollowed {
        /// Why its bytes could not be followed.
        reason: Reason,
        /// Whether it was refused. Otherwise it is relayed as it is.
        refused: bool,
    },
}

/// The two ends of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parties {
    /// The address of the client.
    pub client: Address,
    /// The address of the upstream, if one was chosen.
    pub upstream: Option<Address>,
}
