//! The upstreams: which one is chosen next, and which are left out for a while.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::limits::{MAX_UPSTREAM_PAUSE, UPSTREAM_PAUSE};
use crate::time::Instant;

#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    open: AtomicUsize,
    failures: AtomicU32,
    /// In nanoseconds; 0 if it is not left out.
    out_until: AtomicU64,
}

/// The upstreams, shared by all threads. They consist of counters, so no thread waits for another; a choice may be made
/// from counts that are a moment old.
#[derive(Debug)]
pub struct Upstreams {
    all: Vec<Upstream>,
    turn: AtomicUsize,
}

impl Upstreams {
    /// The upstreams with these addresses.
    ///
    /// # Panics
    ///
    /// If there are no addresses.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>) -> Upstreams {
        assert!(!addresses.is_empty(), "a proxy needs an upstream");
        let upstream = |address| Upstream {
            address,
            open: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            out_until: AtomicU64::new(0),
        };
        Upstreams { all: addresses.into_iter().map(upstream).collect(), turn: AtomicUsize::new(0) }
    }

    /// The addresses of all upstreams, in order.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.all.iter().map(|upstream| upstream.address)
    }

    /// The address of this upstream.
    pub(super) fn address(&self, index: usize) -> SocketAddr {
        self.all[index].address
    }

    /// Chooses the upstream with the fewest connections, in turn among equals, and counts a connection to it. One that
    /// failed lately is chosen only if no other is left, and one of `tried` never.
    pub(super) fn take(&self, now: Instant, tried: &[usize]) -> Option<usize> {
        let first = self.turn.fetch_add(1, Relaxed);
        let count = self.all.len();
        let chosen = (0..count)
            .map(|step| (first.wrapping_add(step)) % count)
            .filter(|index| !tried.contains(index))
            .min_by_key(|&index| {
                let upstream = &self.all[index];
                let until = upstream.out_until.load(Relaxed);
                let out = if until > now.as_nanos() { until } else { 0 };
                (out, upstream.open.load(Relaxed))
            })?;
        self.all[chosen].open.fetch_add(1, Relaxed);
        Some(chosen)
    }

    /// Counts a connection to this upstream as ended.
    pub(super) fn give(&self, index: usize) {
        self.all[index].open.fetch_sub(1, Relaxed);
    }

    /// Takes note that this upstream was connected to.
    pub(super) fn works(&self, index: usize) {
        let upstream = &self.all[index];
        if upstream.failures.load(Relaxed) != 0 {
            upstream.failures.store(0, Relaxed);
            upstream.out_until.store(0, Relaxed);
        }
    }

    /// Takes note that this upstream could not be connected to: it is left out for a while, longer each time.
    pub(super) fn fails(&self, index: usize, now: Instant) {
        let upstream = &self.all[index];
        // Attempts that fail at the same time count as one failure.
        if upstream.out_until.load(Relaxed) > now.as_nanos() {
            return;
        }
        let failures = upstream.failures.fetch_add(1, Relaxed).min(16);
        let pause = (UPSTREAM_PAUSE * (1 << failures)).min(MAX_UPSTREAM_PAUSE);
        upstream.out_until.store((now + pause).as_nanos(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn three() -> Upstreams {
        Upstreams::new((1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect())
    }

    #[test]
    fn the_least_busy_is_taken_and_those_alike_in_turn() {
        let (all, now) = (three(), Instant::from_nanos(1));
        let mut taken: Vec<_> = (0..3).map(|_| all.take(now, &[]).unwrap()).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2]);
        all.give(1);
        assert_eq!(all.take(now, &[]), Some(1));
        assert_ne!(all.take(now, &[0, 1]), Some(0));
        assert_eq!(all.take(now, &[0, 1, 2]), None);
    }

    #[test]
    fn an_upstream_that_fails_is_left_out_for_longer_each_time_and_taken_when_no_other_is_left() {
        let (all, mut now) = (three(), Instant::from_nanos(1));
        for expected in [100, 200, 400] {
            all.fails(0, now);
            all.fails(0, now); // at the same time: once
            for _ in 0..6 {
                let chosen = all.take(now, &[]).unwrap();
                assert_ne!(chosen, 0);
                all.give(chosen);
            }
            assert_eq!(all.take(now, &[1, 2]), Some(0));
            all.give(0);
            let almost = now + Duration::from_millis(expected - 1);
            assert_ne!(all.take(almost, &[1]), Some(0));
            all.give(2);
            now = now + Duration::from_millis(expected);
        }
        assert!((0..3).any(|_| all.take(now, &[]) == Some(0)), "it is tried again");
        all.works(0);
        all.fails(0, now);
        assert_eq!(all.all[0].out_until.load(Relaxed), (now + UPSTREAM_PAUSE).as_nanos());
    }
}
