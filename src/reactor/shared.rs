//! What the loops of one program share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::limits;
use crate::time::Instant;

/// The budget of connections and the request to stop, shared by all loops of a program. It has only atomics, so that no
/// loop waits for another.
#[derive(Debug)]
pub struct Shared {
    left: AtomicUsize,
    saturated: AtomicBool,
    /// When a connection was last refused for want of something, in nanoseconds of [`Instant`].
    refused_at: AtomicU64,
    /// Connections that wait for a place, for which a loop could make none itself.
    waiting: AtomicUsize,
    drain: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    /// Allows `capacity` connections over all loops.
    #[must_use]
    pub const fn new(capacity: usize) -> Shared {
        Shared {
            left: AtomicUsize::new(capacity),
            saturated: AtomicBool::new(false),
            refused_at: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            drain: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }

    /// Asks every loop to stop listening, and to end when its service has come to the end of what is under way. Wake them
    /// after it.
    pub fn drain(&self) {
        self.drain.store(true, Ordering::Release);
    }

    /// Whether the loops were asked to drain.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.load(Ordering::Acquire)
    }

    /// Asks every loop to end. Wake them after it.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether the loops were asked to end.
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

    /// Asks the other loops for this many places; none are wanted any more if it is 0.
    pub(crate) fn want(&self, places: usize) {
        self.waiting.store(places, Ordering::Relaxed);
    }

    /// Takes over what other loops want.
    pub(crate) fn take_wanted(&self) -> usize {
        if self.waiting.load(Ordering::Relaxed) == 0 { 0 } else { self.waiting.swap(0, Ordering::Relaxed) }
    }

    /// Notes that a limit was met at `now`; returns whether this begins a time of saturation.
    pub(crate) fn saturate(&self, now: Instant) -> bool {
        self.refused_at.fetch_max(now.as_nanos(), Ordering::AcqRel);
        !self.saturated.swap(true, Ordering::AcqRel)
    }

    /// Notes that there was room at `now`; returns whether this ends a time of saturation. It ends when no limit was met
    /// for [`RESUME_AFTER`](limits::RESUME_AFTER).
    pub(crate) fn resume(&self, now: Instant) -> bool {
        self.resumes_at().is_some_and(|at| now >= at) && self.saturated.swap(false, Ordering::AcqRel)
    }

    /// When the present time of saturation may end at the earliest.
    pub(crate) fn resumes_at(&self) -> Option<Instant> {
        if !self.saturated.load(Ordering::Acquire) {
            return None;
        }
        Some(Instant::from_nanos(self.refused_at.load(Ordering::Acquire)) + limits::RESUME_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn at_the_edge_of_a_limit_saturation_is_told_once() {
        let shared = Shared::new(1);
        let begin = Instant::from_nanos(1 << 40);
        let mut told = 0;
        // A connection ends and another comes, every 100 ms for 20 s.
        for step in 0..200 {
            let now = begin + Duration::from_millis(100) * step;
            told += u32::from(shared.saturate(now));
            told += u32::from(shared.resume(now + Duration::from_millis(50)));
        }
        assert_eq!(told, 1);
        let last = begin + Duration::from_millis(19_900);
        assert!(!shared.resume(last + limits::RESUME_AFTER - Duration::from_millis(1)));
        assert!(shared.resume(last + limits::RESUME_AFTER));
        assert!(!shared.resume(last + limits::RESUME_AFTER));
    }
}
