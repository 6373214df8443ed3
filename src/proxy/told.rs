//! The lines of one thread that their sink has not taken: events, or those of the access log.

use std::collections::VecDeque;
use std::time::Duration;

use super::line::Line;
use crate::limits::MAX_UNTOLD;
use crate::time::Instant;

/// What a proxy does about its events when their output takes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventsStall {
    /// It reads no client until there is room, and loses no event.
    Wait,
    /// It goes on, and drops and counts events.
    Drop,
}

/// A line that waits in a queue.
pub(super) trait Queued {
    /// When it was so.
    fn at(&self) -> Instant;

    /// The line that stands for `dropped` lines, the first of which came `during` before.
    fn dropped(at: Instant, dropped: u64, during: Duration) -> Self;
}

impl Queued for Line {
    fn at(&self) -> Instant {
        Line::at(self)
    }

    fn dropped(at: Instant, dropped: u64, during: Duration) -> Line {
        Line::Dropped { at, dropped, during }
    }
}

/// A queue of lines. Beyond [`MAX_UNTOLD`] it drops what comes, where it may, and has a line in its place.
#[derive(Debug)]
pub(super) struct Told<T> {
    lines: VecDeque<T>,
    on_stall: EventsStall,
    /// What was dropped behind the last line: the number, and when it began.
    gap: Option<(u64, Instant)>,
    /// Dropped since the start.
    pub(super) dropped: u64,
}

impl<T: Queued> Told<T> {
    pub(super) fn new(on_stall: EventsStall) -> Told<T> {
        Told { lines: VecDeque::new(), on_stall, gap: None, dropped: 0 }
    }

    /// How many lines wait.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether clients are not to be read until there is room.
    pub(super) fn is_held_up(&self) -> bool {
        self.on_stall == EventsStall::Wait && self.lines.len() >= MAX_UNTOLD
    }

    pub(super) fn push(&mut self, line: T) {
        if self.on_stall == EventsStall::Drop && self.lines.len() >= MAX_UNTOLD {
            self.dropped += 1;
            self.gap.get_or_insert((0, line.at())).0 += 1;
            return;
        }
        self.lines.extend(self.gap.take().map(|gap| dropped(gap, line.at())));
        self.lines.push_back(line);
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<T> {
        self.lines.pop_front().or_else(|| self.gap.take().map(|gap| dropped(gap, now)))
    }
}

fn dropped<T: Queued>((dropped, since): (u64, Instant), at: Instant) -> T {
    T::dropped(at, dropped, at.since(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Instant {
        Instant::from_nanos(number)
    }

    fn line(number: u64) -> Line {
        Line::Resumed { at: at(number) }
    }

    fn gap(from: u64, to: u64, number: u64) -> Line {
        Line::Dropped { at: at(to), dropped: number, during: Duration::from_nanos(to - from) }
    }

    #[test]
    fn what_is_dropped_is_told_in_its_place_once_there_is_room() {
        let most = MAX_UNTOLD as u64;
        let mut told = Told::new(EventsStall::Drop);
        (0..most + 10).for_each(|number| told.push(line(number)));
        assert_eq!((told.lines.len(), told.dropped, told.is_held_up()), (MAX_UNTOLD, 10, false));
        assert_eq!(told.pop(at(0)), Some(line(0)));
        told.push(line(most + 10));
        told.push(line(most + 11));
        assert_eq!(told.dropped, 11, "there was room for one, behind the gap");
        (1..most).for_each(|number| assert_eq!(told.pop(at(0)), Some(line(number))));
        assert_eq!(told.pop(at(0)), Some(gap(most, most + 10, 10)));
        assert_eq!(told.pop(at(0)), Some(line(most + 10)));
        // Nothing else comes.
        assert_eq!(told.pop(at(most + 20)), Some(gap(most + 11, most + 20, 1)));
        assert_eq!(told.pop(at(0)), None);
    }

    #[test]
    fn a_queue_that_waits_drops_nothing() {
        let mut told = Told::new(EventsStall::Wait);
        (0..MAX_UNTOLD as u64 + 1).for_each(|number| {
            assert_eq!(told.is_held_up(), number == MAX_UNTOLD as u64);
            told.push(line(number));
        });
        assert_eq!((told.lines.len(), told.dropped), (MAX_UNTOLD + 1, 0));
    }
}
