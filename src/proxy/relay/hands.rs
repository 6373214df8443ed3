//! What a session's decisions do to sockets.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use socket2::SockRef;

use super::counts::Counts;
use super::{MASK, failure, kind};
use crate::limits;
use crate::liveness::{Policy, Stalls, TcpState};
use crate::proxy::event::{Failure, Parties, ProxyEvent};
use crate::proxy::line::{Line, Shown};
use crate::proxy::session::{Context, Effect, Effects, End, HoldBudget, Rules, Session, SessionFact};
use crate::proxy::upstreams::Upstreams;
use crate::sys::engine::{Engine, Token};
use crate::sys::tcp;
use crate::time::Instant;

/// Probes of a closed window in a row without an answer that are no accident any more.
const UNANSWERED_PROBES: u8 = 3;

/// One side of a connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    pub(super) generation: u32,
    /// Bytes that the kernel did not take yet.
    outbox: Vec<u8>,
    sent: usize,
    fin_wanted: bool,
    pub(super) fin_sent: bool,
    /// It may have bytes that were not read.
    pub(super) readable: bool,
    /// Its poll has shown an end: reads go on until they meet it.
    pub(super) end_seen: bool,
    /// What was read last did not fill the room.
    pub(super) doubtful: bool,
    /// The end was read.
    pub(super) eof: bool,
    /// What a call or a poll said of it, and the session has not heard.
    pub(super) failed: Option<i32>,
    /// It takes nothing any more, a write said. What it had sent before may still be there: a server that refuses a
    /// long body answers and closes, and its answer would be lost with the rest.
    pub(super) broken: Option<i32>,
    /// What its poll and its errors said last.
    pub(super) shown: Shown,
}

impl Socket {
    fn new(fd: OwnedFd, generation: u32) -> Socket {
        Socket {
            fd,
            generation,
            outbox: Vec::new(),
            sent: 0,
            fin_wanted: false,
            fin_sent: false,
            readable: false,
            end_seen: false,
            doubtful: false,
            eof: false,
            failed: None,
            broken: None,
            shown: Shown::default(),
        }
    }

    /// Whether the kernel has all of it.
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    fn is_over(&self) -> bool {
        self.failed.is_some() || self.broken.is_some()
    }

    /// How many bytes it has not acknowledged, those that the kernel does not have included.
    pub(super) fn left(&self) -> usize {
        (self.outbox.len() - self.sent) + tcp::unsent(self.fd.as_fd()).unwrap_or(0) as usize
    }

    /// Sends behind what waits.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.is_over() || self.fin_sent || self.fin_wanted {
            return;
        }
        let written = if self.outbox.is_empty() { self.write(bytes) } else { 0 };
        if written < bytes.len() && !self.is_over() {
            self.outbox.extend_from_slice(&bytes[written..]);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match tcp::Now(self.fd.as_fd()).write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.broken = Some(error.raw_os_error().unwrap_or(libc::EIO));
                    (self.readable, self.end_seen) = (true, true);
                    self.outbox = Vec::new();
                    self.sent = 0;
                    break;
                }
            }
        }
        written
    }

    /// There may be room for what waits.
    pub(super) fn flush(&mut self) {
        if !self.outbox.is_empty() {
            let outbox = std::mem::take(&mut self.outbox);
            self.sent += self.write(&outbox[self.sent..]);
            if self.sent < outbox.len() && !self.is_over() {
                self.outbox = outbox;
                return;
            }
            self.sent = 0;
        }
        if self.fin_wanted && !self.fin_sent && !self.is_over() {
            self.fin_sent = true;
            // Who is not connected any more needs none.
            let _ = SockRef::from(&self.fd).shutdown(std::net::Shutdown::Write);
        }
    }

    pub(super) fn fin(&mut self) {
        self.fin_wanted = true;
        self.flush();
    }

    /// Whether something sent was not acknowledged.
    pub(super) fn has_unacknowledged(&self) -> bool {
        tcp::info(self.fd.as_fd()).is_ok_and(|info| info.unacked > 0)
    }

    /// Whether nothing was heard from it for so long, our own stalls not counted, although something waits for its
    /// acknowledgement. Who only does not read is heard: it answers the probes of its closed window. Those are rare
    /// (two minutes apart in the end), so a single one without an answer is only under way, or lost.
    pub(super) fn is_unheard(&self, silence: Duration, now: Instant, stalls: &Stalls) -> bool {
        tcp::info(self.fd.as_fd()).is_ok_and(|info| {
            let waits = info.unacked > 0 && info.retransmits > 0 || info.probes >= UNANSWERED_PROBES;
            let quiet = Duration::from_millis(info.last_ack_recv.min(info.last_data_recv).into());
            waits && stalls.put_off(now - quiet, silence) <= now
        })
    }
}

/// Both sides of a connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: Option<Socket>,
    /// Tells the connections of one place apart.
    pub(super) generation: u32,
    pub(super) address: SocketAddr,
    /// The client's connection is over once it is flushed and its FIN is read, or at `finish_by`.
    pub(super) finishing: bool,
    pub(super) lingers: bool,
    pub(super) finish_by: Option<Instant>,
    /// What was left of it when that was set.
    pub(super) finish_left: usize,
    /// It lingers no longer than this, whatever it sends.
    pub(super) linger_until: Option<Instant>,
    /// What the client had not taken, and since when it has taken nothing of it.
    stuck: Option<(usize, Instant)>,
    pub(super) upstream: Option<Socket>,
    pub(super) chosen: Option<usize>,
    /// Who was tried for the present request.
    tried: Vec<usize>,
    pub(super) connecting: bool,
    pub(super) connect_by: Option<Instant>,
    pub(super) connect_failed: Option<Failure>,
}

impl Link {
    pub(super) fn new(fd: OwnedFd, generation: u32, address: SocketAddr) -> Link {
        Link {
            client: Some(Socket::new(fd, generation)),
            generation,
            address,
            finishing: false,
            lingers: false,
            finish_by: None,
            finish_left: 0,
            linger_until: None,
            stuck: None,
            upstream: None,
            chosen: None,
            tried: Vec::new(),
            connecting: false,
            connect_by: None,
            connect_failed: None,
        }
    }

    pub(super) fn socket(&mut self, client: bool) -> Option<&mut Socket> {
        if client { self.client.as_mut() } else { self.upstream.as_mut() }
    }

    /// Bytes that wait here for the upstream to take them.
    pub(super) fn waits_for_upstream(&self) -> usize {
        self.upstream.as_ref().map_or(0, |upstream| upstream.outbox.len())
    }

    /// Whether the client has taken nothing for so long although something waits here for it.
    pub(super) fn is_stuck(&mut self, now: Instant, patience: Duration) -> bool {
        let Some(client) = self.client.as_ref().filter(|client| !client.is_flushed()) else {
            self.stuck = None;
            return false;
        };
        let left = client.left();
        match self.stuck {
            Some((before, since)) if left >= before => now.since(since) >= patience,
            _ => {
                self.stuck = Some((left, now));
                false
            }
        }
    }

    /// We were away for so long, and nobody else is to blame for it.
    pub(super) fn put_off(&mut self, by: Duration) {
        let stuck = self.stuck.as_mut().map(|(_, since)| since);
        let times = [self.connect_by.as_mut(), self.finish_by.as_mut(), self.linger_until.as_mut(), stuck];
        for at in times.into_iter().flatten() {
            *at = *at + by;
        }
    }

    /// Whether a side has taken all that was sent to it, or is not there to take it.
    pub(super) fn is_flushed(&self, client: bool) -> bool {
        let socket = if client { &self.client } else { &self.upstream };
        socket.as_ref().is_none_or(Socket::is_flushed)
    }
}

/// What all connections of a thread share.
pub(super) struct Common {
    pub(super) engine: Engine,
    pub(super) upstreams: std::sync::Arc<Upstreams>,
    pub(super) policy: Policy,
    pub(super) told: VecDeque<Line>,
    pub(super) counts: Counts,
    /// Decisions of sessions; empty between facts.
    pub(super) effects: Effects,
    /// Sockets that were given up, until their polls have completed for the last time.
    pub(super) retiring: HashMap<Token, OwnedFd>,
    pub(super) generation: u32,
    /// Bytes of requests that are held, and that may be.
    pub(super) held: usize,
    pub(super) hold: usize,
    pub(super) connect_timeout: Duration,
}

impl Common {
    /// What may still be held. A quarter is kept for heads: no number of slow bodies may turn new clients away.
    fn budget(&self) -> HoldBudget {
        let left = |most: usize| most.saturating_sub(self.held);
        HoldBudget { heads: left(self.hold), bodies: left(self.hold / 4 * 3) }
    }

    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = (self.generation + 1) & ((1 << limits::GENERATION_BITS) - 1);
        self.generation
    }

    fn retire(&mut self, socket: Socket, token: Token, how: End) {
        if how == End::Abort {
            // At worst it ends with a FIN.
            let _ = tcp::abort_on_close(socket.fd.as_fd());
        }
        let cancel = Token::new(kind::CANCEL, 0, token.index());
        // An engine that takes nothing any more says so in the next turn.
        let _ = self.engine.cancel(socket.fd.as_raw_fd(), token, cancel);
        self.retiring.insert(token, socket.fd);
    }
}

/// One session's way to its sockets.
pub(super) struct Hands<'a> {
    pub(super) link: &'a mut Link,
    pub(super) common: &'a mut Common,
    pub(super) index: usize,
    pub(super) now: Instant,
}

impl Hands<'_> {
    /// Gives the upstream's socket up.
    pub(super) fn drop_upstream(&mut self, how: End) {
        self.link.connecting = false;
        self.link.connect_by = None;
        self.link.connect_failed = None; // nobody is left for whom another would be tried
        if let Some(chosen) = self.link.chosen.take() {
            self.common.upstreams.give(chosen);
        }
        if let Some(socket) = self.link.upstream.take() {
            let token = Token::new(kind::UPSTREAM, socket.generation, self.index as u32);
            self.common.retire(socket, token, how);
        }
    }

    /// Connects to one that was not tried yet, if there is one.
    pub(super) fn try_another(&mut self) -> bool {
        let Some(chosen) = self.common.upstreams.take(self.now, &self.link.tried) else { return false };
        self.link.tried.push(chosen);
        self.link.chosen = Some(chosen);
        let address = self.common.upstreams.address(chosen);
        match tcp::connect(address, limits::UPSTREAM_UNREAD) {
            Ok(fd) => {
                let plan = self.common.policy.keepalive();
                // Without it, a silent upstream is found by the response timeout, if there is one.
                let _ = tcp::set_keepalive(fd.as_fd(), plan.idle, plan.interval, plan.count);
                // An urgent byte would be missing; the clients' listener has it so, too.
                let _ = SockRef::from(&fd).set_out_of_band_inline(true);
                let generation = self.common.next_generation();
                let token = Token::new(kind::UPSTREAM, generation, self.index as u32);
                match self.common.engine.watch(fd.as_raw_fd(), MASK, token) {
                    Ok(()) => {}
                    Err(_) => self.link.connect_failed = Some(Failure::Local),
                }
                self.link.upstream = Some(Socket::new(fd, generation));
                self.link.connecting = true;
                self.link.connect_by = Some(self.now + self.common.connect_timeout);
            }
            Err(error) => {
                self.link.connect_failed = Some(failure(error.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
        true
    }
}

impl Hands<'_> {
    /// Hands a fact to the session and carries out all that it decides.
    pub(super) fn feed(&mut self, session: &mut Session, rules: &Rules, fact: SessionFact<'_>) {
        let bytes = match fact {
            SessionFact::ClientBytes(bytes) | SessionFact::UpstreamBytes(bytes) => bytes,
            _ => &[],
        };
        let mut effects = std::mem::take(&mut self.common.effects);
        let budget = self.common.budget();
        let mut context = Context { rules, now: self.now, budget, effects: &mut effects };
        session.handle(fact, &mut context);
        while let Some(acknowledged) = self.carry_out(context.effects, bytes) {
            session.handle(SessionFact::Acknowledged(acknowledged), &mut context);
        }
        self.common.effects = effects;
    }

    /// The session of a client that was accepted just now.
    pub(super) fn begin(&mut self, rules: &Rules) -> Session {
        let mut effects = std::mem::take(&mut self.common.effects);
        let budget = self.common.budget();
        let session = Session::new(&mut Context { rules, now: self.now, budget, effects: &mut effects });
        self.carry_out(&mut effects, &[]);
        self.common.effects = effects;
        session
    }

    /// Carries out all effects. Returns what is to be answered to [`Effect::CheckAcknowledged`], if it was among them.
    fn carry_out(&mut self, effects: &mut Effects, bytes: &[u8]) -> Option<bool> {
        let mut acknowledged = None;
        while let Some(effect) = effects.poll_effect() {
            match effect {
                Effect::PassToClient(range) => self.send_to_client(&bytes[range]),
                Effect::PassToUpstream(range) => self.send_to_upstream(&bytes[range]),
                Effect::SendToClient(held) => self.send_to_client(&held),
                Effect::SendToUpstream(held) => self.send_to_upstream(&held),
                Effect::Reply(message) => self.send_to_client(message),
                Effect::Connect => {
                    self.link.tried.clear();
                    let tried = self.try_another();
                    debug_assert!(tried, "there is at least one");
                }
                Effect::ShutdownClient => {
                    if let Some(client) = &mut self.link.client {
                        client.fin();
                    }
                }
                Effect::ShutdownUpstream => {
                    if let Some(upstream) = &mut self.link.upstream {
                        upstream.fin();
                    }
                }
                Effect::FinishClient => self.finish_client(),
                Effect::EndClient(how) => self.end_client(how),
                Effect::EndUpstream(how) => self.drop_upstream(how),
                Effect::CheckAcknowledged => acknowledged = Some(self.client_has_acknowledged()),
                Effect::Probed(outcome) => self.common.counts.probe(outcome),
                Effect::Report(event) => self.report(event),
            }
        }
        acknowledged
    }

    fn send_to_client(&mut self, bytes: &[u8]) {
        if let Some(client) = &mut self.link.client {
            client.send(bytes);
        }
    }

    fn send_to_upstream(&mut self, bytes: &[u8]) {
        if let Some(upstream) = &mut self.link.upstream {
            upstream.send(bytes);
        }
    }

    fn finish_client(&mut self) {
        if let Some(client) = &mut self.link.client {
            client.fin();
            self.link.finishing = true;
            self.link.finish_left = client.left();
            self.link.finish_by = Some(self.now + limits::FLUSH_PATIENCE);
        }
    }

    pub(super) fn end_client(&mut self, how: End) {
        if let Some(socket) = self.link.client.take() {
            let token = Token::new(kind::CLIENT, socket.generation, self.index as u32);
            self.common.retire(socket, token, how);
            self.link.finish_by = None;
        }
    }

    fn client_has_acknowledged(&self) -> bool {
        let Some(client) = &self.link.client else { return false };
        // Nor does a connection wait for anything whose RST has come, and is seen in the next turn.
        let over = TcpState::Close as u8;
        let stands = || tcp::info(client.fd.as_fd()).is_ok_and(|info| info.state != over);
        client.is_flushed() && tcp::unsent(client.fd.as_fd()).is_ok_and(|bytes| bytes == 0) && stands()
    }

    fn report(&mut self, told: ProxyEvent) {
        let counts = &mut self.common.counts;
        match &told {
            ProxyEvent::Completed => {
                counts.completed += 1;
                counts.untold_completed += 1;
                return;
            }
            ProxyEvent::Interrupted(interrupted) => counts.interrupt(interrupted),
            ProxyEvent::UpstreamFailed(_) => counts.upstream_failed += 1,
            ProxyEvent::NotFollowed { .. } => counts.not_followed += 1,
        }
        let upstream = self.link.chosen.or(self.link.tried.last().copied());
        let upstream = upstream.map(|chosen| self.common.upstreams.address(chosen));
        let parties = Parties { client: self.link.address, upstream };
        let shown = self.link.client.as_ref().map(|client| client.shown).unwrap_or_default();
        self.common.told.push_back(Line::Told { at: self.now, parties, shown, told });
    }
}
