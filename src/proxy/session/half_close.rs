//! A client's FIN: the client may wait for its answer, or may have left.
//!
//! # Model
//!
//! A client that has left has no socket any more, so its kernel answers whatever is sent to it with a RST. The question
//! is therefore any byte that the protocol allows at this place:
//!
//! | the response | the question |
//! |---|---|
//! | has not begun | an interim response (RFC 9110 section 15.2) |
//! | is at the boundary of two chunks | a `0`, which is a leading zero of the next chunk's size (RFC 9112 section 7.1) |
//! | is anywhere else | none: its next bytes are the question |
//!
//! A tunnel has no question. There a FIN is passed on as a FIN, unless the rules say otherwise, and unless it ends a
//! WebSocket in which neither side has sent a closing frame: such a client is gone (RFC 6455 section 7.1.5).

use std::time::Duration;

use super::exchange::Response;
use super::{Client, Context, Effect, Exchange, Fin, HalfClose, Session, Side, Upstream, reply};
use crate::limits::{
    DELIVERY_CHECK, FIRST_QUESTION, HALF_CLOSE_PROBES, MAX_INTERIM, MAX_SIZE_DIGITS, PROBE_CHECKS,
};
use crate::liveness::Cause;
use crate::proxy::event::{Phase, ProbeOutcome};
use crate::time::Instant;

/// How long the client may get nothing of its response where it is to be asked but cannot be.
const CANNOT_PROBE: Duration = Duration::from_secs(1);

/// The search for an answer to the question whether a half-closed client is still there.
#[derive(Clone, Copy, Debug)]
pub(super) enum HalfCloseProbe {
    /// The next probe is sent at `at`. The last one was sent at `since`, and acknowledged; or bytes of the response were
    /// sent then. The first one has none before it.
    Due { since: Instant, at: Instant },
    /// A probe was sent at `since`. Its acknowledgement is looked for at `check`, after `checks` looks without one.
    Sent { since: Instant, check: Instant, checks: u8 },
    /// The client cannot be asked. It counts as gone at this time, unless bytes are passed on to it before.
    Until(Instant),
    /// The client is gone. Its upstream is ended when it has everything that the client had sent; that is looked for
    /// at this time.
    Gone(Instant),
}

impl HalfCloseProbe {
    /// When it is due.
    pub(super) fn due(&mut self) -> &mut Instant {
        match self {
            HalfCloseProbe::Sent { check: at, .. }
            | HalfCloseProbe::Due { at, .. }
            | HalfCloseProbe::Until(at)
            | HalfCloseProbe::Gone(at) => at,
        }
    }
}

impl Session {
    pub(super) fn client_fin(&mut self, cx: &mut Context<'_>) {
        if self.client != Client::Open {
            return;
        }
        self.client = Client::HalfClosed;
        match self.phase() {
            _ if self.is_satisfied() => self.leave(cx),
            Phase::Idle | Phase::Receiving => self.interrupt(Cause::Closed, None, cx),
            // The request can never become whole, and the upstream may wait for the rest of it.
            Phase::Sending if self.is_incomplete() => self.forward_fin(cx),
            Phase::Waiting | Phase::Sending | Phase::Tunnel => self.judge_fin(cx),
        }
    }

    pub(super) fn client_fin_ahead(&mut self, cx: &mut Context<'_>) {
        // A FIN that is forwarded goes behind the bytes that have not been read yet.
        let judged = cx.rules.half_close != HalfClose::Forward && self.client == Client::Open;
        let works = match self.phase() {
            Phase::Waiting => true,
            Phase::Sending => !self.is_incomplete(),
            Phase::Idle | Phase::Receiving | Phase::Tunnel => false,
        };
        if judged && works {
            self.judge_fin(cx);
        }
    }

    /// Begins to find out what a FIN means, once in an exchange.
    pub(super) fn judge_fin(&mut self, cx: &mut Context<'_>) {
        if self.tunnel {
            return self.judge_fin_in_tunnel(cx);
        }
        // It may have been seen before, behind bytes that had not been read.
        if self.probe.is_some() || self.probes > 0 {
            return;
        }
        match cx.rules.half_close {
            HalfClose::Gone => self.interrupt(Cause::Closed, None, cx),
            HalfClose::Wait(wait) => self.probe = Some(HalfCloseProbe::Until(cx.now + wait)),
            // The FIN goes behind the requests that wait here, and is forwarded when the last of them is.
            HalfClose::Forward if self.held.len() > self.followed => {}
            HalfClose::Forward => self.forward_fin(cx),
            HalfClose::Probe => match self.question() {
                None => self.probe = Some(HalfCloseProbe::Until(cx.now + CANNOT_PROBE)),
                // A handler that answers at once need not be asked for. A stream that is silent has begun long ago.
                Some(_) if self.phase() == Phase::Waiting => {
                    self.probe = Some(HalfCloseProbe::Due { since: cx.now, at: cx.now + FIRST_QUESTION });
                }
                Some(question) => self.ask(question, cx),
            },
        }
    }

    fn judge_fin_in_tunnel(&mut self, cx: &mut Context<'_>) {
        if self.probe.is_some() {
            return;
        }
        let broken_off = self.websocket.as_ref().is_some_and(|websocket| !websocket.is_closing());
        match cx.rules.half_close {
            HalfClose::Forward => self.forward_fin(cx),
            HalfClose::Wait(wait) if !broken_off => self.probe = Some(HalfCloseProbe::Until(cx.now + wait)),
            HalfClose::Probe if !broken_off => self.forward_fin(cx),
            HalfClose::Gone | HalfClose::Wait(_) | HalfClose::Probe => {
                self.probe = Some(HalfCloseProbe::Gone(cx.now));
                cx.push(Effect::CheckAcknowledged(Side::Upstream));
            }
        }
    }

    /// What may be sent now to ask the client, if anything may.
    fn question(&self) -> Option<&'static [u8]> {
        let exchange = self.exchange.as_ref().filter(|exchange| exchange.head.minor_version() >= 1)?;
        match (&self.response, self.phase()) {
            (_, Phase::Waiting) => {
                (exchange.interim.saturating_add(self.probes) < MAX_INTERIM).then_some(reply::PROBE)
            }
            (Response::Body(body), Phase::Sending) => {
                let digits = body.chunk_boundary()? + u32::from(self.zeros) + 1;
                (digits <= MAX_SIZE_DIGITS).then_some(reply::ZERO)
            }
            _ => None,
        }
    }

    fn ask(&mut self, question: &'static [u8], cx: &mut Context<'_>) {
        self.probes += 1;
        self.zeros += u8::from(question == reply::ZERO);
        cx.push(Effect::Probed(ProbeOutcome::Asked));
        cx.push(Effect::Reply(question));
        self.probe = Some(HalfCloseProbe::Sent { since: cx.now, check: cx.now + PROBE_CHECKS[0], checks: 0 });
    }

    /// Bytes of a response were passed on to a client whose FIN was seen: they are a question, too.
    pub(super) fn response_asks(&mut self, cx: &Context<'_>) {
        let Some(Exchange { answered_at: Some(_), .. }) = self.exchange.as_deref() else { return };
        let asks = cx.rules.half_close == HalfClose::Probe;
        self.probes = u8::from(asks);
        self.probe = asks.then(|| HalfCloseProbe::Due { since: cx.now, at: cx.now + HALF_CLOSE_PROBES[0] });
    }

    /// Sends the upstream a FIN, once.
    pub(super) fn forward_fin(&mut self, cx: &mut Context<'_>) {
        match self.upstream {
            Upstream::Open if self.fin == Fin::Sent => {}
            Upstream::Open => {
                self.fin = Fin::Sent;
                cx.push(Effect::ShutdownUpstream);
            }
            Upstream::Connecting => self.fin = Fin::Wanted,
            Upstream::HalfClosed => self.leave(cx),
            Upstream::None => {}
        }
    }

    /// The time of the probe has come.
    pub(super) fn probe_is_due(&mut self, cx: &mut Context<'_>) {
        match self.probe {
            Some(HalfCloseProbe::Due { .. }) => match self.question() {
                Some(question) => self.ask(question, cx),
                // The response has gone on since the last question; its next bytes are the next one.
                None => self.probe = None,
            },
            Some(HalfCloseProbe::Sent { .. } | HalfCloseProbe::Until(_)) => {
                let side = if self.tunnel { Side::Upstream } else { Side::Client };
                cx.push(Effect::CheckAcknowledged(side));
            }
            Some(HalfCloseProbe::Gone(_)) => cx.push(Effect::CheckAcknowledged(Side::Upstream)),
            None => {}
        }
    }

    pub(super) fn acknowledged(&mut self, acknowledged: bool, cx: &mut Context<'_>) {
        match &mut self.probe {
            &mut Some(HalfCloseProbe::Sent { since, .. }) if acknowledged => {
                // A kernel that no longer has this connection would have answered the probe with a RST.
                cx.push(Effect::Probed(ProbeOutcome::Here));
                let pause = HALF_CLOSE_PROBES.get(usize::from(self.probes - 1));
                self.probe = pause.map(|&pause| HalfCloseProbe::Due { since, at: cx.now + pause });
            }
            Some(HalfCloseProbe::Sent { check, checks, .. }) => {
                *checks = (*checks + 1).min(PROBE_CHECKS.len() as u8 - 1);
                *check = cx.now + PROBE_CHECKS[usize::from(*checks)];
            }
            // What the client has not acknowledged yet is a question that it has not answered; and what the upstream of
            // a tunnel has not, would be lost.
            Some(HalfCloseProbe::Until(at) | HalfCloseProbe::Gone(at)) if !acknowledged => {
                *at = cx.now + DELIVERY_CHECK;
            }
            Some(HalfCloseProbe::Until(_) | HalfCloseProbe::Gone(_)) => {
                self.interrupt(Cause::Closed, None, cx);
            }
            Some(HalfCloseProbe::Due { .. }) | None => {}
        }
    }
}
