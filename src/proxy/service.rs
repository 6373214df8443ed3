//! The proxy as a [service](crate::reactor::Service) of the loop.
//!
//! Every socket has one poll for its life, which reports new wake-ups only, and also an end behind bytes that are not
//! read. Bytes are read into one buffer of the thread and sent on from there at once. Only what the other side does not
//! take is kept, and then nothing more is read.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use slab::Slab;

use super::access::{AccessLog, AccessSink};
use super::connection::{CLIENT, Connection, INTEREST, Pending, Socket};
use super::counts::Counts;
use super::event::{Failure, Phase};
use super::idle::IdleList;
use super::line::Line;
use super::pool::Pool;
use super::proxy_protocol::SendProxy;
use super::queue::Queue;
use super::session::{Effects, End, Rules, Session, SessionFact};
use super::session_io::{SessionIo, WorkerState};
use super::told::{EventsStall, Told};
use super::upstreams::{Choice, Upstreams};
use crate::limits;
use crate::liveness::{Policy, Silence, Stalls};
use crate::reactor::{
    Accepted, Completion, Ended, EngineChoice, EventSink, Listener, Reactor, Room, Service, Setup, Shared,
    Sockets, StartError,
};
use crate::sys::engine::{Counters, Token};
use crate::sys::tcp::TickClock;
use crate::sys::wakeup::Wakeup;
use crate::time::{Instant, nanos};
use crate::wheel::Wheel;

/// The pause between two events with the number of completed exchanges.
const COUNTS_EVERY: Duration = Duration::from_secs(1);

/// The pause before an access log that takes nothing is tried again, at the end.
const RETRY_AFTER: Duration = Duration::from_millis(5);

/// What a [`Relay`] is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// The rules by which every session is treated.
    pub rules: Rules,
    /// How long silence may last; sets both sides' keepalive.
    pub policy: Policy,
    /// The upstreams that requests go to.
    pub upstreams: Arc<Upstreams>,
    /// How long a connect may take.
    pub connect_timeout: Duration,
    /// How many requests and tunnels each upstream may have at once, of all threads together.
    pub upstream_limit: usize,
    /// How long a client may wait for a place at an upstream.
    pub queue_timeout: Duration,
    /// How many idle connections to upstreams this thread may keep.
    pub pool: usize,
    /// How often all upstreams are tried again when none can be connected to.
    pub retries: u8,
    /// How long a client may take nothing of what waits for it.
    pub send_timeout: Duration,
    /// Whether upstreams are told the address of the client, and how.
    pub send_proxy: Option<SendProxy>,
    /// Bytes of requests that this thread may hold.
    pub hold: usize,
    /// What is done about events that their output does not take.
    pub on_stall: EventsStall,
    /// The greatest number of clients at once, of all threads together.
    pub capacity: usize,
    /// What the loop waits on: a ring, epoll, or the first of both that this machine allows.
    pub io: EngineChoice,
}

/// What a relay did, returned when it ends.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was counted since the start.
    pub counts: Counts,
    /// What its engine did: system calls, operations and completions.
    pub engine: Counters,
    /// Events that the sink did not take before the end.
    pub untold: u64,
}

/// A client's place.
pub(super) struct Conn {
    pub(super) session: Session,
    pub(super) connection: Connection,
    /// The bytes of this session in the sum of all.
    pub(super) held: usize,
    /// When the wheel names it.
    pub(super) due: Instant,
    /// When it is looked at whether a peer is silent.
    pub(super) visit: Option<Instant>,
    /// The stalls, in nanoseconds since the start, by which its deadlines were put off.
    pub(super) absent: u64,
    /// It waits in the ready queue.
    pub(super) queued: bool,
    /// It waits to be read once more.
    pub(super) doubtful: bool,
    /// It is idle, and ends so that another client has its place.
    gives_way: bool,
}

/// The sessions of one thread and their sockets.
pub struct Proxy {
    pub(super) config: Config,
    pub(super) conns: Slab<Conn>,
    pub(super) worker: WorkerState,
    pub(super) wheel: Wheel,
    /// Places that are read on in the next turn, with their generations.
    pub(super) ready: VecDeque<(usize, u32)>,
    /// Places of which a short read may have left something.
    pub(super) doubtful: VecDeque<(usize, u32)>,
    /// When those are read once more.
    pub(super) look_again: Instant,
    /// Room for one read.
    pub(super) scratch: Vec<u8>,
    told_counts: Instant,
    pub(super) now: Instant,
    pub(super) stalls: Stalls,
    pub(super) ticks: TickClock,
    /// All stalls since the start, in nanoseconds.
    pub(super) absent: u64,
    /// The place whose session is to be told next that the proxy drains, once it does.
    drained: Option<usize>,
    /// Places of idle clients.
    idle: IdleList,
    /// Clients that give way.
    giving_way: usize,
}

/// The proxy's loop: one engine, one thread. See [`crate::proxy`].
pub type Relay<K> = Reactor<Proxy, K>;

impl<K: EventSink<Line, Counts>> Relay<K> {
    /// Sets up an engine and arms the listeners. To be called on the thread that will [run](Reactor::run) it.
    ///
    /// # Errors
    ///
    /// [`StartError`], whose message names the cause and the cure.
    pub fn new(
        config: Config,
        mut listeners: Vec<Listener>,
        shared: Arc<Shared>,
        wakeup: Arc<Wakeup>,
        sink: K,
        access: Option<AccessSink>,
    ) -> Result<Relay<K>, StartError> {
        for listener in &mut listeners {
            listener
                .limit_unsent(limits::CLIENT_UNSENT)
                .map_err(|source| StartError::Io { attempted: "arm the listeners", source })?;
        }
        let setup = Setup { io: config.io, batch_window: Duration::ZERO, buffers: false };
        config.upstreams.wake_for_news(&wakeup);
        let waker = Arc::clone(&wakeup);
        Reactor::open(setup, listeners, shared, wakeup, sink, || Proxy::new(config, access, waker))
    }
}

impl Proxy {
    fn new(config: Config, access: Option<AccessSink>, wakeup: Arc<Wakeup>) -> Proxy {
        let now = Instant::now();
        Proxy {
            conns: Slab::new(),
            worker: WorkerState {
                queue: Queue::new(config.upstreams.queues.clone(), wakeup),
                freed: false,
                queue_timeout: config.queue_timeout,
                upstreams: Choice::new(Arc::clone(&config.upstreams), config.upstream_limit),
                pool: Pool::new(config.pool),
                policy: config.policy,
                told: Told::new(config.on_stall),
                access: access.map(|sink| AccessLog::new(sink, config.on_stall)),
                counts: Counts::default(),
                effects: Effects::default(),
                generation: 0,
                held: 0,
                hold: config.hold,
                connect_timeout: config.connect_timeout,
                retries: config.retries,
            },
            wheel: Wheel::with_capacity(config.capacity, now),
            ready: VecDeque::new(),
            doubtful: VecDeque::new(),
            look_again: Instant::NEVER,
            scratch: vec![0; limits::MAX_HELD],
            told_counts: now,
            now,
            stalls: Stalls::default(),
            ticks: TickClock::new(),
            absent: 0,
            drained: None,
            idle: IdleList::new(),
            giving_way: 0,
            config,
        }
    }

    /// Whether the sink takes no events: then clients are not read.
    pub(super) fn is_held_up(&self) -> bool {
        let access = self.worker.access.as_ref();
        self.worker.told.is_held_up() || access.is_some_and(|access| access.told.is_held_up())
    }

    /// Notes an absence of this process. The deadlines of a connection are put off when it is touched next; until then
    /// the wheel names it too early, and is told the new time.
    fn absence(&mut self, at: Instant, held: Duration, from: Instant, to: Instant) {
        self.worker.counts.stalls += 1;
        self.worker.told.push(Line::Stall { at, held });
        self.stalls.add(from, to);
        self.absent += nanos(to.since(from));
    }

    pub(super) fn remove(&mut self, index: usize) {
        let conn = self.conns.remove(index);
        self.worker.held -= conn.held;
        self.giving_way -= usize::from(conn.gives_way);
        self.idle.remove(index);
        self.wheel.cancel(index as u32);
        self.worker.counts.open -= 1;
    }

    pub(super) fn schedule(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        if conn.visit.is_none() && conn.is_busy() {
            conn.visit = Some(self.now + self.config.policy.detection_time() / 4);
        }
        let at = conn.deadline(&self.config.rules);
        if at < conn.due {
            conn.due = at;
            self.wheel.schedule(index as u32, at);
        }
        let busy = conn.is_busy();
        if conn.gives_way && busy {
            conn.gives_way = false; // its request came in time
            self.giving_way -= 1;
        }
        let idle = conn.is_idle() && !conn.gives_way;
        if idle != self.idle.contains(index) {
            if idle { self.idle.push(index) } else { self.idle.remove(index) }
        }
    }

    fn visit(&mut self, sockets: &mut Sockets, index: usize) {
        let now = self.now;
        let held_up = self.is_held_up();
        let rules = &self.config.rules;
        let conn = &mut self.conns[index];
        conn.put_off(self.absent);
        let busy = conn.is_busy();
        let Conn { session, connection, visit, .. } = conn;
        match connection.pending {
            Pending::Connect { by } if by <= now => connection.connect_failed = Some(Failure::TimedOut),
            Pending::Place { by, .. } if by <= now => connection.connect_failed = Some(Failure::Full),
            Pending::Retry { at } if at <= now => {
                let mut io = SessionIo { connection, worker: &mut self.worker, sockets, index, now };
                if let Some(fact) = io.try_again() {
                    io.feed(session, rules, fact);
                }
            }
            _ => {}
        }
        if let Some(finishing) = connection.finishing.as_mut().filter(|finishing| finishing.at() <= now)
            && let Some(client) = &connection.client
            && finishing.look(now, client.left())
        {
            let how = if client.is_flushed() { End::Close } else { End::Abort };
            SessionIo { connection, worker: &mut self.worker, sockets, index, now }.end_client(how);
        }
        if visit.is_some_and(|at| at <= now) {
            *visit = None;
            if connection.is_stuck(now, self.config.send_timeout)
                && let Some(client) = &mut connection.client
            {
                // It is there, and keeps its place and its upstream's from others.
                client.failed = Some(libc::ETIME);
            }
            let (policy, stalls, ticks) = (&self.config.policy, &self.stalls, self.ticks);
            for client in [true, false] {
                let connected = client || !connection.is_connecting();
                let Some(socket) = connection.socket(client).filter(|_| connected) else { continue };
                let evidence = socket.evidence(ticks);
                let silence = Silence::of_kernel(policy, stalls, &evidence);
                if silence.is_of_a_dead_kernel(&evidence, now) {
                    socket.failed = Some(libc::ETIMEDOUT);
                } else if busy && silence.expires_at() > now {
                    // A verdict waits for no regular visit.
                    let regular = now + policy.detection_time() / 4;
                    *visit = Some(visit.unwrap_or(regular).min(silence.expires_at()));
                }
            }
        }
        if held_up || !connection.is_flushed(false) || !connection.is_flushed(true) {
            session.hold_up(now);
        }
        let mut io = SessionIo { connection, worker: &mut self.worker, sockets, index, now };
        io.feed(session, rules, SessionFact::Time);
        self.read(sockets, index);
    }

    /// Gives free places at upstreams to the clients that wait for them.
    fn serve_waiting(&mut self, sockets: &mut Sockets, now: Instant) {
        if !std::mem::take(&mut self.worker.freed) && self.worker.queue.is_empty() {
            return;
        }
        while self.worker.upstreams.has_room(now) {
            let Some((_, index, generation)) = self.worker.queue.next() else { break };
            let conn = self.conns.get_mut(index).filter(|conn| conn.connection.generation == generation);
            let Some(Conn { session, connection, .. }) = conn else { continue };
            let mut io = SessionIo { connection, worker: &mut self.worker, sockets, index, now };
            if let Some(fact) = io.try_again() {
                io.feed(session, &self.config.rules, fact);
            }
            self.settle(sockets, index);
        }
    }

    /// Tells sessions that the proxy drains, as long as the turn has time.
    fn drain_sessions(&mut self, sockets: &mut Sockets) {
        let Some(mut next) = self.drained else { return };
        if next == 0 {
            self.worker.pool.close(sockets);
        }
        while next < self.conns.capacity() && Instant::now().since(self.now) < limits::TURN_BUDGET {
            self.drain_session(sockets, next);
            next += 1;
        }
        self.drained = Some(next);
    }

    fn drain_session(&mut self, sockets: &mut Sockets, index: usize) {
        self.read_all(sockets, index);
        self.feed(sockets, index, SessionFact::Drain);
    }

    /// Ends the client of that place as at the end of the proxy, unless its request is there.
    fn give_way(&mut self, sockets: &mut Sockets, index: usize) {
        self.read_all(sockets, index);
        if let Some(conn) = self.conns.get_mut(index).filter(|conn| conn.is_idle()) {
            conn.gives_way = true;
            self.giving_way += 1;
            self.worker.counts.gave_way += 1;
            self.feed(sockets, index, SessionFact::Drain);
        }
    }

    /// Reads what is there: a request that has come already is one that is under way.
    fn read_all(&mut self, sockets: &mut Sockets, index: usize) {
        let Some(conn) = self.conns.get_mut(index) else { return };
        if let Some(client) = &mut conn.connection.client {
            client.readable = true;
        }
        self.read(sockets, index);
    }

    /// Hands a fact to the session of that place, and does what follows.
    fn feed(&mut self, sockets: &mut Sockets, index: usize, fact: SessionFact<'_>) {
        let now = self.now;
        let Some(Conn { session, connection, .. }) = self.conns.get_mut(index) else { return };
        let mut io = SessionIo { connection, worker: &mut self.worker, sockets, index, now };
        io.feed(session, &self.config.rules, fact);
        self.settle(sockets, index);
    }

    fn tell_counts(&mut self, now: Instant) {
        self.told_counts = now;
        let completed = std::mem::take(&mut self.worker.counts.untold_completed);
        if completed > 0 {
            let counts = &self.worker.counts;
            let line = Line::Completed {
                at: now,
                completed,
                completed_total: counts.completed,
                interrupted_total: counts.interrupted,
            };
            self.worker.told.push(line);
        }
    }
}

impl Service for Proxy {
    type Event = Line;
    type Counts = Counts;
    type Report = Report;

    fn accepted(&mut self, sockets: &mut Sockets, accepted: Accepted) -> io::Result<()> {
        self.now = accepted.at;
        self.worker.counts.opened += 1;
        self.worker.counts.open += 1;
        let entry = self.conns.vacant_entry();
        let index = entry.key();
        let generation = self.worker.next_generation();
        let token = Token::new(CLIENT, generation, index as u32);
        let mut connection = Connection::new(accepted.fd, token, accepted.address);
        if let Some(client) = &mut connection.client {
            sockets.poll(&mut client.descriptor, INTEREST, token)?;
        }
        let worker = &mut self.worker;
        let mut io = SessionIo { connection: &mut connection, worker, sockets, index, now: accepted.at };
        let session = io.begin(&self.config.rules);
        let absent = self.absent;
        entry.insert(Conn {
            session,
            connection,
            held: 0,
            due: Instant::NEVER,
            visit: None,
            absent,
            queued: false,
            doubtful: false,
            gives_way: false,
        });
        self.settle(sockets, index);
        Ok(())
    }

    fn completed(&mut self, sockets: &mut Sockets, completion: Completion, now: Instant) -> io::Result<()> {
        self.now = now;
        self.on_socket(sockets, &completion)
    }

    fn catch_up(&mut self, sockets: &mut Sockets, now: Instant) -> io::Result<()> {
        self.now = now;
        self.read_ready(sockets);
        self.read_doubtful(sockets);
        Ok(())
    }

    fn expire(&mut self, sockets: &mut Sockets, now: Instant, rounds: usize) -> io::Result<()> {
        self.now = now;
        for _ in 0..rounds * limits::VISITS_AT_ONCE {
            let Some(key) = self.wheel.expire(now) else { break };
            let index = key as usize;
            let Some(conn) = self.conns.get_mut(index) else { continue };
            conn.due = Instant::NEVER;
            if conn.queued {
                // It has bytes that the turn had no time for.
                self.read(sockets, index);
            }
            if self.conns.contains(index) {
                self.visit(sockets, index);
            }
        }
        Ok(())
    }

    fn after_visits(&mut self, sockets: &mut Sockets, now: Instant) -> io::Result<()> {
        self.worker.pool.sweep(now, sockets);
        self.serve_waiting(sockets, now);
        self.drain_sessions(sockets);
        self.worker.upstreams.take_news().into_iter().for_each(|line| self.worker.tell_of_upstream(line));
        if now.since(self.told_counts) >= COUNTS_EVERY {
            self.tell_counts(now);
        }
        Ok(())
    }

    fn next_due(&self, now: Instant) -> Instant {
        let draining = self.drained.is_some_and(|next| next < self.conns.capacity());
        if draining || !self.ready.is_empty() && !self.is_held_up() {
            return now;
        }
        let counts = self.worker.counts.untold_completed > 0;
        let counts = if counts { self.told_counts + COUNTS_EVERY } else { Instant::NEVER };
        self.wheel
            .next_due()
            .unwrap_or(Instant::NEVER)
            .min(self.look_again)
            .min(counts)
            .min(self.worker.pool.sweep_at)
    }

    fn connections(&self) -> usize {
        self.conns.len()
    }

    fn room(&self) -> Room {
        if self.is_held_up() { Room::Held } else { Room::Free }
    }

    fn can_make_room(&self) -> bool {
        self.idle.first().is_some()
    }

    fn make_room(&mut self, sockets: &mut Sockets, wanted: usize, now: Instant) {
        self.now = now;
        let wanted = wanted.min(limits::VISITS_AT_ONCE).saturating_sub(self.giving_way);
        for _ in 0..wanted {
            let Some(index) = self.idle.first() else { break };
            self.idle.remove(index); // one that is not idle after all comes back behind the others
            self.give_way(sockets, index);
        }
    }

    fn stalled(&mut self, rested: Instant, start: Instant, end: Instant) {
        // How much of it was rest is not known: the peers may have met an absent process all the time.
        self.absence(end, end.since(start), rested, end);
    }

    fn suspended(&mut self, now: Instant, slept: Duration) {
        // The clock stood still, but what was sent meanwhile was lost, and has to come again.
        let grace = slept.min(self.config.policy.detection_time());
        self.absence(now, slept, now, now + grace);
    }

    fn saturated(&mut self, limit: &'static str, now: Instant) {
        self.worker.told.push(Line::Saturated { at: now, limit });
    }

    fn resumed(&mut self, now: Instant) {
        self.worker.told.push(Line::Resumed { at: now });
    }

    fn poll_event(&mut self, _: Instant) -> Option<Line> {
        self.worker.told.pop(self.now)
    }

    fn counts(&self) -> &Counts {
        &self.worker.counts
    }

    fn turned(&mut self, _: Instant, end: Instant) {
        if let Some(access) = &mut self.worker.access {
            access.hand_over(end);
        }
    }

    fn drain(&mut self) {
        self.drained = Some(0);
        let (mut exchanges, mut tunnels, mut idle) = (0, 0, 0);
        for (_, conn) in &self.conns {
            *match conn.session.phase() {
                Phase::Tunnel => &mut tunnels,
                Phase::Idle if conn.connection.is_flushed(true) => &mut idle,
                _ => &mut exchanges,
            } += 1;
        }
        self.worker.told.push(Line::Draining { at: self.now, exchanges, tunnels, idle });
    }

    fn ending(&mut self, sockets: &mut Sockets, now: Instant) -> io::Result<()> {
        self.now = now;
        let open = self.worker.counts.open;
        for index in 0..self.conns.capacity() {
            let interrupted = self.worker.counts.interrupted;
            let Some(conn) = self.conns.get(index) else { continue };
            let (phase, unsent) = (conn.session.phase(), !conn.connection.is_flushed(true));
            self.feed(sockets, index, SessionFact::Cut);
            let counts = &mut self.worker.counts;
            // A response that is passed on whole may still wait here for its client.
            let phase = if counts.interrupted > interrupted { phase } else { Phase::Sending };
            counts.cut[phase as usize] += u64::from(unsent || counts.interrupted > interrupted);
            if let Some(Conn { connection, .. }) = self.conns.get_mut(index) {
                SessionIo { connection, worker: &mut self.worker, sockets, index, now }
                    .end_client(End::Close);
                self.settle(sockets, index);
            }
        }
        self.worker.counts.open = open; // what was open at the end
        self.tell_counts(now);
        if let Some(access) = &mut self.worker.access {
            let end = Instant::now() + limits::SHUTDOWN_PATIENCE / 3;
            while !access.hand_over(now) && Instant::now() < end {
                thread::sleep(RETRY_AFTER);
            }
            self.worker.counts.log_dropped = access.left();
        }
        Ok(())
    }

    fn report(mut self, ended: Ended) -> Report {
        self.worker.counts.dropped = self.worker.told.dropped;
        Report { counts: self.worker.counts, engine: ended.engine, untold: ended.undelivered }
    }
}

impl Conn {
    /// Puts the deadlines off by the stalls since it was touched last. `absent`: all stalls until now.
    pub(super) fn put_off(&mut self, absent: u64) {
        if self.absent != absent {
            let by = Duration::from_nanos(absent - self.absent);
            self.absent = absent;
            self.session.put_off(by);
            self.connection.put_off(by);
        }
    }

    /// Counts what is held for the connection into the sum of all.
    pub(super) fn account(&mut self, sum: &mut usize) {
        let holds = self.session.memory() + self.connection.waits_for_upstream();
        if holds != self.held {
            *sum = *sum - self.held + holds;
            self.held = holds;
        }
    }

    /// Whether bytes of that side may be there, and are wanted.
    pub(super) fn wants(&self, client: bool) -> bool {
        let connection = &self.connection;
        let readable = |socket: Option<&Socket>| {
            socket.is_some_and(|socket| socket.readable && !socket.eof && socket.failed.is_none())
        };
        if client {
            readable(connection.client.as_ref())
                && self.session.wants_client()
                && connection.is_flushed(false)
        } else {
            readable(connection.upstream.as_deref())
                && !connection.is_connecting()
                && connection.is_flushed(true)
        }
    }

    /// Whether there is a client, and nothing is under way.
    fn is_idle(&self) -> bool {
        let Connection { client, finishing, .. } = &self.connection;
        client.is_some() && finishing.is_none() && !self.is_busy()
    }

    /// Whether one side waits for something.
    fn is_busy(&self) -> bool {
        self.session.phase() != Phase::Idle || !self.connection.is_flushed(true)
    }

    fn deadline(&self, rules: &Rules) -> Instant {
        let Connection { pending, ref finishing, .. } = self.connection;
        let finish = finishing.as_ref().map(|finishing| finishing.at());
        let deadlines = [self.session.deadline(rules), pending.deadline(), finish, self.visit];
        deadlines.map(|at| at.unwrap_or(Instant::NEVER)).into_iter().fold(Instant::NEVER, Instant::min)
    }
}

#[cfg(test)]
mod tests {
    use super::Conn;

    /// Thousands of idle connections are the ordinary case.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Conn>() <= 520, "{}", size_of::<Conn>());
    }
}
