//! The counts of the status line: a loop stores them once a turn, and the status line loads them.
//!
//! There is no lock: each count is stored by itself, and two counts may be of different turns.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Five counts. The stream of a service gives each its meaning.
pub type Totals = [u64; 5];

/// The counts of one loop, on a cache line of their own, so that one loop's store is not another's miss.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counters([AtomicU64; 5]);

impl Counters {
    /// Stores the counts.
    pub fn store(&self, totals: Totals) {
        for (counter, total) in self.0.iter().zip(totals) {
            counter.store(total, Relaxed);
        }
    }

    /// Returns the sum of what all loops stored last.
    #[must_use]
    pub fn sum(loops: &[Counters]) -> Totals {
        let mut sum = Totals::default();
        for counters in loops {
            for (total, counter) in sum.iter_mut().zip(&counters.0) {
                *total += counter.load(Relaxed);
            }
        }
        sum
    }
}
