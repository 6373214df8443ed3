//! What time does to a session.

use std::time::Duration;

use super::exchange::{Request, Response};
use super::half_close::HalfCloseProbe;
use super::{Client, Context, Rules, Session};
use crate::limits::FIRST_BYTE;
use crate::proxy::event::{Failure, Phase, Refusal};
use crate::proxy::proxy_protocol::ProxyFault;
use crate::time::Instant;

impl Session {
    /// When [`SessionFact::Time`](super::SessionFact::Time) has something to do, if ever.
    #[must_use]
    pub fn deadline(&self, rules: &Rules) -> Option<Instant> {
        if self.client == Client::Finished {
            return None;
        }
        let probe = self.probe.map(|mut probe| *probe.due());
        let patience = match self.phase() {
            Phase::Idle if self.answered == 0 && self.draining => Some(rules.head_timeout.min(FIRST_BYTE)),
            Phase::Idle if self.answered == 0 => Some(rules.head_timeout),
            Phase::Receiving if self.exchange.is_none() => Some(rules.head_timeout),
            // The client waits for a word of the upstream: the silence is the upstream's.
            Phase::Receiving if self.awaits_continue() => rules.response_timeout,
            Phase::Receiving => Some(rules.body_timeout),
            Phase::Waiting => rules.response_timeout,
            Phase::Idle => Some(rules.keepalive_timeout),
            // A body that stops is no reason to end a response that goes on.
            Phase::Sending | Phase::Tunnel => None,
        };
        match (probe, patience.map(|patience| self.waits_since + patience)) {
            (Some(probe), Some(wait)) => Some(probe.min(wait)),
            (probe, wait) => probe.or(wait),
        }
    }

    /// Starts the present wait again, because one side is not being read: the other side does not take what it sent, or
    /// events cannot be written. That it is silent is not its fault.
    pub fn hold_up(&mut self, now: Instant) {
        self.waits_since = now;
    }

    /// Puts off all deadlines, because the proxy itself was away for so long and could not have heard anything.
    pub fn put_off(&mut self, by: Duration) {
        self.waits_since = self.waits_since + by;
        if let Some(due) = self.probe.as_mut().map(HalfCloseProbe::due) {
            *due = *due + by;
        }
    }

    pub(super) fn time(&mut self, cx: &mut Context<'_>) {
        if self.deadline(cx.rules).is_none_or(|deadline| cx.now < deadline) {
            return;
        }
        if self.probe.as_mut().is_some_and(|probe| *probe.due() <= cx.now) {
            return self.probe_is_due(cx);
        }
        match self.phase() {
            // The client has said nothing, or nothing more, so there is nothing to answer.
            Phase::Idle => self.leave(cx),
            // The client has its answer, and only the rest of its request is missing.
            Phase::Receiving if matches!(self.response, Response::Whole) => self.leave(cx),
            Phase::Receiving if self.awaits_continue() => self.upstream_failed(Failure::TimedOut, cx),
            Phase::Receiving if matches!(self.request, Request::Header) => {
                self.refuse_header(ProxyFault::Timeout, cx);
            }
            Phase::Receiving if self.exchange.is_none() => self.refuse(Refusal::HeadTimeout, cx),
            Phase::Receiving => self.refuse(Refusal::BodyTimeout, cx),
            Phase::Waiting => self.upstream_failed(Failure::TimedOut, cx),
            Phase::Sending | Phase::Tunnel => {}
        }
    }
}
