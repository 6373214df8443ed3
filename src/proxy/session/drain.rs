//! The end of the proxy: first a drain, in which exchanges come to their end, then a cut.

use super::exchange::Response;
use super::{Client, Context, Effect, End, OnGone, Session, Upstream};
use crate::limits::{FIRST_BYTE, LINGER};
use crate::liveness::{Cause, LocalCause};
use crate::proxy::event::{Phase, UpstreamAction};

impl Session {
    /// Nothing new begins: an idle client is closed now, any other after its response. A tunnel goes on.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) {
        self.draining = true;
        if self.phase() != Phase::Idle || !self.client_listens() {
            return;
        }
        let idle = cx.now.since(self.waits_since);
        if self.answered == 0 && idle < FIRST_BYTE {
            return; // its request may be on its way, and it could not know whether it may be repeated
        }
        if self.answered > 0 && idle < LINGER {
            return self.leave(cx); // its last response may be on its way
        }
        self.end_upstream(End::Close, cx);
        self.client = Client::Finished;
        cx.push(Effect::EndClient(End::Close));
    }

    /// Ends both sides, whatever they do. An exchange that this cuts off is an interruption.
    pub(super) fn cut(&mut self, cx: &mut Context<'_>) {
        match self.client {
            Client::Finished => {}
            Client::Gone => {
                // Its interruption was reported, and its upstream has worked on.
                self.end_upstream(End::Close, cx);
                self.client = Client::Finished;
            }
            Client::Open | Client::HalfClosed if self.is_satisfied() && !self.tunnel => {
                self.end_upstream(End::Close, cx);
                self.client = Client::Finished;
                cx.push(Effect::EndClient(End::Close));
            }
            Client::Open | Client::HalfClosed => self.cut_exchange(cx),
        }
    }

    fn cut_exchange(&mut self, cx: &mut Context<'_>) {
        // A side that has sent its FIN waits for the rest of what the other one sends, and is not to take its end for an
        // orderly one.
        let both_open = self.client == Client::Open && self.upstream == Upstream::Open;
        let (upstream, client) = match &self.response {
            _ if self.tunnel && both_open && !self.ambiguous => (End::Close, End::Close),
            _ if self.tunnel => {
                let begun = self.tunnelled.from_upstream > 0 && self.upstream != Upstream::HalfClosed;
                (End::Abort, if begun { End::Abort } else { End::Close })
            }
            Response::Body(body) if !body.shows_its_truncation(self.zeros > 0) => (End::Abort, End::Abort),
            _ => (End::Abort, End::Close),
        };
        let action = match (self.upstream_works(), upstream, cx.rules.on_gone) {
            (false, ..) => UpstreamAction::Nothing,
            (true, End::Abort, OnGone::Reset) => UpstreamAction::Reset,
            // An upstream that is to work to its end cannot, because the proxy that takes its response ends.
            (true, ..) => UpstreamAction::Close,
        };
        self.probe = None;
        self.tell_interrupted(Cause::Local(LocalCause::Shutdown), None, action, cx);
        let upstream = if action == UpstreamAction::Reset { End::Abort } else { End::Close };
        self.end_upstream(upstream, cx);
        self.client = Client::Finished;
        cx.push(Effect::EndClient(client));
    }
}
