//! When heartbeats are due: an even grid with jitter.
//!
//! The jitter is drawn around each place of the grid and is not added up: the mean interval stays the one that was asked
//! for, and the phases of thousands of connections stay apart.

use std::time::Duration;

use crate::time::{Instant, nanos};

/// A heartbeat is at most `every / JITTER_PART` from its place on the grid. So the distance of two neighbours differs
/// from `every` by at most a tenth.
const JITTER_PART: u64 = 20;

#[derive(Clone, Debug)]
pub(super) struct Rhythm {
    start: Instant,
    every: u64,
    count: usize,
}

impl Rhythm {
    pub(super) fn new(start: Instant, every: Duration, count: usize) -> Rhythm {
        let every = nanos(every);
        assert!(every > 0 && count > 0);
        Rhythm { start, every, count }
    }

    /// The first place on the grid of connection `index` whose heartbeat is not due before `now`, whatever its jitter.
    pub(super) fn place_after(&self, index: usize, now: Instant) -> u64 {
        let latest = now + Duration::from_nanos(self.every / JITTER_PART);
        let first = self.grid(index, 0);
        if latest < first { 0 } else { nanos(latest.since(first)) / self.every + 1 }
    }

    /// The last place on the grid that is not after `now`.
    pub(super) fn place_at(&self, index: usize, now: Instant) -> u64 {
        nanos(now.since(self.grid(index, 0))) / self.every
    }

    /// When the heartbeat at `place` is due, jitter included.
    pub(super) fn due(&self, index: usize, place: u64, rng: &mut fastrand::Rng) -> Instant {
        let jitter = self.every / JITTER_PART;
        self.grid(index, place) - Duration::from_nanos(jitter) + Duration::from_nanos(rng.u64(0..=2 * jitter))
    }

    fn grid(&self, index: usize, place: u64) -> Instant {
        assert!(index < self.count);
        // The quotient is less than `every` and fits 64 bits; the product may not.
        let phase = u128::from(self.every) * index as u128 / self.count as u128;
        self.start + Duration::from_nanos((phase as u64).saturating_add(self.every.saturating_mul(place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(1);
    const START: Instant = Instant::from_nanos(5_000_000_000);

    #[test]
    fn beats_keep_the_mean_and_are_a_tenth_from_it_at_most() {
        let rhythm = Rhythm::new(START, EVERY, 3);
        let mut rng = fastrand::Rng::with_seed(1);
        let dues: Vec<Instant> = (1..=10_000).map(|place| rhythm.due(1, place, &mut rng)).collect();
        for pair in dues.windows(2) {
            let gap = pair[1].since(pair[0]);
            assert!(EVERY.mul_f64(0.9) <= gap && gap <= EVERY.mul_f64(1.1), "{gap:?}");
        }
        let all = dues[9_999].since(dues[0]);
        assert!(all.abs_diff(EVERY * 9_999) <= EVERY / 10, "the grid does not drift: {all:?}");
    }

    #[test]
    fn connections_are_spread_evenly_over_the_interval() {
        let rhythm = Rhythm::new(START, EVERY, 1_000);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut tenths = [0_usize; 10];
        for index in 0..1_000 {
            let due = rhythm.due(index, 40, &mut rng).since(START).as_nanos() % EVERY.as_nanos();
            tenths[(due * 10 / EVERY.as_nanos()) as usize] += 1;
        }
        assert!(tenths.iter().all(|&beats| (60..=140).contains(&beats)), "{tenths:?}");
    }

    #[test]
    fn the_first_beat_is_not_due_in_the_past_and_not_later_than_any_other() {
        let rhythm = Rhythm::new(START, EVERY, 7);
        let mut rng = fastrand::Rng::with_seed(1);
        for step in 0..10_000_u32 {
            let (index, now) = (step as usize % 7, START + Duration::from_micros(777) * step);
            let due = rhythm.due(index, rhythm.place_after(index, now), &mut rng);
            assert!(due >= now && due.since(now) <= EVERY * 11 / 10, "{:?}", due.since(now));
        }
    }

    #[test]
    fn places_that_have_passed_are_known() {
        let rhythm = Rhythm::new(START, EVERY, 1);
        assert_eq!(rhythm.place_at(0, START + EVERY.mul_f64(3.5)), 3);
        assert_eq!(rhythm.place_at(0, Instant::ZERO), 0);
        assert_eq!(rhythm.grid(0, u64::MAX), Instant::NEVER);
    }
}
