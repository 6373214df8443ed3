//! One thread's loop on its own ring.
//!
//! Each connection has one multishot poll for its whole life. It brings the end (FIN, RST, errors)
//! at once, and bytes when there are enough of them; bytes are then taken off by recvs that are
//! submitted together with everything else of the turn. A connection is closed only after its poll
//! and its recv have completed for the last time, and its place is given back after that.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use super::EventSink;
use super::conn::Conn;
use super::evidence;
use super::listener::Listener;
use super::locals::Locals;
use super::shared::Shared;
use crate::frame::{Decoded, Decoder, Frame, Kind};
use crate::limits;
use crate::liveness::decode::{self, Received};
use crate::liveness::errno::{self, Meaning};
use crate::liveness::{
    Action, Event, EventKind, Evidence, Fact, Heartbeat, PeerId, PollMask, TcpState, Tracker, TrackerConfig,
    TrackerCounts, Wake,
};
use crate::measure::Recorder;
use crate::outbox::Outbox;
use crate::sys::clock;
use crate::sys::tcp::{self, TickClock};
use crate::sys::uring::{
    BufferPool, Completion, Ring, RingCounters, RingError, RingFeatures, SelfTestError, Token, Wait,
    self_test,
};
use crate::sys::wakeup::Wakeup;
use crate::time::Instant;

/// What kind of operation a completion belongs to.
mod kind {
    /// The poll of a listener; the index is the listener's.
    pub(super) const LISTENER: u8 = 1;
    /// The poll of the wakeup.
    pub(super) const WAKEUP: u8 = 2;
    /// The poll of a connection.
    pub(super) const WATCH: u8 = 3;
    /// A recv of a connection.
    pub(super) const RECV: u8 = 4;
    /// The taking back of a connection's poll; completes only when it failed.
    pub(super) const CANCEL: u8 = 5;
}

/// What a connection's poll waits for; ERR and HUP come by themselves.
const INTEREST: u16 = PollMask::IN | PollMask::RDHUP;
/// How long starved operations rest before they are tried again.
const STARVED_PAUSE: Duration = Duration::from_millis(1);
/// How often a saturated listener looks whether another ring has given something back.
const SATURATED_PAUSE: Duration = Duration::from_millis(20);
/// Portions in a row that may go by without a look at the clock's duties while completions keep coming:
/// enough to feed everything that was queued when the first of them began.
const MAX_BUSY_PORTIONS: u32 = (limits::CQ_ENTRIES as usize / limits::MAX_COMPLETIONS_PER_TURN) as u32;

/// What a driver is made from.
#[derive(Clone, Copy, Debug)]
pub struct DriverConfig {
    /// The tracker's part.
    pub tracker: TrackerConfig,
    /// Once there is a completion, how long to wait for others; zero wakes at once.
    pub batch_window: Duration,
}

/// Why a driver does not start.
#[derive(Debug)]
pub enum StartError {
    /// No ring.
    Ring(RingError),
    /// A ring that is not to be trusted.
    SelfTest(SelfTestError),
    /// Something else that a driver needs.
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// What came of it.
        source: io::Error,
    },
}

impl StartError {
    /// Whether io_uring is missing or forbidden here, as against a shortage of something.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            StartError::Ring(error) => error.is_unavailable(),
            StartError::SelfTest(_) => true,
            StartError::Io { .. } => false,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Ring(error) => error.fmt(f),
            StartError::SelfTest(error) => error.fmt(f),
            StartError::Io { attempted, source } => {
                write!(f, "cannot {attempted}: {}", crate::sys::describe(source))
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Ring(error) => Some(error),
            StartError::SelfTest(error) => Some(error),
            StartError::Io { source, .. } => Some(source),
        }
    }
}

/// What a driver did, told when it ends.
#[derive(Debug)]
pub struct Report {
    /// How many, of what.
    pub counts: TrackerCounts,
    /// Its measurements.
    pub recorder: Recorder,
    /// What its ring did.
    pub ring: RingCounters,
    /// Own stalls that were noticed.
    pub stalls: u64,
    /// Watches that the kernel ended by itself and that were armed again.
    pub rearms: u64,
    /// Events that the sink did not take before the end.
    pub undelivered: u64,
}

/// Sets up a small ring, tests the kernel on it, and says what it has: to refuse early and clearly.
///
/// # Errors
///
/// [`StartError`], whose message names the cause and the cure.
pub fn probe() -> Result<RingFeatures, StartError> {
    let mut ring = Ring::new(8, 16).map_err(StartError::Ring)?;
    self_test(&mut ring).map_err(StartError::SelfTest)?;
    Ok(ring.features())
}

struct Listening {
    listener: Listener,
    local: Option<u16>,
    /// Connections may be waiting although no wake is to be expected.
    pending: bool,
}

/// One ring, one tracker, one thread.
pub struct UringDriver<S> {
    config: DriverConfig,
    // The ring goes before the pool: a pool outlives the operations that select from it.
    ring: Ring,
    pool: Option<BufferPool>,
    tracker: Tracker,
    conns: Vec<Option<Conn>>,
    decoders: Vec<Decoder>,
    /// What of a frame did not fit a socket, by place: only of peers that are stuck.
    outboxes: HashMap<u32, Outbox>,
    listeners: Vec<Listening>,
    shared: Arc<Shared>,
    locals: Arc<Locals>,
    wakeup: Arc<Wakeup>,
    sink: S,
    /// The batch that is being filled, or that the sink did not take.
    batch: Vec<Event>,
    sink_is_full: bool,
    recorder: Recorder,
    ticks: TickClock,
    completions: Vec<Completion>,
    /// Connections whose recv or poll has to be tried again, from this instant.
    starved: VecDeque<PeerId>,
    starved_until: Instant,
    accept_pause: Option<Instant>,
    /// A drain to the end was submitted: the verdict is one turn away, and no batch is waited for.
    urgent: bool,
    /// Somebody streams: what has come meanwhile is read on at once, and no batch is waited for.
    reading_on: bool,
    /// A stream has just been read off: the next of it is waited for a little, not segment by segment.
    paced: bool,
    /// Portions since the last look at the clock's duties.
    unjudged: u32,
    held_places: usize,
    suspended: u64,
    /// When the wake was reaped that the verdicts of this turn go back to: the turn before, where that
    /// one submitted a drain to the end.
    wake: Instant,
    /// When the last turn ended.
    ended: Instant,
    stalls: u64,
    rearms: u64,
}

impl<S: EventSink> UringDriver<S> {
    /// Sets up a ring, tests the kernel on it, and arms the listeners. To be called on the thread
    /// that will [run](UringDriver::run) it.
    ///
    /// # Errors
    ///
    /// [`StartError`], whose message names the cause and the cure.
    pub fn new(
        config: DriverConfig,
        listeners: Vec<Listener>,
        shared: Arc<Shared>,
        locals: Arc<Locals>,
        wakeup: Arc<Wakeup>,
        sink: S,
    ) -> Result<UringDriver<S>, StartError> {
        let mut ring = Ring::new(limits::SQ_ENTRIES, limits::CQ_ENTRIES).map_err(StartError::Ring)?;
        self_test(&mut ring).map_err(StartError::SelfTest)?;
        let frames = config.tracker.policy.heartbeat == Heartbeat::Frames;
        let pool = if frames { Some(BufferPool::new(&ring).map_err(StartError::Ring)?) } else { None };
        let now = Instant::now();
        let capacity = config.tracker.capacity;
        let listening = listeners
            .into_iter()
            .map(|listener| {
                let address = listener.address();
                let local = (!address.ip().is_unspecified()).then(|| locals.intern(address));
                Listening { listener, local, pending: false }
            })
            .collect();
        let mut driver = UringDriver {
            config,
            ring,
            pool,
            tracker: Tracker::new(config.tracker, now),
            conns: Vec::with_capacity(capacity),
            decoders: Vec::with_capacity(if frames { capacity } else { 0 }),
            outboxes: HashMap::new(),
            listeners: listening,
            shared,
            locals,
            wakeup,
            sink,
            batch: Vec::with_capacity(limits::EVENT_BATCH),
            sink_is_full: false,
            recorder: Recorder::new(),
            ticks: TickClock::new(),
            completions: touched(limits::MAX_COMPLETIONS_PER_TURN),
            starved: VecDeque::new(),
            starved_until: Instant::ZERO,
            accept_pause: None,
            urgent: false,
            reading_on: false,
            paced: false,
            unjudged: 0,
            held_places: 0,
            suspended: suspended(),
            wake: now,
            ended: now,
            stalls: 0,
            rearms: 0,
        };
        driver.arm().map_err(|source| StartError::Io { attempted: "arm the listeners", source })?;
        Ok(driver)
    }

    /// What the kernel gave the ring.
    #[must_use]
    pub fn features(&self) -> RingFeatures {
        self.ring.features()
    }

    /// Runs until [`Shared::stop`], then hands over what the sink still takes.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_enter(2)` that no turn can get around.
    pub fn run(mut self) -> io::Result<Report> {
        while !self.shared.is_stopping() {
            self.turn()?;
        }
        self.stop_listening()?;
        let end = Instant::now() + limits::SHUTDOWN_PATIENCE / 3;
        while !self.hand_over() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut undelivered = self.batch.len() as u64;
        while self.tracker.poll_event().is_some() {
            undelivered += 1;
        }
        Ok(Report {
            counts: *self.tracker.counts(),
            recorder: self.recorder,
            ring: self.ring.counters(),
            stalls: self.stalls,
            rearms: self.rearms,
            undelivered,
        })
    }

    /// The judgement, for looking at.
    #[must_use]
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// One turn of the loop: waits, and works off what came.
    ///
    /// # Errors
    ///
    /// As [`UringDriver::run`].
    pub fn turn(&mut self) -> io::Result<()> {
        let ending = self.urgent;
        let now = self.wait()?;
        if !ending {
            self.wake = now;
        }

        // All that was there when the wait ended is fed before anybody is judged, in portions, so that
        // no portion makes the others wait for its actions.
        let began = now;
        let mut now = now;
        let mut portions = 0;
        let mut rest = true;
        while rest && portions < MAX_BUSY_PORTIONS {
            if portions > 0 {
                // A submission in between may have brought what had not come yet.
                now = Instant::now();
                if now.since(began) > limits::TURN_BUDGET {
                    break;
                }
            }
            let mut batch = std::mem::take(&mut self.completions);
            rest = self.ring.reap(&mut batch, limits::MAX_COMPLETIONS_PER_TURN);
            self.recorder.batch(batch.len());
            for completion in batch.drain(..) {
                self.complete(completion, now)?;
            }
            self.completions = batch;
            if let Some(pool) = &mut self.pool {
                pool.publish();
            }
            self.perform(now)?;
            portions += 1;
        }
        self.unjudged = if rest { self.unjudged + portions } else { 0 };
        if self.ring.is_overflown() || (rest && self.unjudged < MAX_BUSY_PORTIONS) {
            // Completions are left, here or held back by the kernel: nobody is judged before they were seen.
            self.urgent = true;
        } else {
            self.unjudged = 0;
            self.tracker.handle_time(now);
            self.perform(now)?;
        }
        self.retry(now)?;
        self.accept_pending()?;
        self.hand_over();
        self.give_back_places();
        self.sink.progress(self.tracker.counts());
        let end = Instant::now();
        self.recorder.turn(end.since(began));
        if end.since(began) > limits::STALL_THRESHOLD {
            self.stalled(began, end);
        }
        self.ended = end;
        Ok(())
    }

    // --- waiting -------------------------------------------------------------------------------

    /// Submits, waits, and returns the time. Says so when it came back much later than asked for.
    fn wait(&mut self) -> io::Result<Instant> {
        let before = Instant::now();
        // Appointments that wait for their turn lie in the past; who is late for those is not held up.
        let until = self.wake_at(before).max(self.ended);
        let timeout = until.since(before);
        let at_once = std::mem::take(&mut self.urgent) | std::mem::take(&mut self.reading_on);
        let wait = if at_once || timeout.is_zero() {
            Wait::NOT
        } else {
            let window = if self.paced { limits::STREAM_WINDOW } else { self.config.batch_window };
            let completions = if window.is_zero() { 1 } else { limits::WAIT_BATCH };
            Wait { completions, window, timeout }
        };
        self.paced &= at_once;
        self.ring.submit_and_wait(wait)?;
        let now = Instant::now();
        if now > until + limits::STALL_THRESHOLD {
            self.stalled(until, now);
        }
        let suspended = suspended();
        let slept = suspended.saturating_sub(self.suspended);
        // Whoever is held up between the two clocks sees too little; that is no suspend at the next look.
        self.suspended = suspended.max(self.suspended);
        if slept > crate::time::nanos(limits::STALL_THRESHOLD) {
            self.stalls += 1;
            self.tracker.handle_suspend(now, Duration::from_nanos(slept));
        }
        Ok(now)
    }

    fn stalled(&mut self, start: Instant, end: Instant) {
        self.stalls += 1;
        self.tracker.handle_stall(start, end);
    }

    fn wake_at(&self, now: Instant) -> Instant {
        let mut until = now + limits::MAX_WAIT;
        if let Some(due) = self.tracker.next_due() {
            until = until.min(due);
        }
        if !self.starved.is_empty() {
            until = until.min(self.starved_until);
        }
        if self.sink_is_full {
            // The sink wakes us; this is for one that forgets.
            until = until.min(now + limits::ACCEPT_PAUSE);
        }
        if self.listeners.iter().any(|listening| listening.pending) {
            until = until.min(self.accept_pause.unwrap_or(now));
        }
        until
    }

    // --- completions ---------------------------------------------------------------------------

    fn complete(&mut self, completion: Completion, now: Instant) -> io::Result<()> {
        let token = completion.token;
        match token.kind() {
            kind::LISTENER => {
                let index = token.index() as usize;
                self.listeners[index].pending = true;
                if !completion.more {
                    self.rearms += 1;
                    self.watch_listener(index)?;
                }
                Ok(())
            }
            kind::WAKEUP => {
                self.wakeup.clear();
                if completion.more { Ok(()) } else { self.watch_wakeup() }
            }
            kind::WATCH => self.on_poll(completion, now),
            kind::RECV => self.on_recv(completion, now),
            kind::CANCEL => Ok(()), // it was already over: its last completion is here or on its way
            kind => unreachable!("no operation of kind {kind} is ever submitted"),
        }
    }

    /// The connection that a completion belongs to, unless its place has a new life.
    fn conn(&mut self, token: Token) -> Option<(PeerId, &mut Conn)> {
        let peer = PeerId::new(token.index(), token.generation());
        if !self.tracker.has(peer) {
            return None;
        }
        let conn = self.conns.get_mut(token.index() as usize)?.as_mut()?;
        Some((peer, conn))
    }

    fn on_poll(&mut self, completion: Completion, now: Instant) -> io::Result<()> {
        let Some((peer, conn)) = self.conn(completion.token) else { return Ok(()) };
        if !completion.more {
            conn.clear(Conn::WATCHED);
        }
        if conn.has(Conn::CLOSING) {
            self.close_if_quiet(peer);
            return Ok(());
        }
        match decode::polled(completion.result) {
            Ok(mask) => {
                conn.mask = mask;
                if !completion.more {
                    self.rearms += 1;
                    self.watch(peer)?;
                }
                self.tracker.handle(peer, Fact::Ready(mask), now);
            }
            Err(errno) => match errno::meaning(errno) {
                Meaning::Again | Meaning::Resources | Meaning::Cancelled => self.starve(peer, now),
                _ => self.failed(peer, errno, now),
            },
        }
        Ok(())
    }

    fn on_recv(&mut self, completion: Completion, now: Instant) -> io::Result<()> {
        let full = match &self.pool {
            Some(_) => limits::FRAME_BUFFER_BYTES,
            None => limits::MAX_DISCARD,
        };
        let Some((peer, conn)) = self.conn(completion.token) else {
            self.recycle(completion.buffer);
            return Ok(());
        };
        conn.clear(Conn::RECEIVING);
        if conn.has(Conn::CLOSING) {
            self.recycle(completion.buffer);
            self.close_if_quiet(peer);
            return Ok(());
        }
        let again = conn.take(Conn::AGAIN);
        let to_end = conn.has(Conn::TO_END);
        match decode::received(completion.result) {
            Received::Bytes(bytes) => {
                if bytes >= limits::STREAM_BYTES {
                    conn.set(Conn::STREAMING);
                }
                let streams = conn.has(Conn::STREAMING);
                self.reading_on |= streams;
                self.tracker.handle(peer, Fact::Taken { bytes }, now);
                if let Some(buffer) = completion.buffer {
                    self.parse(peer, buffer, bytes as usize, now);
                }
                if again || to_end || streams || bytes >= full {
                    self.receive(peer)?;
                } else {
                    self.tracker.handle(peer, Fact::Emptied, now);
                }
            }
            Received::Nothing | Received::Cancelled => {
                if again {
                    self.receive(peer)?;
                } else {
                    conn.clear(Conn::TO_END);
                    self.paced |= conn.take(Conn::STREAMING);
                    self.tracker.handle(peer, Fact::Emptied, now);
                }
            }
            Received::End => {
                conn.set(Conn::ENDED);
                let evidence = self.evidence(peer);
                self.tracker.handle(peer, Fact::End(evidence), now);
            }
            Received::Starved => {
                conn.set(Conn::AGAIN);
                self.starve(peer, now);
            }
            Received::Failed(errno) => {
                conn.clear(Conn::TO_END); // it may be a soft error
                self.failed(peer, errno, now);
            }
        }
        self.recycle(completion.buffer);
        Ok(())
    }

    /// Feeds the frames in a buffer, and answers the newest PING among them: one answer a batch is
    /// enough to tell that we are here, and bounds what a flood of PINGs can make us send.
    fn parse(&mut self, peer: PeerId, buffer: u16, length: usize, now: Instant) {
        let (Some(pool), Some(decoder)) = (&self.pool, self.decoders.get_mut(peer.index() as usize)) else {
            return;
        };
        let mut bytes = pool.bytes(buffer, length);
        let mut ping = None;
        let outcome = loop {
            match decoder.next(&mut bytes) {
                Ok(Some(Decoded::Frame(frame))) => match frame.kind {
                    Kind::Bye => break Ok(true),
                    Kind::Ping => {
                        ping = Some(frame);
                        self.tracker.handle(
                            peer,
                            Fact::Frame { kind: frame.kind, sequence: frame.sequence },
                            now,
                        );
                    }
                    Kind::Pong | Kind::Hello => {
                        // Our own clock comes back: what lies between is the round trip. A peer can
                        // only spoil its own sample by sending something else.
                        if frame.timestamp > 0 && frame.timestamp <= now.as_nanos() {
                            self.recorder.rtt(now.since(Instant::from_nanos(frame.timestamp)));
                        }
                        self.tracker.handle(
                            peer,
                            Fact::Frame { kind: frame.kind, sequence: frame.sequence },
                            now,
                        );
                    }
                },
                Ok(Some(Decoded::Hello { identity, .. })) => {
                    self.tracker.handle(peer, Fact::Hello(identity), now);
                }
                Ok(None) => break Ok(false),
                Err(error) => break Err(error),
            }
        };
        match outcome {
            Ok(false) => {}
            Ok(true) => {
                let evidence = self.evidence(peer);
                self.tracker.handle(peer, Fact::Bye(evidence), now);
                return;
            }
            Err(error) => {
                let evidence = self.evidence(peer);
                self.tracker.handle(peer, Fact::Garbage(error, evidence), now);
                return;
            }
        }
        if let Some(answer) = ping.and_then(|ping| ping.answer()) {
            self.send(peer, answer);
        }
    }

    /// Sends a frame now or not at all: a peer that does not take sixteen bytes is stuck, not dead,
    /// and a send that fails tells nothing that the poll does not tell. Of a frame that was begun the
    /// rest is kept and goes first the next time: half a frame would spoil all that follow.
    fn send(&mut self, peer: PeerId, frame: Frame) {
        let Some(Some(conn)) = self.conns.get(peer.index() as usize) else { return };
        let mut outbox = self.outboxes.remove(&peer.index()).unwrap_or(Outbox::new());
        let _ = outbox.send(&mut tcp::Now(conn.as_fd()), &frame.encode());
        if !outbox.is_empty() {
            self.outboxes.insert(peer.index(), outbox);
        }
    }

    fn recycle(&mut self, buffer: Option<u16>) {
        if let (Some(pool), Some(buffer)) = (&mut self.pool, buffer) {
            pool.recycle(buffer);
        }
    }

    fn failed(&mut self, peer: PeerId, errno: i32, now: Instant) {
        let evidence = self.evidence(peer);
        self.tracker.handle(peer, Fact::Failed { errno, evidence }, now);
    }

    /// Looks at the socket. One that cannot be looked at is as good as closed.
    fn evidence(&mut self, peer: PeerId) -> Evidence {
        let gone = Evidence { tcp_state: TcpState::Close, ..Evidence::default() };
        let Some(Some(conn)) = self.conns.get(peer.index() as usize) else { return gone };
        match evidence::inspect(conn.as_fd(), conn.mask, self.ticks) {
            Ok(mut evidence) => {
                // Reading it takes it: before the end it is the recv's, which may be under way.
                let errs = conn.has(Conn::ENDED) && conn.mask.has(PollMask::ERR);
                if errs && evidence.tcp_state == TcpState::Close {
                    evidence.so_error = tcp::take_error(conn.as_fd()).ok().filter(|&errno| errno != 0);
                }
                evidence
            }
            Err(_) => Evidence { mask: conn.mask, ..gone },
        }
    }

    fn starve(&mut self, peer: PeerId, now: Instant) {
        if self.starved.is_empty() {
            self.starved_until = now + STARVED_PAUSE;
        }
        self.starved.push_back(peer);
    }

    /// Tries again what was starved, in order, and no more of it than there are buffers: the others
    /// would only starve again.
    fn retry(&mut self, now: Instant) -> io::Result<()> {
        if self.starved.is_empty() || now < self.starved_until {
            return Ok(());
        }
        self.starved_until = now + STARVED_PAUSE;
        for _ in 0..limits::FRAME_BUFFERS {
            let Some(peer) = self.starved.pop_front() else { break };
            let token = Token::new(kind::RECV, peer.generation(), peer.index());
            let Some((_, conn)) = self.conn(token) else { continue };
            if conn.has(Conn::CLOSING) {
                continue;
            }
            // A recv that is under way sees for itself that there was another wish.
            let receive = !conn.has(Conn::RECEIVING) && conn.take(Conn::AGAIN);
            if !conn.has(Conn::WATCHED) {
                self.rearms += 1;
                self.watch(peer)?;
            }
            if receive {
                self.receive(peer)?;
            }
        }
        Ok(())
    }

    // --- actions -------------------------------------------------------------------------------

    fn perform(&mut self, now: Instant) -> io::Result<()> {
        while let Some(action) = self.tracker.poll_action() {
            match action {
                Action::Drain { peer, to_end } => self.drain(peer, to_end)?,
                Action::Inspect(peer) => {
                    let evidence = self.evidence(peer);
                    self.tracker.handle(peer, Fact::Inspected(evidence), now);
                }
                Action::WakeOn { peer, narrow } => {
                    let mark = if narrow { 1 } else { self.config.tracker.unread };
                    if let Some(Some(conn)) = self.conns.get(peer.index() as usize) {
                        // It fails only for what is no socket; then the next look at it says so.
                        let _ = tcp::set_low_water_mark(conn.as_fd(), mark);
                    }
                }
                Action::Probe { peer, sequence } => {
                    self.send(peer, Frame { kind: Kind::Ping, sequence, timestamp: now.as_nanos() });
                }
                Action::Close { peer, abort } => self.close(peer, abort)?,
            }
        }
        Ok(())
    }

    fn drain(&mut self, peer: PeerId, to_end: bool) -> io::Result<()> {
        let Some(Some(conn)) = self.conns.get_mut(peer.index() as usize) else { return Ok(()) };
        if to_end {
            conn.set(Conn::TO_END);
            self.urgent = true;
        }
        if conn.has(Conn::RECEIVING) {
            conn.set(Conn::AGAIN);
            return Ok(());
        }
        self.receive(peer)
    }

    fn receive(&mut self, peer: PeerId) -> io::Result<()> {
        let Some(Some(conn)) = self.conns.get_mut(peer.index() as usize) else { return Ok(()) };
        if conn.has(Conn::CLOSING) {
            return Ok(());
        }
        debug_assert!(!conn.has(Conn::RECEIVING));
        conn.set(Conn::RECEIVING);
        self.urgent |= conn.has(Conn::TO_END);
        let token = Token::new(kind::RECV, peer.generation(), peer.index());
        let fd = conn.raw();
        match &self.pool {
            Some(_) => self.ring.receive(fd, token),
            None => self.ring.discard(fd, limits::MAX_DISCARD, token),
        }
    }

    fn watch(&mut self, peer: PeerId) -> io::Result<()> {
        let Some(Some(conn)) = self.conns.get_mut(peer.index() as usize) else { return Ok(()) };
        conn.set(Conn::WATCHED);
        let token = Token::new(kind::WATCH, peer.generation(), peer.index());
        self.ring.watch(conn.raw(), INTEREST, token)
    }

    fn close(&mut self, peer: PeerId, abort: bool) -> io::Result<()> {
        let Some(Some(conn)) = self.conns.get_mut(peer.index() as usize) else { return Ok(()) };
        conn.set(if abort { Conn::CLOSING | Conn::ABORT } else { Conn::CLOSING });
        if conn.has(Conn::WATCHED) {
            let watch = Token::new(kind::WATCH, peer.generation(), peer.index());
            let cancel = Token::new(kind::CANCEL, peer.generation(), peer.index());
            self.ring.cancel(watch, cancel)?;
        }
        self.close_if_quiet(peer);
        Ok(())
    }

    /// Closes a dead peer's descriptor once nothing is under way on it: an armed request would keep
    /// the socket open behind our back, and its FIN with it.
    fn close_if_quiet(&mut self, peer: PeerId) {
        let place = &mut self.conns[peer.index() as usize];
        let Some(conn) = place else { return };
        if conn.has(Conn::WATCHED | Conn::RECEIVING) {
            return;
        }
        if conn.has(Conn::ABORT) {
            let _ = tcp::abort_on_close(conn.as_fd()); // at worst it is closed with a FIN
        }
        *place = None;
        self.outboxes.remove(&peer.index());
        self.tracker.release(peer);
    }

    // --- listening -----------------------------------------------------------------------------

    fn arm(&mut self) -> io::Result<()> {
        self.watch_wakeup()?;
        for index in 0..self.listeners.len() {
            self.watch_listener(index)?;
        }
        self.ring.submit_and_wait(Wait::NOT)
    }

    fn watch_listener(&mut self, index: usize) -> io::Result<()> {
        let fd = self.listeners[index].listener.as_raw_fd();
        self.ring.watch(fd, PollMask::IN, Token::new(kind::LISTENER, 0, index as u32))
    }

    /// Gives the ports back. The kernel takes a ring apart some time after its descriptor was closed,
    /// and an armed poll holds its listener until then: whoever starts anew at once would find the
    /// port taken.
    fn stop_listening(&mut self) -> io::Result<()> {
        for index in 0..self.listeners.len() as u32 {
            let (watch, cancel) = (Token::new(kind::LISTENER, 0, index), Token::new(kind::CANCEL, 0, index));
            self.ring.cancel(watch, cancel)?;
        }
        self.ring.submit_and_wait(Wait::NOT)?;
        self.listeners.clear();
        Ok(())
    }

    fn watch_wakeup(&mut self) -> io::Result<()> {
        self.ring.watch(self.wakeup.as_raw_fd(), PollMask::IN, Token::new(kind::WAKEUP, 0, 0))
    }

    fn accept_pending(&mut self) -> io::Result<()> {
        if !self.listeners.iter().any(|listening| listening.pending) {
            return Ok(());
        }
        // Not the turn's: who came during the turn is not older than it.
        let now = Instant::now();
        if self.accept_pause.is_some_and(|until| now < until) {
            return Ok(());
        }
        self.accept_pause = None;
        for index in 0..self.listeners.len() {
            if self.listeners[index].pending && self.accept_pause.is_none() {
                self.accept(index, now)?;
            }
        }
        Ok(())
    }

    /// Accepts what waits at a listener, within the turn's bound and the connections that are left.
    fn accept(&mut self, index: usize, now: Instant) -> io::Result<()> {
        for _ in 0..limits::MAX_ACCEPTS_PER_TURN {
            if self.tracker.is_full() || !self.shared.take() {
                self.saturate("max_connections", now, SATURATED_PAUSE);
                return Ok(());
            }
            match tcp::accept(self.listeners[index].listener.as_fd()) {
                Ok((fd, address)) => {
                    self.resume(now);
                    let local = match self.listeners[index].local {
                        Some(local) => local,
                        None => {
                            let wildcard = self.listeners[index].listener.address();
                            let local = tcp::local_address(fd.as_fd()).unwrap_or(wildcard);
                            self.locals.intern(plain(local))
                        }
                    };
                    let Some(peer) = self.tracker.accept(plain(address), local, now) else {
                        unreachable!("it was not full");
                    };
                    self.held_places += 1;
                    self.hold(Conn::new(fd), peer);
                    self.watch(peer)?;
                }
                Err(error) => {
                    self.shared.give(1);
                    match error.raw_os_error() {
                        Some(libc::EAGAIN) => {
                            self.listeners[index].pending = false;
                            // There was a descriptor for it, had somebody waited.
                            self.resume(now);
                            return Ok(());
                        }
                        // It was over before it was accepted.
                        Some(libc::ECONNABORTED | libc::EINTR) => {}
                        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                            self.saturate("descriptors", now, limits::ACCEPT_PAUSE);
                            return Ok(());
                        }
                        // A security policy forbids it, or the listener was killed from outside (`ss -aK`).
                        _ => {
                            self.saturate("accept", now, limits::ACCEPT_PAUSE);
                            self.listeners[index].listener.reopen();
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn hold(&mut self, conn: Conn, peer: PeerId) {
        let index = peer.index() as usize;
        if self.conns.len() <= index {
            self.conns.resize_with(index + 1, || None);
        }
        assert!(self.conns[index].is_none(), "a place is given out again only after its release");
        self.conns[index] = Some(conn);
        if self.pool.is_some() {
            if self.decoders.len() <= index {
                self.decoders.resize_with(index + 1, Decoder::new);
            }
            self.decoders[index] = Decoder::new();
        }
    }

    fn saturate(&mut self, limit: &'static str, now: Instant, pause: Duration) {
        self.accept_pause = Some(now + pause);
        if self.shared.saturate() {
            self.tracker.notice(Event { at: now, subject: None, kind: EventKind::Saturated { limit } });
        }
    }

    fn resume(&mut self, now: Instant) {
        if self.shared.resume() {
            self.tracker.notice(Event { at: now, subject: None, kind: EventKind::Resumed });
        }
    }

    fn give_back_places(&mut self) {
        let freed = self.held_places - self.tracker.len();
        if freed > 0 {
            self.held_places -= freed;
            self.shared.give(freed);
        }
    }

    // --- events --------------------------------------------------------------------------------

    /// Hands events to the sink as long as it takes them; whether all were taken.
    fn hand_over(&mut self) -> bool {
        loop {
            while self.batch.len() < limits::EVENT_BATCH && !self.sink_is_full {
                let Some(event) = self.tracker.poll_event() else { break };
                if let EventKind::Died(death) = &event.kind {
                    self.recorder.death(death);
                    if death.deadline.is_none() {
                        self.recorder.verdict(Instant::now().since(self.wake));
                    }
                }
                self.batch.push(event);
            }
            if self.batch.is_empty() {
                return true;
            }
            match self.sink.offer(std::mem::take(&mut self.batch)) {
                Ok(empty) => {
                    self.batch = empty;
                    self.sink_is_full = false;
                }
                Err(batch) => {
                    self.batch = batch;
                    self.sink_is_full = true;
                    return false;
                }
            }
        }
    }
}

/// Room for so many completions whose pages are there already: the first storm must not fault them in.
fn touched(capacity: usize) -> Vec<Completion> {
    let nothing = Completion { token: Token::new(0, 0, 0), result: 0, more: false, buffer: None };
    let mut room = vec![nothing; capacity];
    room.clear();
    room
}

/// Time that the machine was suspended since boot, in nanoseconds.
fn suspended() -> u64 {
    clock::boottime_nanos().saturating_sub(clock::monotonic_nanos())
}

/// An IPv4 address that came through an IPv6 socket, as IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// In beat mode a batch is waited for, since every beat completes something; in lazy mode
/// completions are rare and none waits for another.
#[must_use]
pub const fn default_batch_window(wake: Wake) -> Duration {
    match wake {
        Wake::Lazy => Duration::ZERO,
        Wake::Beat => Duration::from_micros(500),
    }
}

#[cfg(test)]
mod tests;
