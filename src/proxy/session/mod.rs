//! The session of one client and its upstream: which bytes to pass on, which to hold, and what an end means.
//!
//! # Intuition
//!
//! A relay that only copies bytes cannot tell a client that has left from one that waits: both are silent. The session
//! therefore follows each message to its end, and knows at any moment whether the client waits for an answer. A client
//! that closes while it waits has left in the middle.
//!
//! # Model
//!
//! ```text
//!              head partial           request whole           response head
//!   [idle] ───────────────► [receiving] ─────────► [waiting] ─────────────► [sending] ──► [idle]
//!                                                                │ 101, CONNECT 2xx
//!       anything that is not followed ──► [tunnel] ◄─────────────┘
//! ```
//!
//! A FIN while idle is an orderly end. While receiving it is an interruption, because the request can never become
//! whole. While waiting or sending it is a question, and [`HalfClose`] says how it is answered. A reset is an
//! interruption wherever the client waits.
//!
//! - `rules`: the settings. `effect`: the values that go in and come out.
//! - `request`, `response`: follow the client's and the upstream's bytes.
//! - `log`: the line of an exchange in the access log.
//! - `half_close`: what a client's FIN means. `verdict`: how a session ends. `deadline`: what time does. `drain`: the end
//!   of the proxy.
//!
//! # Contract
//!
//! - Pure: [`Session::handle`] takes a fact and the time, and leaves its decisions in [`Effects`], in the order in which
//!   they are to be carried out. The caller carries out all of them before the next fact.
//! - What is passed on is what came, byte for byte, except for the probes (interim responses, and leading zeros of chunk
//!   sizes), the proxy's own answers (400, 408, 431, 502, 503, 504), after which the connection ends, and heads of
//!   requests that name their client ([`Rules::forwarded`]).
//! - At most one request is with the upstream. What a client sends ahead waits here, up to [`MAX_PIPELINED`], then in
//!   the socket.
//! - An exchange causes at most one [`ProxyEvent::Interrupted`](crate::proxy::ProxyEvent::Interrupted), and none if its
//!   response was passed on whole. Such an exchange causes one
//!   [`ProxyEvent::Completed`](crate::proxy::ProxyEvent::Completed), also if the response came before the rest of the
//!   request.

mod deadline;
mod drain;
mod effect;
mod exchange;
mod half_close;
mod log;
mod reply;
mod request;
mod response;
mod rules;
mod verdict;

pub use effect::{Context, Effect, Effects, End, HoldBudget, Reuse, SessionFact, Side};
pub use rules::{HalfClose, OnGone, Rules};

use exchange::{Exchange, Request, Response};
use half_close::HalfCloseProbe;

use super::event::Phase;
use crate::http::Frames;
use crate::limits::{MAX_HELD, MAX_PIPELINED};
use crate::time::Instant;

/// The state of the upstream's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upstream {
    /// There is none.
    None,
    Connecting,
    Open,
    /// The upstream of a tunnel has sent its FIN.
    HalfClosed,
}

/// The state of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Open,
    /// The client has sent its FIN.
    HalfClosed,
    /// The client has left, and its upstream works on.
    Gone,
    /// Nothing more is sent to the client, and what it still sends is dropped.
    Finished,
}

/// The FIN for the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    None,
    /// It is sent when the upstream is connected.
    Wanted,
    Sent,
}

/// Bytes that were passed on in a tunnel, and in the exchange in which it began.
#[derive(Clone, Copy, Debug, Default)]
struct Tunnelled {
    from_client: u64,
    from_upstream: u64,
}

/// The frames of a WebSocket.
#[derive(Clone, Copy, Debug, Default)]
struct WebSocket {
    from_client: Frames,
    from_upstream: Frames,
}

impl WebSocket {
    /// Whether a closing frame was sent. No message follows it, and the other side answers only with its own.
    fn is_closing(&self) -> bool {
        self.from_client.has_closed() || self.from_upstream.has_closed()
    }
}

/// The session of one client and its upstream.
#[derive(Debug)]
pub struct Session {
    request: Request,
    response: Response,
    client: Client,
    upstream: Upstream,
    /// The bytes are relayed and not followed.
    tunnel: bool,
    /// The tunnel carries HTTP whose messages could not be followed.
    ambiguous: bool,
    /// In a tunnel, the client was the last to send.
    answer_owed: bool,
    /// The tunnel is a WebSocket.
    websocket: Option<Box<WebSocket>>,
    exchange: Option<Box<Exchange>>,
    /// The request that has opened the tunnel, for the access log.
    tunnel_request: Option<Box<Exchange>>,
    /// An exchange or a tunnel is under way whose line is not in the access log.
    unlogged: bool,
    /// Bytes of the client that were not passed on. Those of the request that is being followed come first.
    held: Vec<u8>,
    /// How many of the held bytes were followed. The upstream may have them as soon as they are released.
    followed: usize,
    /// The beginning of a response's head.
    partial_head: Vec<u8>,
    probe: Option<HalfCloseProbe>,
    /// Probes sent in the present exchange; bytes of the response that were passed on are one, too.
    probes: u8,
    /// Those of the probes that are leading zeros of the size that follows what was passed on.
    zeros: u8,
    /// When the present wait for bytes of the client, or of the upstream, began.
    waits_since: Instant,
    tunnelled: Tunnelled,
    accepted_at: Instant,
    /// Requests that were answered.
    answered: u64,
    /// The upstream's present connection has carried an exchange before.
    reused: bool,
    /// The upstream's present connection is this client's alone: it has answered with a login that holds for all
    /// requests on a connection.
    private: bool,
    /// The upstream has sent something on its present connection that shows that it works.
    proven: bool,
    fin: Fin,
    /// The proxy is to end: the client gets no further response after the present one.
    draining: bool,
}

impl Session {
    /// The session of a client that was accepted just now.
    pub fn new(cx: &mut Context<'_>) -> Session {
        let mut session = Session {
            request: if cx.rules.accept_proxy { Request::Header } else { Request::default() },
            response: Response::None,
            client: Client::Open,
            upstream: Upstream::None,
            tunnel: !(cx.rules.http || cx.rules.accept_proxy),
            ambiguous: false,
            answer_owed: true,
            websocket: None,
            exchange: None,
            tunnel_request: None,
            unlogged: false,
            held: Vec::new(),
            followed: 0,
            partial_head: Vec::new(),
            probe: None,
            probes: 0,
            zeros: 0,
            waits_since: cx.now,
            tunnelled: Tunnelled::default(),
            accepted_at: cx.now,
            answered: 0,
            reused: false,
            private: false,
            proven: false,
            fin: Fin::None,
            draining: false,
        };
        if session.tunnel {
            session.begin_tunnel_log(None, cx);
            session.connect(cx);
        }
        session
    }

    /// Takes in a fact. The caller then carries out every effect, before the next fact.
    #[inline]
    pub fn handle(&mut self, fact: SessionFact<'_>, cx: &mut Context<'_>) {
        debug_assert!(cx.effects.is_empty(), "effects of an earlier fact were not carried out");
        match fact {
            SessionFact::ClientBytes(bytes) => self.client_bytes(bytes, cx),
            SessionFact::ClientFin => self.client_fin(cx),
            SessionFact::ClientFinAhead => self.client_fin_ahead(cx),
            SessionFact::ClientGone(cause) => self.client_gone(cause, cx),
            SessionFact::Connected { reused } => self.connected(reused, cx),
            SessionFact::NotConnected(failure) => self.not_connected(failure, cx),
            SessionFact::UpstreamBytes(bytes) => self.upstream_bytes(bytes, cx),
            SessionFact::UpstreamFin => self.upstream_fin(cx),
            SessionFact::UpstreamGone(failure) => self.upstream_gone(failure, cx),
            SessionFact::Received(received, failure) => self.received(received, failure, cx),
            SessionFact::Acknowledged(acknowledged) => self.acknowledged(acknowledged, cx),
            SessionFact::Time => self.time(cx),
            SessionFact::Drain => self.drain(cx),
            SessionFact::Cut => self.cut(cx),
        }
    }

    /// What is going on.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.tunnel {
            return Phase::Tunnel;
        }
        match (&self.request, &self.response) {
            (_, Response::Body(_)) => Phase::Sending,
            (Request::Header, _) if self.held.is_empty() => Phase::Idle,
            (Request::Head(_), Response::None) if self.is_blank() => Phase::Idle,
            (Request::Header | Request::Head(_) | Request::Body { .. }, _) => Phase::Receiving,
            (Request::Whole, _) => Phase::Waiting,
        }
    }

    /// Whether the client's bytes are wanted now.
    #[must_use]
    pub fn wants_client(&self) -> bool {
        match self.client {
            Client::HalfClosed | Client::Gone => false,
            Client::Finished => true,
            Client::Open => match self.request {
                Request::Whole if !self.tunnel => self.held.len() - self.followed < MAX_PIPELINED,
                Request::Body { gathering: true, .. } | Request::Head(_) | Request::Header
                    if !self.tunnel =>
                {
                    true
                }
                _ => self.held.len() < MAX_HELD,
            },
        }
    }

    /// For how many bytes of the client there is room: at least one while they are
    /// [wanted](Session::wants_client).
    #[must_use]
    pub fn client_room(&self) -> usize {
        match self.request {
            Request::Whole if !self.tunnel && self.client == Client::Open => {
                MAX_PIPELINED.saturating_sub(self.held.len() - self.followed)
            }
            _ => MAX_HELD,
        }
    }

    /// Whether a message of this side has begun, and is not whole.
    #[must_use]
    pub fn is_partial(&self, client: bool) -> bool {
        let partial = match client {
            true => match self.request {
                Request::Header | Request::Head(_) => !self.is_blank(),
                Request::Body { .. } => true,
                Request::Whole => false,
            },
            // An interim response has another one behind it.
            false => matches!(self.response, Response::Head(_) | Response::Body(_)),
        };
        partial && !self.tunnel
    }

    /// Bytes of messages that are held here.
    #[must_use]
    pub fn holds(&self) -> usize {
        self.held.len() + self.partial_head.len()
    }

    /// Bytes of memory that this client makes the session keep.
    #[must_use]
    pub fn memory(&self) -> usize {
        let exchanges = self.exchange.iter().chain(&self.tunnel_request);
        self.held.capacity()
            + self.partial_head.len()
            + exchanges.map(|exchange| exchange.memory()).sum::<usize>()
    }

    /// Whether nothing has come but what a client may send before a request without meaning: one or two empty lines
    /// (RFC 9112 section 2.2).
    fn is_blank(&self) -> bool {
        self.held.len() <= 4 && self.held.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
    }

    /// Whether a part of the request's body is still to come.
    fn is_incomplete(&self) -> bool {
        matches!(self.request, Request::Body { .. })
    }

    /// Whether the client has everything that it waited for, or everything that the upstream will ever send.
    fn is_satisfied(&self) -> bool {
        match self.phase() {
            Phase::Idle => true,
            Phase::Receiving => matches!(self.response, Response::Whole),
            Phase::Tunnel => self.upstream == Upstream::HalfClosed,
            Phase::Waiting | Phase::Sending => false,
        }
    }

    /// Whether the client reads what is sent to it.
    fn client_listens(&self) -> bool {
        matches!(self.client, Client::Open | Client::HalfClosed)
    }

    /// Connects to an upstream. A server may close an idle connection in the moment in which it gets a request. So the
    /// request has to be one that can be sent again, or come from a client that knows such ends from its own connection,
    /// or meet a connection that was used a moment ago.
    fn connect(&mut self, cx: &mut Context<'_>) {
        self.upstream = Upstream::Connecting;
        let whole = matches!(self.request, Request::Whole);
        let idempotent = self.exchange.as_ref().is_some_and(|exchange| exchange.head.is_idempotent());
        cx.push(Effect::Connect(match (whole, idempotent) {
            _ if self.tunnel => Reuse::New,
            _ if self.answered > 0 => Reuse::Idle,
            (true, true) => Reuse::Idle,
            (true, false) => Reuse::Young,
            (false, _) => Reuse::New,
        }));
    }
}

#[cfg(test)]
mod tests;
