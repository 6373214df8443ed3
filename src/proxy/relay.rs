//! One thread's loop: sockets and buffers, told by sessions what to do.
//!
//! Every socket has one poll for its life, edge by edge, which also sees an end behind bytes that nobody takes off.
//! Bytes are read into one buffer of the thread and sent on from there at once; only what the other side does not take
//! is kept, and then nothing more is read. A socket is closed after its poll has completed for the last time,
//! since a poll holds the file, and a close would send nothing until then.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::event::{Failure, Phase};
use super::line::Line;
use super::session::{Effects, End, Rules, Session, SessionFact};
use super::upstreams::Upstreams;
use crate::limits;
use crate::liveness::errno::{self, Meaning};
use crate::liveness::{Cause, Hop, LocalCause, Policy, PollMask, Stalls};
use crate::reactor::{
    EngineChoice, EventSink, Listener, NotAccepted, Probed, Shared, StartError, obtained, suspended,
};
use crate::sys::engine::{Completion, Counters, Engine, Token, Wait};
use crate::sys::tcp;
use crate::sys::wakeup::Wakeup;
use crate::time::{Instant, nanos};
use crate::wheel::Wheel;

mod counts;
mod hands;
mod send_proxy;
#[cfg(test)]
mod tests;

pub use counts::Counts;
pub use send_proxy::SendProxy;

use hands::{Common, Hands, Link};

/// What kind of operation a completion belongs to.
mod kind {
    pub(super) const LISTENER: u8 = 1;
    pub(super) const WAKEUP: u8 = 2;
    pub(super) const CLIENT: u8 = 3;
    pub(super) const UPSTREAM: u8 = 4;
    pub(super) const CANCEL: u8 = 5;
}

/// What every socket is watched for: bytes, room, and ends.
const MASK: u16 = PollMask::IN | PollMask::OUT | PollMask::RDHUP;

/// Reads of one socket in one turn; the rest waits for the others.
const READS: usize = 4;

/// Turns in a row that leave completions behind and judge nobody.
const MAX_UNJUDGED: u32 = limits::CQ_ENTRIES / limits::MAX_COMPLETIONS_PER_TURN as u32;

/// How often a full house looks whether somebody has left another thread.
const SATURATED_PAUSE: Duration = Duration::from_millis(20);

/// What a relay is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// How connections are treated.
    pub rules: Rules,
    /// How long silence may last; sets both sides' keepalive.
    pub policy: Policy,
    /// Who works.
    pub upstreams: Arc<Upstreams>,
    /// How long a connect may take.
    pub connect_timeout: Duration,
    /// How long a client may take nothing of what waits for it.
    pub send_timeout: Duration,
    /// Whether upstreams are told whom they serve.
    pub send_proxy: Option<SendProxy>,
    /// Bytes of requests that this thread may hold.
    pub hold: usize,
    /// Connections of all threads.
    pub capacity: usize,
    /// On what to wait.
    pub io: EngineChoice,
}

/// What a relay did, told when it ends.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many, of what.
    pub counts: Counts,
    /// What its engine did.
    pub engine: Counters,
    /// Events that the sink did not take before the end.
    pub untold: u64,
}

struct Conn {
    session: Session,
    link: Link,
    /// What the session holds, as it stands in the sum of all.
    held: usize,
    /// When the wheel will bring it.
    due: Option<Instant>,
    /// When it is looked at whether somebody is silent.
    visit: Option<Instant>,
    /// It waits in the ready queue.
    queued: bool,
    /// It waits to be looked at once more.
    doubtful: bool,
}

struct Listening {
    listener: Listener,
    pending: bool,
}

/// One thread's relay: its sockets, buffers and time. See [`crate::proxy`].
pub struct Relay<J> {
    config: Config,
    obtained: Probed,
    conns: Slab<Conn>,
    common: Common,
    wheel: Wheel,
    ready: VecDeque<(usize, u32)>,
    /// Those of whom a short read may have left something.
    doubtful: VecDeque<(usize, u32)>,
    /// When they are looked at once more.
    look_again: Instant,
    listeners: Vec<Listening>,
    accept_pause: Option<Instant>,
    shared: Arc<Shared>,
    wakeup: Arc<Wakeup>,
    journal: J,
    batch: Vec<Line>,
    completions: Vec<Completion>,
    scratch: Vec<u8>,
    told_counts: Instant,
    /// Turns in a row that have judged nobody.
    unjudged: u32,
    /// New connections wait for a place, which one of this thread's may leave.
    full: bool,
    now: Instant,
    /// When the present rest began, and until when it is to last.
    rest: (Instant, Instant),
    /// How long the machine had been suspended at the last look, in nanoseconds.
    suspended: u64,
    stalls: Stalls,
}

impl<J: EventSink<Line, Counts>> Relay<J> {
    /// Sets up an engine and arms the listeners. To be called on the thread that will [run](Relay::run) it.
    ///
    /// # Errors
    ///
    /// [`StartError`], whose message names the cause and the cure.
    pub fn new(
        config: Config,
        listeners: Vec<Listener>,
        shared: Arc<Shared>,
        wakeup: Arc<Wakeup>,
        journal: J,
    ) -> Result<Relay<J>, StartError> {
        let opened = Engine::open_and_tell(config.io, limits::SQ_ENTRIES, limits::CQ_ENTRIES);
        let (engine, why_not) = opened.map_err(StartError::Engine)?;
        let now = Instant::now();
        let mut relay = Relay {
            obtained: obtained(&engine, why_not),
            conns: Slab::new(),
            common: Common {
                engine,
                upstreams: config.upstreams.clone(),
                policy: config.policy,
                told: VecDeque::new(),
                counts: Counts::default(),
                effects: Effects::default(),
                retiring: HashMap::new(),
                generation: 0,
                held: 0,
                hold: config.hold,
                connect_timeout: config.connect_timeout,
            },
            wheel: Wheel::with_capacity(config.capacity, now),
            ready: VecDeque::new(),
            doubtful: VecDeque::new(),
            look_again: Instant::NEVER,
            listeners: listeners.into_iter().map(|listener| Listening { listener, pending: false }).collect(),
            accept_pause: None,
            shared,
            wakeup,
            journal,
            batch: Vec::new(),
            completions: Vec::with_capacity(limits::MAX_COMPLETIONS_PER_TURN),
            scratch: vec![0; limits::MAX_HELD],
            told_counts: now,
            unjudged: 0,
            full: false,
            now,
            rest: (now, Instant::NEVER),
            suspended: suspended(),
            stalls: Stalls::default(),
            config,
        };
        relay.arm().map_err(|source| StartError::Io { attempted: "arm the listeners", source })?;
        Ok(relay)
    }

    /// What it waits on, and why that is no better.
    #[must_use]
    pub fn obtained(&self) -> &Probed {
        &self.obtained
    }

    fn arm(&mut self) -> io::Result<()> {
        let engine = &mut self.common.engine;
        engine.watch(self.wakeup.as_raw_fd(), PollMask::IN, Token::new(kind::WAKEUP, 0, 0))?;
        for (index, listening) in self.listeners.iter().enumerate() {
            let token = Token::new(kind::LISTENER, 0, index as u32);
            // Inherited by all that are accepted.
            tcp::set_unsent_limit(listening.listener.as_fd(), limits::CLIENT_UNSENT)?;
            engine.watch(listening.listener.as_raw_fd(), PollMask::IN, token)?;
        }
        engine.submit_and_wait(Wait::NOT)
    }

    /// Runs until [`Shared::stop`].
    ///
    /// # Errors
    ///
    /// Those of the engine that no turn can get around.
    pub fn run(mut self) -> io::Result<Report> {
        while !self.shared.is_stopping() {
            self.turn()?;
        }
        self.finish()
    }

    fn finish(mut self) -> io::Result<Report> {
        // The ports are free at once, and not when the kernel has taken the ring apart.
        for (index, listening) in self.listeners.iter().enumerate() {
            let [watch, cancel] =
                [kind::LISTENER, kind::CANCEL].map(|kind| Token::new(kind, 0, index as u32));
            self.common.engine.cancel(listening.listener.as_raw_fd(), watch, cancel)?;
        }
        self.common.engine.submit_and_wait(Wait::NOT)?;
        self.listeners.clear();
        self.tell_counts();
        let end = Instant::now() + limits::SHUTDOWN_PATIENCE / 3;
        while !self.hand_over() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let untold = (self.batch.len() + self.common.told.len()) as u64;
        Ok(Report { counts: self.common.counts.clone(), engine: self.common.engine.counters(), untold })
    }

    /// One turn: waits, and works off what came. Time is looked at only when everything that came was seen.
    fn turn(&mut self) -> io::Result<()> {
        let wait = self.plan_wait();
        self.common.engine.submit_and_wait(wait)?;
        let away = self.awake();
        let began = self.now;
        let mut batch = std::mem::take(&mut self.completions);
        let rest = self.common.engine.reap(&mut batch, limits::MAX_COMPLETIONS_PER_TURN);
        for completion in batch.drain(..) {
            self.complete(completion)?;
        }
        self.completions = batch;
        for _ in 0..self.ready.len() {
            if Instant::now().since(began) > limits::TURN_BUDGET {
                break;
            }
            let Some((index, generation)) = self.ready.pop_front() else { break };
            if self.conns.get(index).is_some_and(|conn| conn.link.generation == generation) {
                self.conns[index].queued = false;
                self.read(index);
            }
        }
        self.look_again(began);
        // Where more and more comes, what was there when it began has been seen after so many turns.
        // After a stall a turn goes by for what others have to do first.
        let more = rest || away || self.common.engine.is_overflown();
        self.unjudged = if more { self.unjudged + 1 } else { 0 };
        if !more || self.unjudged >= MAX_UNJUDGED {
            self.unjudged = 0;
            self.on_time();
        }
        self.accept_pending()?;
        if self.now.since(self.told_counts) >= Duration::from_secs(1) {
            self.tell_counts();
        }
        self.hand_over();
        let end = Instant::now();
        if end.since(began) > limits::STALL_THRESHOLD {
            self.stalled(end, end.since(began), (began, end));
        }
        Ok(())
    }

    /// Takes the time after a rest; whether that was much longer than it should have been.
    fn awake(&mut self) -> bool {
        let now = Instant::now();
        self.now = now;
        let (from, until) = self.rest;
        let late = now > until + limits::STALL_THRESHOLD;
        if late {
            // How much of it was rest, nobody knows: to others all of it is our absence.
            self.stalled(now, now.since(until), (from, now));
        }
        let suspended = suspended();
        let slept = suspended.saturating_sub(self.suspended);
        // Whoever is held up between the two clocks sees too little; that is no suspend at the next look.
        self.suspended = suspended.max(self.suspended);
        let asleep = slept > nanos(limits::STALL_THRESHOLD);
        if asleep {
            // The clock stood still, but what was sent meanwhile was lost, and has to come again.
            let slept = Duration::from_nanos(slept);
            let grace = slept.min(self.config.policy.detection_time());
            self.stalled(now, slept, (now, now + grace));
        }
        late || asleep
    }

    /// Tells of a stall of ours, and puts off all that rests on the silence of others.
    fn stalled(&mut self, at: Instant, held: Duration, (from, to): (Instant, Instant)) {
        self.common.counts.stalls += 1;
        self.common.told.push_back(Line::Stall { at, held });
        self.stalls.add(from, to);
        let by = to.since(from);
        for (_, conn) in &mut self.conns {
            // The wheel brings them too early, and is told the new time then.
            conn.session.put_off(by);
            conn.link.put_off(by);
        }
    }

    fn plan_wait(&mut self) -> Wait {
        let now = Instant::now();
        let wait = self.wait_from(now);
        self.rest = (now, now + wait.timeout);
        wait
    }

    fn wait_from(&self, now: Instant) -> Wait {
        if !self.ready.is_empty() && !self.is_held_up() {
            return Wait::NOT;
        }
        let mut until = self.wheel.next_due().unwrap_or(Instant::NEVER);
        until = until.min(self.look_again);
        if let Some(pause) = self.accept_pause {
            until = until.min(pause);
        }
        if self.common.counts.untold_completed > 0 {
            until = until.min(self.told_counts + Duration::from_secs(1));
        }
        if !self.common.told.is_empty() || !self.batch.is_empty() {
            // The sink wakes us when it has room; until then nothing is lost by looking now and then.
            until = until.min(now + SATURATED_PAUSE);
        }
        let pending = self.listeners.iter().any(|listening| listening.pending);
        if pending && self.accept_pause.is_none() && !self.is_held_up() {
            return Wait::NOT;
        }
        let timeout = until.since(now).min(limits::MAX_WAIT);
        if timeout.is_zero() {
            return Wait::NOT;
        }
        Wait { completions: 1, window: Duration::ZERO, timeout }
    }

    /// Whether nobody takes our events: then clients are not read.
    fn is_held_up(&self) -> bool {
        self.common.told.len() >= limits::MAX_UNTOLD
    }

    fn complete(&mut self, completion: Completion) -> io::Result<()> {
        let token = completion.token;
        let index = token.index() as usize;
        match token.kind() {
            kind::WAKEUP => {
                self.wakeup.clear();
                if !completion.more {
                    self.common.engine.watch(self.wakeup.as_raw_fd(), PollMask::IN, token)?;
                }
            }
            kind::LISTENER => {
                if let Some(listening) = self.listeners.get_mut(index) {
                    listening.pending = true;
                    if !completion.more {
                        let fd = listening.listener.as_raw_fd();
                        self.common.engine.watch(fd, PollMask::IN, token)?;
                    }
                }
            }
            kind::CLIENT | kind::UPSTREAM => self.on_socket(&completion)?,
            _ => {}
        }
        Ok(())
    }

    fn on_socket(&mut self, completion: &Completion) -> io::Result<()> {
        let token = completion.token;
        let index = token.index() as usize;
        let client = token.kind() == kind::CLIENT;
        let socket = self.conns.get_mut(index).and_then(|conn| conn.link.socket(client));
        let Some(socket) = socket.filter(|socket| socket.generation == token.generation()) else {
            if !completion.more {
                // The last word of a socket that was given up: now it can be closed.
                self.common.retiring.remove(&token);
            }
            return Ok(());
        };
        let Ok(mask) = u16::try_from(completion.result) else {
            // It cannot be watched: out of memory, or of what may be watched.
            socket.failed = Some(-completion.result);
            self.settle(index);
            return Ok(());
        };
        if !completion.more {
            let fd = socket.fd.as_raw_fd();
            self.common.engine.watch(fd, MASK, token)?;
        }
        let mask = PollMask(mask);
        let Conn { session, link, .. } = &mut self.conns[index];
        let Some(socket) = link.socket(client) else { return Ok(()) };
        socket.shown.mask = mask.0;
        let ended = mask.has(PollMask::ERR) || mask.has(PollMask::HUP);
        let socket_ended = mask.has(PollMask::RDHUP) || ended;
        socket.end_seen |= socket_ended;
        if mask.has(PollMask::IN) || socket.end_seen {
            socket.readable = true;
        }
        if client {
            if ended {
                let error = tcp::take_error(socket.fd.as_fd()).unwrap_or(libc::EIO);
                let over = error != 0 || (mask.has(PollMask::HUP) && !socket.fin_sent);
                if over {
                    socket.failed = Some(if error == 0 { libc::ECONNRESET } else { error });
                }
            }
        } else if link.connecting {
            if ended || mask.has(PollMask::OUT) {
                self.connected(index);
            }
            return Ok(());
        }
        if mask.has(PollMask::OUT)
            && let Some(socket) = link.socket(client)
        {
            if !socket.is_flushed() {
                session.hold_up(self.now);
            }
            socket.flush();
        }
        // Ends are seen at once, bytes in their turn.
        if socket_ended || Instant::now().since(self.now) < limits::TURN_BUDGET {
            self.read(index);
        } else {
            self.settle(index);
            self.queue(index);
        }
        Ok(())
    }

    /// Has what is there read in the next turn, if it is wanted.
    fn queue(&mut self, index: usize) {
        let Some(conn) = self.conns.get_mut(index) else { return };
        if !conn.queued && (conn.wants(true) || conn.wants(false)) {
            conn.queued = true;
            self.ready.push_back((index, conn.link.generation));
        }
    }

    /// Reads once more what was read short, as long as the turn has time.
    fn look_again(&mut self, began: Instant) {
        if self.now < self.look_again {
            return;
        }
        self.look_again = Instant::NEVER;
        let mut looked = false;
        for _ in 0..self.doubtful.len() {
            let Some(&(index, generation)) = self.doubtful.front() else { break };
            let lives = self.conns.get(index).is_some_and(|conn| conn.link.generation == generation);
            // One at least, however little time the others have left; and the dead take none.
            if lives && looked && Instant::now().since(began) > limits::TURN_BUDGET {
                self.look_again = self.now;
                break;
            }
            self.doubtful.pop_front();
            let Some(conn) = self.conns.get_mut(index).filter(|_| lives) else { continue };
            looked = true;
            conn.doubtful = false;
            for client in [true, false] {
                if let Some(socket) = conn.link.socket(client) {
                    socket.readable |= std::mem::take(&mut socket.doubtful);
                }
            }
            self.read(index);
        }
    }

    /// A connect has come to its end.
    fn connected(&mut self, index: usize) {
        let now = self.now;
        let Conn { session, link, .. } = &mut self.conns[index];
        let Some(upstream) = &mut link.upstream else { return };
        let error = tcp::take_error(upstream.fd.as_fd()).unwrap_or(libc::EIO);
        if error != 0 {
            link.connect_failed = Some(failure(error));
        } else {
            link.connecting = false;
            link.connect_by = None;
            if let Some(chosen) = link.chosen {
                self.common.upstreams.works(chosen);
            }
            if let Some(version) = self.config.send_proxy {
                let local =
                    link.client.as_ref().and_then(|client| tcp::local_address(client.fd.as_fd()).ok());
                let header = version.header(link.address, local);
                upstream.send(&header);
            }
            let mut hands = Hands { link, common: &mut self.common, index, now };
            hands.feed(session, &self.config.rules, SessionFact::Connected);
        }
        self.read(index);
    }

    /// Reads what there is on both sides and is wanted, and settles what follows.
    fn read(&mut self, index: usize) {
        self.settle(index);
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..READS {
            let again =
                self.read_once(index, true, &mut scratch) | self.read_once(index, false, &mut scratch);
            if !again {
                break;
            }
        }
        self.scratch = scratch;
        self.queue(index);
    }

    /// One read of one side; whether it may have more.
    fn read_once(&mut self, index: usize, client: bool, scratch: &mut [u8]) -> bool {
        if client && self.is_held_up() {
            return false;
        }
        let now = self.now;
        let Some(conn) = self.conns.get_mut(index) else { return false };
        if !conn.wants(client) {
            let Conn { session, link, .. } = conn;
            let behind = |socket: &hands::Socket| socket.end_seen && socket.readable && !socket.eof;
            if client && link.client.as_ref().is_some_and(behind) {
                let mut hands = Hands { link, common: &mut self.common, index, now };
                hands.feed(session, &self.config.rules, SessionFact::ClientFinAhead);
                self.settle(index);
            }
            return false;
        }
        let Conn { session, link, doubtful, .. } = conn;
        // No more than there is room for, and nothing beyond the present request while too much is held.
        let room = if client { session.client_room() } else { scratch.len() };
        let scratch = &mut scratch[..room.min(limits::MAX_HELD)];
        let Some(socket) = link.socket(client) else { return false };
        let result = tcp::receive(socket.fd.as_raw_fd(), scratch);
        let rules = &self.config.rules;
        match result {
            1.. => {
                let bytes = &scratch[..result.cast_unsigned() as usize];
                if client && link.linger_until.is_some_and(|until| now < until) {
                    link.finish_by = Some(now + limits::LINGER);
                }
                let generation = link.generation;
                let Some(socket) = link.socket(client) else { return false };
                // A short read has emptied the socket, and the next bytes are another edge; unless it has stopped
                // before an urgent byte.
                if bytes.len() < scratch.len() && !socket.end_seen {
                    socket.readable = false;
                    socket.doubtful = true;
                    if !std::mem::replace(doubtful, true) {
                        self.doubtful.push_back((index, generation));
                        self.look_again = self.look_again.min(now + limits::LOOK_AGAIN);
                    }
                }
                let mut hands = Hands { link, common: &mut self.common, index, now };
                if client {
                    hands.common.counts.client_bytes += bytes.len() as u64;
                    hands.feed(session, rules, SessionFact::ClientBytes(bytes));
                } else {
                    hands.common.counts.upstream_bytes += bytes.len() as u64;
                    hands.feed(session, rules, SessionFact::UpstreamBytes(bytes));
                }
            }
            // A write has taken the error, and a read shows an end in its place.
            0 if socket.broken.is_some() => socket.failed = socket.broken,
            0 => {
                socket.readable = false;
                socket.eof = true;
                let mut hands = Hands { link, common: &mut self.common, index, now };
                if client {
                    hands.feed(session, rules, SessionFact::ClientFin);
                } else {
                    hands.feed(session, rules, SessionFact::UpstreamFin);
                }
            }
            _ => match -result {
                libc::EAGAIN => socket.readable = false,
                libc::EINTR => {}
                error => socket.failed = Some(error),
            },
        }
        self.settle(index);
        self.conns.get(index).is_some_and(|conn| conn.wants(client))
    }

    /// Draws the consequences of what was done: failures of sends and connects, ends, time.
    fn settle(&mut self, index: usize) {
        let now = self.now;
        loop {
            let Some(Conn { session, link, .. }) = self.conns.get_mut(index) else { return };
            let rules = &self.config.rules;
            if let Some(error) =
                link.client.as_mut().and_then(|client| client.failed.take().or(client.broken.take()))
            {
                if let Some(client) = &mut link.client {
                    client.shown.errno = Some(error);
                }
                let cause = cause(error, link);
                let mut hands = Hands { link, common: &mut self.common, index, now };
                hands.feed(session, rules, SessionFact::ClientGone(cause));
                hands.end_client(End::Close);
            } else if let Some(failure) = link.connect_failed.take() {
                if let Some(chosen) = link.chosen
                    && failure != Failure::Local
                {
                    self.common.upstreams.fails(chosen, now);
                }
                let mut hands = Hands { link, common: &mut self.common, index, now };
                hands.drop_upstream(End::Close);
                if hands.try_another() {
                    continue;
                }
                hands.feed(session, rules, SessionFact::NotConnected(failure));
            } else if let Some(error) = link.upstream.as_mut().and_then(|upstream| upstream.failed.take()) {
                let failure = match failure(error) {
                    Failure::Refused | Failure::Local => Failure::Reset,
                    other => other,
                };
                let mut hands = Hands { link, common: &mut self.common, index, now };
                hands.feed(session, rules, SessionFact::UpstreamGone(failure));
                if hands.link.upstream.is_some() {
                    hands.drop_upstream(End::Close);
                }
            } else {
                break;
            }
        }
        // Whatever the session was told, it has come here.
        let Some(Conn { session, link, held, .. }) = self.conns.get_mut(index) else { return };
        let before = std::mem::replace(held, session.holds() + link.waits_for_upstream());
        self.common.held = self.common.held - before + *held;
        if link.finishing
            && let Some(client) = link.client.as_ref().filter(|client| client.is_flushed())
        {
            if client.eof {
                let mut hands = Hands { link, common: &mut self.common, index, now };
                hands.end_client(End::Close);
            } else if !link.lingers {
                link.lingers = true;
                link.linger_until = Some(now + limits::MAX_LINGER);
                link.finish_left = client.left();
                link.finish_by = Some(now + limits::LINGER);
            }
        }
        if link.client.is_none() && link.upstream.is_none() {
            return self.remove(index);
        }
        self.schedule(index);
    }

    fn remove(&mut self, index: usize) {
        let conn = self.conns.remove(index);
        self.common.held -= conn.held;
        self.wheel.cancel(index as u32);
        self.shared.give(1);
        self.common.counts.open -= 1;
        if std::mem::take(&mut self.full) {
            self.accept_pause = None;
        }
    }

    // --- time ---------------------------------------------------------------------------------

    fn schedule(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        if conn.visit.is_none() && conn.is_busy() {
            conn.visit = Some(self.now + conn_visit(&self.config.policy));
        }
        if let Some(at) = conn.deadline(&self.config.rules)
            && conn.due.is_none_or(|due| at < due)
        {
            conn.due = Some(at);
            self.wheel.schedule(index as u32, at);
        }
    }

    fn on_time(&mut self) {
        for _ in 0..limits::MAX_VISITS_PER_TURN {
            let Some(key) = self.wheel.expire(self.now) else { break };
            let index = key as usize;
            let Some(conn) = self.conns.get_mut(index) else { continue };
            conn.due = None;
            if conn.queued {
                // It has said something, and the turn had no time for it.
                self.read(index);
            }
            if self.conns.contains(index) {
                self.visit(index);
            }
        }
    }

    fn visit(&mut self, index: usize) {
        let now = self.now;
        let held_up = self.is_held_up();
        let rules = &self.config.rules;
        let Conn { session, link, visit, .. } = &mut self.conns[index];
        if link.connect_by.is_some_and(|by| by <= now) {
            link.connect_failed = Some(Failure::TimedOut);
        }
        if link.finish_by.is_some_and(|by| by <= now) {
            let left = link.client.as_ref().map_or(0, hands::Socket::left);
            if left < std::mem::replace(&mut link.finish_left, left) {
                // It takes its time, and takes it: after a close, its next byte would cost it the rest.
                let patience = if link.lingers { limits::LINGER } else { limits::FLUSH_PATIENCE };
                link.finish_by = Some(now + patience);
            } else {
                link.finish_by = None;
                let how = if link.is_flushed(true) { End::Close } else { End::Abort };
                let mut hands = Hands { link, common: &mut self.common, index, now };
                hands.end_client(how);
            }
        }
        if visit.is_some_and(|at| at <= now) {
            *visit = None;
            if link.is_stuck(now, self.config.send_timeout)
                && let Some(client) = &mut link.client
            {
                // It is there, and keeps its place and its upstream's from others.
                client.failed = Some(libc::ETIME);
            }
            let silence = self.config.policy.detection_time();
            if let Some(client) = link.client.as_mut()
                && client.is_unheard(silence, now, &self.stalls)
            {
                client.failed = Some(libc::ETIMEDOUT);
            }
            if let Some(upstream) = link.upstream.as_mut().filter(|_| !link.connecting)
                && upstream.is_unheard(silence, now, &self.stalls)
            {
                upstream.failed = Some(libc::ETIMEDOUT);
            }
        }
        if held_up || !link.is_flushed(false) || !link.is_flushed(true) {
            session.hold_up(now);
        }
        let mut hands = Hands { link, common: &mut self.common, index, now };
        hands.feed(session, rules, SessionFact::Time);
        self.read(index);
    }

    // --- coming in ----------------------------------------------------------------------------

    fn accept_pending(&mut self) -> io::Result<()> {
        if self.accept_pause.is_some_and(|until| self.now < until) || self.is_held_up() {
            return Ok(());
        }
        self.accept_pause = None;
        for at in 0..self.listeners.len() {
            if self.listeners[at].pending {
                self.accept(at)?;
            }
        }
        Ok(())
    }

    fn accept(&mut self, at: usize) -> io::Result<()> {
        for _ in 0..limits::MAX_ACCEPTS_PER_TURN {
            if !self.shared.take() {
                self.saturate("max_connections", SATURATED_PAUSE);
                self.full = true;
                return Ok(());
            }
            match self.listeners[at].listener.accept() {
                Ok((fd, address)) => self.take_in(fd, address)?,
                Err(why) => {
                    self.shared.give(1);
                    match why {
                        NotAccepted::Ended => continue,
                        NotAccepted::NoneWaits => {
                            self.listeners[at].pending = false;
                            self.resume();
                        }
                        NotAccepted::NoRoom => self.saturate("descriptors", limits::ACCEPT_PAUSE),
                        NotAccepted::Forbidden | NotAccepted::Destroyed => {
                            self.saturate("accept", limits::ACCEPT_PAUSE)
                        }
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn take_in(&mut self, fd: OwnedFd, address: SocketAddr) -> io::Result<()> {
        let now = self.now;
        self.common.counts.opened += 1;
        self.common.counts.open += 1;
        let entry = self.conns.vacant_entry();
        let index = entry.key();
        let generation = self.common.next_generation();
        let token = Token::new(kind::CLIENT, generation, index as u32);
        self.common.engine.watch(fd.as_raw_fd(), MASK, token)?;
        let plain = SocketAddr::new(address.ip().to_canonical(), address.port());
        let mut link = Link::new(fd, generation, plain);
        let mut hands = Hands { link: &mut link, common: &mut self.common, index, now };
        let session = hands.begin(&self.config.rules);
        entry.insert(Conn { session, link, held: 0, due: None, visit: None, queued: false, doubtful: false });
        self.settle(index);
        Ok(())
    }

    fn saturate(&mut self, limit: &'static str, pause: Duration) {
        self.accept_pause = Some(self.now + pause);
        if self.shared.saturate(self.now) {
            self.common.told.push_back(Line::Saturated { at: self.now, limit });
        }
    }

    fn resume(&mut self) {
        if self.shared.resume(self.now) {
            self.common.told.push_back(Line::Resumed { at: self.now });
        }
    }

    // --- telling ------------------------------------------------------------------------------

    fn tell_counts(&mut self) {
        self.told_counts = self.now;
        let completed = std::mem::take(&mut self.common.counts.untold_completed);
        if completed > 0 {
            let counts = &self.common.counts;
            let line = Line::Completed {
                at: self.now,
                completed,
                completed_total: counts.completed,
                interrupted_total: counts.interrupted(),
            };
            self.common.told.push_back(line);
        }
    }

    /// Hands over what is told; whether all of it was taken.
    fn hand_over(&mut self) -> bool {
        loop {
            let room = limits::EVENT_BATCH - self.batch.len();
            let more = room.min(self.common.told.len());
            self.batch.extend(self.common.told.drain(..more));
            if self.batch.is_empty() {
                return true;
            }
            match self.journal.offer(std::mem::take(&mut self.batch)) {
                Ok(empty) => self.batch = empty,
                Err(batch) => {
                    self.batch = batch;
                    return false;
                }
            }
        }
    }
}

impl Conn {
    /// Whether bytes of that side are there, as far as is known, and wanted.
    fn wants(&self, client: bool) -> bool {
        let link = &self.link;
        let readable = |socket: &Option<hands::Socket>| {
            socket.as_ref().is_some_and(|socket| socket.readable && !socket.eof && socket.failed.is_none())
        };
        if client {
            readable(&link.client) && self.session.wants_client() && link.is_flushed(false)
        } else {
            readable(&link.upstream) && !link.connecting && link.is_flushed(true)
        }
    }

    /// Whether somebody waits for something.
    fn is_busy(&self) -> bool {
        self.session.phase() != Phase::Idle || !self.link.is_flushed(true)
    }

    fn deadline(&self, rules: &Rules) -> Option<Instant> {
        let session = self.session.deadline(rules);
        [session, self.link.connect_by, self.link.finish_by, self.visit].into_iter().flatten().min()
    }
}

fn conn_visit(policy: &Policy) -> Duration {
    policy.detection_time() / 4
}

/// How a client that ended with this errno has left.
fn cause(error: i32, link: &Link) -> Cause {
    match errno::meaning(error) {
        Meaning::Reset => Cause::Aborted,
        Meaning::TimedOut if link.client.as_ref().is_some_and(hands::Socket::has_unacknowledged) => {
            Cause::UserTimeout
        }
        Meaning::TimedOut => Cause::KeepaliveExpired,
        Meaning::HostUnreachable => Cause::Unreachable(Hop::Host),
        Meaning::NetUnreachable => Cause::Unreachable(Hop::Net),
        _ if error == libc::EPIPE => Cause::Aborted,
        // Ours, for the send timeout.
        _ if error == libc::ETIME => Cause::Local(LocalCause::Shutdown),
        _ => Cause::Local(LocalCause::Destroyed),
    }
}

/// How an upstream has failed.
fn failure(error: i32) -> Failure {
    match error {
        libc::ECONNREFUSED => Failure::Refused,
        libc::ECONNRESET | libc::EPIPE => Failure::Reset,
        _ => match errno::meaning(error) {
            Meaning::Reset => Failure::Reset,
            Meaning::TimedOut => Failure::TimedOut,
            Meaning::HostUnreachable | Meaning::NetUnreachable => Failure::Unreachable,
            _ => Failure::Local,
        },
    }
}
