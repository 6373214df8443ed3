//! The upstreams: which one is chosen next, and which are left out for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::line::Line;
use crate::limits::{MAX_UPSTREAM_PAUSE, MAX_UPSTREAMS, UPSTREAM_PAUSE};
use crate::reactor::Address;
use crate::sys::wakeup::Wakeup;
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

impl Upstream {
    fn new(address: Address) -> Upstream {
        Upstream {
            address,
            open: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            out_until: AtomicU64::new(0),
            trial: AtomicBool::new(false),
        }
    }
}

/// The upstreams that there have been. Those before keep their places, because connections refer to them.
#[derive(Clone, Debug, Default)]
struct List {
    all: Vec<Arc<Upstream>>,
    /// The places of those that take requests.
    active: Vec<usize>,
}

/// The upstreams, shared by all threads. They consist of counters, so no thread waits for another; a choice may be made
/// from counts that are a moment old.
///
/// An upstream that fails is left out for a pause, which doubles with each failure. Then one connection tries it, and no
/// other until that one has an answer. An answer ends the pauses: a handshake alone shows only that the kernel works.
#[derive(Debug)]
pub struct Upstreams {
    list: Mutex<Arc<List>>,
    /// Counts the lists.
    version: AtomicU64,
    turn: AtomicUsize,
    /// What other threads than the loops have to report.
    news: Mutex<VecDeque<Line>>,
    has_news: AtomicBool,
    /// The loop that reports it.
    wakeup: OnceLock<Arc<Wakeup>>,
}

/// An upstream that was taken for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) index: usize,
    /// Whether the connection finds out if it works again.
    pub(super) trial: bool,
}

impl Upstreams {
    /// The upstreams with these addresses.
    ///
    /// # Panics
    ///
    /// If there are no addresses.
    #[must_use]
    pub fn new(addresses: Vec<Address>) -> Upstreams {
        let upstreams = Upstreams {
            list: Mutex::default(),
            version: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            news: Mutex::default(),
            has_news: AtomicBool::new(false),
            wakeup: OnceLock::new(),
        };
        upstreams.set(addresses);
        upstreams
    }

    /// Replaces the upstreams by those with these addresses. One that was there before keeps what is known of it. Returns
    /// whether there was room for the new ones: [`MAX_UPSTREAMS`] with all that there have been.
    ///
    /// # Panics
    ///
    /// If there are no addresses.
    pub fn set(&self, addresses: Vec<Address>) -> bool {
        assert!(!addresses.is_empty(), "a proxy needs an upstream");
        let mut current = lock(&self.list);
        let mut list = List { all: current.all.clone(), active: Vec::with_capacity(addresses.len()) };
        let known = list.all.iter().enumerate().map(|(place, upstream)| (upstream.address.clone(), place));
        let mut places: HashMap<_, _> = known.collect();
        for address in addresses {
            let place = *places.entry(address).or_insert_with_key(|address| {
                list.all.push(Arc::new(Upstream::new(address.clone())));
                list.all.len() - 1
            });
            list.active.push(place);
        }
        list.active.sort_unstable();
        list.active.dedup();
        if list.all.len() > MAX_UPSTREAMS {
            return false;
        }
        *current = Arc::new(list);
        self.version.fetch_add(1, Relaxed);
        true
    }

    /// Has this loop woken for what other threads report.
    pub(super) fn wake_for_news(&self, wakeup: &Arc<Wakeup>) {
        let _ = self.wakeup.set(Arc::clone(wakeup)); // one loop is enough
    }

    /// Reports something through a loop.
    pub(super) fn tell(&self, line: Line) {
        lock(&self.news).push_back(line);
        self.has_news.store(true, Relaxed);
        if let Some(wakeup) = self.wakeup.get() {
            wakeup.wake();
        }
    }
}

/// What a thread that panics leaves in it is whole: it is replaced at one go.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The upstreams as one thread uses them. It takes a lock only when they have changed.
#[derive(Debug)]
pub(super) struct Choice {
    shared: Arc<Upstreams>,
    version: u64,
    list: Arc<List>,
}

impl Choice {
    pub(super) fn new(shared: Arc<Upstreams>) -> Choice {
        let version = shared.version.load(Relaxed);
        let list = Arc::clone(&lock(&shared.list));
        Choice { shared, version, list }
    }

    /// What other threads have to report.
    pub(super) fn take_news(&self) -> VecDeque<Line> {
        match self.shared.has_news.load(Relaxed) && self.shared.has_news.swap(false, Relaxed) {
            true => std::mem::take(&mut lock(&self.shared.news)),
            false => VecDeque::new(),
        }
    }

    /// The address of this upstream.
    pub(super) fn address(&self, index: usize) -> &Address {
        &self.list.all[index].address
    }

    /// Chooses the upstream with the fewest connections, in turn among equals, and counts a connection to it. One that
    /// is left out, or tried by another connection, is chosen only if no other is left, and one of `tried` never.
    pub(super) fn take(&mut self, now: Instant, tried: &[usize]) -> Option<Chosen> {
        if self.version != self.shared.version.load(Relaxed) {
            *self = Choice::new(Arc::clone(&self.shared));
        }
        let List { all, active } = &*self.list;
        let first = self.shared.turn.fetch_add(1, Relaxed);
        let count = active.len();
        let index = (0..count)
            .map(|step| active[first.wrapping_add(step) % count])
            .filter(|index| !tried.contains(index))
            .min_by_key(|&index| {
                let upstream = &all[index];
                let until = upstream.out_until.load(Relaxed);
                let out = if until > now.as_nanos() || upstream.trial.load(Relaxed) { until } else { 0 };
                (out, upstream.open.load(Relaxed))
            })?;
        let chosen = &all[index];
        chosen.open.fetch_add(1, Relaxed);
        let trial = chosen.failures.load(Relaxed) > 0 && !chosen.trial.swap(true, Relaxed);
        Some(Chosen { index, trial })
    }

    /// Counts a connection to this upstream as ended.
    pub(super) fn give(&self, chosen: Chosen) {
        let upstream = &self.list.all[chosen.index];
        upstream.open.fetch_sub(1, Relaxed);
        if chosen.trial {
            upstream.trial.store(false, Relaxed);
        }
    }

    /// Takes note that this upstream answers. Returns whether it had failed before.
    pub(super) fn works(&self, chosen: Chosen) -> bool {
        let upstream = &self.list.all[chosen.index];
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
        let upstream = &self.list.all[chosen.index];
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
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    fn addresses(ports: impl IntoIterator<Item = u16>) -> Vec<Address> {
        ports.into_iter().map(|port| SocketAddr::from(([127, 0, 0, 1], port)).into()).collect()
    }

    fn three() -> Choice {
        Choice::new(Arc::new(Upstreams::new(addresses(1..=3))))
    }

    fn taken(all: &mut Choice, now: Instant, tried: &[usize]) -> Option<usize> {
        all.take(now, tried).map(|chosen| chosen.index)
    }

    fn chosen(index: usize) -> Chosen {
        Chosen { index, trial: false }
    }

    #[test]
    fn the_least_busy_is_taken_and_those_alike_in_turn() {
        let (mut all, now) = (three(), Instant::from_nanos(1));
        let mut each: Vec<_> = (0..3).map(|_| taken(&mut all, now, &[]).unwrap()).collect();
        each.sort_unstable();
        assert_eq!(each, [0, 1, 2]);
        all.give(chosen(1));
        assert_eq!(taken(&mut all, now, &[]), Some(1));
        assert_ne!(taken(&mut all, now, &[0, 1]), Some(0));
        assert_eq!(taken(&mut all, now, &[0, 1, 2]), None);
    }

    #[test]
    fn an_upstream_that_fails_is_left_out_for_longer_each_time_and_taken_when_no_other_is_left() {
        let (mut all, mut now) = (three(), Instant::from_nanos(1));
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
            assert_ne!(taken(&mut all, almost, &[1]), Some(0));
            all.give(chosen(2));
            now = now + Duration::from_millis(expected);
        }
        assert!(all.works(chosen(0)));
        assert!(!all.works(chosen(0)), "told once");
        assert!(all.fails(chosen(0), now));
        assert_eq!(all.list.all[0].out_until.load(Relaxed), (now + UPSTREAM_PAUSE).as_nanos());
    }

    #[test]
    fn one_connection_at_a_time_tries_an_upstream_that_failed() {
        let (mut all, now) = (three(), Instant::from_nanos(1));
        all.fails(chosen(0), now);
        let later = now + Duration::from_secs(1);
        let tries = |all: &mut Choice| {
            let taken: Vec<_> = (0..30).map(|_| all.take(later, &[]).unwrap()).collect();
            let tries: Vec<_> = taken.iter().copied().filter(|chosen| chosen.index == 0).collect();
            taken.into_iter().filter(|chosen| chosen.index != 0).for_each(|chosen| all.give(chosen));
            tries
        };
        let first = tries(&mut all);
        assert_eq!(first, [Chosen { index: 0, trial: true }]);
        assert_eq!(tries(&mut all), [], "its answer is awaited");
        // It ends without one: the next connection tries.
        all.give(first[0]);
        let second = tries(&mut all);
        assert_eq!(second.len(), 1);
        // It answers: everybody may have it.
        assert!(all.works(second[0]));
        assert!(tries(&mut all).len() > 1);
    }

    #[test]
    fn an_upstream_that_is_not_there_any_more_is_known_to_its_connections_and_takes_no_others() {
        let (mut all, now) = (three(), Instant::from_nanos(1));
        let shared = Arc::clone(&all.shared);
        let last = all.take(now, &[1, 2]).unwrap();
        assert!(all.fails(last, now));
        assert!(shared.set(addresses([3, 4, 4])));
        let mut each: Vec<_> = (0..4).map(|_| taken(&mut all, now, &[]).unwrap()).collect();
        each.sort_unstable();
        assert_eq!(each, [2, 2, 3, 3]);
        assert_eq!(all.address(last.index).to_string(), "127.0.0.1:1");
        all.give(last);
        // It comes back, and is what it was.
        assert!(shared.set(addresses([1])));
        assert_eq!(taken(&mut all, now, &[]), Some(0));
        assert!(!all.fails(last, now) && all.works(last));
        let many = (0..=MAX_UPSTREAMS).map(|number| Address::Unix(PathBuf::from(number.to_string()).into()));
        assert!(!shared.set(many.collect()));
        assert_eq!(taken(&mut all, now, &[]), Some(0));
    }
}
