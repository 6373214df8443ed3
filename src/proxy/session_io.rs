//! Carries out what sessions decide.

use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;

use super::access::{AccessLine, AccessLog, Logged};
use super::connection::{Connection, INTEREST, Pending, Socket};
use super::counts::Counts;
use super::event::{Failure, Parties, ProxyEvent};
use super::finishing::Finishing;
use super::line::Line;
use super::pool::Pool;
use super::queue::Queue;
use super::session::{Context, Effect, Effects, End, HoldBudget, Reuse, Rules, Session, SessionFact, Side};
use super::told::Told;
use super::upstreams::{Choice, Chosen, Taken};
use crate::limits;
use crate::liveness::{Policy, TcpState};
use crate::reactor::{Address, Descriptor, Sockets};
use crate::sys::{tcp, unix};
use crate::time::Instant;

/// What all connections of a thread share.
pub(super) struct WorkerState {
    pub(super) upstreams: Choice,
    pub(super) pool: Pool,
    /// The clients that wait for a place at an upstream.
    pub(super) queue: Queue,
    /// A place at an upstream was given back.
    pub(super) freed: bool,
    /// How long a client may wait for one.
    pub(super) queue_timeout: Duration,
    pub(super) policy: Policy,
    /// Events that the sink has not taken.
    pub(super) told: Told<Line>,
    /// The access log, if there is one.
    pub(super) access: Option<AccessLog>,
    pub(super) counts: Counts,
    /// Decisions of sessions; empty between facts.
    pub(super) effects: Effects,
    pub(super) generation: u32,
    /// Bytes of requests that are held.
    pub(super) held: usize,
    /// Bytes of requests that may be held.
    pub(super) hold: usize,
    pub(super) connect_timeout: Duration,
    /// How often all upstreams are tried again.
    pub(super) retries: u8,
}

impl WorkerState {
    /// What may still be held. A quarter is kept for heads: no number of slow bodies may turn new clients away.
    fn budget(&self) -> HoldBudget {
        let left = |most: usize| most.saturating_sub(self.held);
        HoldBudget { heads: left(self.hold), bodies: left(self.hold / 4 * 3) }
    }

    /// Reports what is new of an upstream.
    pub(super) fn tell_of_upstream(&mut self, line: Line) {
        let down = matches!(line, Line::Upstream { failure: Some(_), .. });
        self.counts.upstream_down += u64::from(down);
        self.told.push(line);
    }

    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = (self.generation + 1) & ((1 << limits::GENERATION_BITS) - 1);
        self.generation
    }
}

/// A session's access to its connection.
pub(super) struct SessionIo<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) worker: &'a mut WorkerState,
    pub(super) sockets: &'a mut Sockets,
    pub(super) index: usize,
    pub(super) now: Instant,
}

impl SessionIo<'_> {
    /// Hands a fact to the session and carries out all that it decides.
    pub(super) fn feed(&mut self, session: &mut Session, rules: &Rules, fact: SessionFact<'_>) {
        let bytes = match fact {
            SessionFact::ClientBytes(bytes) | SessionFact::UpstreamBytes(bytes) => bytes,
            _ => &[],
        };
        session.handle(fact, &mut self.context(rules));
        while let Some(fact) = self.carry_out(bytes) {
            session.handle(fact, &mut self.context(rules));
        }
    }

    /// The session of a client that was accepted just now.
    pub(super) fn begin(&mut self, rules: &Rules) -> Session {
        let session = Session::new(&mut self.context(rules));
        self.carry_out(&[]);
        session
    }

    fn context<'a>(&'a mut self, rules: &'a Rules) -> Context<'a> {
        let client = self.connection.address.ip().map(|address| address.ip());
        let (now, budget) = (self.now, self.worker.budget());
        Context { rules, now, client, budget, effects: &mut self.worker.effects }
    }

    /// Carries out all effects. Returns the fact that one of them has led to, if one has: no fact has two such effects.
    fn carry_out(&mut self, bytes: &[u8]) -> Option<SessionFact<'static>> {
        let mut fact = None;
        while let Some(effect) = self.worker.effects.poll_effect() {
            match effect {
                Effect::PassToClient(range) => self.send(true, &bytes[range]),
                Effect::PassToUpstream(range) => self.send(false, &bytes[range]),
                Effect::SendToClient(held) => self.send(true, &held),
                Effect::SendToUpstream(held) => {
                    self.send(false, &held);
                    self.worker.effects.keep(held);
                }
                Effect::Reply(message) => self.send(true, message),
                Effect::Connect(reuse) => {
                    self.connection.tried = None;
                    self.connection.reuse = reuse;
                    self.worker.counts.repeated += u64::from(reuse == Reuse::Repeat);
                    fact = self.try_again();
                }
                Effect::ShutdownClient => self.fin(true),
                Effect::ShutdownUpstream => self.fin(false),
                Effect::FinishClient(how) => self.finish_client(how),
                Effect::EndClient(how) => self.end_client(how),
                Effect::EndUpstream(how) => self.end_upstream(how),
                Effect::ReleaseUpstream { reusable } => self.release_upstream(reusable),
                Effect::CheckAcknowledged(side) => {
                    fact = Some(SessionFact::Acknowledged(self.has_acknowledged(side)));
                }
                Effect::CheckReceived { bytes, failure } => {
                    let received =
                        self.connection.upstream.as_ref().is_none_or(|one| one.may_be_received(bytes));
                    fact = Some(SessionFact::Received(received, failure));
                }
                Effect::JudgeUpstream(failure) => self.judge_upstream(failure),
                Effect::Probed(outcome) => self.worker.counts.probe(outcome),
                Effect::Report(event) => self.report(event),
                Effect::Log(logged) => self.log(logged),
                Effect::Name(named) => {
                    self.connection.address = Address::Ip(named.client);
                    self.connection.local = Some(Box::new(named.local));
                }
            }
        }
        fact
    }

    fn send(&mut self, client: bool, bytes: &[u8]) {
        if let Some(socket) = self.connection.socket(client) {
            socket.send(bytes);
        }
    }

    fn fin(&mut self, client: bool) {
        if let Some(socket) = self.connection.socket(client) {
            socket.fin();
        }
    }

    /// Connects to any upstream. Returns the fact that it is connected, if an idle connection was there.
    pub(super) fn try_again(&mut self) -> Option<SessionFact<'static>> {
        if let Some(tried) = &mut self.connection.tried {
            tried.upstreams.clear();
        }
        self.try_another();
        (!self.connection.is_connecting() && self.connection.upstream.is_some())
            .then_some(SessionFact::Connected { reused: true })
    }

    /// No upstream could be connected to, for this reason at last. Returns whether they are tried again after a pause,
    /// which doubles each time.
    pub(super) fn retry(&mut self, failure: Failure) -> bool {
        let connection = &mut *self.connection;
        let tried = connection.tried.get_or_insert_default();
        // One that does not answer at all has had its time, and so has a client that waited for a place.
        let over = matches!(failure, Failure::TimedOut | Failure::Full);
        if over || tried.rounds == self.worker.retries {
            return false;
        }
        connection.pending =
            Pending::Retry { at: self.now + limits::RETRY_PAUSE * (1 << tried.rounds.min(8)) };
        tried.rounds += 1;
        true
    }

    /// Takes note of what the upstream of this connection is good for.
    pub(super) fn judge_upstream(&mut self, failure: Option<Failure>) {
        let Some(chosen) = self.connection.chosen else { return };
        if let Some(line) = self.worker.upstreams.judge(chosen, failure, self.now) {
            self.worker.tell_of_upstream(line);
        }
    }

    /// Connects to an upstream that was not tried yet, or takes an idle connection to it. Returns whether there is one.
    pub(super) fn try_another(&mut self) -> bool {
        let connection = &mut *self.connection;
        let waits = match std::mem::replace(&mut connection.pending, Pending::Nothing) {
            Pending::Place { since, by } => Some((since, by)),
            _ => None,
        };
        let tried = connection.tried.as_ref().map_or(&[][..], |tried| &tried.upstreams);
        // Those that wait already come first.
        let taken = match waits {
            None if !self.worker.queue.is_empty() => Taken::Full,
            _ => self.worker.upstreams.take(self.now, tried),
        };
        let chosen = match taken {
            Taken::One(chosen) => chosen,
            Taken::Full => {
                self.worker.counts.waited += u64::from(waits.is_none());
                let (since, by) = waits.unwrap_or((self.now, self.now + self.worker.queue_timeout));
                connection.pending = Pending::Place { since, by };
                self.worker.queue.push((since, self.index, connection.generation));
                return true;
            }
            Taken::None => return false,
        };
        connection.chosen = Some(chosen);
        connection.last = Some(chosen.index as u32);
        let oldest = match connection.reuse {
            Reuse::Idle if !chosen.trial => Some(Instant::ZERO),
            Reuse::Young if !chosen.trial => Some(self.now - limits::YOUNG_UPSTREAM),
            _ => None,
        };
        if let Some(oldest) = oldest
            && let Some(socket) = self.worker.pool.take(chosen.index, self.index, oldest, self.sockets)
        {
            self.worker.counts.reused += 1;
            connection.upstream = Some(socket);
            return true;
        }
        self.worker.counts.connects += 1;
        let connected = match self.worker.upstreams.address(chosen.index) {
            Address::Ip(address) => tcp::connect(*address, limits::UPSTREAM_UNREAD),
            Address::Unix(path) => unix::connect(path),
            Address::Process { .. } => unreachable!("no upstream is a process"),
        };
        match connected {
            Ok(fd) => {
                let plan = self.worker.policy.keepalive();
                // Without it, a silent upstream is found by the response timeout, if there is one.
                let _ = tcp::set_keepalive(fd.as_fd(), plan.idle, plan.interval, plan.count);
                // An urgent byte would be missing; the clients' listener has the same option.
                let _ = SockRef::from(&fd).set_out_of_band_inline(true);
                let generation = self.worker.next_generation();
                let token = self.worker.pool.open(self.index, generation);
                let mut descriptor = Descriptor::new(fd);
                if self.sockets.poll(&mut descriptor, INTEREST, token).is_err() {
                    connection.connect_failed = Some(Failure::Local);
                }
                connection.upstream = Some(Box::new(Socket::new(descriptor, token)));
                connection.pending = Pending::Connect { by: self.now + self.worker.connect_timeout };
            }
            Err(error) => {
                connection.connect_failed =
                    Some(Failure::of_errno(error.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
        true
    }

    fn finish_client(&mut self, how: End) {
        let Some(client) = &mut self.connection.client else { return };
        self.connection.finishing = Some(Box::new(Finishing::begin(how, self.now, client.left())));
        if how == End::Close {
            client.fin();
        }
    }

    pub(super) fn end_client(&mut self, how: End) {
        if let Some(socket) = self.connection.client.take() {
            let aborts = self.connection.finishing.take().is_some_and(|finishing| finishing.is(End::Abort));
            // A FIN would make what is lost with the buffer look as if it had never been.
            let how = if socket.is_flushed() && !aborts { how } else { End::Abort };
            self.sockets.retire(socket.descriptor, socket.token, how == End::Abort);
        }
    }

    /// Gives the upstream's socket up, if there is one, and the place at the upstream.
    pub(super) fn end_upstream(&mut self, how: End) {
        if let Pending::Place { since, .. } =
            std::mem::replace(&mut self.connection.pending, Pending::Nothing)
        {
            self.worker.queue.remove((since, self.index, self.connection.generation));
        }
        self.connection.connect_failed = None; // no other upstream is tried
        self.give_place();
        if let Some(socket) = self.connection.upstream.take() {
            self.worker.pool.end(*socket, how, self.sockets);
        }
    }

    fn give_place(&mut self) -> Option<Chosen> {
        let chosen = self.connection.chosen.take()?;
        self.worker.upstreams.give(chosen);
        self.worker.freed = true;
        Some(chosen)
    }

    /// Gives the upstream's socket back, and the place at the upstream.
    fn release_upstream(&mut self, reusable: bool) {
        let Some(chosen) = self.give_place() else { return };
        // The next request has nothing to do with them.
        (self.connection.tried, self.connection.last) = (None, None);
        if let Some(socket) = self.connection.upstream.take() {
            self.worker.pool.give(socket, chosen.index, reusable, self.now, self.sockets);
        }
    }

    fn has_acknowledged(&self, side: Side) -> bool {
        let connection = &self.connection;
        let socket = match side {
            Side::Client => connection.client.as_ref(),
            Side::Upstream => connection.upstream.as_deref(),
        };
        let Some(socket) = socket.filter(|_| side == Side::Client || !connection.is_connecting()) else {
            return false;
        };
        let fd = socket.descriptor.as_fd();
        // A connection whose RST has come has nothing unsent either; the end is seen in the next turn.
        let over = TcpState::Close as u8;
        socket.is_flushed()
            && match tcp::info(fd) {
                Ok(info) => info.tcpi_state != over && tcp::unsent(fd).is_ok_and(|bytes| bytes == 0),
                // A Unix socket has its peer's kernel on the same machine: what was sent is there.
                Err(error) => error.raw_os_error() == Some(libc::EOPNOTSUPP),
            }
    }

    fn report(&mut self, told: ProxyEvent) {
        let counts = &mut self.worker.counts;
        match &told {
            ProxyEvent::Completed => {
                counts.completed += 1;
                counts.untold_completed += 1;
                return;
            }
            ProxyEvent::Interrupted(interrupted) => counts.interrupt(interrupted),
            ProxyEvent::UpstreamFailed(failed) => {
                counts.upstream_failed += 1;
                failed.answered.into_iter().for_each(|status| counts.answer(status));
            }
            ProxyEvent::Answered(answered) => counts.answer(answered.refusal.status()),
            ProxyEvent::HeaderRefused(_) => counts.header_refused += 1,
            ProxyEvent::NotFollowed { .. } => counts.not_followed += 1,
        }
        let parties = self.parties();
        let shown = self.connection.client.as_ref().map(|client| client.shown).unwrap_or_default();
        self.worker.told.push(Line::Told { at: self.now, parties, shown, told });
    }

    fn log(&mut self, logged: Box<Logged>) {
        let parties = self.parties();
        if let Some(access) = &mut self.worker.access {
            access.told.push(AccessLine::Exchange { parties, logged });
        }
    }

    fn parties(&self) -> Parties {
        let connection = &*self.connection;
        let upstream = connection.last.map(|last| self.worker.upstreams.address(last as usize).clone());
        Parties { client: connection.address.clone(), upstream }
    }
}
