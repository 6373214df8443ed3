//! One thread's loop on its own engine: a ring, or epoll in the shape of one.
//!
//! Each connection has one poll, always. It brings the end (FIN, RST, errors) at once, and bytes when there
//! are enough of them; bytes are then taken off by recvs that are submitted together with everything else of
//! the turn. In lazy mode, where a wake is rare and nearly always the end, the poll ends with it and is armed
//! again after the drain; in beat mode it is multishot. A connection is closed only after its poll
//! and its recv have completed for the last time, and its place is given back after that.
//!
//! Here is a turn and its waits. What a completion says is in `completions`, what the tracker wants done
//! in `actions`, who comes in and who waits outside in `listening`.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::conn::Conn;
use super::locals::LocalAddresses;
use crate::frame::Decoder;
use crate::limits;
use crate::liveness::{Event, EventKind, Heartbeat, PeerId, Tracker, TrackerConfig, TrackerCounts, Wake};
use crate::measure::Recorder;
use crate::measure::intervals::IntervalSender;
use crate::partial_frame::PartialFrame;
use crate::reactor::{EventSink, Listener, Probed, Shared, StartError, obtained, suspended};
use crate::sys::engine::{Completion, Counters, Engine, EngineChoice, Readiness, Token, Wait};
use crate::sys::tcp::TickClock;
use crate::sys::wakeup::Wakeup;
use crate::time::Instant;

mod actions;
mod completions;
mod listening;
#[cfg(test)]
mod tests;

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
    /// On what to wait.
    pub io: EngineChoice,
}

/// Why a socket was not adopted. It is given back.
#[derive(Debug)]
pub struct AdoptError {
    /// The socket.
    pub socket: OwnedFd,
    /// Why.
    pub reason: io::Error,
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot track this socket: {}", crate::sys::describe(&self.reason))
    }
}

impl std::error::Error for AdoptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// What a driver did, told when it ends.
#[derive(Debug)]
pub struct Report {
    /// How many, of what.
    pub counts: TrackerCounts,
    /// Its measurements, but for those that were handed over interval by interval.
    pub recorder: Recorder,
    /// When the last interval began, if they were.
    pub measured_since: Option<Instant>,
    /// What its ring did.
    pub ring: Counters,
    /// Own stalls that were noticed.
    pub stalls: u64,
    /// Watches that the kernel ended by itself and that were armed again.
    pub rearms: u64,
    /// Events that the sink did not take before the end.
    pub undelivered: u64,
}

struct Listening {
    listener: Listener,
    local: Option<u16>,
    /// Connections may be waiting although no wake is to be expected.
    pending: bool,
}

/// One ring, one tracker, one thread.
pub struct Driver<S> {
    config: DriverConfig,
    engine: Engine,
    obtained: Probed,
    tracker: Tracker,
    conns: Vec<Option<Conn>>,
    decoders: Vec<Decoder>,
    /// What of a frame did not fit a socket, by place: only of peers that are stuck.
    partial_frames: HashMap<u32, PartialFrame>,
    listeners: Vec<Listening>,
    shared: Arc<Shared>,
    locals: Arc<LocalAddresses>,
    wakeup: Arc<Wakeup>,
    sink: S,
    /// The batch that is being filled, or that the sink did not take.
    batch: Vec<Event>,
    sink_is_full: bool,
    recorder: Recorder,
    tap: Option<IntervalSender>,
    ticks: TickClock,
    completions: Vec<Completion>,
    /// Connections whose recv or poll has to be tried again, from this instant.
    starved: VecDeque<PeerId>,
    starved_until: Instant,
    /// Connections whose poll ended with a wake, to be watched anew once they are drained.
    unwatched: Vec<PeerId>,
    accept_pause: Option<Instant>,
    /// A drain to the end was submitted: the verdict is one turn away, and no batch is waited for.
    urgent: bool,
    /// Ends that may still be read in this turn without a detour through the engine.
    ends_at_once: u32,
    /// Somebody streams: what has come meanwhile is read on at once, and no batch is waited for.
    reading_on: bool,
    /// A stream has just been read off: the next of it is waited for a little, not segment by segment.
    paced: bool,
    /// Portions since the last look at the clock's duties.
    unjudged: u32,
    /// What turns have spent on other things since then.
    unjudged_time: Duration,
    held_places: usize,
    suspended: u64,
    /// When the wake was reaped that the verdicts of this turn go back to: the turn before, where that
    /// one submitted a drain to the end.
    wake: Instant,
    /// When the last turn ended.
    ended: Instant,
    /// Until when the loop rests, or whoever hosts it.
    rest_until: Instant,
    stalls: u64,
    rearms: u64,
}

impl<S: EventSink> Driver<S> {
    /// Sets up a ring, tests the kernel on it, and arms the listeners. To be called on the thread
    /// that will [run](Driver::run) it.
    ///
    /// # Errors
    ///
    /// [`StartError`], whose message names the cause and the cure.
    pub fn new(
        config: DriverConfig,
        listeners: Vec<Listener>,
        shared: Arc<Shared>,
        locals: Arc<LocalAddresses>,
        wakeup: Arc<Wakeup>,
        sink: S,
    ) -> Result<Driver<S>, StartError> {
        let opened = Engine::open_and_tell(config.io, limits::SQ_ENTRIES, limits::CQ_ENTRIES);
        let (mut engine, why_not) = opened.map_err(StartError::Engine)?;
        let obtained = obtained(&engine, why_not);
        let frames = config.tracker.policy.heartbeat == Heartbeat::Frames;
        if frames {
            engine.lend_buffers().map_err(StartError::Engine)?;
        }
        let capacity = config.tracker.capacity;
        let tracker = Tracker::new(config.tracker, Instant::now());
        // That took a millisecond or more, which is no stall of the loop.
        let now = Instant::now();
        let listening = listeners
            .into_iter()
            .map(|listener| {
                let address = listener.address();
                let local = (!address.ip().is_unspecified()).then(|| locals.intern(address));
                Listening { listener, local, pending: false }
            })
            .collect();
        let mut driver = Driver {
            config,
            engine,
            obtained,
            tracker,
            conns: Vec::with_capacity(capacity),
            decoders: Vec::with_capacity(if frames { capacity } else { 0 }),
            partial_frames: HashMap::new(),
            listeners: listening,
            shared,
            locals,
            wakeup,
            sink,
            batch: Vec::with_capacity(limits::EVENT_BATCH),
            sink_is_full: false,
            recorder: Recorder::new(),
            tap: None,
            ticks: TickClock::new(),
            completions: touched(limits::MAX_COMPLETIONS_PER_TURN),
            starved: VecDeque::new(),
            starved_until: Instant::ZERO,
            unwatched: Vec::with_capacity(limits::MAX_COMPLETIONS_PER_TURN),
            accept_pause: None,
            urgent: false,
            ends_at_once: 0,
            reading_on: false,
            paced: false,
            unjudged: 0,
            unjudged_time: Duration::ZERO,
            held_places: 0,
            suspended: suspended(),
            wake: now,
            ended: now,
            rest_until: Instant::NEVER, // the first turn is nobody's delay
            stalls: 0,
            rearms: 0,
        };
        driver.arm().map_err(|source| StartError::Io { attempted: "arm the listeners", source })?;
        Ok(driver)
    }

    /// What it waits on, and why that is no better.
    #[must_use]
    pub fn obtained(&self) -> &Probed {
        &self.obtained
    }

    /// Hands its measurements over interval by interval from now on.
    pub fn log_latency(&mut self, tap: IntervalSender) {
        self.tap = Some(tap);
    }

    /// Runs until [`Shared::stop`], then hands over what the sink still takes.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_enter(2)` that no turn can get around.
    pub fn run(mut self) -> io::Result<Report> {
        while !self.is_stopping() {
            self.turn()?;
        }
        self.finish()
    }

    /// Whether it was asked to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.is_stopping()
    }

    /// Gives the ports back and hands over what the sink still takes: the end of [`run`](Driver::run), for whoever
    /// hosts the loop.
    ///
    /// # Errors
    ///
    /// As [`Driver::run`].
    pub fn finish(mut self) -> io::Result<Report> {
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
            measured_since: self.tap.as_ref().map(IntervalSender::open_since),
            ring: self.engine.counters(),
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
    /// As [`Driver::run`].
    pub fn turn(&mut self) -> io::Result<()> {
        let ending = self.urgent;
        let wait = self.plan_wait();
        self.engine.submit_and_wait(wait)?;
        self.work_off(ending)
    }

    /// A turn that does not wait: for whoever hosts the loop and has waited elsewhere, for the
    /// [readiness](Driver::readiness) of the engine or until the [next turn](Driver::next_turn) is due.
    ///
    /// # Errors
    ///
    /// As [`Driver::run`].
    pub fn turn_at_once(&mut self) -> io::Result<()> {
        let ending = std::mem::take(&mut self.urgent);
        self.reading_on = false;
        self.engine.submit_and_wait(Wait::NOT)?;
        self.work_off(ending)
    }

    /// Until when whoever hosts the loop may rest; `None` not at all. What the last turn queued has been submitted,
    /// unless there is an error.
    ///
    /// # Errors
    ///
    /// As [`Driver::run`].
    pub fn next_turn(&mut self) -> io::Result<Option<Instant>> {
        if self.urgent || self.reading_on {
            return Ok(None);
        }
        let now = Instant::now();
        self.rest_until = self.wake_at(now).max(self.ended);
        // Armed before the rest, and nothing that came meanwhile is slept over.
        self.engine.submit_and_wait(Wait::NOT)?;
        let rests = self.rest_until > now && !self.engine.is_ready() && !self.engine.is_overflown();
        Ok(rests.then_some(self.rest_until))
    }

    /// What becomes readable when a turn is due before its time.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub fn readiness(&mut self) -> io::Result<Readiness> {
        self.engine.readiness()
    }

    /// Works off what came while the loop rested; `ending`: the turn before has submitted a drain to the end.
    fn work_off(&mut self, ending: bool) -> io::Result<()> {
        let now = self.awake();
        if !ending {
            self.wake = now;
        }

        self.ends_at_once = limits::ENDS_AT_ONCE;
        // All that was there when the wait ended is fed before anybody is judged, in portions, so that
        // no portion makes the others wait for its actions.
        let began = now;
        let mut now = now;
        let mut portions = 0;
        let mut rest = true;
        while rest && portions < MAX_BUSY_PORTIONS {
            if portions > 0 {
                // A submission in between may have brought what had not come yet.
                if Instant::now().since(began) > limits::TURN_BUDGET {
                    break;
                }
            }
            let mut batch = std::mem::take(&mut self.completions);
            rest = self.engine.reap(&mut batch, limits::MAX_COMPLETIONS_PER_TURN);
            // Behind it: what came while it reaped must not be dated before it came.
            now = Instant::now();
            self.recorder.batch(batch.len());
            for completion in batch.drain(..) {
                self.complete(completion, now)?;
            }
            self.completions = batch;
            self.engine.publish();
            self.perform(now)?;
            portions += 1;
        }
        self.unjudged = if rest { self.unjudged + portions } else { 0 };
        let mut judged = began;
        if self.engine.is_overflown() || (rest && self.unjudged < MAX_BUSY_PORTIONS) {
            // Completions are left, here or held back by the kernel: nobody is judged before they were seen.
            self.urgent = true;
        } else {
            self.unjudged = 0;
            // Visits get as much time as everything else had since the last ones.
            let others = self.unjudged_time + now.since(began);
            for _ in 0..visit_rounds(others) {
                self.tracker.handle_time(now);
                self.perform(now)?;
            }
            self.unjudged_time = Duration::ZERO;
            judged = Instant::now();
        }
        self.retry(now)?;
        self.watch_again()?;
        self.accept_pending()?;
        self.hand_over();
        self.give_back_places();
        self.sink.progress(self.tracker.counts());
        let end = Instant::now();
        self.recorder.turn(end.since(began));
        if let Some(tap) = &mut self.tap {
            tap.close(&mut self.recorder, end);
        }
        if end.since(began) > limits::STALL_THRESHOLD {
            self.stalled(began, end);
        }
        self.ended = end;
        self.unjudged_time += end.since(judged);
        // Who hosts the loop may take turn after turn without a rest; each is late only after the one before.
        self.rest_until = end;
        Ok(())
    }

    /// How long to rest, and for what.
    fn plan_wait(&mut self) -> Wait {
        let before = Instant::now();
        // Appointments that wait for their turn lie in the past; who is late for those is not held up.
        self.rest_until = self.wake_at(before).max(self.ended);
        let timeout = self.rest_until.since(before);
        let at_once = std::mem::take(&mut self.urgent) | std::mem::take(&mut self.reading_on);
        let wait = if at_once || timeout.is_zero() {
            Wait::NOT
        } else {
            let window = if self.paced { limits::STREAM_WINDOW } else { self.config.batch_window };
            let completions = if window.is_zero() { 1 } else { limits::WAIT_BATCH };
            Wait { completions, window, timeout }
        };
        self.paced &= at_once;
        wait
    }

    /// The time after a rest. Says so when that was much longer than it should have been.
    fn awake(&mut self) -> Instant {
        let now = Instant::now();
        if now > self.rest_until + limits::STALL_THRESHOLD {
            self.stalled(self.rest_until, now);
        }
        let suspended = suspended();
        let slept = suspended.saturating_sub(self.suspended);
        // Whoever is held up between the two clocks sees too little; that is no suspend at the next look.
        self.suspended = suspended.max(self.suspended);
        if slept > crate::time::nanos(limits::STALL_THRESHOLD) {
            self.stalls += 1;
            self.tracker.handle_suspend(now, Duration::from_nanos(slept));
        }
        now
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
        if let Some(due) = self.tap.as_ref().and_then(|tap| tap.due_after(now)) {
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

/// How often visits are made at one go in a turn, where other things took so long since the last ones.
fn visit_rounds(others: Duration) -> usize {
    let most = limits::MAX_VISITS_PER_TURN / limits::VISITS_AT_ONCE;
    (others.as_nanos() / limits::VISIT_ROUND.as_nanos() + 1).min(most as u128) as usize
}

/// Room for so many completions whose pages are there already: the first storm must not fault them in.
fn touched(capacity: usize) -> Vec<Completion> {
    let nothing = || Completion { token: Token::new(0, 0, 0), result: 0, more: false, buffer: None };
    let mut room = Vec::with_capacity(capacity);
    room.resize_with(capacity, nothing);
    room.clear();
    room
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
