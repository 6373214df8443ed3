//! The settings of a session.

use std::time::Duration;

use crate::http::Forwarded;

/// What a client's FIN means while its request is being worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfClose {
    /// The client is asked: by an interim response, or in a chunked response by a leading zero of the next chunk's
    /// size. In another response this is [`Wait`](HalfClose::Wait) for one second, in a tunnel
    /// [`Forward`](HalfClose::Forward).
    Probe,
    /// A FIN means that the client is gone.
    Gone,
    /// The client is gone if nothing of the response is passed on to it within this time.
    Wait(Duration),
    /// Nothing: the FIN is passed on to the upstream.
    Forward,
}

/// What happens to the upstream's connection when its client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGone {
    /// It is aborted with a RST.
    Reset,
    /// It is closed with a FIN.
    Close,
    /// It stays open until the upstream has finished its work.
    Ignore,
}

/// The settings of a session.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether the connection carries HTTP. Otherwise it is a tunnel from the start.
    pub http: bool,
    /// Whether each connection begins with a PROXY header.
    pub accept_proxy: bool,
    /// Whether ambiguous messages are refused. Otherwise they are relayed as they are.
    pub strict: bool,
    /// What a client's FIN means while its request is being worked on.
    pub half_close: HalfClose,
    /// What happens to the upstream's connection when its client is gone.
    pub on_gone: OnGone,
    /// Whether the upstream's connection is given back after each exchange. Otherwise the client keeps it.
    pub pool: bool,
    /// The size in bytes up to which a request is gathered before the upstream sees any of it.
    pub request_buffer: usize,
    /// How long a head may take, and how long a new client may stay silent.
    pub head_timeout: Duration,
    /// How long the body of a request may stand still.
    pub body_timeout: Duration,
    /// How long a client may stay silent after a response.
    pub keepalive_timeout: Duration,
    /// What becomes of the fields of requests that name their client. If it is anything but off, whatever is not followed
    /// is refused: it could name any client.
    pub forwarded: Forwarded,
    /// Whether each exchange is logged.
    pub log: bool,
    /// Whether targets are told and logged with their queries.
    pub log_query: bool,
    /// How long the upstream may take to begin its response.
    pub response_timeout: Option<Duration>,
}
