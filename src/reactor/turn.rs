//! A turn of the loop: the wait, the clock, stalls, portions of completions, visits, events.

use std::io;
use std::time::Duration;

use super::{EventSink, Reactor, Room, Service, kind, suspended};
use crate::limits;
use crate::sys::engine::{Completion, Readiness, Token, Wait};
use crate::time::{Instant, nanos};

/// Portions in a row after which visits are made although completions keep coming. So many contain everything that was
/// queued when the first of them began.
const MAX_BUSY_PORTIONS: u32 = (limits::CQ_ENTRIES as usize / limits::MAX_COMPLETIONS_PER_TURN) as u32;

/// When the last events are offered again to a sink that has no room and does not call the wakeup.
const RETRY_AFTER: Duration = Duration::from_millis(5);

impl<S: Service, K: EventSink<S::Event, S::Counts>> Reactor<S, K> {
    /// Runs until [`Shared::stop`](super::Shared::stop), or until nothing is under way any more after
    /// [`Shared::drain`](super::Shared::drain), then hands over what the sink still takes.
    ///
    /// # Errors
    ///
    /// Those of the engine that no turn can get around.
    pub fn run(mut self) -> io::Result<S::Report> {
        while !(self.is_stopping() || self.draining && self.service.is_drained()) {
            self.turn()?;
        }
        self.finish()
    }

    /// Whether the loop was asked to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.is_stopping()
    }

    /// Gives the ports back and hands over what the sink still takes: the end of [`run`](Reactor::run), for a program
    /// that runs the loop itself.
    ///
    /// # Errors
    ///
    /// As [`Reactor::run`].
    pub fn finish(mut self) -> io::Result<S::Report> {
        self.stop_listening()?;
        self.service.ending(&mut self.sockets, Instant::now())?;
        self.close_retired()?;
        let end = Instant::now() + limits::SHUTDOWN_PATIENCE / 3 * 2;
        while !self.hand_over() && Instant::now() < end {
            self.wakeup.wait(RETRY_AFTER);
        }
        let mut undelivered = self.batch.len() as u64;
        while self.service.poll_event(self.woken).is_some() {
            undelivered += 1;
        }
        let ended = super::Ended {
            engine: self.sockets.counters(),
            rearms: self.sockets.rearms,
            stalls: self.stalls,
            undelivered,
        };
        Ok(self.service.report(ended))
    }

    /// One turn: waits, and works off what came.
    ///
    /// # Errors
    ///
    /// As [`Reactor::run`].
    pub fn turn(&mut self) -> io::Result<()> {
        let verdict = self.sockets.urgent;
        let wait = self.plan_wait();
        self.sockets.engine().submit_and_wait(wait)?;
        self.work_off(verdict)
    }

    /// A turn that does not wait: for a program that has waited for the [readiness](Reactor::readiness) of the engine, or
    /// until the [next turn](Reactor::next_turn) was due.
    ///
    /// # Errors
    ///
    /// As [`Reactor::run`].
    pub fn turn_at_once(&mut self) -> io::Result<()> {
        let verdict = std::mem::take(&mut self.sockets.urgent);
        self.sockets.read_on = false;
        self.sockets.engine().submit_and_wait(Wait::NOT)?;
        self.work_off(verdict)
    }

    /// Until when the program that runs the loop may rest; `None`: not at all. Submits what the last turn queued.
    ///
    /// # Errors
    ///
    /// As [`Reactor::run`].
    pub fn next_turn(&mut self) -> io::Result<Option<Instant>> {
        if self.sockets.urgent || self.sockets.read_on {
            return Ok(None);
        }
        let now = Instant::now();
        self.plan_rest(now);
        // Armed before the rest: what came meanwhile is seen now.
        let engine = self.sockets.engine();
        engine.submit_and_wait(Wait::NOT)?;
        let rests = self.rest_until > now && !engine.is_ready() && !engine.is_overflown();
        Ok(rests.then_some(self.rest_until))
    }

    /// Descriptors that become readable when a turn is due before its time: the engine's, and that of the wakeup itself.
    /// The second is not left to the ring: the kernel puts off a wake-up (the ring's eventfd) that is caused within
    /// another one (this eventfd), and events would leave at the pace of its timer.
    ///
    /// # Errors
    ///
    /// When no descriptors are left.
    pub fn readiness(&mut self) -> io::Result<[Readiness; 2]> {
        Ok([self.sockets.engine().readiness()?, Readiness::Shared(self.wakeup.clone())])
    }

    /// Works off what came while the loop rested. `verdict`: the turn before has submitted what a verdict depends on.
    fn work_off(&mut self, verdict: bool) -> io::Result<()> {
        let (began, away) = self.awake();
        if !verdict {
            self.woken = began;
        }
        // All that was there when the wait ended is fed before anything is judged; in portions, so that what a portion
        // causes does not wait for the others.
        let mut now = began;
        let mut portions = 0;
        let mut rest = true;
        while rest && portions < MAX_BUSY_PORTIONS {
            // A submission in between may have brought more.
            if portions > 0 && Instant::now().since(began) > limits::TURN_BUDGET {
                break;
            }
            let mut batch = std::mem::take(&mut self.completions);
            rest = self.sockets.engine().reap(&mut batch, limits::MAX_COMPLETIONS_PER_TURN);
            // Behind the reap: what came during it must not be dated before it came.
            now = Instant::now();
            self.service.reaped(batch.len(), portions == 0);
            for completion in batch.drain(..) {
                self.complete(completion, now)?;
            }
            self.completions = batch;
            self.sockets.engine().publish();
            self.service.perform(&mut self.sockets, now)?;
            portions += 1;
        }
        self.service.catch_up(&mut self.sockets, now)?;
        self.unjudged = if rest { self.unjudged + portions } else { 0 };
        let mut judged = began;
        // After an absence of this process, others may have been absent as well, and have one turn to be heard.
        let first = away && !std::mem::replace(&mut self.was_away, away);
        self.was_away = away;
        if first || self.sockets.engine().is_overflown() || (rest && self.unjudged < MAX_BUSY_PORTIONS) {
            // Completions are left, here or held back by the kernel.
            self.sockets.urgent = true;
        } else {
            self.unjudged = 0;
            // Visits get as much time as everything else had since the last ones.
            let rounds = visit_rounds(self.unjudged_time + now.since(began));
            self.service.expire(&mut self.sockets, now, rounds)?;
            self.unjudged_time = Duration::ZERO;
            judged = Instant::now();
        }
        self.service.after_visits(&mut self.sockets, now)?;
        if self.shared.is_draining() && !std::mem::replace(&mut self.draining, true) {
            self.accept_the_last()?;
            self.stop_listening()?;
            self.service.drain();
        }
        self.give_back_places();
        self.accept_pending()?;
        self.make_room_for_others();
        self.hand_over();
        self.give_back_places();
        self.sink.progress(self.service.counts());
        let end = Instant::now();
        self.service.turned(began, end);
        if end.since(began) > limits::STALL_THRESHOLD {
            self.stalled(began, began, end);
        }
        self.ended = end;
        self.unjudged_time += end.since(judged);
        // A program that runs the loop may take turn after turn without a rest; each is late only after the one before.
        (self.rested, self.rest_until) = (end, end);
        Ok(())
    }

    fn complete(&mut self, completion: Completion, now: Instant) -> io::Result<()> {
        match completion.token.kind() {
            kind::LISTENER => self.on_listener(&completion),
            kind::WAKEUP => {
                self.wakeup.clear();
                if completion.more { Ok(()) } else { self.poll_wakeup() }
            }
            // The poll was already over: its last completion is here or on its way.
            kind::CANCEL => Ok(()),
            _ => self.service.completed(&mut self.sockets, completion, now),
        }
    }

    /// Closes the descriptors that the service has given up just now: their polls end with a cancellation, which completes
    /// at once. The kernel would close what is left with the process.
    fn close_retired(&mut self) -> io::Result<()> {
        let mut rest = true;
        while rest {
            self.sockets.engine().submit_and_wait(Wait::NOT)?;
            let mut batch = std::mem::take(&mut self.completions);
            rest = self.sockets.engine().reap(&mut batch, limits::MAX_COMPLETIONS_PER_TURN);
            for completion in batch.drain(..) {
                if completion.token.kind() >= kind::SERVICE {
                    self.sockets.retired(&completion);
                }
                self.sockets.recycle(completion.buffer);
            }
            self.completions = batch;
        }
        Ok(())
    }

    /// How long to wait, and for what.
    fn plan_wait(&mut self) -> Wait {
        let now = Instant::now();
        self.plan_rest(now);
        let timeout = self.rest_until.since(now);
        let at_once = std::mem::take(&mut self.sockets.urgent) | std::mem::take(&mut self.sockets.read_on);
        let wait = if at_once || timeout.is_zero() {
            Wait::NOT
        } else {
            let window = if self.sockets.streams { limits::STREAM_WINDOW } else { self.batch_window };
            let completions = if window.is_zero() { 1 } else { limits::WAIT_BATCH };
            Wait { completions, window, timeout }
        };
        self.sockets.streams &= at_once;
        wait
    }

    fn plan_rest(&mut self, now: Instant) {
        // Appointments that wait for their turn lie in the past. A loop is not late for those.
        (self.rested, self.rest_until) = (now, self.wake_at(now).max(self.ended));
    }

    /// The time after a rest, and whether this process was absent: its rest was much longer than it should have been, or
    /// the machine was suspended.
    fn awake(&mut self) -> (Instant, bool) {
        let now = Instant::now();
        let late = now > self.rest_until + limits::STALL_THRESHOLD;
        if late {
            self.stalled(self.rested, self.rest_until, now);
        }
        let suspended = suspended();
        let slept = suspended.saturating_sub(self.suspended);
        // A delay between the reads of the two clocks makes the difference too small; that is no suspend next time.
        self.suspended = suspended.max(self.suspended);
        let asleep = slept > nanos(limits::STALL_THRESHOLD);
        if asleep {
            self.stalls += 1;
            self.service.suspended(now, Duration::from_nanos(slept));
        }
        (now, late || asleep)
    }

    fn stalled(&mut self, rested: Instant, start: Instant, end: Instant) {
        self.stalls += 1;
        self.service.stalled(rested, start, end);
    }

    pub(crate) fn wake_at(&self, now: Instant) -> Instant {
        let mut until = (now + limits::MAX_WAIT).min(self.service.next_due(now));
        if self.sink_is_full {
            // The sink wakes the loop; this is for a sink that does not.
            until = until.min(now + limits::ACCEPT_PAUSE);
        }
        if self.service.room() != Room::Held {
            until = until.min(self.listeners.next_due(now));
        }
        until
    }

    /// Hands events to the sink as long as it takes them; returns whether it took all.
    fn hand_over(&mut self) -> bool {
        loop {
            while self.batch.len() < limits::EVENT_BATCH && !self.sink_is_full {
                let Some(event) = self.service.poll_event(self.woken) else { break };
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

/// How many rounds of [`VISITS_AT_ONCE`](limits::VISITS_AT_ONCE) visits a turn makes, if everything else took `others`
/// since the last visits.
pub(super) fn visit_rounds(others: Duration) -> usize {
    let most = limits::MAX_VISITS_PER_TURN / limits::VISITS_AT_ONCE;
    (nanos(others) / nanos(limits::VISIT_ROUND) + 1).min(most as u64) as usize
}

/// An empty list of completions whose pages exist already: the first storm must not fault them in.
pub(super) fn touched(capacity: usize) -> Vec<Completion> {
    let nothing = || Completion { token: Token::new(0, 0, 0), result: 0, more: false, buffer: None };
    let mut list = Vec::with_capacity(capacity);
    list.resize_with(capacity, nothing);
    list.clear();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_get_as_much_time_as_everything_else() {
        let rounds = |micros| visit_rounds(Duration::from_micros(micros));
        assert_eq!([0, 199, 200, 1_000, 1_000_000].map(rounds), [1, 1, 2, 6, 32]);
    }
}
