//! The tracker inside a program's own runtime: no second thread, and its events as an async stream.
//!
//! # Intuition
//!
//! `deadpeer run` gives each ring a thread that sleeps in it. A program that has a runtime already, tokio-uring or
//! tokio on one thread, need not pay for another: it can let the runtime sleep, and take a turn of the
//! tracker's loop whenever the tracker's ring has something.
//!
//! # Model
//!
//! ```text
//!   runtime's thread:  your tasks ... tracker.next().await ──► a turn of the loop, without waiting ──► events
//!                                          ▲                                │
//!                                          └── readiness of the ring, or the next appointment ◄──┘
//! ```
//!
//! It is the same [`Driver`] as everywhere else, with the same facts, core and events; only the wait is the
//! runtime's. The ring stands beside the runtime's own and disturbs nothing on it.
//!
//! # Contract
//!
//! - Everything happens on the thread that made the [`Tracker`], and only while [`Tracker::next`] is polled: poll it
//!   always (a task of its own), or verdicts wait. It is cancel-safe: no event is lost when the future is dropped.
//! - The tracker owns the sockets that it adopts, takes their bytes off, and closes them when their peers die.
//! - It needs tokio's I/O and time drivers: `tokio_uring::start` has both, a tokio runtime `enable_all`.
//! - A long task of yours on the same thread makes verdicts late, and the tracker says so with a `Stall`.
//!
//! # Example
//!
//! ```
//! use deadpeer::hosted::{Config, Tracker};
//! use deadpeer::liveness::{EventKind, Policy};
//! use std::net::{TcpListener, TcpStream};
//!
//! tokio_uring::start(async {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let client = TcpStream::connect(listener.local_addr()?)?;
//!     let (stream, _) = listener.accept()?;
//!
//!     let mut tracker = Tracker::new(Config::new(Policy::STRICT, 1_000))?;
//!     let peer = tracker.adopt(stream)?;
//!     drop(client);
//!     loop {
//!         if let EventKind::Died(death) = tracker.next().await?.kind {
//!             assert_eq!((death.peer, death.cause.as_str()), (peer, "closed"));
//!             return Ok::<(), Box<dyn std::error::Error>>(());
//!         }
//!     }
//! })
//! # .unwrap();
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use crate::limits;
use crate::liveness::{self, Event, PeerId, Policy, TrackerConfig, TrackerCounts};
use crate::reactor::{EventSink, Shared};
use crate::sys::engine::Awaited;
use crate::sys::wakeup::Wakeup;
use crate::time::Instant;
use crate::tracking::{Driver, DriverConfig, LocalAddresses, default_batch_window};

pub use crate::reactor::{EngineChoice, ListenError, Listener, StartError, bind};
pub use crate::sys::uring_stream::UringStream;
pub use crate::tracking::{AdoptError, Report};

/// What a hosted tracker is made from.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The policy, the number of peers, and how their beats are noticed.
    pub tracker: TrackerConfig,
    /// What the loop waits on: a ring, epoll, or the first of both that this machine allows.
    pub io: EngineChoice,
}

impl Config {
    /// Room for `capacity` peers under a policy, everything else as `deadpeer run` has it.
    #[must_use]
    pub const fn new(policy: Policy, capacity: usize) -> Config {
        Config { tracker: TrackerConfig::new(policy, capacity), io: EngineChoice::Auto }
    }
}

/// Events that wait to be taken; beyond that they wait in the tracker.
#[derive(Clone, Debug, Default)]
struct Waiting(Rc<RefCell<VecDeque<Event>>>);

impl EventSink for Waiting {
    fn offer(&mut self, mut batch: Vec<Event>) -> Result<Vec<Event>, Vec<Event>> {
        let mut waiting = self.0.borrow_mut();
        if waiting.len() + batch.len() > limits::EVENT_BATCH * limits::EVENT_BATCHES {
            return Err(batch);
        }
        waiting.extend(batch.drain(..));
        Ok(batch)
    }
}

/// A tracker on the caller's own thread and runtime. See the [module](self).
pub struct Tracker {
    driver: Driver<Waiting>,
    rest: Rest,
    waiting: Waiting,
    locals: Arc<LocalAddresses>,
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker").field("counts", self.counts()).finish()
    }
}

impl Drop for Tracker {
    /// Gives its ports back at once: an armed poll would hold them until the kernel has taken the ring apart.
    fn drop(&mut self) {
        let _ = self.driver.stop_listening(); // at worst they are free a little later
    }
}

impl Tracker {
    /// A tracker of sockets that are [adopted](Tracker::adopt). To be called within the runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`], whose message names the cause and the cure.
    ///
    /// # Panics
    ///
    /// Outside of a runtime with I/O and time.
    pub fn new(config: Config) -> Result<Tracker, StartError> {
        Tracker::with(config, Vec::new())
    }

    /// A tracker that also accepts: what [`bind`] gave for one ring.
    ///
    /// # Errors
    ///
    /// As [`Tracker::new`].
    ///
    /// # Panics
    ///
    /// As [`Tracker::new`].
    pub fn with(config: Config, listeners: Vec<Listener>) -> Result<Tracker, StartError> {
        let attempted = |attempted| move |source| StartError::Io { attempted, source };
        let wakeup = Arc::new(Wakeup::new().map_err(attempted("make an eventfd"))?);
        let shared = Arc::new(Shared::new(config.tracker.capacity));
        let locals = Arc::new(LocalAddresses::new());
        let waiting = Waiting::default();
        let driver = DriverConfig {
            tracker: config.tracker,
            batch_window: default_batch_window(config.tracker.wake),
            io: config.io,
        };
        let mut driver = Driver::new(driver, listeners, shared, locals.clone(), wakeup, waiting.clone())?;
        let rest = Rest::of(&mut driver).map_err(attempted("await the ring"))?;
        Ok(Tracker { driver, rest, waiting, locals })
    }

    /// Takes a connected TCP socket over: a `std::net::TcpStream`, or whatever else turns into a descriptor.
    ///
    /// # Errors
    ///
    /// [`AdoptError`], with the socket in it.
    pub fn adopt(&mut self, socket: impl Into<OwnedFd>) -> Result<PeerId, AdoptError> {
        self.driver.adopt(socket.into())
    }

    /// Takes over a stream that cannot be turned into its descriptor but lends it, as a [`UringStream`] does: its socket gets another descriptor, and the stream is dropped.
    ///
    /// # Errors
    ///
    /// [`TakeOverError`].
    pub fn take_over(&mut self, stream: impl AsFd) -> Result<PeerId, TakeOverError> {
        let socket = stream.as_fd().try_clone_to_owned().map_err(TakeOverError::Duplicate)?;
        drop(stream);
        self.driver.adopt(socket).map_err(TakeOverError::Adopt)
    }

    /// The next event; waits for it.
    ///
    /// # Errors
    ///
    /// Those of the ring that no turn can get around.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            // However many events there are, the runtime's other tasks have their turn.
            tokio::task::coop::consume_budget().await;
            if let Some(event) = self.waiting.0.borrow_mut().pop_front() {
                return Ok(event);
            }
            self.rest.turn(&mut self.driver, |_| !self.waiting.0.borrow().is_empty()).await?;
        }
    }

    /// The address of a `local` in events.
    #[must_use]
    pub fn local(&self, number: u16) -> Option<SocketAddr> {
        self.locals.get(number)
    }

    /// What was counted since the start, and how many peers there are now.
    #[must_use]
    pub fn counts(&self) -> &TrackerCounts {
        self.driver.tracker().counts()
    }

    /// The tracker inside the loop, with the records of its peers, to be read.
    #[must_use]
    pub fn judgement(&self) -> &liveness::Tracker {
        self.driver.tracker()
    }
}

/// Why a stream was not taken over.
#[derive(Debug)]
#[non_exhaustive]
pub enum TakeOverError {
    /// There is no descriptor left for it; the stream is closed.
    Duplicate(io::Error),
    /// It is no connection, or there is no room.
    Adopt(AdoptError),
}

impl fmt::Display for TakeOverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TakeOverError::Duplicate(source) => {
                write!(f, "cannot duplicate a stream's descriptor: {}", crate::sys::describe(source))
            }
            TakeOverError::Adopt(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TakeOverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TakeOverError::Duplicate(source) => Some(source),
            TakeOverError::Adopt(error) => Some(error),
        }
    }
}

/// Runs a driver in the present runtime until it is asked to [stop](Shared::stop), as
/// [`Driver::run`] does on a thread of its own.
///
/// # Errors
///
/// Those of the engine that no turn can get around.
///
/// # Panics
///
/// Outside of a runtime with I/O and time.
pub async fn drive<S: EventSink>(mut driver: Driver<S>) -> io::Result<Report> {
    let rest = Rest::of(&mut driver)?;
    while !driver.is_stopping() {
        rest.turn(&mut driver, Driver::is_stopping).await?;
    }
    driver.finish()
}

/// Turns in a row before the runtime's other tasks have theirs: a verdict is two turns from its wake.
const TURNS: usize = 4;

/// Waits in the runtime for what a driver waits for.
struct Rest([Awaited; 2]);

impl Rest {
    fn of<S: EventSink>(driver: &mut Driver<S>) -> io::Result<Rest> {
        let [engine, wakeup] = driver.readiness()?;
        Ok(Rest([Awaited::new(engine)?, Awaited::new(wakeup)?]))
    }

    /// Waits until a descriptor is signalled.
    async fn signalled(&self) -> io::Result<()> {
        poll_fn(|context| {
            // Both are polled, so that both wake the task the next time.
            let [engine, wakeup] = self.0.each_ref().map(|one| one.poll_ready(context));
            if engine.is_ready() { engine } else { wakeup }
        })
        .await
    }

    /// Takes a few turns, and rests unless there is `enough`.
    async fn turn<S: EventSink>(
        &self,
        driver: &mut Driver<S>,
        enough: impl Fn(&Driver<S>) -> bool,
    ) -> io::Result<()> {
        for _ in 0..TURNS {
            driver.turn_at_once()?;
            if enough(driver) {
                return Ok(());
            }
            if let Some(until) = driver.next_turn()? {
                let rest = until.since(Instant::now());
                if let Ok(signalled) = tokio::time::timeout(rest, self.signalled()).await {
                    signalled?;
                }
                return Ok(());
            }
        }
        tokio::task::yield_now().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::engine::Readiness;

    #[test]
    fn a_wake_of_the_sink_ends_the_rest_also_where_the_engine_signals_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let [silent, sinks] = [(); 2].map(|()| Arc::new(Wakeup::new().unwrap()));
            let awaited = |one: &Arc<Wakeup>| Awaited::new(Readiness::Shared(Arc::clone(one))).unwrap();
            let rest = Rest([awaited(&silent), awaited(&sinks)]);
            // More than once, although only the engine would take the wakes off the eventfd.
            for _ in 0..3 {
                let sinks = Arc::clone(&sinks);
                let waker = std::thread::spawn(move || sinks.wake());
                rest.signalled().await.unwrap();
                waker.join().unwrap();
            }
        });
    }
}
