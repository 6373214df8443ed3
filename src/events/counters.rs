//! How many peers there are, for whoever wants to look: a ring thread stores, others load.
//!
//! A line on a terminal may be a little old, so there is no lock: each number is stored by itself,
//! and two of them may be of different turns.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::liveness::TrackerCounts;

/// What one ring thread last said. On a cache line of its own, so that one ring's store is not
/// another's miss.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counters {
    opened: AtomicU64,
    alive: AtomicU64,
    suspects: AtomicU64,
    half_closed: AtomicU64,
    died: AtomicU64,
}

impl Counters {
    /// Stores what a tracker counted.
    pub fn store(&self, counts: &TrackerCounts) {
        let doubtful = counts.suspects + counts.half_closed;
        self.opened.store(counts.opened, Relaxed);
        self.alive.store(u64::from(counts.living.saturating_sub(doubtful)), Relaxed);
        self.suspects.store(u64::from(counts.suspects), Relaxed);
        self.half_closed.store(u64::from(counts.half_closed), Relaxed);
        self.died.store(counts.died.iter().sum(), Relaxed);
    }

    /// What was last stored.
    #[must_use]
    pub fn load(&self) -> Totals {
        Totals {
            opened: self.opened.load(Relaxed),
            alive: self.alive.load(Relaxed),
            suspects: self.suspects.load(Relaxed),
            half_closed: self.half_closed.load(Relaxed),
            died: self.died.load(Relaxed),
        }
    }
}

/// The counters of one ring, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Accepted since the start.
    pub opened: u64,
    /// Alive now, and neither suspect nor half-closed.
    pub alive: u64,
    /// Suspect now.
    pub suspects: u64,
    /// Half-closed now.
    pub half_closed: u64,
    /// Died since the start.
    pub died: u64,
}

impl std::ops::Add for Totals {
    type Output = Totals;

    fn add(self, other: Totals) -> Totals {
        Totals {
            opened: self.opened + other.opened,
            alive: self.alive + other.alive,
            suspects: self.suspects + other.suspects,
            half_closed: self.half_closed + other.half_closed,
            died: self.died + other.died,
        }
    }
}

impl std::iter::Sum for Totals {
    fn sum<I: Iterator<Item = Totals>>(totals: I) -> Totals {
        totals.fold(Totals::default(), |sum, totals| sum + totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_divided_into_three_and_the_dead_are_summed() {
        let mut counts =
            TrackerCounts { opened: 10, living: 7, suspects: 2, half_closed: 1, ..TrackerCounts::default() };
        counts.died[0] = 2;
        counts.died[5] = 1;
        let counters = Counters::default();
        counters.store(&counts);
        let expected = Totals { opened: 10, alive: 4, suspects: 2, half_closed: 1, died: 3 };
        assert_eq!(counters.load(), expected);
        assert_eq!([counters.load(), counters.load()].into_iter().sum::<Totals>(), expected + expected);
    }
}
