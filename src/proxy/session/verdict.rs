//! How a session ends: the client has left, the upstream has failed, or nothing is left to do.

use super::exchange::Response;
use super::half_close::HalfCloseProbe;
use super::{Client, Context, Effect, End, Fin, OnGone, Reuse, Session, Upstream, reply};
use crate::liveness::Cause;
use crate::proxy::access::By;
use crate::proxy::event::{
    Answered, Asked, Failure, Interrupted, Phase, ProbeOutcome, ProxyEvent, Refusal, UpstreamAction,
    UpstreamFailed,
};

impl Session {
    pub(super) fn client_gone(&mut self, cause: Cause, cx: &mut Context<'_>) {
        let asked = match self.probe {
            Some(HalfCloseProbe::Sent { since, .. }) => Some((since, false)),
            Some(HalfCloseProbe::Due { since, .. }) if self.probes > 0 => Some((since, true)),
            _ => None,
        };
        let asked = asked.map(|(since, acknowledged)| Asked { ago: cx.now.since(since), acknowledged });
        if self.client == Client::Gone {
            return;
        }
        let closing = self.websocket.as_ref().is_some_and(|websocket| websocket.is_closing());
        if self.client_listens() && !self.is_satisfied() && !closing {
            return self.interrupt(cause, asked, cx);
        }
        if self.tunnel {
            self.log(word(cause), By::of_cause(cause), None, cx);
        }
        self.end_upstream(End::Close, cx);
        self.client = Client::Finished;
        cx.push(Effect::EndClient(End::Close));
    }

    /// The verdict that the client has left in the middle. `asked`: the last probe, if its end came behind one.
    pub(super) fn interrupt(&mut self, cause: Cause, asked: Option<Asked>, cx: &mut Context<'_>) {
        let phase = self.phase();
        self.probe = None;
        if asked.is_some_and(|asked| !asked.acknowledged) && cause == Cause::Aborted {
            cx.push(Effect::Probed(ProbeOutcome::Gone));
        }
        let action = match cx.rules.on_gone {
            _ if !self.upstream_works() => UpstreamAction::Nothing,
            OnGone::Reset => UpstreamAction::Reset,
            OnGone::Close => UpstreamAction::Close,
            OnGone::Ignore => UpstreamAction::Ignored,
        };
        self.tell_interrupted(cause, asked, action, cx);
        match action {
            UpstreamAction::Nothing | UpstreamAction::Close => self.end_upstream(End::Close, cx),
            UpstreamAction::Reset => self.end_upstream(End::Abort, cx),
            UpstreamAction::Ignored => {
                if self.tunnel || self.is_incomplete() {
                    // The upstream would wait for the rest for ever.
                    self.forward_fin(cx);
                }
                self.client = Client::Gone;
                self.held = Vec::new();
                self.followed = 0;
                return cx.push(Effect::EndClient(End::Close));
            }
        }
        self.client = Client::Finished;
        // A client that is there after all must not take a part of a response for the whole.
        let begun = phase == Phase::Sending || self.tunnelled.from_upstream > 0;
        let how = if begun && cause != Cause::Aborted { End::Abort } else { End::Close };
        cx.push(Effect::EndClient(how));
    }

    /// Whether the upstream knows of what the client wants. It does not while a request is gathered, or waits for the
    /// connection.
    pub(super) fn upstream_works(&self) -> bool {
        let connected = matches!(self.upstream, Upstream::Open | Upstream::HalfClosed);
        connected && (self.tunnel || !matches!(self.response, Response::None))
    }

    pub(super) fn tell_interrupted(
        &mut self,
        cause: Cause,
        asked: Option<Asked>,
        action: UpstreamAction,
        cx: &mut Context<'_>,
    ) {
        self.log(word(cause), By::of_cause(cause), None, cx);
        // Where the ends of messages are unknown, a client that got the last word has probably got its answer.
        if self.ambiguous && !self.answer_owed {
            return;
        }
        let exchange = self.exchange.as_deref();
        let unread = self.tunnelled.from_client + self.held.len() as u64;
        cx.report(ProxyEvent::Interrupted(Box::new(Interrupted {
            phase: self.phase(),
            method: exchange.map(|exchange| exchange.head.method().into()),
            target: exchange.map(|exchange| exchange.head.target().into()),
            status: exchange.and_then(|exchange| exchange.status),
            request_bytes: exchange.map_or(unread, |exchange| exchange.request_bytes),
            response_bytes: self.response_bytes(),
            elapsed: cx.now.since(exchange.map_or(self.accepted_at, |exchange| exchange.began)),
            after: exchange.and_then(|exchange| exchange.answered_at).map(|at| cx.now.since(at)),
            cause,
            asked,
            action,
            saved: matches!(action, UpstreamAction::Reset | UpstreamAction::Close),
        })));
    }

    /// The upstream has failed before the response was whole.
    ///
    /// An upstream may close a connection that was idle at the moment in which it gets a request. The request is then sent
    /// again, on a new connection: one that may be sent twice (RFC 9110 section 9.2.2) at once, and any other if the
    /// upstream had sent its FIN before it received any of it.
    pub(super) fn upstream_failed(&mut self, failure: Failure, cx: &mut Context<'_>) {
        let unanswered = self.client_listens() && self.partial_head.is_empty();
        match &self.exchange {
            Some(exchange) if unanswered && !exchange.copy.is_empty() && is_stale(failure) => {
                if exchange.head.is_idempotent() {
                    self.repeat(cx);
                } else {
                    cx.push(Effect::CheckReceived { bytes: exchange.copy.len(), failure });
                }
            }
            _ => self.tell_upstream_failed(failure, cx),
        }
    }

    pub(super) fn received(&mut self, received: bool, failure: Failure, cx: &mut Context<'_>) {
        if received { self.tell_upstream_failed(failure, cx) } else { self.repeat(cx) }
    }

    /// Sends the request again, on a new connection.
    fn repeat(&mut self, cx: &mut Context<'_>) {
        let Some(exchange) = &mut self.exchange else { return };
        let mut held = std::mem::take(&mut exchange.copy);
        self.followed = held.len();
        held.append(&mut self.held);
        self.held = held;
        self.end_upstream(End::Close, cx);
        self.upstream = Upstream::Connecting;
        cx.push(Effect::Connect(Reuse::Repeat));
    }

    fn tell_upstream_failed(&mut self, failure: Failure, cx: &mut Context<'_>) {
        let exchange = self.exchange.as_deref();
        let begun =
            exchange.map_or(self.tunnelled.from_upstream > 0, |exchange| exchange.answered_at.is_some());
        // A client whose own connection is a reused one can try again: it knows servers that close an idle connection. An
        // answer would keep it from that. An upstream that had begun to answer has read the request.
        let silent =
            exchange.is_some_and(|exchange| exchange.response_bytes == 0) && self.partial_head.is_empty();
        let stale = silent && self.reused && self.answered > 0 && is_stale(failure);
        let answers = !self.tunnel && !begun && !stale && self.client != Client::Gone;
        let status = match failure {
            Failure::TimedOut => 504,
            Failure::Full => 503,
            _ => 502,
        };
        // An upstream that was told by a FIN that its client is gone may give up.
        if self.client != Client::Gone || self.fin != Fin::Sent {
            cx.report(ProxyEvent::UpstreamFailed(Box::new(UpstreamFailed {
                failure: if begun { Failure::Truncated } else { failure },
                phase: self.phase(),
                method: exchange.map(|exchange| exchange.head.method().into()),
                target: exchange.map(|exchange| exchange.head.target().into()),
                status: exchange.and_then(|exchange| exchange.status),
                response_bytes: self.response_bytes(),
                answered: answers.then_some(status),
            })));
        }
        let length = |status| reply::body_length(status, self.is_head());
        let answered = answers.then(|| (status, length(status)));
        self.log_failure(if begun { Failure::Truncated } else { failure }, answered, cx);
        if !self.proven && !self.reused && is_stale(failure) {
            cx.push(Effect::JudgeUpstream(Some(failure)));
        }
        self.probe = None;
        if answers {
            return self.answer(status, cx);
        }
        self.end_upstream(End::Close, cx);
        // First what came, and then its truncation. A length and chunks show it by themselves, unless a question has
        // begun a size of zero.
        let shown = match &self.response {
            Response::Body(body) => body.shows_its_truncation(self.zeros > 0),
            _ => !begun,
        };
        self.finish_client(if shown && !self.tunnel { End::Close } else { End::Abort }, cx);
    }

    fn response_bytes(&self) -> u64 {
        self.exchange.as_ref().map_or(self.tunnelled.from_upstream, |exchange| exchange.response_bytes)
    }

    /// An orderly end.
    pub(super) fn leave(&mut self, cx: &mut Context<'_>) {
        if self.tunnel && matches!(self.upstream, Upstream::Open | Upstream::HalfClosed) {
            self.upstream_answers(cx); // it had nothing to say, and ended in order
        }
        self.log_tunnel(cx);
        self.end_upstream(End::Close, cx);
        self.finish_client(End::Close, cx);
    }

    /// Answers a client whose request has no other answer, and reports it.
    pub(super) fn refuse(&mut self, refusal: Refusal, cx: &mut Context<'_>) {
        if self.client != Client::Gone {
            let exchange = self.exchange.as_deref();
            cx.report(ProxyEvent::Answered(Box::new(Answered {
                refusal,
                phase: self.phase(),
                method: exchange.map(|exchange| exchange.head.method().into()),
                target: exchange.map(|exchange| exchange.head.target().into()),
                request_bytes: exchange.map_or(self.held.len() as u64, |exchange| exchange.request_bytes),
            })));
        }
        let status = refusal.status();
        self.log(refusal.as_str(), By::Us, Some((status, reply::body_length(status, self.is_head()))), cx);
        self.answer(status, cx);
    }

    /// Whether the client wants a head alone.
    fn is_head(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.head.method() == "HEAD")
    }

    /// Answers the client with this status, and ends its connection.
    fn answer(&mut self, status: u16, cx: &mut Context<'_>) {
        self.end_upstream(End::Abort, cx);
        if self.client == Client::Gone {
            self.client = Client::Finished;
            return;
        }
        cx.push(Effect::Reply(reply::answer(status, self.is_head())));
        self.finish_client(End::Close, cx);
    }

    pub(super) fn end_upstream(&mut self, how: End, cx: &mut Context<'_>) {
        if self.upstream != Upstream::None {
            self.forget_upstream();
            cx.push(Effect::EndUpstream(how));
        }
    }

    pub(super) fn forget_upstream(&mut self) {
        self.upstream = Upstream::None;
        (self.reused, self.proven, self.private) = (false, false, false);
    }

    /// Ends the client's connection behind everything that was passed on to it.
    pub(super) fn finish_client(&mut self, how: End, cx: &mut Context<'_>) {
        let gone = self.client == Client::Gone;
        self.client = Client::Finished;
        self.probe = None;
        self.exchange = None;
        self.held = Vec::new();
        self.partial_head = Vec::new();
        self.followed = 0;
        if !gone {
            cx.push(Effect::FinishClient(how));
        }
    }

    pub(super) fn abort_client(&mut self, cx: &mut Context<'_>) {
        if self.client != Client::Gone {
            cx.push(Effect::EndClient(End::Abort));
        }
        self.client = Client::Finished;
    }
}

/// The word for a cause where there is only one.
fn word(cause: Cause) -> &'static str {
    match cause {
        Cause::Local(_) => cause.detail().unwrap_or("local"),
        _ => cause.as_str(),
    }
}

/// Whether an upstream fails in this way when it has closed an idle connection.
fn is_stale(failure: Failure) -> bool {
    matches!(failure, Failure::Closed | Failure::Reset)
}
