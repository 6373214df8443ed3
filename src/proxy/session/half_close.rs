//! A client's FIN: the client may wait for its answer, or may have left.

use std::time::Duration;

use super::{Client, Context, Effect, Fin, HalfClose, Session, Upstream, reply};
use crate::limits::{HALF_CLOSE_PROBES, PROBE_CHECKS};
use crate::liveness::Cause;
use crate::proxy::event::{Phase, ProbeOutcome};
use crate::time::Instant;

/// How long the response may take where the client is to be probed but cannot be.
const CANNOT_PROBE: Duration = Duration::from_secs(1);

/// The search for an answer to the question whether a half-closed client is still there.
#[derive(Clone, Copy, Debug)]
pub(super) enum HalfCloseProbe {
    /// A probe was sent at `since`. Its acknowledgement is looked for at `check`, after `checks` looks without one.
    Sent { since: Instant, check: Instant, checks: u8 },
    /// The client is there. The next probe is sent at `again`.
    Acknowledged { again: Instant },
    /// The client cannot be probed. It counts as gone at this time.
    Until(Instant),
}

impl HalfCloseProbe {
    /// When it is due.
    pub(super) fn due(&mut self) -> &mut Instant {
        match self {
            HalfCloseProbe::Sent { check: at, .. }
            | HalfCloseProbe::Acknowledged { again: at }
            | HalfCloseProbe::Until(at) => at,
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
            Phase::Waiting | Phase::Tunnel => self.judge_fin(cx),
            // The request can never become whole, and the upstream may wait for the rest of it.
            Phase::Sending if self.is_incomplete() => self.forward_fin(cx),
            Phase::Sending if cx.rules.half_close == HalfClose::Forward => self.judge_fin(cx),
            Phase::Sending => {}
        }
    }

    pub(super) fn client_fin_ahead(&mut self, cx: &mut Context<'_>) {
        // A FIN that is forwarded goes behind the bytes that have not been read yet.
        let judged = cx.rules.half_close != HalfClose::Forward;
        if judged && self.client == Client::Open && self.phase() == Phase::Waiting {
            self.judge_fin(cx);
        }
    }

    /// Begins to find out what a FIN means, once in an exchange.
    pub(super) fn judge_fin(&mut self, cx: &mut Context<'_>) {
        // It may have been seen before, behind bytes that had not been read.
        if self.probe.is_some() || (self.probes > 0 && !self.tunnel) {
            return;
        }
        match cx.rules.half_close {
            HalfClose::Gone => self.interrupt(Cause::Closed, None, cx),
            HalfClose::Wait(wait) => self.probe = Some(HalfCloseProbe::Until(cx.now + wait)),
            // The FIN goes behind the requests that wait here, and is forwarded when the last of them is.
            HalfClose::Forward if self.held.len() > self.followed => {}
            HalfClose::Forward => self.forward_fin(cx),
            HalfClose::Probe if self.knows_interim_responses() => self.send_probe(cx),
            HalfClose::Probe => self.probe = Some(HalfCloseProbe::Until(cx.now + CANNOT_PROBE)),
        }
    }

    fn knows_interim_responses(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.head.minor_version() >= 1)
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

    pub(super) fn send_probe(&mut self, cx: &mut Context<'_>) {
        self.probes += 1;
        cx.push(Effect::Probed(ProbeOutcome::Asked));
        cx.push(Effect::Reply(reply::PROBE));
        self.probe = Some(HalfCloseProbe::Sent { since: cx.now, check: cx.now + PROBE_CHECKS[0], checks: 0 });
    }

    pub(super) fn acknowledged(&mut self, acknowledged: bool, cx: &mut Context<'_>) {
        let Some(HalfCloseProbe::Sent { check, checks, .. }) = &mut self.probe else { return };
        if acknowledged {
            // A kernel that no longer has this connection would have answered the probe with a RST.
            cx.push(Effect::Probed(ProbeOutcome::Here));
            let pause = HALF_CLOSE_PROBES.get(usize::from(self.probes - 1));
            self.probe = pause.map(|&pause| HalfCloseProbe::Acknowledged { again: cx.now + pause });
        } else {
            *checks = (*checks + 1).min(PROBE_CHECKS.len() as u8 - 1);
            *check = cx.now + PROBE_CHECKS[usize::from(*checks)];
        }
    }
}
