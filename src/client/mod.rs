//! The heartbeat client: holds connections to a `deadpeer run` and sends heartbeats on them.
//!
//! *Intuition.* A connection sends 16 bytes once a second, so one thread holds thousands of connections. Two things need
//! care: the heartbeats of all connections must not be due at once, and a connection whose socket is full must not cost
//! more than one that works.
//!
//! *Model.* Each connection is waiting, connecting, up, leaving or gone. It has at most one timer: the end of its wait,
//! the end of its connect's patience, or its next heartbeat. Heartbeats lie on a grid: heartbeat `k` of connection `i` of
//! `n` is due at `start + every * i / n + every * k`, moved by up to 5 % of `every` in either direction. So two heartbeats
//! of one connection are 90 to 110 % of `every` apart, their mean distance is exactly `every`, and the connections stay
//! spread for as long as the client runs. (BFD draws 75 to 100 % of the interval, which shortens its mean; here the mean
//! is the load that was asked for.) A heartbeat is never early and at most a millisecond late, since the poll rounds up.
//!
//! The client sends the frames of [`crate::frame`]: a HELLO when a connection is up, then heartbeats, a PONG for every
//! PING, and a BYE at the end. A server that takes any byte as a sign of life needs no decoder.
//!
//! *Contract.* Connects in flight are bounded ([`MAX_IN_FLIGHT`]), and so is the work of one turn. A connection keeps
//! back at most the rest of one frame that did not fit its socket; until that is sent, its heartbeats and answers are
//! skipped and counted. A connection that the server ends is counted and is no error. A [`ClientError`] is about the
//! client's own machine or configuration, and its message names the cure.
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
//! let stop = client.stop_handle(); // for a signal handler, another thread, or the callback below
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

/// The token of the waker; connection `i` has the token `i + 1`.
const STOP: Token = Token(0);
/// A handle that ends a running client, from any thread.
#[derive(Clone, Debug)]
pub struct Stop(Arc<StopInner>);

#[derive(Debug)]
struct StopInner {
    asked: AtomicBool,
    waker: Waker,
}

impl Stop {
    /// Makes [`Client::run`] send BYE on every connection and return. A second call has no effect.
    pub fn stop(&self) {
        self.0.asked.store(true, Ordering::Release);
        // A write to the waker's eventfd fails only if its counter is full, and then it wakes anyway.
        let _ = self.0.waker.wake();
    }

    fn asked(&self) -> bool {
        self.0.asked.load(Ordering::Acquire)
    }
}
/// A heartbeat client. See the [module](self).
pub struct Client {
    config: ClientConfig,
    poll: Poll,
    stop: Stop,
    rhythm: Rhythm,
    rng: fastrand::Rng,
    connections: Vec<Connection>,
    /// Indices of the connections that wait to connect, in order.
    queue: VecDeque<usize>,
    /// At most one entry for each connection: when its timer fires, and its index.
    timers: BTreeSet<(Instant, usize)>,
    /// Indices of the connections that had more to read than one turn allows.
    unread: Vec<usize>,
    leaving: usize,
    progress: Progress,
}

impl Client {
    /// Checks the configuration and raises the limit on descriptors; opens no connection yet.
    ///
    /// # Errors
    ///
    /// [`ClientError`]: a value of the configuration is out of its range, or the limit on descriptors is too low.
    pub fn new(config: ClientConfig) -> Result<Client, ClientError> {
        config.check()?;
        let limit = raise_nofile().map_err(ClientError::Descriptors)?;
        let wanted = config.count as u64 + RESERVED_FDS;
        if wanted > limit {
            return Err(ClientError::TooFewDescriptors { wanted, limit });
        }
        let poll = Poll::new().map_err(ClientError::Poll)?;
        let waker = Waker::new(poll.registry(), STOP).map_err(ClientError::Poll)?;
        let rng = fastrand::Rng::with_seed(config.seed);
        Ok(Client {
            poll,
            stop: Stop(Arc::new(StopInner { asked: AtomicBool::new(false), waker })),
            // `run` sets the real start.
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

    /// A handle that ends [`Client::run`].
    #[must_use]
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Connects and sends heartbeats until the client is stopped, its time is over, or no connection is left and none
    /// will come back. Then it sends BYE on every connection and waits for the server's FIN, at most
    /// [`SHUTDOWN_PATIENCE`]. `report` is called after every turn of the loop and at least once a second.
    ///
    /// # Errors
    ///
    /// [`ClientError`]: the kernel refused a socket or a local port. Connections that are up are closed without a BYE.
    pub fn run(mut self, mut report: impl FnMut(&Progress)) -> Result<Totals, ClientError> {
        let mut now = Instant::now();
        let end = self.config.lasting.map_or(Instant::NEVER, |lasting| now + lasting);
        self.rhythm = Rhythm::new(now, self.config.every, self.config.count);
        let mut events = Events::with_capacity(MAX_EVENTS);
        while !self.stop.asked() && now < end && !self.none_left() {
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

    fn none_left(&self) -> bool {
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
            Err(source) => Err(ClientError::Poll(source)),
            Ok(()) => Ok(()),
        }
    }
    // ---- leaving ----

    /// Sends BYE and FIN on every connection that is up, and waits for the server's FIN: a close with bytes unread
    /// would send a RST, and the server might not read the BYE.
    fn leave(&mut self, events: &mut Events, report: &mut impl FnMut(&Progress)) -> Result<(), ClientError> {
        let mut now = Instant::now();
        let patience = now + SHUTDOWN_PATIENCE;
        self.queue.clear();
        self.config.reconnect = false; // a connection that is lost from here on is gone
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
        // The send may have found the connection lost, and closed it.
        let Some(stream) = &connection.stream else { return };
        self.progress.totals.byes += u64::from(said);
        // It fails if the server has closed already, which the read below finds.
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
