//! The access log's line of an exchange or a tunnel: one each, at its end.

use super::exchange::LoggedFields;
use super::{Client, Context, Effect, Exchange, Session, Upstream};
use crate::http::RequestHead;
use crate::proxy::access::{By, Logged, LoggedRequest};
use crate::proxy::event::Failure;

fn request(head: &RequestHead, fields: &LoggedFields) -> LoggedRequest {
    LoggedRequest {
        method: head.method().into(),
        target: head.target().into(),
        minor: head.minor_version(),
        referer: fields.referer.clone(),
        user_agent: fields.user_agent.clone(),
    }
}

impl Session {
    /// Logs the end of what is under way, if it was not logged before. `answered`: the status of the proxy's own answer,
    /// and the length of its body.
    pub(super) fn log(
        &mut self,
        cause: &'static str,
        by: By,
        answered: Option<(u16, u64)>,
        cx: &mut Context<'_>,
    ) {
        let headless = !self.tunnel && self.exchange.is_none();
        if !cx.rules.log || !(std::mem::take(&mut self.unlogged) || headless) {
            return;
        }
        let exchange = if self.tunnel { &self.tunnel_request } else { &self.exchange };
        let exchange = exchange.as_deref();
        let began = exchange.map_or(self.accepted_at, |exchange| exchange.began);
        let heads = exchange.map_or(0, |exchange| exchange.response_heads);
        let (request_bytes, passed) = if self.tunnel {
            // What waits for an upstream that is not connected was not counted yet.
            let waits = if self.upstream == Upstream::Connecting { self.held.len() } else { 0 };
            (self.tunnelled.from_client + waits as u64, self.tunnelled.from_upstream)
        } else {
            let held = self.held.len() as u64;
            exchange.map_or((held, 0), |exchange| (exchange.request_bytes, exchange.response_bytes))
        };
        let body = answered.map_or(passed.saturating_sub(heads), |(_, body)| body);
        cx.push(Effect::Log(Box::new(Logged {
            at: cx.now,
            request: exchange.and_then(|exchange| Some(request(&exchange.head, exchange.fields.as_deref()?))),
            tunnel: self.tunnel,
            status: answered.map(|(status, _)| status).or(exchange.and_then(|exchange| exchange.status)),
            request_bytes,
            response_bytes: passed + answered.map_or(0, |(_, body)| body),
            body_bytes: body,
            elapsed: cx.now.since(began),
            first_byte: exchange.and_then(|exchange| exchange.answered_at).map(|at| at.since(began)),
            cause,
            by,
        })));
    }

    /// Logs the failure of the upstream.
    pub(super) fn log_failure(
        &mut self,
        failure: Failure,
        answered: Option<(u16, u64)>,
        cx: &mut Context<'_>,
    ) {
        let by = By::of_failure(failure, self.upstream != Upstream::None);
        self.log(failure.as_str(), by, answered, cx);
    }

    /// Logs a tunnel that has come to an orderly end.
    pub(super) fn log_tunnel(&mut self, cx: &mut Context<'_>) {
        if self.tunnel {
            let peer = self.client == Client::HalfClosed && self.upstream != Upstream::HalfClosed;
            self.log("closed", if peer { By::Peer } else { By::Server }, None, cx);
        }
    }

    /// Begins the line of a tunnel, of the request that has opened it if that has no line yet.
    pub(super) fn begin_tunnel_log(&mut self, exchange: Option<Box<Exchange>>, cx: &Context<'_>) {
        // The line of a client that is gone was written when it left.
        if cx.rules.log && self.client != Client::Gone {
            self.tunnel_request = exchange.filter(|_| self.unlogged);
            self.unlogged = true;
        }
    }
}
