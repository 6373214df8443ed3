//! Facts and effects: the values that go into a session and come out of it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;

use super::exchange::Spare;
use super::rules::Rules;
use crate::liveness::Cause;
use crate::proxy::access::Logged;
use crate::proxy::event::{Failure, ProbeOutcome, ProxyEvent};
use crate::proxy::proxy_protocol::Named;
use crate::time::Instant;

/// Something that happened to one of the two connections.
#[derive(Clone, Copy, Debug)]
pub enum SessionFact<'a> {
    /// Bytes that the client has sent.
    ClientBytes(&'a [u8]),
    /// The client's FIN. Everything that it had sent before was handed over.
    ClientFin,
    /// The client's FIN was seen behind bytes that have not been read yet.
    ClientFinAhead,
    /// The client's connection has ended, for this cause.
    ClientGone(Cause),
    /// The upstream is connected. `reused`: by a connection that has carried exchanges before.
    Connected {
        /// See above.
        reused: bool,
    },
    /// No upstream could be connected to.
    NotConnected(Failure),
    /// Bytes that the upstream has sent.
    UpstreamBytes(&'a [u8]),
    /// The upstream's FIN. Everything that it had sent before was handed over.
    UpstreamFin,
    /// The upstream's connection has ended.
    UpstreamGone(Failure),
    /// The answer to [`Effect::CheckReceived`]: whether the upstream may have received some of the request.
    Received(bool, Failure),
    /// The answer to [`Effect::CheckAcknowledged`]: whether that side's kernel has acknowledged everything that was sent
    /// to it.
    Acknowledged(bool),
    /// Time has passed; [`Session::deadline`](super::Session::deadline) may be reached.
    Time,
    /// The proxy is to end: what is under way may come to its end, and nothing new begins.
    Drain,
    /// The proxy ends now.
    Cut,
}

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is closed: with a FIN, unless one was sent before.
    Close,
    /// It is aborted with a RST, so that the other side does not take this for an orderly end.
    Abort,
}

/// Whether a request may go to the upstream on a connection that is open already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It may.
    Idle,
    /// It may if that was used a moment ago.
    Young,
    /// It needs a new connection.
    New,
    /// It needs a new connection, because it is sent again.
    Repeat,
}

/// One of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Client,
    /// The upstream's.
    Upstream,
}

/// Something that the caller is to do, in the order in which the effects come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send the client this range of the bytes that the present fact has brought.
    PassToClient(Range<usize>),
    /// Send the upstream this range of the bytes that the present fact has brought.
    PassToUpstream(Range<usize>),
    /// Send the client bytes of the upstream that were held.
    SendToClient(Vec<u8>),
    /// Send the upstream bytes of the client that were held.
    SendToUpstream(Vec<u8>),
    /// Send the client a message of the proxy's own: the half-close probe, or the answer to a request that failed.
    Reply(&'static [u8]),
    /// Choose an upstream and connect to it.
    Connect(Reuse),
    /// Send the client a FIN behind everything that waits.
    ShutdownClient,
    /// Send the upstream a FIN behind everything that waits.
    ShutdownUpstream,
    /// End the client's connection behind everything that waits for it. `Close`: with a FIN, and it is closed after the
    /// client's own FIN, or soon. `Abort`: with a RST, once its kernel has acknowledged everything.
    FinishClient(End),
    /// End the client's connection now.
    EndClient(End),
    /// End the upstream's connection now, in whatever state it is.
    EndUpstream(End),
    /// Give the upstream's connection back, because an exchange is over. `reusable`: another one may have it. Otherwise
    /// the upstream closes it.
    ReleaseUpstream {
        /// See above.
        reusable: bool,
    },
    /// Look whether the upstream, which has failed in this way, may have received some of the request, and answer with
    /// [`SessionFact::Received`].
    CheckReceived {
        /// The length of the request, which was the last that was sent.
        bytes: usize,
        /// See above.
        failure: Failure,
    },
    /// Look whether that side's kernel has acknowledged everything that was sent to it, and answer with
    /// [`SessionFact::Acknowledged`].
    CheckAcknowledged(Side),
    /// Take note that the upstream answers, or that it has failed in this way before any answer.
    JudgeUpstream(Option<Failure>),
    /// Count a half-close probe, or what came of it.
    Probed(ProbeOutcome),
    /// Report an event.
    Report(ProxyEvent),
    /// Take this for the address of the client from now on.
    Name(Named),
    /// Log an exchange that is over.
    Log(Box<Logged>),
}

/// Effects that wait to be carried out. One queue serves all sessions of a thread, because it is drained after every
/// fact: an idle session keeps no memory for it.
#[derive(Debug, Default)]
pub struct Effects {
    /// The first. Most facts have one effect.
    first: Option<Effect>,
    /// The others; empty if there is no first.
    others: VecDeque<Effect>,
    pub(super) spare: Spare,
}

impl Effects {
    /// The next effect to carry out.
    #[inline]
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.first.take();
        if !self.others.is_empty() {
            self.first = self.others.pop_front();
        }
        effect
    }

    /// Gives the memory of an effect back that was carried out.
    pub fn keep(&mut self, held: Vec<u8>) {
        self.spare.keep_bytes(held);
    }

    /// Whether all effects were carried out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

/// Bytes of requests that may still be held in memory. Where no byte is left, nothing more is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldBudget {
    /// For heads, which can be passed on only when they are whole. Without room they are refused.
    pub heads: usize,
    /// For bodies. Without room they are passed on as they come.
    pub bodies: usize,
}

/// What a session decides by, and the queue that takes its decisions.
#[derive(Debug)]
pub struct Context<'a> {
    /// The proxy's rules.
    pub rules: &'a Rules,
    /// The time of the fact.
    pub now: Instant,
    /// The IP address of the client, if it has one.
    pub client: Option<IpAddr>,
    /// Bytes that may still be held.
    pub budget: HoldBudget,
    /// Receives the decisions.
    pub effects: &'a mut Effects,
}

impl Context<'_> {
    #[inline]
    pub(super) fn push(&mut self, effect: Effect) {
        let Effects { first, others, .. } = &mut *self.effects;
        if first.is_none() {
            *first = Some(effect);
        } else {
            others.push_back(effect);
        }
    }

    pub(super) fn report(&mut self, event: ProxyEvent) {
        self.push(Effect::Report(event));
    }
}
