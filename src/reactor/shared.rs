//! What the drivers of one program share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Shared by all rings: the budget of connections and the word to stop. Only counters, so that no
/// ring ever waits for another.
#[derive(Debug)]
pub struct Shared {
    left: AtomicUsize,
    saturated: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    /// Allows `capacity` connections over all rings.
    #[must_use]
    pub const fn new(capacity: usize) -> Shared {
        Shared {
            left: AtomicUsize::new(capacity),
            saturated: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }

    /// Asks every driver to end. Wake them after it.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether the drivers were asked to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Takes the right to one more connection, if there is one left.
    pub(crate) fn take(&self) -> bool {
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }

    /// Gives rights back.
    pub(crate) fn give(&self, count: usize) {
        self.left.fetch_add(count, Ordering::AcqRel);
    }

    /// Marks the limit as reached; whether this call was the first to say so.
    pub(crate) fn saturate(&self) -> bool {
        !self.saturated.swap(true, Ordering::AcqRel)
    }

    /// Marks the limit as left; whether it had been reached.
    pub(crate) fn resume(&self) -> bool {
        self.saturated.load(Ordering::Acquire) && self.saturated.swap(false, Ordering::AcqRel)
    }
}
