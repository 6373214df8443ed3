//! One client and the upstream that works for it: what to pass on, what to hold, and what an end means.
//!
//! # Intuition
//!
//! A relay that only copies bytes cannot tell a client that has left from one that waits: both are quiet. So each
//! message is followed to its end, and at any moment it is known whether somebody waits for an answer. Whoever
//! closes then has left in the middle.
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
//! A FIN while idle is an orderly end; while receiving it is an interruption, since the request can never become
//! whole; while sending the bytes themselves are the probe. While *waiting* it is a question, and
//! [`HalfClose`] says how it is answered. A reset is an interruption wherever somebody waits.
//!
//! # Contract
//!
//! - Pure: facts come in as calls, decisions go out through [`Wire`] in the order in which they are to be done. `now`
//!   is an argument.
//! - What is passed on is what came, byte for byte, but for the interim responses of the probe and the answers that
//!   are ours (400, 408, 431, 502, 503, 504), after which the connection ends.
//! - At most one request is with the upstream. What a client sends ahead waits here, up to [`MAX_PIPELINED`], then in
//!   the socket.
//! - One [`ProxyEvent::Interrupted`] at most for an exchange, and none for one whose response was passed on whole: for
//!   that there is one [`ProxyEvent::Completed`], also if it came before the rest of its request.

use std::time::Duration;

use super::event::{Failure, Interrupted, Phase, ProbeOutcome, ProxyEvent, UpstreamAction, UpstreamFailed};
use crate::http::{Body, Framing, Head, Reason, RequestHead, ResponseHead, Scan};
use crate::limits::{HALF_CLOSE_PROBES, MAX_HELD, MAX_PIPELINED, PROBE_CHECKS};
use crate::liveness::Cause;
use crate::time::Instant;

/// What a FIN means while its request is worked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfClose {
    /// An interim response asks the client; where that is not possible, [`Wait`](HalfClose::Wait) for a second.
    Probe,
    /// That the client is gone.
    Gone,
    /// That the client is gone if the response does not begin within this time.
    Wait(Duration),
    /// Nothing: it is passed on, and the upstream may think of it what it likes.
    Forward,
}

/// What is done to the upstream whose client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGone {
    /// Its connection is aborted with a RST.
    Reset,
    /// Its connection is closed.
    Close,
    /// It may work to its end, for nobody.
    Ignore,
}

/// How connections are treated.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether messages are followed.
    pub http: bool,
    /// Whether what is ambiguous is refused instead of relayed as it is.
    pub strict: bool,
    /// What a FIN means.
    pub half_close: HalfClose,
    /// What follows from a client's leaving.
    pub on_gone: OnGone,
    /// Up to how many bytes of a request are gathered before the upstream sees it.
    pub request_buffer: usize,
    /// How long a head may take; also how long a new client may say nothing.
    pub head_timeout: Duration,
    /// How long a request's body may stand still.
    pub body_timeout: Duration,
    /// How long an upstream may take to begin its response.
    pub response_timeout: Option<Duration>,
}

/// How a socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Closed: with a FIN, if there was none.
    Close,
    /// Aborted with a RST: whoever is behind it must not take it for an orderly end.
    Abort,
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Which cannot be passed on before it is whole.
    Head,
    /// Which can stream.
    Body,
}

/// Where decisions go.
pub trait Wire {
    /// Sends bytes to the client, behind those that wait.
    fn to_client(&mut self, bytes: &[u8]);
    /// Sends bytes to the upstream, behind those that wait.
    fn to_upstream(&mut self, bytes: &[u8]);
    /// Chooses an upstream and connects to it.
    fn connect(&mut self);
    /// Sends the client a FIN behind what waits.
    fn fin_client(&mut self);
    /// Sends the upstream a FIN behind what waits.
    fn fin_upstream(&mut self);
    /// Sends the client a FIN behind what waits, and closes the connection after its own FIN, or soon.
    fn finish_client(&mut self);
    /// Ends the client's connection now.
    fn end_client(&mut self, how: End);
    /// Ends the upstream's connection now, whatever state it is in.
    fn end_upstream(&mut self, how: End);
    /// Whether the client's kernel has acknowledged all that was sent to it.
    fn client_has_acknowledged(&mut self) -> bool;
    /// Whether so many more bytes of requests may be held here.
    fn may_hold(&mut self, part: Part, bytes: usize) -> bool;
    /// Counts a question, or its answer.
    fn count(&mut self, asking: ProbeOutcome);
    /// Tells what happened.
    fn tell(&mut self, told: ProxyEvent);
}

/// What asks a half-closed client (RFC 9110 section 15.2: a client must be able to parse any number of interim
/// responses before the final one, also when it did not ask for a 100). Python's `http.client` takes any 1xx but this
/// one for the final response, so it is this one.
const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How long a client may take that cannot be asked, where it is to be asked.
const CANNOT_ASK: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
enum Request {
    /// Between requests, or within a head.
    Head(Scan),
    /// Within a body.
    Body { body: Body, gathering: bool },
    /// All of it has come.
    Whole,
}

#[derive(Clone, Debug)]
enum Response {
    /// Nobody asked.
    None,
    /// Before or within a head.
    Head(Scan),
    /// Within a body.
    Body(Body),
    /// All of it has come, before the request was whole.
    Whole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upstream {
    /// There is no connection.
    None,
    Connecting,
    Open,
    /// It sends no more.
    HalfClosed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Open,
    /// It sends no more.
    HalfClosed,
    /// It has left; its upstream may work to the end.
    Gone,
    /// We say no more to it: what it still sends is thrown away.
    Finished,
}

/// A request and its response, so far.
#[derive(Clone, Debug)]
struct Exchange {
    head: RequestHead,
    began: Instant,
    /// Of the request's bytes, those of its head.
    head_bytes: u64,
    request_bytes: u64,
    response_bytes: u64,
    status: Option<u16>,
    /// When the final response's first byte was passed on.
    answered: Option<Instant>,
    /// Whether the server takes another request behind it.
    persistent: bool,
    /// Whether its upstream had answered another one before.
    reused: bool,
}

/// The question whether a client that sent a FIN still waits.
#[derive(Clone, Copy, Debug)]
enum HalfCloseProbe {
    /// Asked; the answer is looked for at `check`.
    Asked { since: Instant, check: Instant, checks: u8 },
    /// It is there; asked again at this time.
    Here { again: Instant },
    /// Not to be asked: it is gone at this time.
    Until(Instant),
}

/// A FIN for the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    None,
    /// It waits until the upstream is connected.
    Wanted,
    Sent,
}

/// One client and the upstream that works for it: what to pass on, what to hold, what an end means. See [`crate::proxy`].
#[derive(Debug)]
pub struct Session {
    request: Request,
    response: Response,
    client: Client,
    upstream: Upstream,
    /// The bytes are relayed without being followed.
    tunnel: bool,
    /// It is HTTP all the same: of whom nobody knows where a message ends.
    unfollowed: bool,
    /// In a tunnel, the last to speak was the client.
    owed: bool,
    exchange: Option<Box<Exchange>>,
    /// Bytes of the client that were not passed on: first those of the request that is being followed.
    held: Vec<u8>,
    /// How many of them were followed.
    followed: usize,
    /// How many of them the upstream may have once it is connected.
    released: usize,
    /// The beginning of a response's head.
    begun: Vec<u8>,
    question: Option<HalfCloseProbe>,
    probes: u8,
    /// When the present wait for the client's bytes began, or for the upstream's.
    since: Instant,
    /// Passed on while nothing is followed.
    tunnelled: (u64, u64),
    born: Instant,
    /// Requests that were answered.
    answered: u64,
    fin: Fin,
}

impl Session {
    /// A client has come.
    pub fn new(rules: &Rules, now: Instant, wire: &mut impl Wire) -> Session {
        let mut session = Session {
            request: Request::Head(Scan::default()),
            response: Response::None,
            client: Client::Open,
            upstream: Upstream::None,
            tunnel: !rules.http,
            unfollowed: false,
            owed: true,
            exchange: None,
            held: Vec::new(),
            followed: 0,
            released: 0,
            begun: Vec::new(),
            question: None,
            probes: 0,
            since: now,
            tunnelled: (0, 0),
            born: now,
            answered: 0,
            fin: Fin::None,
        };
        if session.tunnel {
            session.connect(wire);
        }
        session
    }

    /// What is going on.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.tunnel {
            return Phase::Tunnel;
        }
        match (&self.request, &self.response) {
            (_, Response::Body(_)) => Phase::Sending,
            (Request::Head(_), Response::None) if self.is_blank() => Phase::Idle,
            (Request::Head(_) | Request::Body { .. }, _) => Phase::Receiving,
            (Request::Whole, _) => Phase::Waiting,
        }
    }

    /// Whether nothing has come but what a client may say before a request without meaning anything: an empty line
    /// (RFC 9112 section 2.2), or two.
    fn is_blank(&self) -> bool {
        self.held.len() <= 4 && self.held.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
    }

    /// Whether a part of the request's body is still to come.
    fn is_incomplete(&self) -> bool {
        matches!(self.request, Request::Body { .. })
    }

    /// Whether the client waits for a word of the upstream's before it sends its body.
    fn awaits_continue(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| {
            let nothing = exchange.response_bytes == 0 && exchange.request_bytes == exchange.head_bytes;
            exchange.head.expects_continue() && nothing
        })
    }

    /// Whether the client's bytes are wanted now.
    #[must_use]
    pub fn wants_client(&self) -> bool {
        match self.client {
            Client::HalfClosed | Client::Gone => false,
            Client::Finished => true,
            Client::Open => match self.request {
                Request::Whole if !self.tunnel => self.held.len() - self.followed < MAX_PIPELINED,
                Request::Body { gathering: true, .. } | Request::Head(_) if !self.tunnel => true,
                _ => self.held.len() < MAX_HELD,
            },
        }
    }

    /// How many bytes of the client's there is room for; at least one while they are [wanted](Session::wants_client).
    #[must_use]
    pub fn client_room(&self) -> usize {
        match self.request {
            Request::Whole if !self.tunnel && self.client == Client::Open => {
                MAX_PIPELINED.saturating_sub(self.held.len() - self.followed)
            }
            _ => MAX_HELD,
        }
    }

    /// Bytes of requests that are held here.
    #[must_use]
    pub fn holds(&self) -> usize {
        self.held.len() + self.begun.len()
    }

    /// When [`Session::on_time`] has something to do, if ever.
    #[must_use]
    pub fn deadline(&self, rules: &Rules) -> Option<Instant> {
        if self.client == Client::Finished {
            return None;
        }
        let question = self.question.map(|question| match question {
            HalfCloseProbe::Asked { check, .. } => check,
            HalfCloseProbe::Here { again } => again,
            HalfCloseProbe::Until(at) => at,
        });
        let patience = match self.phase() {
            Phase::Idle if self.answered == 0 => Some(self.since + rules.head_timeout),
            Phase::Receiving if self.exchange.is_none() => Some(self.since + rules.head_timeout),
            // The upstream's silence is not the client's.
            Phase::Receiving if self.awaits_continue() => {
                rules.response_timeout.map(|timeout| self.since + timeout)
            }
            Phase::Receiving => Some(self.since + rules.body_timeout),
            Phase::Sending if self.is_incomplete() && self.client == Client::Open => {
                Some(self.since + rules.body_timeout)
            }
            Phase::Waiting => rules.response_timeout.map(|timeout| self.since + timeout),
            _ => None,
        };
        question.into_iter().chain(patience).min()
    }

    // --- the client ---------------------------------------------------------------------------

    /// The client has sent something.
    pub fn on_client_bytes(&mut self, bytes: &[u8], rules: &Rules, now: Instant, wire: &mut impl Wire) {
        if self.client != Client::Open {
            return;
        }
        let mut bytes = bytes;
        if self.held.is_empty() && self.upstream == Upstream::Open {
            // What streams through is not copied.
            if self.tunnel {
                self.tunnelled.0 += bytes.len() as u64;
                self.owed = true;
                return wire.to_upstream(bytes);
            }
            if let Request::Body { body, gathering: false } = &mut self.request {
                self.since = now;
                let fed = match body.feed(bytes) {
                    Ok(fed) => fed,
                    Err(reason) => {
                        // Where the fault is does not matter: all of it is passed on as it came, or none.
                        self.held.extend_from_slice(bytes);
                        return self.not_followed(reason, rules, now, wire);
                    }
                };
                wire.to_upstream(&bytes[..fed.taken]);
                if let Some(exchange) = &mut self.exchange {
                    exchange.request_bytes += fed.taken as u64;
                }
                bytes = &bytes[fed.taken..];
                if fed.over {
                    self.request_is_whole(now, rules, wire);
                }
            }
        }
        if bytes.is_empty() {
            return;
        }
        let begins = self.is_blank() && matches!(self.request, Request::Head(_)) && !self.tunnel;
        if begins || matches!(self.request, Request::Body { .. }) {
            self.since = now;
        }
        self.held.extend_from_slice(bytes);
        self.work(rules, now, wire);
    }

    /// Follows what is held, as far as it goes.
    fn work(&mut self, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        while self.client == Client::Open || self.client == Client::HalfClosed {
            if self.tunnel {
                self.followed = self.held.len();
                return self.release(wire);
            }
            match &mut self.request {
                Request::Head(_) if self.held.is_empty() => return,
                Request::Head(scan) => match RequestHead::read(&self.held, scan) {
                    Head::Partial if self.is_blank() => return,
                    Head::Partial if !wire.may_hold(Part::Head, 0) => return self.refuse(503, wire),
                    Head::Partial => return self.cannot_become_whole(rules, now, wire),
                    Head::TooLarge => return self.refuse(431, wire),
                    Head::Not(reason) => self.not_followed(reason, rules, now, wire),
                    Head::Whole { head, length } => self.begin(head, length, rules, now, wire),
                },
                Request::Body { body, gathering } => match body.feed(&self.held[self.followed..]) {
                    Err(reason) => self.not_followed(reason, rules, now, wire),
                    Ok(fed) => {
                        self.followed += fed.taken;
                        if let Some(exchange) = &mut self.exchange {
                            exchange.request_bytes += fed.taken as u64;
                        }
                        if *gathering
                            && (self.followed > rules.request_buffer || !wire.may_hold(Part::Body, 0))
                        {
                            *gathering = false;
                            self.response = Response::Head(Scan::default());
                        }
                        if fed.over {
                            self.request_is_whole(now, rules, wire);
                        } else {
                            if !matches!(self.request, Request::Body { gathering: true, .. }) {
                                self.release(wire);
                            }
                            return self.cannot_become_whole(rules, now, wire);
                        }
                    }
                },
                Request::Whole => return,
            }
        }
    }

    /// A request that is not whole behind which there is a FIN.
    fn cannot_become_whole(&mut self, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        if self.client == Client::HalfClosed {
            self.gone(Cause::Closed, None, rules, now, wire);
        }
    }

    fn begin(&mut self, head: RequestHead, length: usize, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        let body = Body::new(head.framing());
        let fits = match head.framing() {
            Framing::Length(bytes) => bytes <= rules.request_buffer.saturating_sub(length) as u64,
            _ => true,
        };
        let rest = match head.framing() {
            Framing::Length(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
            _ => 0,
        };
        let gathering = fits && !head.expects_continue() && wire.may_hold(Part::Body, rest);
        self.followed = length;
        self.probes = 0;
        self.exchange = Some(Box::new(Exchange {
            head,
            began: now,
            head_bytes: length as u64,
            request_bytes: length as u64,
            response_bytes: 0,
            status: None,
            answered: None,
            persistent: true,
            reused: self.answered > 0,
        }));
        if body.is_over() {
            self.request_is_whole(now, rules, wire);
        } else {
            self.request = Request::Body { body, gathering };
            if !gathering {
                self.response = Response::Head(Scan::default());
                self.release(wire);
            }
        }
    }

    fn request_is_whole(&mut self, now: Instant, rules: &Rules, wire: &mut impl Wire) {
        self.request = Request::Whole;
        self.since = now;
        self.release(wire);
        match self.response {
            Response::None => self.response = Response::Head(Scan::default()),
            Response::Whole => return self.exchange_is_over(rules, now, wire),
            _ => {}
        }
        if self.client == Client::HalfClosed && self.phase() == Phase::Waiting {
            self.ask(rules, now, wire);
        }
    }

    /// Lets the upstream have what was followed.
    fn release(&mut self, wire: &mut impl Wire) {
        match self.upstream {
            Upstream::None => {
                self.released = self.followed;
                self.connect(wire);
            }
            Upstream::Connecting => self.released = self.followed,
            // It would not read it.
            Upstream::HalfClosed if !self.tunnel => self.drop_followed(),
            Upstream::Open | Upstream::HalfClosed => {
                if self.followed > 0 {
                    wire.to_upstream(&self.held[..self.followed]);
                    if self.tunnel {
                        self.tunnelled.0 += self.followed as u64;
                        self.owed = true;
                    }
                    self.drop_followed();
                }
            }
        }
    }

    fn drop_followed(&mut self) {
        if self.followed == self.held.len() {
            self.held = Vec::new(); // nothing is kept for who may be idle for hours
        } else {
            self.held.drain(..self.followed);
        }
        self.followed = 0;
        self.released = 0;
    }

    fn connect(&mut self, wire: &mut impl Wire) {
        self.upstream = Upstream::Connecting;
        wire.connect();
    }

    /// From here on, bytes are relayed and nothing is concluded from them; or the client is refused.
    fn not_followed(&mut self, reason: Reason, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        // Another protocol is one from the first byte on. Behind anything else it would be a word that lets all that follows
        // pass unread.
        let other = reason.is_another_protocol() && self.answered == 0 && self.exchange.is_none();
        if rules.strict && !other {
            // Nobody waits: an answer would be taken for that to the next request.
            let waits = self.exchange.is_some() || !self.held.is_empty();
            let begun = self.exchange.as_ref().is_some_and(|exchange| exchange.answered.is_some());
            wire.tell(ProxyEvent::NotFollowed { reason, refused: true });
            if begun || self.client == Client::Gone {
                self.end_upstream(End::Abort, wire);
                return self.abort_client(wire);
            }
            if !waits {
                self.end_upstream(End::Abort, wire);
                return self.finish_client(wire);
            }
            let ours = matches!(self.response, Response::Body(_)) || !self.begun.is_empty();
            return self.refuse(if ours { 502 } else { 400 }, wire);
        }
        wire.tell(ProxyEvent::NotFollowed { reason, refused: false });
        self.unfollowed = !reason.is_another_protocol();
        self.owed = self.exchange.is_some() || !self.held.is_empty();
        self.become_tunnel(rules, now, wire);
    }

    fn become_tunnel(&mut self, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        self.tunnel = true;
        self.question = None;
        if let Some(exchange) = self.exchange.take() {
            self.tunnelled = (exchange.request_bytes - self.followed as u64, exchange.response_bytes);
        }
        self.followed = self.held.len();
        self.release(wire);
        if self.client == Client::HalfClosed {
            self.ask(rules, now, wire);
        }
        let begun = std::mem::take(&mut self.begun);
        self.tunnel_to_client(&begun, wire);
    }

    /// The client sends no more: its FIN has come, and everything before it was handed over.
    pub fn on_client_fin(&mut self, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        match self.client {
            Client::Open => self.client = Client::HalfClosed,
            Client::HalfClosed | Client::Gone | Client::Finished => return,
        }
        match self.phase() {
            _ if self.nobody_waits() => self.leave(wire),
            Phase::Idle => self.leave(wire),
            Phase::Receiving => self.gone(Cause::Closed, None, rules, now, wire),
            // The response has begun, and the request can never become whole: who waits for the rest of it must know.
            Phase::Sending if self.is_incomplete() => self.forward_fin(wire),
            Phase::Waiting | Phase::Tunnel => self.ask(rules, now, wire),
            Phase::Sending if rules.half_close == HalfClose::Forward => self.ask(rules, now, wire),
            Phase::Sending => {}
        }
    }

    /// The client's FIN has come behind bytes that are not taken off yet.
    pub fn on_client_fin_ahead(&mut self, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        // One that is forwarded goes behind those bytes.
        let judged = rules.half_close != HalfClose::Forward;
        if judged && self.client == Client::Open && self.phase() == Phase::Waiting {
            self.ask(rules, now, wire);
        }
    }

    /// Whether nobody waits for anything: what was asked was answered, or the upstream has said all it will say.
    fn nobody_waits(&self) -> bool {
        match self.phase() {
            Phase::Idle => true,
            Phase::Receiving => matches!(self.response, Response::Whole),
            Phase::Tunnel => self.upstream == Upstream::HalfClosed,
            Phase::Waiting | Phase::Sending => false,
        }
    }

    /// An orderly end.
    fn leave(&mut self, wire: &mut impl Wire) {
        self.end_upstream(End::Close, wire);
        self.finish_client(wire);
    }

    /// What does this FIN mean?
    fn ask(&mut self, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        // It may have been seen before, behind bytes that were not taken off yet.
        if self.question.is_some() || (self.probes > 0 && !self.tunnel) {
            return;
        }
        let waits = |wait| Some(HalfCloseProbe::Until(now + wait));
        match rules.half_close {
            HalfClose::Gone => self.gone(Cause::Closed, None, rules, now, wire),
            HalfClose::Wait(wait) => self.question = waits(wait),
            // It comes behind the requests that wait here, and is looked at again when the last of them goes.
            HalfClose::Forward if self.held.len() > self.followed => {}
            HalfClose::Forward => self.forward_fin(wire),
            HalfClose::Probe if self.tunnel => self.question = waits(CANNOT_ASK),
            HalfClose::Probe => {
                let asks = self.exchange.as_ref().is_some_and(|exchange| exchange.head.minor_version() >= 1);
                if asks { self.probe(now, wire) } else { self.question = waits(CANNOT_ASK) }
            }
        }
    }

    /// Tells the upstream, once, that no more comes.
    fn forward_fin(&mut self, wire: &mut impl Wire) {
        match self.upstream {
            Upstream::Open if self.fin == Fin::Sent => {}
            Upstream::Open => {
                self.fin = Fin::Sent;
                wire.fin_upstream();
            }
            Upstream::Connecting => self.fin = Fin::Wanted,
            Upstream::HalfClosed => self.leave(wire),
            Upstream::None => {}
        }
    }

    fn probe(&mut self, now: Instant, wire: &mut impl Wire) {
        self.probes += 1;
        wire.count(ProbeOutcome::Asked);
        wire.to_client(PROBE);
        self.question = Some(HalfCloseProbe::Asked { since: now, check: now + PROBE_CHECKS[0], checks: 0 });
    }

    /// The client's connection is over, with this cause.
    pub fn on_client_gone(&mut self, cause: Cause, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        let asked = match self.question {
            Some(HalfCloseProbe::Asked { since, .. }) => Some(now.since(since)),
            _ => None,
        };
        match self.client {
            Client::Open | Client::HalfClosed if !self.nobody_waits() => {
                self.gone(cause, asked, rules, now, wire)
            }
            Client::Open | Client::HalfClosed | Client::Finished => {
                self.end_upstream(End::Close, wire);
                self.client = Client::Finished;
                wire.end_client(End::Close);
            }
            Client::Gone => {}
        }
    }

    /// The verdict. `asked`: how long it took from the question to the answer.
    fn gone(
        &mut self,
        cause: Cause,
        asked: Option<Duration>,
        rules: &Rules,
        now: Instant,
        wire: &mut impl Wire,
    ) {
        let phase = self.phase();
        self.question = None;
        if asked.is_some() && cause == Cause::Aborted {
            wire.count(ProbeOutcome::Gone);
        }
        // A request that is gathered, or waits for the connection, is none that the upstream knows of.
        let connected = matches!(self.upstream, Upstream::Open | Upstream::HalfClosed);
        let works = connected && (self.tunnel || !matches!(self.response, Response::None));
        let action = match rules.on_gone {
            _ if !works => UpstreamAction::Nothing,
            OnGone::Reset => UpstreamAction::Reset,
            OnGone::Close => UpstreamAction::Close,
            OnGone::Ignore => UpstreamAction::Ignored,
        };
        let exchange = self.exchange.as_deref();
        // Where an answer was the last that was said, all was answered, as far as anybody can know.
        let told = !self.unfollowed || self.owed;
        let told = told.then(|| {
            Box::new(Interrupted {
                phase,
                method: exchange.map(|exchange| exchange.head.method().into()),
                target: exchange.map(|exchange| exchange.head.target().into()),
                status: exchange.and_then(|exchange| exchange.status),
                request_bytes: exchange
                    .map_or(self.tunnelled.0 + self.held.len() as u64, |e| e.request_bytes),
                response_bytes: exchange.map_or(self.tunnelled.1, |exchange| exchange.response_bytes),
                elapsed: now.since(exchange.map_or(self.born, |exchange| exchange.began)),
                after: exchange.and_then(|exchange| exchange.answered).map(|answered| now.since(answered)),
                cause,
                asked,
                action,
                saved: matches!(action, UpstreamAction::Reset | UpstreamAction::Close),
            })
        });
        if let Some(told) = told {
            wire.tell(ProxyEvent::Interrupted(told));
        }
        match action {
            UpstreamAction::Nothing => self.end_upstream(End::Close, wire),
            UpstreamAction::Reset => self.end_upstream(End::Abort, wire),
            UpstreamAction::Close => self.end_upstream(End::Close, wire),
            UpstreamAction::Ignored => {
                if self.tunnel || !matches!(self.request, Request::Whole) {
                    // It would wait for the rest for ever.
                    self.forward_fin(wire);
                }
                self.client = Client::Gone;
                self.held = Vec::new();
                (self.followed, self.released) = (0, 0);
                wire.end_client(End::Close);
                return;
            }
        }
        self.client = Client::Finished;
        // Should it be there against all evidence: a part of a response must not look like the whole.
        let begun = phase == Phase::Sending || self.tunnelled.1 > 0;
        let begun = begun && cause == Cause::Closed;
        wire.end_client(if begun { End::Abort } else { End::Close });
    }

    fn end_upstream(&mut self, how: End, wire: &mut impl Wire) {
        if self.upstream != Upstream::None {
            self.upstream = Upstream::None;
            wire.end_upstream(how);
        }
    }

    /// An answer of ours, after which the connection ends.
    fn refuse(&mut self, status: u16, wire: &mut impl Wire) {
        self.end_upstream(End::Abort, wire);
        if self.client == Client::Gone {
            self.client = Client::Finished;
            return;
        }
        wire.to_client(answer(status));
        self.finish_client(wire);
    }

    fn finish_client(&mut self, wire: &mut impl Wire) {
        let gone = self.client == Client::Gone;
        self.client = Client::Finished;
        self.question = None;
        self.exchange = None;
        self.held = Vec::new();
        self.begun = Vec::new();
        (self.followed, self.released) = (0, 0);
        if !gone {
            wire.finish_client();
        }
    }

    fn abort_client(&mut self, wire: &mut impl Wire) {
        if self.client != Client::Gone {
            wire.end_client(End::Abort);
        }
        self.client = Client::Finished;
    }

    // --- the upstream -------------------------------------------------------------------------

    /// The upstream is connected.
    pub fn on_connected(&mut self, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        if self.upstream != Upstream::Connecting {
            return;
        }
        self.upstream = Upstream::Open;
        if self.released > 0 {
            self.followed = self.released;
            self.release(wire);
        }
        if self.fin == Fin::Wanted {
            self.forward_fin(wire);
        }
        if self.phase() == Phase::Waiting {
            self.since = now;
        }
        self.work(rules, now, wire);
    }

    /// No upstream can be had.
    pub fn on_refused(&mut self, failure: Failure, wire: &mut impl Wire) {
        if self.upstream != Upstream::Connecting {
            return;
        }
        self.upstream = Upstream::None;
        self.fail(failure, wire);
    }

    /// An upstream that failed before the response was whole.
    fn fail(&mut self, failure: Failure, wire: &mut impl Wire) {
        let phase = self.phase();
        let exchange = self.exchange.as_deref();
        let begun = exchange.map_or(self.tunnelled.1 > 0, |exchange| exchange.answered.is_some());
        let reused = exchange.is_some_and(|exchange| exchange.reused);
        // Behind a reused connection the client knows what to do: it has met a server that closes an idle
        // connection before. An answer of ours would keep it from trying again.
        let stale = reused && matches!(failure, Failure::Closed | Failure::Reset);
        let answers = !self.tunnel && !begun && !stale && self.client != Client::Gone;
        let status = if failure == Failure::TimedOut { 504 } else { 502 };
        // Who was told that its client is gone may give up.
        if self.client != Client::Gone || self.fin != Fin::Sent {
            wire.tell(ProxyEvent::UpstreamFailed(Box::new(UpstreamFailed {
                failure: if begun { Failure::Truncated } else { failure },
                phase,
                method: exchange.map(|exchange| exchange.head.method().into()),
                target: exchange.map(|exchange| exchange.head.target().into()),
                status: exchange.and_then(|exchange| exchange.status),
                response_bytes: exchange.map_or(self.tunnelled.1, |exchange| exchange.response_bytes),
                answered: answers.then_some(status),
            })));
        }
        self.question = None;
        if answers {
            return self.refuse(status, wire);
        }
        self.end_upstream(End::Close, wire);
        if begun || self.tunnel { self.abort_client(wire) } else { self.finish_client(wire) }
    }

    /// The upstream has sent something.
    pub fn on_upstream_bytes(&mut self, bytes: &[u8], rules: &Rules, now: Instant, wire: &mut impl Wire) {
        let mut at = 0;
        while at < bytes.len() && !self.tunnel {
            let rest = &bytes[at..];
            match &mut self.response {
                Response::Head(scan) => {
                    let joined = (!self.begun.is_empty()).then(|| {
                        self.begun.extend_from_slice(rest);
                        std::mem::take(&mut self.begun)
                    });
                    let head = ResponseHead::read(joined.as_deref().unwrap_or(rest), scan);
                    match head {
                        Head::Partial => {
                            self.begun = joined.unwrap_or_else(|| rest.to_vec());
                            self.pass(&bytes[..at], now, wire);
                            return;
                        }
                        Head::TooLarge | Head::Not(_) => {
                            let Head::Not(reason) = head else {
                                return self.spoilt(
                                    bytes,
                                    at,
                                    joined,
                                    Reason::ResponseHead,
                                    rules,
                                    now,
                                    wire,
                                );
                            };
                            return self.spoilt(bytes, at, joined, reason, rules, now, wire);
                        }
                        Head::Whole { head, length } => {
                            // What had come before goes first; the rest of this piece follows as it is.
                            let before = joined.as_ref().map_or(0, |joined| joined.len() - rest.len());
                            if before > 0 {
                                self.pass(&joined.unwrap_or_default()[..before], now, wire);
                            }
                            at += length - before;
                            self.take_head(head);
                            if self.exchange.as_ref().is_some_and(|e| head.is_switch(e.head.method())) {
                                self.pass(&bytes[..at], now, wire);
                                self.response_counts(wire);
                                self.become_tunnel(rules, now, wire);
                                return self.tunnel_to_client(&bytes[at..], wire);
                            }
                        }
                    }
                }
                Response::Body(body) => match body.feed(rest) {
                    Ok(fed) => at += fed.taken,
                    Err(reason) => return self.spoilt(bytes, at, None, reason, rules, now, wire),
                },
                Response::None | Response::Whole => {
                    return self.spoilt(bytes, at, None, Reason::Unsolicited, rules, now, wire);
                }
            }
            if matches!(&self.response, Response::Body(body) if body.is_over()) {
                self.pass(&bytes[..at], now, wire);
                self.response_is_whole(rules, now, wire);
                if at < bytes.len() {
                    // The next request may be under way already: nobody can tell whose these bytes are.
                    return self.spoilt(&bytes[at..], 0, None, Reason::Unsolicited, rules, now, wire);
                }
                return;
            }
        }
        if self.tunnel {
            self.tunnel_to_client(&bytes[at..], wire)
        } else {
            self.pass(&bytes[..at], now, wire)
        }
    }

    /// Bytes that cannot be followed: what was not passed on yet is passed on as it is.
    #[allow(clippy::too_many_arguments)]
    fn spoilt(
        &mut self,
        bytes: &[u8],
        at: usize,
        joined: Option<Vec<u8>>,
        reason: Reason,
        rules: &Rules,
        now: Instant,
        wire: &mut impl Wire,
    ) {
        self.pass(&bytes[..at], now, wire);
        if self.client == Client::Finished {
            return;
        }
        self.begun = joined.unwrap_or_else(|| bytes[at..].to_vec());
        self.not_followed(reason, rules, now, wire);
    }

    fn tunnel_to_client(&mut self, bytes: &[u8], wire: &mut impl Wire) {
        if bytes.is_empty() || matches!(self.client, Client::Gone | Client::Finished) {
            return;
        }
        self.tunnelled.1 += bytes.len() as u64;
        self.owed = false;
        wire.to_client(bytes);
        // Now the bytes are the probe, and the upstream may know what the client said.
        if self.question.take().is_some() {
            self.forward_fin(wire);
        }
    }

    /// Passes bytes of the response on.
    fn pass(&mut self, bytes: &[u8], now: Instant, wire: &mut impl Wire) {
        if bytes.is_empty() {
            return;
        }
        if let Some(exchange) = &mut self.exchange {
            if exchange.response_bytes == 0 {
                // Whoever waited for a word has it now, and has its time from here on.
                self.since = now;
            }
            exchange.response_bytes += bytes.len() as u64;
            if exchange.status.is_some() && exchange.answered.is_none() {
                exchange.answered = Some(now);
                // Now the bytes are the probe.
                self.question = None;
            }
        }
        if !matches!(self.client, Client::Gone | Client::Finished) {
            wire.to_client(bytes);
        }
    }

    fn take_head(&mut self, head: ResponseHead) {
        self.response = Response::Head(Scan::default());
        let Some(exchange) = &mut self.exchange else { return };
        if head.is_interim() {
            return;
        }
        exchange.status = Some(head.status());
        exchange.persistent = head.is_persistent();
        self.response = Response::Body(Body::new(head.framing(exchange.head.method())));
    }

    fn response_counts(&mut self, wire: &mut impl Wire) {
        self.answered += 1;
        if self.client != Client::Gone {
            wire.tell(ProxyEvent::Completed);
        }
    }

    fn response_is_whole(&mut self, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        self.response_counts(wire);
        let persistent = self.exchange.as_ref().is_some_and(|exchange| exchange.persistent);
        match self.request {
            Request::Whole if persistent => self.exchange_is_over(rules, now, wire),
            // An early answer: the rest of the request goes its way, if there is to be any.
            Request::Body { .. } if persistent && self.client == Client::Open => {
                self.response = Response::Whole;
            }
            // The server will take nothing more on this connection.
            _ => self.leave(wire),
        }
    }

    /// Request and response are whole, and another may follow.
    fn exchange_is_over(&mut self, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        self.exchange = None;
        self.request = Request::Head(Scan::default());
        self.response = Response::None;
        self.since = now;
        match self.client {
            Client::Gone => self.leave(wire),
            // It has what it waited for.
            Client::HalfClosed if self.is_blank() => self.leave(wire),
            _ => self.work(rules, now, wire),
        }
    }

    /// The upstream sends no more, and everything before was handed over.
    pub fn on_upstream_fin(&mut self, wire: &mut impl Wire) {
        if self.upstream != Upstream::Open {
            return;
        }
        self.upstream = Upstream::HalfClosed;
        match self.phase() {
            Phase::Tunnel => match self.client {
                // A server of HTTP that closes has done with its client.
                Client::Open if self.unfollowed => self.leave(wire),
                Client::Open => wire.fin_client(),
                Client::HalfClosed => {
                    self.end_upstream(End::Close, wire);
                    self.finish_client(wire);
                }
                Client::Gone | Client::Finished => self.end_upstream(End::Close, wire),
            },
            Phase::Sending => match &self.response {
                Response::Body(body) if body.ends_with_connection() => {
                    self.response_counts(wire);
                    self.end_upstream(End::Close, wire);
                    self.finish_client(wire);
                }
                _ => self.fail(Failure::Closed, wire),
            },
            Phase::Idle => self.leave(wire),
            // Between requests, and the next has begun: the client meets what it would meet without us. Or it has its
            // response, and only the rest of the request is missing.
            Phase::Receiving if matches!(self.response, Response::None | Response::Whole) => self.leave(wire),
            Phase::Receiving | Phase::Waiting => self.fail(Failure::Closed, wire),
        }
    }

    /// The upstream's connection is over.
    pub fn on_upstream_gone(&mut self, failure: Failure, wire: &mut impl Wire) {
        if self.upstream == Upstream::None {
            return;
        }
        match self.phase() {
            Phase::Idle => {
                self.end_upstream(End::Close, wire);
                self.finish_client(wire);
            }
            Phase::Receiving if matches!(self.response, Response::None | Response::Whole) => {
                self.upstream = Upstream::Open;
                self.on_upstream_fin(wire);
            }
            _ => self.fail(failure, wire),
        }
    }

    // --- time ---------------------------------------------------------------------------------

    /// One side is not read, since the other does not take what it has sent, or since nobody takes our events: that it is silent
    /// is not its doing.
    pub fn on_held_up(&mut self, now: Instant) {
        self.since = now;
    }

    /// We were away for so long: nobody was silent for longer than we could have heard.
    pub fn put_off(&mut self, by: Duration) {
        self.since = self.since + by;
        match &mut self.question {
            Some(
                HalfCloseProbe::Asked { check: at, .. }
                | HalfCloseProbe::Here { again: at }
                | HalfCloseProbe::Until(at),
            ) => {
                *at = *at + by;
            }
            None => {}
        }
    }

    /// It is late enough for [`Session::deadline`].
    pub fn on_time(&mut self, rules: &Rules, now: Instant, wire: &mut impl Wire) {
        if self.deadline(rules).is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.question {
            Some(HalfCloseProbe::Until(at)) if at <= now => {
                return self.gone(Cause::Closed, None, rules, now, wire);
            }
            Some(HalfCloseProbe::Here { again }) if again <= now => return self.probe(now, wire),
            Some(HalfCloseProbe::Asked { since, check, checks }) if check <= now => {
                if wire.client_has_acknowledged() {
                    // A kernel without this connection would have answered with a RST.
                    wire.count(ProbeOutcome::Here);
                    self.question = HALF_CLOSE_PROBES
                        .get(usize::from(self.probes - 1))
                        .map(|&after| HalfCloseProbe::Here { again: now + after });
                } else {
                    let checks = (checks + 1).min(PROBE_CHECKS.len() as u8 - 1);
                    let check = now + PROBE_CHECKS[usize::from(checks)];
                    self.question = Some(HalfCloseProbe::Asked { since, check, checks });
                }
                return;
            }
            _ => {}
        }
        match self.phase() {
            // Nothing was said: nothing is answered.
            Phase::Idle => self.leave(wire),
            // It was answered.
            Phase::Receiving if matches!(self.response, Response::Whole) => self.leave(wire),
            Phase::Receiving if self.awaits_continue() => self.fail(Failure::TimedOut, wire),
            Phase::Receiving => self.refuse(408, wire),
            Phase::Waiting => self.fail(Failure::TimedOut, wire),
            // An answer of ours would stand in the middle of the upstream's.
            Phase::Sending => {
                self.end_upstream(End::Abort, wire);
                self.abort_client(wire);
            }
            Phase::Tunnel => {}
        }
    }
}

/// Answers of ours. Short, and the last on their connection.
fn answer(status: u16) -> &'static [u8] {
    macro_rules! answer {
        ($line:literal, $length:literal, $text:literal) => {
            concat!(
                "HTTP/1.1 ",
                $line,
                "\r\nContent-Type: text/plain\r\nContent-Length: ",
                $length,
                "\r\nConnection: close\r\n\r\n",
                $text
            )
            .as_bytes()
        };
    }
    match status {
        400 => answer!("400 Bad Request", "18", "ambiguous request\n"),
        408 => answer!("408 Request Timeout", "17", "request too slow\n"),
        431 => answer!("431 Request Header Fields Too Large", "19", "head beyond 64 KiB\n"),
        502 => answer!("502 Bad Gateway", "16", "upstream failed\n"),
        503 => answer!("503 Service Unavailable", "9", "too busy\n"),
        _ => answer!("504 Gateway Timeout", "18", "upstream too slow\n"),
    }
}

#[cfg(test)]
mod tests;
