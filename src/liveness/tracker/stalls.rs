//! Our own stalls, and how they put deadlines off.
//!
//! A silence that falls into a time in which we could not listen is not held against a peer. The
//! kernel listens for us when only this process was stopped, but not when the whole machine was; the
//! two cannot be told apart from inside, so both put deadlines off.

use std::time::Duration;

use crate::limits::MAX_STALLS;
use crate::time::Instant;

/// The last stalls, in order, without overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Stalls {
    spans: [(Instant, Instant); MAX_STALLS],
    len: usize,
}

impl Stalls {
    /// Adds the stall from `start` to `end`; later than all before it. When there is no room, the two
    /// oldest become one that spans both: deadlines then come later, never earlier.
    pub(super) fn add(&mut self, start: Instant, end: Instant) {
        let start = self.spans[..self.len].last().map_or(start, |&(_, last)| start.max(last));
        if end <= start {
            return;
        }
        if self.len == MAX_STALLS {
            self.spans[0].1 = self.spans[1].1;
            self.spans.copy_within(2.., 1);
            self.len -= 1;
        }
        self.spans[self.len] = (start, end);
        self.len += 1;
    }

    /// `from + after`, put off by the stalls in between.
    pub(super) fn put_off(&self, from: Instant, after: Duration) -> Instant {
        let mut deadline = from + after;
        for &(start, end) in &self.spans[..self.len] {
            if end > from && start < deadline {
                deadline = deadline + end.since(start.max(from));
            }
        }
        deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(second: u64) -> Instant {
        Instant::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn a_deadline_is_put_off_by_the_stalls_that_fall_into_it() {
        let mut stalls = Stalls::default();
        stalls.add(at(10), at(15));
        stalls.add(at(20), at(21));
        let seven = Duration::from_secs(7);
        assert_eq!(stalls.put_off(at(0), seven), at(7)); // before both
        assert_eq!(stalls.put_off(at(8), seven), at(20)); // 15 + 5: when the second begins
        assert_eq!(stalls.put_off(at(12), seven), at(23)); // 19 + the rest of the first + the second
        assert_eq!(stalls.put_off(at(15), seven), at(23));
        assert_eq!(stalls.put_off(at(21), seven), at(28)); // after both
    }

    #[test]
    fn more_stalls_than_places_only_make_deadlines_later() {
        let (mut few, mut exact) = (Stalls::default(), Duration::ZERO);
        for round in 0..3 * MAX_STALLS as u64 {
            few.add(at(10 * round), at(10 * round + 1));
            exact += Duration::from_secs(1);
        }
        let long = Duration::from_secs(1_000);
        assert!(few.put_off(at(0), long) >= at(0) + long + exact);
        assert_eq!(few.len, MAX_STALLS);
    }
}
