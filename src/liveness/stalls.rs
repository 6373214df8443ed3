//! Stalls of the loop, and how they put deadlines off.
//!
//! A silence during a time in which the loop could not listen is not held against a peer. The kernel receives on while
//! only this process is stopped, but not while the whole machine is; the two cannot be told apart from inside, so both put
//! deadlines off.

use std::time::Duration;

use crate::limits::MAX_STALLS;
use crate::time::Instant;

/// The last stalls, in order and without overlap.
#[derive(Clone, Debug)]
pub(crate) struct Stalls {
    spans: [(Instant, Instant); MAX_STALLS],
    len: usize,
}

impl Default for Stalls {
    fn default() -> Stalls {
        Stalls { spans: [(Instant::ZERO, Instant::ZERO); MAX_STALLS], len: 0 }
    }
}

impl Stalls {
    /// Adds the stall from `start` to `end`, which is later than all before it. When there is no room, the two oldest become
    /// one of their total length that ends where the later ended: a deadline counted from between them comes later, never
    /// earlier.
    pub(crate) fn add(&mut self, start: Instant, end: Instant) {
        let start = self.spans[..self.len].last().map_or(start, |&(_, last)| start.max(last));
        if end <= start {
            return;
        }
        if self.len == MAX_STALLS {
            let [(first, first_end), (second, second_end), ..] = self.spans;
            let together = first_end.since(first) + second_end.since(second);
            self.spans[0] = (second_end - together, second_end);
            self.spans.copy_within(2.., 1);
            self.len -= 1;
        }
        self.spans[self.len] = (start, end);
        self.len += 1;
    }

    /// Returns `from + after`, put off by the stalls in between.
    pub(crate) fn put_off(&self, from: Instant, after: Duration) -> Instant {
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

    /// As it would be with room for all.
    fn exact(stalls: &[(Instant, Instant)], from: Instant, after: Duration) -> Instant {
        stalls.iter().fold(from + after, |deadline, &(start, end)| {
            let counts = end > from && start < deadline;
            if counts { deadline + end.since(start.max(from)) } else { deadline }
        })
    }

    #[test]
    fn more_stalls_than_places_make_nothing_due_early_and_nothing_never_due() {
        let (mut few, mut all) = (Stalls::default(), Vec::new());
        for round in 0..5 * MAX_STALLS as u64 {
            let stall = (at(10 * round + 4), at(10 * round + 5 + round % 4));
            few.add(stall.0, stall.1);
            all.push(stall);
            let now = stall.1;
            for silent in [7, 60, 300, 1_000, 3_000].into_iter().filter(|&silent| silent < 10 * round) {
                let from = at(10 * round - silent);
                for after in [7, 40, 250, 900].map(Duration::from_secs) {
                    let (told, right) = (few.put_off(from, after), exact(&all, from, after));
                    assert!(told > now || right <= now, "{from:?} + {after:?} is due early at {now:?}");
                    // At worst the whole time before the oldest that is kept as it was is taken for stalled.
                    let kept = at((10 * round).saturating_sub(10 * MAX_STALLS as u64));
                    assert!(told <= right + kept.since(from) || told <= now, "{told:?}, not {right:?}");
                }
            }
        }
        assert_eq!(few.len, MAX_STALLS);
    }
}
