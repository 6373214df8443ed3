//! The upstreams: which one is chosen next, and which are left out for a while.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::limits::{MAX_UPSTREAM_PAUSE, UPSTREAM_PAUSE};
use crate::reactor::Address;
use crate::time::Instant;

#[derive(Debug)]
struct Upstream {
    address: Address,
    open: AtomicUsize,
    failures: AtomicU32,
    /// In nanoseconds; 0 if it is not left out.
    out_until: AtomicU64,
    /// A connection finds out whether it works again.
    trial: AtomicBool,
}

/// The upstreams, shared by all threads. They consist of counters, so no thread waits for another; a choice may be made
/// from counts that are a moment old.
///
/// An upstream that fails is left out for a pause, which doubles with each failure. Then one connection tries it, and no
/// other until that one has an answer. An answer ends the pauses: a handshake alone shows only that the kernel works.
#[derive(Debug)]
pub struct Upstreams {
    all: Vec<Upstream>,
    turn: AtomicUsize,
}

/// An upstream that was taken for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) index: usize,
    /// Whether the connection finds out if it works again.
    trial: bool,
}

impl Upstreams {
    /// The upstreams with these addresses.
    ///
    /// # Panics
    ///
    /// If there are no addresses.
    #[must_use]
    pub fn new(addresses: Vec<Address>) -> Upstreams {
        assert!(!addresses.is_empty(), "a proxy needs an upstream");
        let upstream = |address| Upstream {
            address,
            open: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            out_until: AtomicU64::new(0),
            trial: AtomicBool::new(false),
        };
        Upstreams { all: addresses.into_iter().map(upstream).collect(), turn: AtomicUsize::new(0) }
    }

    /// The address of this upstream.
    pub(super) fn address(&self, index: usize) -> &Address {
        &self.all[index].address
    }

    /// Chooses the upstream with the fewest connections, in turn among equals, and counts a connection to it. One that
    /// is left out, or tried by another connection, is chosen only if no other is left, and one of `tried` never.
    pub(super) fn take(&self, now: Instant, tried: &[usize]) -> Option<Chosen> {
        let first = self.turn.fetch_add(1, Relaxed);
        let count = self.all.len();
        let index = (0..count)
            .map(|step| (first.wrapping_add(step)) % count)
            .filter(|index| !tried.contains(index))
            .min_by_key(|&index| {
                let upstream = &self.all[index];
                let until = upstream.out_until.load(Relaxed);
                let out = if until > now.as_nanos() || upstream.trial.load(Relaxed) { until } else { 0 };
                (out, upstream.open.load(Relaxed))
            })?;
        let chosen = &self.all[index];
        chosen.open.fetch_add(1, Relaxed);
        let trial = chosen.failures.load(Relaxed) > 0 && !chosen.trial.swap(true, Relaxed);
        Some(Chosen { index, trial })
    }

    /// Counts a connection to this upstream as ended.
    pub(super) fn give(&self, chosen: Chosen) {
        let upstream = &self.all[chosen.index];
        upstream.open.fetch_sub(1, Relaxed);
        if chosen.trial {
            upstream.trial.store(false, Relaxed);
        }
    }

    /// Takes note that this upstream answers. Returns whether it had failed before.
    pub(super) fn works(&self, chosen: Chosen) -> bool {
        let upstream = &self.all[chosen.index];
        if upstream.failures.load(Relaxed) == 0 || upstream.failures.swap(0, Relaxed) == 0 {
            return false;
        }
        upstream.out_until.store(0, Relaxed);
        upstream.trial.store(false, Relaxed);
        true
    }

    /// Takes note that this upstream failed: it is left out for a while, longer each time. Returns whether it had worked
    /// before.
    pub(super) fn fails(&self, chosen: Chosen, now: Instant) -> bool {
        let upstream = &self.all[chosen.index];
        // Attempts that fail at the same time count as one failure.
        if upstream.out_until.load(Relaxed) > now.as_nanos() {
            return false;
        }
        let failures = upstream.failures.fetch_add(1, Relaxed);
        let pause = (UPSTREAM_PAUSE * (1 << failures.min(16))).min(MAX_UPSTREAM_PAUSE);
        upstream.out_until.store((now + pause).as_nanos(), Relaxed);
        failures == 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;

    fn three() -> Upstreams {
        Upstreams::new((1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port)).into()).collect())
    }

    fn taken(all: &Upstreams, now: Instant, tried: &[usize]) -> Option<usize> {
        all.take(now, tried).map(|chosen| chosen.index)
    }

    fn chosen(index: usize) -> Chosen {
        Chosen { index, trial: false }
    }

    #[test]
    fn the_least_busy_is_taken_and_those_alike_in_turn() {
        let (all, now) = (three(), Instant::from_nanos(1));
        let mut each: Vec<_> = (0..3).map(|_| taken(&all, now, &[]).unwrap()).collect();
        each.sort_unstable();
        assert_eq!(each, [0, 1, 2]);
        all.give(chosen(1));
        assert_eq!(taken(&all, now, &[]), Some(1));
        assert_ne!(taken(&all, now, &[0, 1]), Some(0));
        assert_eq!(taken(&all, now, &[0, 1, 2]), None);
    }

    #[test]
    fn an_upstream_that_fails_is_left_out_for_longer_each_time_and_taken_when_no_other_is_left() {
        let (all, mut now) = (three(), Instant::from_nanos(1));
        for (times, expected) in [100, 200, 400].into_iter().enumerate() {
            assert_eq!(all.fails(chosen(0), now), times == 0, "told once");
            assert!(!all.fails(chosen(0), now), "at the same time: once");
            for _ in 0..6 {
                let chosen = all.take(now, &[]).unwrap();
                assert_ne!(chosen.index, 0);
                all.give(chosen);
            }
            let last = all.take(now, &[1, 2]).unwrap();
            assert_eq!(last.index, 0);
            all.give(last);
            let almost = now + Duration::from_millis(expected - 1);
            assert_ne!(taken(&all, almost, &[1]), Some(0));
            all.give(chosen(2));
            now = now + Duration::from_millis(expected);
        }
        assert!(all.works(chosen(0)));
        assert!(!all.works(chosen(0)), "told once");
        assert!(all.fails(chosen(0), now));
        assert_eq!(all.all[0].out_until.load(Relaxed), (now + UPSTREAM_PAUSE).as_nanos());
    }

    #[test]
    fn one_connection_at_a_time_tries_an_upstream_that_failed() {
        let (all, now) = (three(), Instant::from_nanos(1));
        all.fails(chosen(0), now);
        let later = now + Duration::from_secs(1);
        let tries = |all: &Upstreams| {
            let taken: Vec<_> = (0..30).map(|_| all.take(later, &[]).unwrap()).collect();
            let tries: Vec<_> = taken.iter().copied().filter(|chosen| chosen.index == 0).collect();
            taken.into_iter().filter(|chosen| chosen.index != 0).for_each(|chosen| all.give(chosen));
            tries
        };
        let first = tries(&all);
        assert_eq!(first, [Chosen { index: 0, trial: true }]);
        assert_eq!(tries(&all), [], "its answer is awaited");
        // It ends without one: the next connection tries.
        all.give(first[0]);
        let second = tries(&all);
        assert_eq!(second.len(), 1);
        // It answers: everybody may have it.
        assert!(all.works(second[0]));
        assert!(tries(&all).len() > 1);
    }
}
