//! The order of things within a turn, and what is due when.

use std::io;
use std::time::Duration;

use super::{POLL, RECV, Report, Tracking};
use crate::limits;
use crate::liveness::{Event, EventKind, TrackerCounts};
use crate::measure::intervals::IntervalSender;
use crate::reactor::{Accepted, Completion, Ended, Room, Service, Sockets};
use crate::time::Instant;

impl Service for Tracking {
    type Event = Event;
    type Counts = TrackerCounts;
    type Report = Report;

    fn accepted(&mut self, sockets: &mut Sockets, accepted: Accepted) -> io::Result<()> {
        self.admit(sockets, accepted)
    }

    fn reaped(&mut self, completions: usize, first: bool) {
        if first {
            self.ends_at_once = limits::ENDS_AT_ONCE;
        }
        self.recorder.batch(completions);
    }

    fn completed(&mut self, sockets: &mut Sockets, completion: Completion, now: Instant) -> io::Result<()> {
        match completion.token.kind() {
            POLL => self.on_poll(sockets, &completion, now),
            RECV => self.on_recv(sockets, completion, now),
            kind => unreachable!("no operation of kind {kind} is ever submitted"),
        }
    }

    fn perform(&mut self, sockets: &mut Sockets, now: Instant) -> io::Result<()> {
        self.do_actions(sockets, now)
    }

    fn expire(&mut self, sockets: &mut Sockets, now: Instant, rounds: usize) -> io::Result<()> {
        for _ in 0..rounds {
            self.tracker.handle_time(now);
            self.do_actions(sockets, now)?;
        }
        Ok(())
    }

    fn after_visits(&mut self, sockets: &mut Sockets, now: Instant) -> io::Result<()> {
        self.retry(sockets, now)?;
        self.poll_again(sockets)
    }

    fn next_due(&self, now: Instant) -> Instant {
        let visit = self.tracker.next_due().unwrap_or(Instant::NEVER);
        let interval = self.tap.as_ref().and_then(|tap| tap.due_after(now)).unwrap_or(Instant::NEVER);
        let retry = if self.starved.is_empty() { Instant::NEVER } else { self.starved_until };
        visit.min(interval).min(retry)
    }

    fn connections(&self) -> usize {
        self.tracker.len()
    }

    fn room(&self) -> Room {
        if self.tracker.is_full() { Room::Full } else { Room::Free }
    }

    fn stalled(&mut self, _: Instant, start: Instant, end: Instant) {
        self.tracker.handle_stall(start, end);
    }

    fn suspended(&mut self, now: Instant, slept: Duration) {
        self.tracker.handle_suspend(now, slept);
    }

    fn saturated(&mut self, limit: &'static str, now: Instant) {
        self.tracker.notice(Event { at: now, subject: None, kind: EventKind::Saturated { limit } });
    }

    fn resumed(&mut self, now: Instant) {
        self.tracker.notice(Event { at: now, subject: None, kind: EventKind::Resumed });
    }

    fn poll_event(&mut self, woken: Instant) -> Option<Event> {
        let event = self.tracker.poll_event()?;
        if let EventKind::Died(death) = &event.kind {
            self.recorder.death(death);
            if death.deadline.is_none() {
                self.recorder.verdict(Instant::now().since(woken));
            }
        }
        Some(event)
    }

    fn counts(&self) -> &TrackerCounts {
        self.tracker.counts()
    }

    fn turned(&mut self, began: Instant, end: Instant) {
        self.recorder.turn(end.since(began));
        if let Some(tap) = &mut self.tap {
            tap.close(&mut self.recorder, end);
        }
    }

    fn report(self, ended: Ended) -> Report {
        Report {
            counts: *self.tracker.counts(),
            recorder: self.recorder,
            measured_since: self.tap.as_ref().map(IntervalSender::open_since),
            ring: ended.engine,
            stalls: ended.stalls,
            rearms: ended.rearms,
            undelivered: ended.undelivered,
        }
    }
}
