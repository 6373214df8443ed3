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
use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};

use self::connection::{Connection, Phase};
use self::limits::MAX_EVENTS;
use self::rhythm::Rhythm;
use crate::frame::Frame;
use crate::limits::{MAX_WAIT, RESERVED_FDS, SHUTDOWN_PATIENCE};
use crate::sys::rlimit::raise_nofile;
use crate::time::Instant;

mod config;
mod connecting;
mod connection;
mod error;
mod exchange;
mod limits;
mod progress;
mod rhythm;

pub use config::ClientConfig;
pub use error::ClientError;
pub use limits::{
    CONNECT_PATIENCE, MAX_BACKOFF, MAX_COUNT, MAX_EVERY, MAX_IN_FLIGHT, MIN_BACKOFF, MIN_EVERY,
};
pub use progress::{Progress, Totals};

/// The waker's token; connection `i` has `i + 1`.
const STOP: Token = Token(0);
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

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.config).field("progress", &self.progress).finish()
    }
}

#[cfg(test)]
mod tests;
