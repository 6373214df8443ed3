//! The upstream's bytes: responses are followed and passed on.

use super::exchange::{Request, Response};
use super::{Client, Context, Effect, End, Fin, Session, Upstream};
use crate::http::{Body, Head, Reason, ResponseHead};
use crate::proxy::access::By;
use crate::proxy::event::{Failure, Phase, ProxyEvent};

impl Session {
    pub(super) fn upstream_bytes(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        let mut at = 0;
        while at < bytes.len() && !self.tunnel {
            let rest = &bytes[at..];
            match &mut self.response {
                Response::Head(scan) => {
                    let mut joined = std::mem::take(&mut self.partial_head);
                    let before = joined.len();
                    if before > 0 {
                        joined.extend_from_slice(rest);
                    }
                    match ResponseHead::read(if before > 0 { &joined } else { rest }, scan) {
                        Head::Partial => {
                            self.partial_head = if before > 0 { joined } else { rest.to_vec() };
                            return self.pass(0..at, cx);
                        }
                        Head::TooLarge => {
                            return self.unreadable(bytes, at, joined, Reason::ResponseHead, cx);
                        }
                        Head::Not(reason) => return self.unreadable(bytes, at, joined, reason, cx),
                        Head::Whole { head, length } => {
                            // What had come before goes first. The rest is passed on from these bytes.
                            if before > 0 {
                                joined.truncate(before);
                                self.send_held(joined, cx);
                            }
                            at += length - before;
                            self.take_head(head, length, cx);
                            if let Some(exchange) = &self.exchange
                                && head.is_switch(exchange.head.method())
                            {
                                let websocket = head.status() == 101 && exchange.head.upgrades_to_websocket();
                                self.websocket = websocket.then(Box::default);
                                self.pass(0..at, cx);
                                self.count_response(cx);
                                self.become_tunnel(cx);
                                return self.pass_in_tunnel(at, bytes, cx);
                            }
                        }
                    }
                }
                // The zeros of questions would become a size that these bytes have not.
                Response::Body(body)
                    if self.zeros > 0 && body.chunk_boundary().is_some() && !rest[0].is_ascii_hexdigit() =>
                {
                    self.pass(0..at, cx);
                    return self.upstream_failed(Failure::Closed, cx);
                }
                Response::Body(body) => match body.feed(rest) {
                    Ok(fed) => at += fed.taken,
                    Err(reason) => return self.unreadable(bytes, at, Vec::new(), reason, cx),
                },
                Response::None | Response::Whole => {
                    return self.unreadable(bytes, at, Vec::new(), Reason::Unsolicited, cx);
                }
            }
            if matches!(&self.response, Response::Body(body) if body.is_over()) {
                self.pass(0..at, cx);
                let stray = at < bytes.len();
                self.response_is_whole(stray, cx);
                if stray && !cx.rules.pool && self.client != Client::Finished {
                    // These bytes came with the end of the last response. The next request may be with the upstream
                    // already, but they cannot be its answer.
                    self.partial_head = bytes[at..].to_vec();
                    self.not_followed(Reason::Unsolicited, cx);
                }
                return;
            }
        }
        if self.tunnel { self.pass_in_tunnel(at, bytes, cx) } else { self.pass(0..at, cx) }
    }

    /// Bytes that cannot be followed, from `at` on. `joined`: the same bytes with those that came before, if any did.
    fn unreadable(&mut self, bytes: &[u8], at: usize, joined: Vec<u8>, reason: Reason, cx: &mut Context<'_>) {
        self.pass(0..at, cx);
        self.partial_head = if joined.is_empty() { bytes[at..].to_vec() } else { joined };
        self.not_followed(reason, cx);
    }

    fn pass_in_tunnel(&mut self, at: usize, bytes: &[u8], cx: &mut Context<'_>) {
        if self.tunnel_takes(&bytes[at..], cx) {
            cx.push(Effect::PassToClient(at..bytes.len()));
            self.answer_in_tunnel(cx);
        }
    }

    /// Counts bytes that a tunnel is to pass to the client, unless there are none, or no client.
    pub(super) fn tunnel_takes(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> bool {
        let takes = !bytes.is_empty() && self.client_listens();
        if takes {
            self.upstream_answers(cx);
            self.tunnelled.from_upstream += bytes.len() as u64;
            self.answer_owed = false;
            if let Some(websocket) = &mut self.websocket {
                websocket.from_upstream.feed(bytes);
            }
        }
        takes
    }

    /// The bytes that were sent now find out whether a half-closed client is there, so the upstream may have its FIN.
    pub(super) fn answer_in_tunnel(&mut self, cx: &mut Context<'_>) {
        if self.probe.take().is_some() {
            self.forward_fin(cx);
        }
    }

    /// Passes on a range of the bytes of a response.
    fn pass(&mut self, range: std::ops::Range<usize>, cx: &mut Context<'_>) {
        if self.count_passed(range.len(), cx) {
            cx.push(Effect::PassToClient(range));
        }
    }

    /// Passes on bytes of a response that were held.
    fn send_held(&mut self, bytes: Vec<u8>, cx: &mut Context<'_>) {
        if self.count_passed(bytes.len(), cx) {
            cx.push(Effect::SendToClient(bytes));
        }
    }

    /// Counts bytes of a response. Returns whether there are any, and a client to take them.
    fn count_passed(&mut self, bytes: usize, cx: &mut Context<'_>) -> bool {
        if bytes == 0 {
            return false;
        }
        self.zeros = 0;
        if let Some(exchange) = &mut self.exchange {
            if exchange.response_bytes == 0 {
                // A client that waited for a word of the upstream has it now, and its own time begins.
                self.waits_since = cx.now;
                cx.effects.spare.keep_bytes(std::mem::take(&mut exchange.copy));
            }
            exchange.response_bytes += bytes as u64;
            if exchange.status.is_some() && exchange.answered_at.is_none() {
                exchange.answered_at = Some(cx.now);
            }
        }
        if self.probe.is_some() || self.client == Client::HalfClosed {
            self.response_asks(cx);
        }
        self.client_listens()
    }

    /// Takes note, once for a connection, that its upstream answers.
    pub(super) fn upstream_answers(&mut self, cx: &mut Context<'_>) {
        if !std::mem::replace(&mut self.proven, true) {
            cx.push(Effect::JudgeUpstream(None));
        }
    }

    fn take_head(&mut self, head: ResponseHead, length: usize, cx: &mut Context<'_>) {
        self.response = Response::default();
        let Some(exchange) = &mut self.exchange else { return };
        exchange.response_heads += length as u64;
        if head.is_interim() {
            exchange.interim = exchange.interim.saturating_add(1);
            return;
        }
        exchange.status = Some(head.status());
        exchange.persistent = head.is_persistent();
        self.private |= head.binds_connection();
        self.response = Response::Body(Body::new(head.framing(exchange.head.method())));
        self.upstream_answers(cx);
    }

    fn count_response(&mut self, cx: &mut Context<'_>) {
        self.answered += 1;
        self.reused = true;
        if self.client != Client::Gone {
            cx.report(ProxyEvent::Completed);
        }
    }

    /// `stray`: more has come behind it, so its connection has to end if the client does not keep it.
    fn response_is_whole(&mut self, stray: bool, cx: &mut Context<'_>) {
        self.count_response(cx);
        self.log("completed", By::Server, None, cx);
        let persistent = self.exchange.as_ref().is_some_and(|exchange| exchange.persistent);
        match self.request {
            Request::Whole if persistent => self.exchange_is_over(!stray, cx),
            // An early answer: the rest of the request is passed on, if the client can still send it.
            Request::Body { .. } if persistent && self.client == Client::Open => {
                self.response = Response::Whole;
            }
            // The upstream takes nothing more on this connection.
            Request::Whole if cx.rules.pool => {
                self.release_upstream(false, cx);
                self.leave(cx);
            }
            _ => self.leave(cx),
        }
    }

    /// Request and response are whole, and another request may follow. `reusable`: also on the same connection.
    pub(super) fn exchange_is_over(&mut self, reusable: bool, cx: &mut Context<'_>) {
        // A server that was asked to close may not do so: the client waits for it, and takes nothing more.
        let last = self.exchange.take().is_some_and(|exchange| {
            let last = !exchange.head.is_persistent();
            cx.effects.spare.keep(exchange);
            last
        });
        self.probe = None;
        self.request = Request::default();
        self.response = Response::None;
        self.waits_since = cx.now;
        if cx.rules.pool && !self.private && self.fin == Fin::None {
            self.release_upstream(reusable && !last, cx);
        }
        match self.client {
            Client::Gone => self.leave(cx),
            _ if last => self.leave(cx),
            // What the client has sent ahead is for the next process.
            _ if self.draining => self.leave(cx),
            // The client has everything that it asked for.
            Client::HalfClosed if self.is_blank() => self.leave(cx),
            _ => self.follow_held(cx),
        }
    }

    fn release_upstream(&mut self, reusable: bool, cx: &mut Context<'_>) {
        self.forget_upstream();
        cx.push(Effect::ReleaseUpstream { reusable });
    }

    pub(super) fn connected(&mut self, reused: bool, cx: &mut Context<'_>) {
        if self.upstream != Upstream::Connecting {
            return;
        }
        self.upstream = Upstream::Open;
        self.reused = reused;
        self.release(cx);
        if self.fin == Fin::Wanted {
            self.forward_fin(cx);
        }
        if self.phase() == Phase::Waiting {
            self.waits_since = cx.now;
        }
    }

    pub(super) fn not_connected(&mut self, failure: Failure, cx: &mut Context<'_>) {
        if self.upstream == Upstream::Connecting {
            self.upstream = Upstream::None;
            self.upstream_failed(failure, cx);
        }
    }

    pub(super) fn upstream_fin(&mut self, cx: &mut Context<'_>) {
        if self.upstream != Upstream::Open {
            return;
        }
        match self.phase() {
            Phase::Tunnel => match self.client {
                // An HTTP server that closes has finished with its client.
                Client::Open if self.ambiguous => self.leave(cx),
                Client::Open => {
                    self.upstream = Upstream::HalfClosed;
                    cx.push(Effect::ShutdownClient);
                }
                Client::HalfClosed => self.leave(cx),
                Client::Gone | Client::Finished => self.end_upstream(End::Close, cx),
            },
            Phase::Sending => match &self.response {
                Response::Body(body) if body.ends_with_connection() => {
                    self.count_response(cx);
                    self.log("completed", By::Server, None, cx);
                    self.leave(cx);
                }
                _ => self.upstream_failed(Failure::Closed, cx),
            },
            // It was asked nothing. The next request is for another connection.
            Phase::Idle => self.end_upstream(End::Close, cx),
            Phase::Receiving if matches!(self.response, Response::None) => self.end_upstream(End::Close, cx),
            // The client has its response, and only the rest of its request is missing.
            Phase::Receiving if matches!(self.response, Response::Whole) => self.leave(cx),
            Phase::Receiving | Phase::Waiting => self.upstream_failed(Failure::Closed, cx),
        }
    }

    pub(super) fn upstream_gone(&mut self, failure: Failure, cx: &mut Context<'_>) {
        if self.upstream == Upstream::None {
            return;
        }
        match self.phase() {
            Phase::Idle => self.end_upstream(End::Close, cx),
            Phase::Receiving if matches!(self.response, Response::None) => self.end_upstream(End::Close, cx),
            Phase::Receiving if matches!(self.response, Response::Whole) => self.leave(cx),
            // It had sent everything. Only what the client still sends is lost, and the client is to know.
            Phase::Tunnel if self.upstream == Upstream::HalfClosed => {
                self.log_failure(failure, None, cx);
                self.end_upstream(End::Close, cx);
                self.finish_client(End::Abort, cx);
            }
            _ => self.upstream_failed(failure, cx),
        }
    }
}
