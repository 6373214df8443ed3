//! The only loop: it knows engines, sockets and time, and neither peers nor HTTP.
//!
//! # Intuition
//!
//! The tracker and the proxy wait for the same things in the same way: completions, the next deadline, room in the sink.
//! What they do about them differs. A [`Reactor`] is the wait and its order; a [`Service`] is what is done.
//!
//! # Model
//!
//! ```text
//!   Reactor::turn:  wait ─► clock, stalls ─► portions of completions ─► visits ─► accepts ─► events to the sink
//!                                                   │                    │          │            ▲
//!   Service:                               completed, perform         expire     accepted    poll_event
//! ```
//!
//! - `turn`: the wait, the clock, own stalls and suspends, the order of a turn.
//! - `accept`, `listener`, `address`: listeners, the budget of connections, saturation, listeners that were destroyed.
//! - `sockets`: polls and recvs of descriptors; a descriptor is closed after its last completion.
//! - `shared`: what several loops of a program share.
//! - `start`: how a loop gets its engine.

use std::io;
use std::sync::Arc;
use std::time::Duration;

mod accept;
mod address;
mod listener;
mod shared;
mod sockets;
mod start;
mod turn;

pub use crate::sys::engine::{Completion, EngineChoice, Readiness};
pub use accept::Accepted;
pub use address::Address;
pub(crate) use listener::{Inherited, plain};
pub use listener::{ListenError, Listener, address_of, adopt, bind, bind_among, bind_unix};
pub use shared::Shared;
pub(crate) use sockets::Descriptor;
pub use sockets::Sockets;
pub use start::{Probed, StartError, probe};

use accept::Listeners;
use start::{obtained, suspended};
use turn::touched;

use crate::limits;
use crate::liveness::{Event, TrackerCounts};
use crate::sys::engine::{self, Counters, EngineError};
use crate::sys::wakeup::Wakeup;
use crate::time::Instant;

/// What kind of operation a completion belongs to.
pub(crate) mod kind {
    /// The poll of a listener; the index is the listener's.
    pub(crate) const LISTENER: u8 = 1;
    /// The poll of the wakeup.
    pub(crate) const WAKEUP: u8 = 2;
    /// The cancellation of a poll. It completes only if it failed.
    pub(crate) const CANCEL: u8 = 3;
    /// The first kind that belongs to the service.
    pub(crate) const SERVICE: u8 = 16;
}

/// Whether a service takes one more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It does.
    Free,
    /// Its table is full, which is told as a limit that was met.
    Full,
    /// Not at present, and that is no limit: its events wait for the sink.
    Held,
}

/// What a loop did, for the report of its service.
pub struct Ended {
    /// What the engine did.
    pub engine: Counters,
    /// Polls that the kernel ended by itself and that were armed again.
    pub rearms: u64,
    /// Own stalls and suspends.
    pub stalls: u64,
    /// Events that the sink did not take.
    pub undelivered: u64,
}

/// What a [`Reactor`] runs: the tracker or the proxy. Its methods are called in the order of a turn, and none of them
/// waits.
pub trait Service {
    /// An event for the sink.
    type Event;
    /// What the sink is told once a turn.
    type Counts;
    /// What is left at the end.
    type Report;

    /// Takes a new connection.
    ///
    /// # Errors
    ///
    /// Those of the engine, as in every method that has `sockets`.
    fn accepted(&mut self, sockets: &mut Sockets, accepted: Accepted) -> io::Result<()>;

    /// Notes that a portion of `completions` follows; `first`: of this turn.
    fn reaped(&mut self, completions: usize, first: bool) {
        let _ = (completions, first);
    }

    /// Takes a completion of a kind that belongs to the service.
    ///
    /// # Errors
    ///
    /// See [`Service::accepted`].
    fn completed(&mut self, sockets: &mut Sockets, completion: Completion, now: Instant) -> io::Result<()>;

    /// Does what a portion has caused.
    ///
    /// # Errors
    ///
    /// See [`Service::accepted`].
    fn perform(&mut self, sockets: &mut Sockets, now: Instant) -> io::Result<()> {
        let _ = (sockets, now);
        Ok(())
    }

    /// Reads what has to be read before silence is judged, and was left for want of time.
    ///
    /// # Errors
    ///
    /// See [`Service::accepted`].
    fn catch_up(&mut self, sockets: &mut Sockets, now: Instant) -> io::Result<()> {
        let _ = (sockets, now);
        Ok(())
    }

    /// Visits what is due by now: at most `rounds` times [`VISITS_AT_ONCE`](limits::VISITS_AT_ONCE).
    ///
    /// # Errors
    ///
    /// See [`Service::accepted`].
    fn expire(&mut self, sockets: &mut Sockets, now: Instant, rounds: usize) -> io::Result<()>;

    /// Does what can wait until everything else of a turn is done.
    ///
    /// # Errors
    ///
    /// See [`Service::accepted`].
    fn after_visits(&mut self, sockets: &mut Sockets, now: Instant) -> io::Result<()> {
        let _ = (sockets, now);
        Ok(())
    }

    /// When the next turn is due without a completion. It may lie in the past.
    fn next_due(&self, now: Instant) -> Instant;

    /// How many connections there are.
    fn connections(&self) -> usize;

    /// Whether it takes one more connection.
    fn room(&self) -> Room;

    /// Whether [`Service::make_room`] could help.
    fn can_make_room(&self) -> bool {
        false
    }

    /// Ends connections that are least needed, for `wanted` others that wait.
    fn make_room(&mut self, sockets: &mut Sockets, wanted: usize, now: Instant) {
        let _ = (sockets, wanted, now);
    }

    /// Notes a stall of this process from `start` to `end`. It has seen nothing since `rested`.
    fn stalled(&mut self, rested: Instant, start: Instant, end: Instant);

    /// Notes that the machine was suspended for `slept` before `now`.
    fn suspended(&mut self, now: Instant, slept: Duration);

    /// Reports that a limit was met.
    fn saturated(&mut self, limit: &'static str, now: Instant);

    /// Reports that the limit was left.
    fn resumed(&mut self, now: Instant);

    /// The next event. `woken`: when the loop woke for what this turn decides.
    fn poll_event(&mut self, woken: Instant) -> Option<Self::Event>;

    /// What the sink is told once a turn.
    fn counts(&self) -> &Self::Counts;

    /// Notes the end of a turn.
    fn turned(&mut self, began: Instant, end: Instant) {
        let _ = (began, end);
    }

    /// Notes that nothing more is accepted, and that what is under way may come to its end.
    fn drain(&mut self) {}

    /// Whether nothing is under way any more.
    fn is_drained(&self) -> bool {
        self.connections() == 0
    }

    /// Notes that no more turns follow: what waits for its time becomes events.
    ///
    /// # Errors
    ///
    /// See [`Service::accepted`].
    fn ending(&mut self, sockets: &mut Sockets, now: Instant) -> io::Result<()> {
        let _ = (sockets, now);
        Ok(())
    }

    /// The report at the end.
    fn report(self, ended: Ended) -> Self::Report;
}

/// What a reactor is made from, beside its service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// On what to wait.
    pub(crate) io: EngineChoice,
    /// How long to wait for others once there is a completion; zero wakes at once.
    pub(crate) batch_window: Duration,
    /// Whether recvs need buffers of the engine.
    pub(crate) buffers: bool,
}

/// One thread's loop: an engine, listeners, a service and its sink.
pub struct Reactor<S: Service, K> {
    pub(crate) service: S,
    sink: K,
    pub(crate) sockets: Sockets,
    obtained: Probed,
    pub(crate) listeners: Listeners,
    pub(crate) shared: Arc<Shared>,
    wakeup: Arc<Wakeup>,
    pub(crate) batch_window: Duration,
    /// The batch that is being filled, or that the sink did not take.
    batch: Vec<S::Event>,
    sink_is_full: bool,
    completions: Vec<Completion>,
    /// Portions since the last visits.
    unjudged: u32,
    /// Time that turns have spent on other things since the last visits.
    unjudged_time: Duration,
    /// Whether this process was absent before the last turn.
    was_away: bool,
    /// The listeners are closed, and the loop ends when its service is drained.
    draining: bool,
    /// Connections that were taken from the budget.
    pub(crate) held: usize,
    /// How long the machine was suspended since boot, at the last look, in nanoseconds.
    suspended: u64,
    /// When the loop woke for what this turn decides: before the turn in which what a verdict depends on was submitted.
    woken: Instant,
    /// When the last turn ended.
    ended: Instant,
    /// When the present rest began, and until when it is planned.
    rested: Instant,
    pub(crate) rest_until: Instant,
    pub(crate) stalls: u64,
}

impl<S: Service, K: EventSink<S::Event, S::Counts>> Reactor<S, K> {
    /// Sets up an engine, tests the kernel on it, and arms the listeners. To be called on the thread that will
    /// [run](Reactor::run) it.
    pub(crate) fn open(
        setup: Setup,
        listeners: Vec<Listener>,
        shared: Arc<Shared>,
        wakeup: Arc<Wakeup>,
        sink: K,
        service: impl FnOnce() -> S,
    ) -> Result<Reactor<S, K>, StartError> {
        let opened = engine::open(setup.io, limits::SQ_ENTRIES, limits::CQ_ENTRIES);
        let (mut engine, why_not) = opened.map_err(StartError::Engine)?;
        let obtained = obtained(&*engine, why_not);
        if setup.buffers {
            engine.lend_buffers().map_err(EngineError::Ring).map_err(StartError::Engine)?;
        }
        let service = service();
        // The above took a millisecond or more, which is no stall of the loop.
        let now = Instant::now();
        let mut reactor = Reactor {
            service,
            sink,
            sockets: Sockets::new(engine),
            obtained,
            listeners: Listeners::new(listeners),
            shared,
            wakeup,
            batch_window: setup.batch_window,
            batch: Vec::with_capacity(limits::EVENT_BATCH),
            sink_is_full: false,
            completions: touched(limits::MAX_COMPLETIONS_PER_TURN),
            unjudged: 0,
            unjudged_time: Duration::ZERO,
            was_away: false,
            draining: false,
            held: 0,
            suspended: suspended(),
            woken: now,
            ended: now,
            rested: now,
            rest_until: Instant::NEVER, // the first turn is not late
            stalls: 0,
        };
        reactor.arm().map_err(|source| StartError::Io { attempted: "arm the listeners", source })?;
        Ok(reactor)
    }

    /// What the loop waits on, and why it is no better engine.
    #[must_use]
    pub fn obtained(&self) -> &Probed {
        &self.obtained
    }
}

/// Where the events `E` of a loop go. It never blocks: a loop that waits for a pipe judges
/// late.
pub trait EventSink<E = Event, C = TrackerCounts> {
    /// Offers a batch of at most [`EVENT_BATCH`](crate::limits::EVENT_BATCH) events, and returns an empty one.
    ///
    /// # Errors
    ///
    /// When there is no room: the batch comes back and is offered again later, and meanwhile the
    /// events behind it wait in the service. The sink wakes the loop when there is room again.
    fn offer(&mut self, batch: Vec<E>) -> Result<Vec<E>, Vec<E>>;

    /// Takes the present counts. It is called once a turn, so it must cost next to nothing.
    fn progress(&mut self, counts: &C) {
        let _ = counts;
    }
}

impl<E, C, F: FnMut(E)> EventSink<E, C> for F {
    /// Calls the function for each event.
    fn offer(&mut self, mut batch: Vec<E>) -> Result<Vec<E>, Vec<E>> {
        batch.drain(..).for_each(self);
        Ok(batch)
    }
}
