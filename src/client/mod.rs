//! The heartbeat client: holds connections to a `deadpeer` and lets it know that they are alive.
//!
//! *Intuition.* A client that beats does almost nothing, almost never, so thousands of them fit on
//! one thread. What needs care is that they do not do it all at once, and that a connection on
//! which nothing moves costs no more than one that works.
//!
//! *Model.* Each connection is waiting, connecting, up, leaving or gone, and has at most one timer:
//! the end of its wait, of the patience with its connect, or its next beat. Beats lie on a grid: that of
//! connection `i` of `n` is due at `start + every * i / n + every * k`, moved by up to 5 % of
//! `every` to either side. So two beats of one connection are 90 to 110 % of `every` apart, their
//! mean is `every` exactly, and the connections stay spread for as long as the client runs.
//! (BFD draws 75 to 100 % of the interval, which shortens its mean; here the mean is what the
//! load was asked to be.) A beat is never early, and up to a millisecond late, for the poll rounds up.
//!
//! It speaks the frames of [`crate::frame`]: a HELLO when a connection is up, then heartbeats, a
//! PONG for every PING, and a BYE at the end. For a server that takes any byte as life these are bytes.
//!
//! *Contract.* Everything is bounded: connects in flight ([`MAX_IN_FLIGHT`]), work in one turn, and
//! what a connection keeps back, which is the rest of one frame that did not fit the socket. A
//! connection is stuck until that is gone; its beats and answers are skipped and counted meanwhile.
//! A server that ends a connection is counted, never an error. Errors are what the client cannot
//! do: [`ClientError`] says what it tried, and the cure.
//!
//! ```
//! use std::time::Duration;
//! use deadpeer::client::{Client, ClientConfig};
//!
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let client = Client::new(ClientConfig {
//!     count: 3,
//!     every: Duration::from_millis(10),
//!     ..ClientConfig::new(listener.local_addr()?)
//! })?;
//! let stop = client.stop_handle(); // from a signal, another thread, or the report
//! let totals = client.run(|progress| {
//!     if progress.totals.beats >= 9 {
//!         stop.stop();
//!     }
//! })?;
//! assert_eq!(totals.established, 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use self::rhythm::Rhythm;
use crate::frame::{Decoded, Decoder, Frame, Identity, encode_hello};
use crate::limits::{MAX_WAIT, RESERVED_FDS, SHUTDOWN_PATIENCE};
use crate::partial_frame::{PartialFrame, Sent};
use crate::sys::rlimit::raise_nofile;
use crate::time::Instant;

mod error;
mod rhythm;

pub use error::ClientError;

/// Connections of one client: the ports that one address has towards one listener, without the
/// privileged ones. More are refused.
pub const MAX_COUNT: usize = 64_512;

/// The shortest interval between beats. Below it the poll's millisecond would decide the rate.
pub const MIN_EVERY: Duration = Duration::from_millis(1);

/// The longest interval: a day. Every policy has long given up by then.
pub const MAX_EVERY: Duration = Duration::from_secs(86_400);

/// Connects that have not been answered yet. Larger bursts overflow the backlog of ordinary
/// listeners (4,096 at most, often 128), and a dropped SYN costs a second; the rest wait.
pub const MAX_IN_FLIGHT: usize = 256;

/// How long a connect may take. The kernel alone would try for two minutes.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// The wait before the first new attempt at a connection; it doubles with each that fails.
pub const MIN_BACKOFF: Duration = Duration::from_millis(100);

/// The longest wait between attempts.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Completions taken from one poll; the rest come with the next.
const MAX_EVENTS: usize = 1_024;

/// Timers that fire in one turn. At about 5 us a beat they hold up reading for 5 ms at most.
const MAX_TIMERS_PER_TURN: usize = 1_024;

/// Bytes of one read: 256 frames.
const READ_BYTES: usize = 4_096;

/// Reads from one connection in one turn: a server that floods one does not starve the others.
const MAX_READS_PER_TURN: usize = 4;

/// The waker's token; connection `i` has `i + 1`.
const STOP: Token = Token(0);

/// What to connect to, how often to beat.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The server.
    pub address: SocketAddr,
    /// How many connections to hold, 1 to [`MAX_COUNT`].
    pub count: usize,
    /// The mean interval between two beats of one connection, [`MIN_EVERY`] to [`MAX_EVERY`]. At
    /// most a third of the server's detection time is a good choice.
    pub every: Duration,
    /// The name in the HELLO. With more than one connection each adds `-` and its number, from 0.
    pub identity: Option<String>,
    /// Seeds the jitter of beats and backoff; the same seed draws the same numbers.
    pub seed: u64,
    /// Whether a connection that failed or was lost is tried again, after a growing wait.
    pub reconnect: bool,
    /// When to stop by itself; `None` is never.
    pub lasting: Option<Duration>,
}

impl ClientConfig {
    /// One connection that beats once a second, for ever.
    #[must_use]
    pub fn new(address: SocketAddr) -> ClientConfig {
        let every = Duration::from_secs(1);
        ClientConfig { address, count: 1, every, identity: None, seed: 0, reconnect: false, lasting: None }
    }

    /// The name of connection `index`.
    fn identity(&self, index: usize) -> String {
        match &self.identity {
            None => String::new(),
            Some(name) if self.count == 1 => name.clone(),
            Some(name) => format!("{name}-{index}"),
        }
    }

    fn check(&self) -> Result<(), ClientError> {
        if self.address.port() == 0 {
            return Err(ClientError::NoPort { address: self.address });
        }
        if !(1..=MAX_COUNT).contains(&self.count) {
            return Err(ClientError::Count { count: self.count });
        }
        if !(MIN_EVERY..=MAX_EVERY).contains(&self.every) {
            return Err(ClientError::Every { every: self.every });
        }
        // The last has the longest number behind its name.
        let identity = self.identity(self.count - 1);
        Identity::new(&identity).map(|_| ()).map_err(|source| ClientError::Identity { identity, source })
    }
}

/// What has happened since the client began. Only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that came up, every renewal counted.
    pub established: u64,
    /// Connects that the server's machine refused: nobody listens there.
    pub refused: u64,
    /// Connects that failed in another way: unreachable, or not answered.
    pub failed: u64,
    /// Connections that the server ended with a FIN.
    pub lost_closed: u64,
    /// Connections that the server ended with a RST.
    pub lost_reset: u64,
    /// Connections that the path ended: timed out, unreachable.
    pub lost_path: u64,
    /// Connections that we ended because the server's bytes were no frames.
    pub lost_protocol: u64,
    /// Heartbeats sent.
    pub beats: u64,
    /// PINGs answered.
    pub pongs_answered: u64,
    /// Beats and answers that were not sent, because the connection was stuck or we were late by
    /// more than a beat.
    pub skipped: u64,
    /// Connections left with a BYE.
    pub byes: u64,
    /// The error of the last connect that failed or connection whose path ended, as an `errno`.
    pub last_errno: Option<i32>,
}

impl Totals {
    /// Connections that ended without our will.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost_closed + self.lost_reset + self.lost_path + self.lost_protocol
    }
}

/// How things stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Connections that are up and beat.
    pub connected: usize,
    /// Connects in flight.
    pub connecting: usize,
    /// Connections that wait for their turn to connect, or for the end of their backoff.
    pub waiting: usize,
    /// What happened until now.
    pub totals: Totals,
}

/// Ends a running client, from any thread.
#[derive(Clone, Debug)]
pub struct Stop(Arc<StopInner>);

#[derive(Debug)]
struct StopInner {
    asked: AtomicBool,
    waker: Waker,
}

impl Stop {
    /// Asks the client to say BYE and leave. Asking twice is asking once.
    pub fn stop(&self) {
        self.0.asked.store(true, Ordering::Release);
        // An eventfd of our own: writing to it fails only when its counter is full, and then it
        // wakes anyway.
        let _ = self.0.waker.wake();
    }

    fn asked(&self) -> bool {
        self.0.asked.load(Ordering::Acquire)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// In the queue, or with a timer that puts it there.
    Waiting,
    Connecting,
    Up,
    /// BYE and FIN are sent; its FIN is awaited.
    Leaving,
    /// Will not come back.
    Gone,
}

struct Connection {
    phase: Phase,
    /// There in `Connecting`, `Up` and `Leaving`, and only there.
    stream: Option<TcpStream>,
    decoder: Decoder,
    partial: PartialFrame,
    /// Of the next heartbeat.
    sequence: u32,
    /// The next beat's place on the grid.
    place: u64,
    /// The only entry in `Client::timers`.
    timer: Option<Instant>,
    /// Attempts since the last heartbeat that was sent.
    attempts: u32,
    /// Whether it is in `Client::unread`.
    unread: bool,
}

impl Connection {
    fn new() -> Connection {
        Connection {
            phase: Phase::Waiting,
            stream: None,
            decoder: Decoder::new(),
            partial: PartialFrame::new(),
            sequence: 0,
            place: 0,
            timer: None,
            attempts: 0,
            unread: false,
        }
    }
}

/// How a connection ended.
enum Loss {
    Closed,
    Failed(io::Error),
    Protocol,
}

/// The client; see the module.
pub struct Client {
    config: ClientConfig,
    poll: Poll,
    stop: Stop,
    rhythm: Rhythm,
    rng: fastrand::Rng,
    connections: Vec<Connection>,
    /// Connections to begin, in order.
    queue: VecDeque<usize>,
    /// At most one entry for each connection, so it is bounded by their number.
    timers: BTreeSet<(Instant, usize)>,
    /// Connections that had more to read than one turn allows.
    unread: Vec<usize>,
    leaving: usize,
    progress: Progress,
}

impl Client {
    /// Checks the configuration and makes room for its connections; connects to nothing yet.
    ///
    /// # Errors
    ///
    /// A configuration out of its bounds, or a machine without room for it.
    pub fn new(config: ClientConfig) -> Result<Client, ClientError> {
        config.check()?;
        let limit = raise_nofile().map_err(|source| ClientError::Descriptors { source })?;
        let wanted = config.count as u64 + RESERVED_FDS;
        if wanted > limit {
            return Err(ClientError::TooFewDescriptors { wanted, limit });
        }
        let poll = Poll::new().map_err(|source| ClientError::Poll { source })?;
        let waker = Waker::new(poll.registry(), STOP).map_err(|source| ClientError::Poll { source })?;
        let rng = fastrand::Rng::with_seed(config.seed);
        Ok(Client {
            poll,
            stop: Stop(Arc::new(StopInner { asked: AtomicBool::new(false), waker })),
            // `run` sets the start.
            rhythm: Rhythm::new(Instant::ZERO, config.every, config.count),
            rng,
            connections: (0..config.count).map(|_| Connection::new()).collect(),
            queue: (0..config.count).collect(),
            timers: BTreeSet::new(),
            unread: Vec::new(),
            leaving: 0,
            progress: Progress { waiting: config.count, ..Progress::default() },
            config,
        })
    }

    /// What ends [`Client::run`].
    #[must_use]
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Connects and beats until it is stopped, its time is over, or no connection is left and none
    /// will come back; then leaves in order, within [`SHUTDOWN_PATIENCE`]. `report` is called after
    /// every turn of the loop and at least once a second.
    ///
    /// # Errors
    ///
    /// When the machine refuses sockets or ports. Connections that are up are closed without a BYE.
    pub fn run(mut self, mut report: impl FnMut(&Progress)) -> Result<Totals, ClientError> {
        let mut now = Instant::now();
        let end = self.config.lasting.map_or(Instant::NEVER, |lasting| now + lasting);
        self.rhythm = Rhythm::new(now, self.config.every, self.config.count);
        let mut events = Events::with_capacity(MAX_EVENTS);
        while !self.stop.asked() && now < end && !self.nobody_left() {
            self.start_connects(now)?;
            self.wait(&mut events, now, end)?;
            now = Instant::now();
            for event in &events {
                self.handle(event, now);
            }
            self.read_on(now);
            self.fire_timers(now);
            report(&self.progress);
        }
        self.leave(&mut events, &mut report)?;
        Ok(self.progress.totals)
    }

    fn nobody_left(&self) -> bool {
        self.progress.connected + self.progress.connecting + self.progress.waiting == 0
    }

    fn wait(&mut self, events: &mut Events, now: Instant, end: Instant) -> Result<(), ClientError> {
        let due = self.timers.first().map_or(Instant::NEVER, |&(at, _)| at);
        let can_connect = !self.queue.is_empty() && self.progress.connecting < MAX_IN_FLIGHT;
        let busy = can_connect || !self.unread.is_empty();
        let timeout = if busy { Duration::ZERO } else { due.min(end).since(now).min(MAX_WAIT) };
        self.poll_for(events, timeout)
    }

    fn poll_for(&mut self, events: &mut Events, timeout: Duration) -> Result<(), ClientError> {
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            Err(source) => Err(ClientError::Poll { source }),
            Ok(()) => Ok(()),
        }
    }

    // ---- connecting ----

    /// Begins connects until enough are in flight. Attempts are bounded as well: on loopback a
    /// refusal comes at once and leaves nothing in flight.
    fn start_connects(&mut self, now: Instant) -> Result<(), ClientError> {
        for _ in 0..MAX_IN_FLIGHT {
            if self.progress.connecting == MAX_IN_FLIGHT {
                break;
            }
            let Some(index) = self.queue.pop_front() else { break };
            self.start_connect(index, now)?;
        }
        Ok(())
    }

    fn start_connect(&mut self, index: usize, now: Instant) -> Result<(), ClientError> {
        let address = self.config.address;
        let connection = &mut self.connections[index];
        assert!(connection.phase == Phase::Waiting && connection.stream.is_none());
        connection.phase = Phase::Connecting;
        self.progress.waiting -= 1;
        self.progress.connecting += 1;
        let mut stream = match TcpStream::connect(address) {
            Ok(stream) => stream,
            Err(source) => {
                let open = self.progress.connected + self.progress.connecting - 1;
                return match source.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        Err(ClientError::Socket { open, address, source })
                    }
                    // With `reconnect`, ports in TIME_WAIT become free in time.
                    Some(libc::EADDRNOTAVAIL) if !self.config.reconnect => {
                        Err(ClientError::LocalPorts { open, address, source })
                    }
                    _ => {
                        self.connect_failed(index, &source, now);
                        Ok(())
                    }
                };
            }
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut stream, Token(index + 1), interest);
        registered.map_err(|source| ClientError::Watch { address, source })?;
        self.connections[index].stream = Some(stream);
        self.set_timer(index, now + CONNECT_PATIENCE);
        Ok(())
    }

    /// Looks whether a connect was answered, and how.
    fn connect_answered(&mut self, index: usize, now: Instant) {
        let stream = self.connections[index].stream.as_ref().expect("a connect in flight has a stream");
        match answer(stream) {
            Ok(()) => self.connected(index, now),
            Err(error) if error.kind() == ErrorKind::NotConnected => {} // not answered yet
            Err(error) => self.connect_failed(index, &error, now),
        }
    }

    fn connected(&mut self, index: usize, now: Instant) {
        let connection = &mut self.connections[index];
        let stream = connection.stream.as_ref().expect("a connect in flight has a stream");
        // Otherwise a beat would wait for the ACK of the one before it. If the kernel refuses, it waits.
        let _ = stream.set_nodelay(true);
        connection.phase = Phase::Up;
        connection.decoder = Decoder::new();
        connection.partial = PartialFrame::new();
        connection.sequence = 0;
        connection.place = self.rhythm.place_after(index, now);
        let due = self.rhythm.due(index, connection.place, &mut self.rng);
        self.progress.connecting -= 1;
        self.progress.connected += 1;
        self.progress.totals.established += 1;
        self.set_timer(index, due);
        let hello = encode_hello(&self.config.identity(index), now.as_nanos());
        self.send(index, &hello.expect("the longest identity was checked"), now);
    }

    fn connect_failed(&mut self, index: usize, error: &io::Error, now: Instant) {
        self.progress.connecting -= 1;
        if error.kind() == ErrorKind::ConnectionRefused {
            self.progress.totals.refused += 1;
        } else {
            self.progress.totals.failed += 1;
        }
        self.progress.totals.last_errno = error.raw_os_error().or(self.progress.totals.last_errno);
        self.release(index, now);
    }

    /// Lets go of a connection that failed or was lost: for good, or until its backoff is over.
    fn release(&mut self, index: usize, now: Instant) {
        self.clear_timer(index);
        let connection = &mut self.connections[index];
        connection.stream = None; // closes it, which takes it out of the poll too
        if !self.config.reconnect || connection.phase == Phase::Leaving {
            connection.phase = Phase::Gone;
            return;
        }
        connection.phase = Phase::Waiting;
        self.progress.waiting += 1;
        let doubled = MIN_BACKOFF * (1 << connection.attempts.min(10));
        connection.attempts = connection.attempts.saturating_add(1);
        // The lower half is kept and the upper drawn, so that clients that were cut off together
        // do not come back together.
        let wait = doubled.min(MAX_BACKOFF).mul_f64(0.5 + 0.5 * self.rng.f64());
        self.set_timer(index, now + wait);
    }

    // ---- up ----

    /// An event for a connection that was closed earlier in the same batch finds no stream. One
    /// for its successor cannot be among them: connects begin between two polls.
    fn handle(&mut self, event: &Event, now: Instant) {
        if event.token() == STOP {
            return;
        }
        let index = event.token().0 - 1;
        if self.connections[index].phase == Phase::Connecting {
            self.connect_answered(index, now);
        } else if self.connections[index].phase == Phase::Up && event.is_writable() {
            self.flush(index, now);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(index, now);
        }
    }

    fn flush(&mut self, index: usize, now: Instant) {
        let Connection { stream: Some(stream), partial, .. } = &mut self.connections[index] else { return };
        if let Err(error) = partial.flush(stream) {
            self.lose(index, Loss::Failed(error), now);
        }
    }

    /// Sends a frame or skips it, and says which.
    fn send(&mut self, index: usize, frame: &[u8], now: Instant) -> bool {
        let Connection { stream: Some(stream), partial, .. } = &mut self.connections[index] else {
            return false;
        };
        match partial.send(stream, frame) {
            // Begun: a part has left and the rest follows, late but whole.
            Ok(Sent::Whole | Sent::Begun) => true,
            Ok(Sent::Skipped) => {
                self.progress.totals.skipped += 1;
                false
            }
            Err(error) => {
                self.lose(index, Loss::Failed(error), now);
                false
            }
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        for _ in 0..MAX_TIMERS_PER_TURN {
            let Some(&(at, index)) = self.timers.first() else { break };
            if at > now {
                break;
            }
            self.clear_timer(index);
            match self.connections[index].phase {
                Phase::Waiting => self.queue.push_back(index),
                Phase::Connecting => {
                    self.connect_failed(index, &io::Error::from_raw_os_error(libc::ETIMEDOUT), now);
                }
                Phase::Up => self.beat(index, now),
                Phase::Leaving | Phase::Gone => unreachable!("their timers were cleared"),
            }
        }
    }

    fn beat(&mut self, index: usize, now: Instant) {
        let connection = &mut self.connections[index];
        let frame = Frame::beat(connection.sequence);
        // Beats whose time has passed while we were held up are not made up for in a burst.
        let next = self.rhythm.place_at(index, now).max(connection.place + 1);
        let missed = next - connection.place - 1;
        connection.sequence = connection.sequence.wrapping_add((missed as u32).wrapping_add(1));
        connection.place = next;
        let due = self.rhythm.due(index, next, &mut self.rng);
        self.progress.totals.skipped += missed;
        self.set_timer(index, due);
        if self.send(index, &frame.encode(), now) {
            self.progress.totals.beats += 1;
            self.connections[index].attempts = 0;
        }
    }

    /// Connections that had more to read than their turn allowed.
    fn read_on(&mut self, now: Instant) {
        for index in std::mem::take(&mut self.unread) {
            self.connections[index].unread = false;
            self.read(index, now);
        }
    }

    /// Reads until nothing is left, which an edge-triggered poll asks for, or the turn is over.
    fn read(&mut self, index: usize, now: Instant) {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..MAX_READS_PER_TURN {
            let connection = &mut self.connections[index];
            if !matches!(connection.phase, Phase::Up | Phase::Leaving) {
                return;
            }
            let stream = connection.stream.as_mut().expect("a connection that is up has a stream");
            match stream.read(&mut buffer) {
                Ok(0) => return self.lose(index, Loss::Closed, now),
                Ok(length) => self.take(index, &buffer[..length], now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.lose(index, Loss::Failed(error), now),
            }
        }
        let connection = &mut self.connections[index];
        if !connection.unread {
            connection.unread = true;
            self.unread.push(index);
        }
    }

    /// Understands what was read. Bytes that come after our BYE are only taken, so that closing
    /// does not turn into a RST.
    fn take(&mut self, index: usize, mut bytes: &[u8], now: Instant) {
        while self.connections[index].phase == Phase::Up {
            match self.connections[index].decoder.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(Decoded::Hello { .. })) => {}
                Ok(Some(Decoded::Frame(frame))) => {
                    let Some(answer) = frame.answer() else { continue };
                    if self.send(index, &answer.encode(), now) {
                        self.progress.totals.pongs_answered += 1;
                    }
                }
                Err(_) => self.lose(index, Loss::Protocol, now),
            }
        }
    }

    fn lose(&mut self, index: usize, loss: Loss, now: Instant) {
        match self.connections[index].phase {
            Phase::Up => self.progress.connected -= 1,
            Phase::Leaving => {
                self.leaving -= 1;
                return self.release(index, now);
            }
            phase => unreachable!("{phase:?} cannot be lost"),
        }
        let totals = &mut self.progress.totals;
        match loss {
            Loss::Closed => totals.lost_closed += 1,
            Loss::Protocol => totals.lost_protocol += 1,
            Loss::Failed(error) => match error.kind() {
                // A broken pipe is what writing meets after a RST that nobody read.
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => totals.lost_reset += 1,
                _ => {
                    totals.lost_path += 1;
                    totals.last_errno = error.raw_os_error().or(totals.last_errno);
                }
            },
        }
        self.release(index, now);
    }

    // ---- leaving ----

    /// BYE and FIN on every connection that is up, then the server's FIN is awaited: closing with
    /// bytes unread would send a RST and spoil the farewell.
    fn leave(&mut self, events: &mut Events, report: &mut impl FnMut(&Progress)) -> Result<(), ClientError> {
        let mut now = Instant::now();
        let patience = now + SHUTDOWN_PATIENCE;
        self.queue.clear();
        self.config.reconnect = false; // whoever is lost from here on is gone
        for index in 0..self.connections.len() {
            self.clear_timer(index);
            match self.connections[index].phase {
                Phase::Up => self.say_bye(index, now),
                Phase::Waiting | Phase::Connecting => {
                    self.connections[index].stream = None;
                    self.connections[index].phase = Phase::Gone;
                }
                Phase::Leaving | Phase::Gone => {}
            }
        }
        self.progress.waiting = 0;
        self.progress.connecting = 0;
        report(&self.progress);
        while self.leaving > 0 && now < patience {
            let timeout = if self.unread.is_empty() { patience.since(now) } else { Duration::ZERO };
            self.poll_for(events, timeout)?;
            now = Instant::now();
            for event in &*events {
                self.handle(event, now);
            }
            self.read_on(now);
        }
        Ok(())
    }

    fn say_bye(&mut self, index: usize, now: Instant) {
        let bye = Frame::bye(self.connections[index].sequence);
        let said = self.send(index, &bye.encode(), now);
        let connection = &mut self.connections[index];
        // Sending may have shown that it was lost already.
        let Some(stream) = &connection.stream else { return };
        self.progress.totals.byes += u64::from(said);
        // Fails when the server was faster; reading will tell.
        let _ = stream.shutdown(Shutdown::Write);
        connection.phase = Phase::Leaving;
        self.progress.connected -= 1;
        self.leaving += 1;
        self.read(index, now);
    }

    // ---- timers ----

    fn set_timer(&mut self, index: usize, at: Instant) {
        self.clear_timer(index);
        self.connections[index].timer = Some(at);
        self.timers.insert((at, index));
    }

    fn clear_timer(&mut self, index: usize) {
        if let Some(at) = self.connections[index].timer.take() {
            let was_there = self.timers.remove(&(at, index));
            assert!(was_there, "a connection's timer is in the set");
        }
    }
}

/// How a connect was answered; `NotConnected` when it was not yet.
fn answer(stream: &TcpStream) -> io::Result<()> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    // Where nobody listens and the port is one that the kernel gives out, it may give out that very
    // one: then we are connected to ourselves, beat to ourselves, and keep the port from the server.
    if stream.peer_addr()? == stream.local_addr()? {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(())
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.config).field("progress", &self.progress).finish()
    }
}

#[cfg(test)]
mod tests;
