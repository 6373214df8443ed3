//! The client's bytes: requests are followed, gathered or streamed, and what comes ahead is held.

use super::exchange::{LoggedFields, Request, Response};
use super::{Client, Context, Effect, End, Exchange, Session, Tunnelled, Upstream};
use crate::http::{Body, Forwarded, Framing, Head, Reason, RequestHead, rewrite};
use crate::liveness::Cause;
use crate::proxy::access::By;
use crate::proxy::event::{Phase, ProxyEvent, Refusal};
use crate::proxy::proxy_protocol::{Named, ProxyFault, ProxyHeader};

/// Room for the fields that the proxy adds to a head. They may be longer.
const OWN_FIELDS: usize = 128;

impl Session {
    pub(super) fn client_bytes(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        if self.client != Client::Open || bytes.is_empty() {
            return;
        }
        let mut rest = bytes;
        if self.held.is_empty() && self.upstream == Upstream::Open {
            // Bytes that only pass through are not copied.
            if self.tunnel {
                self.tunnelled.from_client += bytes.len() as u64;
                self.answer_owed = true;
                if let Some(websocket) = &mut self.websocket {
                    websocket.from_client.feed(bytes);
                }
                return cx.push(Effect::PassToUpstream(0..bytes.len()));
            }
            if let Request::Body { body, gathering: false } = &mut self.request {
                self.waits_since = cx.now;
                let fed = match body.feed(bytes) {
                    Ok(fed) => fed,
                    Err(reason) => {
                        // All of these bytes are passed on as they came, or none: the place of the fault does not
                        // matter.
                        self.held.extend_from_slice(bytes);
                        return self.not_followed(reason, cx);
                    }
                };
                cx.push(Effect::PassToUpstream(0..fed.taken));
                if let Some(exchange) = &mut self.exchange {
                    exchange.request_bytes += fed.taken as u64;
                }
                rest = &bytes[fed.taken..];
                if fed.over {
                    self.request_is_whole(cx);
                }
            }
        }
        if rest.is_empty() || self.client != Client::Open {
            return;
        }
        let begins = self.is_blank() && matches!(self.request, Request::Head(_)) && !self.tunnel;
        if begins || self.is_incomplete() {
            self.waits_since = cx.now;
        }
        if self.held.capacity() == 0 {
            self.held = cx.effects.spare.bytes();
        }
        self.held.extend_from_slice(rest);
        self.follow_held(cx);
    }

    /// Follows the held bytes as far as possible.
    pub(super) fn follow_held(&mut self, cx: &mut Context<'_>) {
        while self.client_listens() {
            if self.tunnel {
                self.followed = self.held.len();
                return self.release(cx);
            }
            match &mut self.request {
                Request::Header => match ProxyHeader::read(&self.held) {
                    ProxyHeader::Partial if self.held.is_empty() => return,
                    ProxyHeader::Partial if cx.budget.heads == 0 => {
                        return self.refuse_header(ProxyFault::RequestMemory, cx);
                    }
                    ProxyHeader::Partial => return self.interrupt_if_torn(cx),
                    ProxyHeader::Not(fault) => return self.refuse_header(fault, cx),
                    ProxyHeader::Whole { named, length } => self.begin_behind(named, length, cx),
                },
                Request::Head(_) if self.held.is_empty() => return,
                Request::Head(scan) => {
                    match RequestHead::read_into(&self.held, scan, || cx.effects.spare.line()) {
                        Head::Partial if self.is_blank() => return,
                        Head::Partial if cx.budget.heads == 0 => {
                            return self.refuse(Refusal::RequestMemory, cx);
                        }
                        Head::Partial => return self.interrupt_if_torn(cx),
                        Head::TooLarge => return self.refuse(Refusal::HeadTooLarge, cx),
                        Head::Not(reason) => self.not_followed(reason, cx),
                        Head::Whole { head, .. } if cx.rules.strict && !head.names_host() => {
                            self.not_followed(Reason::Host, cx);
                        }
                        Head::Whole { head, length } => self.begin_exchange(head, length, cx),
                    }
                }
                Request::Body { body, gathering } => match body.feed(&self.held[self.followed..]) {
                    Err(reason) => self.not_followed(reason, cx),
                    Ok(fed) => {
                        self.followed += fed.taken;
                        if let Some(exchange) = &mut self.exchange {
                            exchange.request_bytes += fed.taken as u64;
                        }
                        if *gathering && (self.followed > cx.rules.request_buffer || cx.budget.bodies == 0) {
                            *gathering = false;
                            self.response = Response::default();
                        }
                        if fed.over {
                            self.request_is_whole(cx);
                        } else {
                            if !matches!(self.request, Request::Body { gathering: true, .. }) {
                                self.release(cx);
                            }
                            return self.interrupt_if_torn(cx);
                        }
                    }
                },
                Request::Whole => return,
            }
        }
    }

    /// The PROXY header is whole, and what follows is the client's.
    fn begin_behind(&mut self, named: Option<Named>, length: usize, cx: &mut Context<'_>) {
        self.held.drain(..length);
        self.request = Request::default();
        self.waits_since = cx.now;
        if let Some(named) = named {
            cx.client = Some(named.client.ip());
            cx.push(Effect::Name(named));
        }
        if !cx.rules.http {
            self.tunnel = true;
            self.begin_tunnel_log(None, cx);
        }
    }

    /// Ends a connection that does not begin with a PROXY header.
    pub(super) fn refuse_header(&mut self, fault: ProxyFault, cx: &mut Context<'_>) {
        cx.report(ProxyEvent::HeaderRefused(fault));
        self.log("proxy_header", By::Us, None, cx);
        self.finish_client(End::Abort, cx);
    }

    /// Ends a request that is not whole if a FIN has come behind it.
    fn interrupt_if_torn(&mut self, cx: &mut Context<'_>) {
        if self.client == Client::HalfClosed {
            self.interrupt(Cause::Closed, None, cx);
        }
    }

    fn begin_exchange(&mut self, mut head: RequestHead, length: usize, cx: &mut Context<'_>) {
        if !cx.rules.log_query {
            head.forget_query();
        }
        self.unlogged = cx.rules.log;
        let fields =
            cx.rules.log.then(|| Box::new(LoggedFields::of(&self.held[..length], cx.rules.log_query)));
        let body = Body::new(head.framing());
        // A length that fits is held whole. Chunks stream: their end may be hours away.
        let most = cx.rules.request_buffer.saturating_sub(length).min(cx.budget.bodies) as u64;
        let fits = matches!(head.framing(), Framing::Length(bytes) if bytes <= most);
        let gathering = fits && !head.expects_continue() && cx.budget.bodies > 0;
        self.followed = length;
        if cx.rules.forwarded != Forwarded::Off {
            let mut sent = Vec::with_capacity(length + OWN_FIELDS);
            rewrite(&self.held[..length], cx.rules.forwarded, cx.client, &mut sent);
            self.followed = sent.len();
            self.held.splice(..length, sent);
        }
        (self.probes, self.zeros) = (0, 0);
        self.exchange = Some(cx.effects.spare.boxed(Exchange {
            head,
            began: cx.now,
            head_bytes: length as u64,
            request_bytes: length as u64,
            response_bytes: 0,
            response_heads: 0,
            fields,
            status: None,
            interim: 0,
            answered_at: None,
            persistent: true,
            copy: Vec::new(),
            sent: false,
        }));
        if body.is_over() {
            self.request_is_whole(cx);
        } else {
            self.request = Request::Body { body, gathering };
            if !gathering {
                self.response = Response::default();
                self.release(cx);
            }
        }
    }

    fn request_is_whole(&mut self, cx: &mut Context<'_>) {
        self.request = Request::Whole;
        self.waits_since = cx.now;
        self.release(cx);
        match self.response {
            Response::None => self.response = Response::default(),
            Response::Whole => return self.exchange_is_over(true, cx),
            _ => {}
        }
        if self.client == Client::HalfClosed && self.phase() == Phase::Waiting {
            self.judge_fin(cx);
        }
    }

    /// Lets the upstream have the followed bytes, now or when it is connected.
    pub(super) fn release(&mut self, cx: &mut Context<'_>) {
        match self.upstream {
            Upstream::None => self.connect(cx),
            Upstream::Connecting => {}
            Upstream::Open | Upstream::HalfClosed if self.followed > 0 => {
                if self.tunnel {
                    self.tunnelled.from_client += self.followed as u64;
                    self.answer_owed = true;
                    if let Some(websocket) = &mut self.websocket {
                        websocket.from_client.feed(&self.held[..self.followed]);
                    }
                }
                if let Some(exchange) = &mut self.exchange {
                    let first = !std::mem::replace(&mut exchange.sent, true);
                    let fits = self.followed <= cx.budget.bodies;
                    if first && fits && self.reused && matches!(self.request, Request::Whole) {
                        exchange.copy = cx.effects.spare.bytes();
                        exchange.copy.extend_from_slice(&self.held[..self.followed]);
                    }
                }
                let mut rest = Vec::new();
                if self.followed < self.held.len() {
                    rest = cx.effects.spare.bytes();
                    rest.extend_from_slice(&self.held[self.followed..]);
                    self.held.truncate(self.followed);
                }
                self.followed = 0;
                cx.push(Effect::SendToUpstream(std::mem::replace(&mut self.held, rest)));
            }
            Upstream::Open | Upstream::HalfClosed => {}
        }
    }

    /// Makes the connection a tunnel, whose bytes are relayed and say nothing; or refuses the client.
    pub(super) fn not_followed(&mut self, reason: Reason, cx: &mut Context<'_>) {
        // Another protocol begins with its first byte. Behind anything else, its first words would be a way to let
        // everything that follows pass unread.
        let other = reason.is_another_protocol() && self.answered == 0 && self.exchange.is_none();
        let refused = cx.rules.strict && !other || cx.rules.forwarded != Forwarded::Off;
        cx.report(ProxyEvent::NotFollowed { reason, refused });
        if !refused {
            self.ambiguous = !reason.is_another_protocol();
            self.answer_owed = self.exchange.is_some() || !self.held.is_empty();
            return self.become_tunnel(cx);
        }
        let begun = self.exchange.as_ref().is_some_and(|exchange| exchange.answered_at.is_some());
        let waits = self.exchange.is_some() || !self.held.is_empty();
        if begun || self.client == Client::Gone {
            self.log(Refusal::AmbiguousResponse.as_str(), By::Us, None, cx);
            self.end_upstream(End::Abort, cx);
            self.abort_client(cx);
        } else if waits {
            let by_upstream = matches!(self.response, Response::Body(_)) || !self.partial_head.is_empty();
            self.refuse(if by_upstream { Refusal::AmbiguousResponse } else { Refusal::AmbiguousRequest }, cx);
        } else {
            // The client would take an answer for the one to its next request.
            self.end_upstream(End::Abort, cx);
            self.finish_client(End::Close, cx);
        }
    }

    pub(super) fn become_tunnel(&mut self, cx: &mut Context<'_>) {
        self.tunnel = true;
        self.probe = None;
        let exchange = self.exchange.take();
        if let Some(exchange) = &exchange {
            // The followed bytes are counted when they are released.
            self.tunnelled = Tunnelled {
                from_client: exchange.request_bytes.saturating_sub(self.followed as u64),
                from_upstream: exchange.response_bytes,
            };
        }
        self.begin_tunnel_log(exchange, cx);
        self.followed = self.held.len();
        self.release(cx);
        match self.client {
            Client::HalfClosed => self.judge_fin(cx),
            // The upstream would wait for ever for bytes of a client that is gone.
            Client::Gone => self.forward_fin(cx),
            Client::Open | Client::Finished => {}
        }
        let head = std::mem::take(&mut self.partial_head);
        if self.tunnel_takes(&head, cx) {
            cx.push(Effect::SendToClient(head));
            self.answer_in_tunnel(cx);
        }
    }

    /// Whether the client waits for a word of the upstream before it sends its body.
    pub(super) fn awaits_continue(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| {
            let nothing_sent = exchange.response_bytes == 0 && exchange.request_bytes == exchange.head_bytes;
            exchange.head.expects_continue() && nothing_sent
        })
    }
}
