//! The upstreams: which one is chosen next, and which are left out for a while.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::event::Failure;
use super::line::{Line, Sign};
use super::queue::Queues;
use crate::limits::{CHECKS_DOWN, CHECKS_UP, MAX_UPSTREAM_PAUSE, MAX_UPSTREAMS, UPSTREAM_PAUSE};
use crate::reactor::Address;
use crate::sys::wakeup::Wakeup;
use crate::time::Instant;

/// An upstream, and what is known of it. It is down while its connections have failed and none had an answer since, and
/// while its checks fail. All changes of that are made here.
#[derive(Debug)]
pub(super) struct Upstream {
    address: Address,
    open: AtomicUsize,
    failures: AtomicU32,
    /// In nanoseconds; 0 if it is not left out.
    out_until: AtomicU64,
    /// A connection finds out whether it works again.
    trial: AtomicBool,
    /// Its checks have failed.
    checked_out: AtomicBool,
    /// Checks in a row that contradict `checked_out`.
    doubts: AtomicU32,
}

impl Upstream {
    fn new(address: Address) -> Upstream {
        Upstream {
            address,
            open: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            out_until: AtomicU64::new(0),
            trial: AtomicBool::new(false),
            checked_out: AtomicBool::new(false),
            doubts: AtomicU32::new(0),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// A number that is the greater the less it is to be chosen; 0 if nothing is known against it.
    fn demerit(&self, now: Instant) -> u64 {
        let until = self.out_until.load(Relaxed);
        match self.checked_out.load(Relaxed) {
            true => u64::MAX,
            false if until > now.as_nanos() || self.trial.load(Relaxed) => until,
            false => 0,
        }
    }

    /// Takes note of an answer. Returns whether it was down and is not any more.
    fn works(&self) -> bool {
        if self.failures.load(Relaxed) == 0 || self.failures.swap(0, Relaxed) == 0 {
            return false;
        }
        self.out_until.store(0, Relaxed);
        self.trial.store(false, Relaxed);
        !self.checked_out.load(Relaxed)
    }

    /// Takes note of a connection that failed: it is left out for a while, longer each time. Returns whether it was not
    /// down before.
    fn fails(&self, now: Instant) -> bool {
        // Attempts that fail at the same time count as one failure.
        if self.out_until.load(Relaxed) > now.as_nanos() {
            return false;
        }
        let failures = self.failures.fetch_add(1, Relaxed);
        let pause = (UPSTREAM_PAUSE * (1 << failures.min(16))).min(MAX_UPSTREAM_PAUSE);
        self.out_until.store((now + pause).as_nanos(), Relaxed);
        failures == 0 && !self.checked_out.load(Relaxed)
    }

    /// Takes note of a check. Returns whether it changes whether it is down.
    fn checked(&self, passed: bool) -> bool {
        if passed != self.checked_out.load(Relaxed) {
            self.doubts.store(0, Relaxed);
            return false;
        }
        let needed = if passed { CHECKS_UP } else { CHECKS_DOWN };
        if self.doubts.fetch_add(1, Relaxed) + 1 < needed {
            return false;
        }
        self.doubts.store(0, Relaxed);
        self.checked_out.store(!passed, Relaxed);
        // Where connections have failed, the next one finds out.
        self.out_until.store(0, Relaxed);
        self.failures.load(Relaxed) == 0
    }

    fn line(&self, at: Instant, failure: Option<Failure>, sign: Sign) -> Line {
        Line::Upstream { at, upstream: self.address.clone(), failure, sign }
    }
}

/// The upstreams that there have been. Those before keep their places, because connections refer to them.
#[derive(Clone, Debug, Default)]
struct List {
    all: Vec<Arc<Upstream>>,
    /// The places of those that take requests, in order.
    active: Vec<usize>,
}

/// The upstreams, shared by all threads. They consist of counters, so no thread waits for another; a choice may be made
/// from counts that are a moment old.
///
/// An upstream that fails is left out for a pause, which doubles with each failure. Then one connection tries it, and no
/// other until that one has an answer. An answer ends the pauses: a handshake alone shows only that the kernel works. One
/// whose checks fail is left out until they pass again.
#[derive(Debug)]
pub struct Upstreams {
    list: Mutex<Arc<List>>,
    /// Counts the lists.
    version: AtomicU64,
    /// The place behind the one that was taken last.
    turn: AtomicUsize,
    pub(super) queues: Queues,
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
            queues: Queues::default(),
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

    /// Those that take requests.
    pub(super) fn active(&self) -> impl Iterator<Item = Arc<Upstream>> {
        let list = Arc::clone(&lock(&self.list));
        let active = list.active.clone();
        active.into_iter().map(move |place| Arc::clone(&list.all[place]))
    }

    /// Takes note of a check of one of them.
    pub(super) fn checked(&self, upstream: &Upstream, outcome: Result<(), Failure>, at: Instant) {
        if upstream.checked(outcome.is_ok()) {
            self.tell(upstream.line(at, outcome.err(), Sign::Check));
        }
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

/// What comes of the search for an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// This one, in which a place was taken.
    One(Chosen),
    /// The one that is to be taken has no free place.
    Full,
    /// There is none that was not tried.
    None,
}

/// The upstreams as one thread uses them. It takes a lock only when they have changed.
#[derive(Debug)]
pub(super) struct Choice {
    shared: Arc<Upstreams>,
    /// The greatest number of places at one upstream.
    limit: usize,
    version: u64,
    list: Arc<List>,
}

impl Choice {
    pub(super) fn new(shared: Arc<Upstreams>, limit: usize) -> Choice {
        let version = shared.version.load(Relaxed);
        let list = Arc::clone(&lock(&shared.list));
        Choice { shared, limit, version, list }
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

    fn refresh(&mut self) {
        if self.version != self.shared.version.load(Relaxed) {
            *self = Choice::new(Arc::clone(&self.shared), self.limit);
        }
    }

    /// Whether this upstream still takes requests.
    pub(super) fn is_active(&mut self, chosen: Chosen) -> bool {
        self.refresh();
        self.list.active.binary_search(&chosen.index).is_ok()
    }

    /// Chooses the upstream with the fewest requests, in turn among equals, and takes a place at it. One that is left out,
    /// or tried by another connection, is chosen only if no other is left, and one of `tried` never.
    pub(super) fn take(&mut self, now: Instant, tried: &[usize]) -> Taken {
        let Some(index) = self.best(now, tried) else { return Taken::None };
        let chosen = &self.list.all[index];
        let more = |open: usize| (open < self.limit).then_some(open + 1);
        if chosen.open.fetch_update(SeqCst, SeqCst, more).is_err() {
            return Taken::Full;
        }
        self.shared.turn.store(index + 1, Relaxed);
        let trial = chosen.failures.load(Relaxed) > 0 && !chosen.trial.swap(true, Relaxed);
        Taken::One(Chosen { index, trial })
    }

    /// Whether the upstream that is to be taken has a free place.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        self.best(now, &[]).is_some_and(|index| self.list.all[index].open.load(SeqCst) < self.limit)
    }

    fn best(&mut self, now: Instant, tried: &[usize]) -> Option<usize> {
        self.refresh();
        let List { all, active } = &*self.list;
        let next = self.shared.turn.load(Relaxed);
        let (before, behind) = active.split_at(active.partition_point(|&index| index < next));
        let in_turn = behind.iter().chain(before).copied();
        in_turn
            .filter(|index| !tried.contains(index))
            .min_by_key(|&index| (all[index].demerit(now), all[index].open.load(Relaxed)))
    }

    /// Gives a place at this upstream back.
    pub(super) fn give(&self, chosen: Chosen) {
        let upstream = &self.list.all[chosen.index];
        upstream.open.fetch_sub(1, SeqCst);
        if chosen.trial {
            upstream.trial.store(false, Relaxed);
        }
    }

    /// Takes note that this upstream answers, or how it failed. Returns what is to be told of it, if that is news.
    pub(super) fn judge(&self, chosen: Chosen, failure: Option<Failure>, at: Instant) -> Option<Line> {
        let upstream = &self.list.all[chosen.index];
        let changed = if failure.is_none() { upstream.works() } else { upstream.fails(at) };
        changed.then(|| upstream.line(at, failure, Sign::Request))
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
        Choice::new(Arc::new(Upstreams::new(addresses(1..=3))), usize::MAX)
    }

    fn taken(all: &mut Choice, now: Instant, tried: &[usize]) -> Option<usize> {
        one(all, now, tried).map(|chosen| chosen.index)
    }

    fn one(all: &mut Choice, now: Instant, tried: &[usize]) -> Option<Chosen> {
        match all.take(now, tried) {
            Taken::One(chosen) => Some(chosen),
            Taken::Full | Taken::None => None,
        }
    }

    fn fails(all: &Choice, chosen: Chosen, now: Instant) -> bool {
        all.judge(chosen, Some(Failure::Reset), now).is_some()
    }

    fn works(all: &Choice, chosen: Chosen) -> bool {
        all.judge(chosen, None, Instant::ZERO).is_some()
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
    fn requests_one_after_the_other_go_to_each_in_turn_however_often_room_was_asked_for() {
        for questions in 0..4 {
            let (mut all, now) = (three(), Instant::from_nanos(1));
            let six = |all: &mut Choice| -> Vec<_> {
                let next = |_| {
                    (0..questions).for_each(|_| assert!(all.has_room(now)));
                    let chosen = one(all, now, &[]).unwrap();
                    all.give(chosen);
                    chosen.index
                };
                (0..6).map(next).collect()
            };
            assert_eq!(six(&mut all), [0, 1, 2, 0, 1, 2]);
            fails(&all, chosen(1), now);
            assert_eq!(six(&mut all), [0, 2, 0, 2, 0, 2], "those that work have equal shares");
        }
    }

    #[test]
    fn an_upstream_has_no_more_places_than_were_given_and_a_failing_one_is_no_way_around_a_full_one() {
        let (mut all, now) = (three(), Instant::from_nanos(1));
        all.limit = 2;
        fails(&all, chosen(0), now);
        let mut each: Vec<_> = (0..4).map(|_| taken(&mut all, now, &[]).unwrap()).collect();
        each.sort_unstable();
        assert_eq!((each, all.has_room(now)), (vec![1, 1, 2, 2], false));
        assert_eq!(all.take(now, &[]), Taken::Full);
        all.give(chosen(1));
        assert!(all.has_room(now));
        assert_eq!((taken(&mut all, now, &[]), all.take(now, &[])), (Some(1), Taken::Full));
    }

    #[test]
    fn an_upstream_that_fails_is_left_out_for_longer_each_time_and_taken_when_no_other_is_left() {
        let (mut all, mut now) = (three(), Instant::from_nanos(1));
        for (times, expected) in [100, 200, 400].into_iter().enumerate() {
            assert_eq!(fails(&all, chosen(0), now), times == 0, "told once");
            assert!(!fails(&all, chosen(0), now), "at the same time: once");
            for _ in 0..6 {
                let chosen = one(&mut all, now, &[]).unwrap();
                assert_ne!(chosen.index, 0);
                all.give(chosen);
            }
            let last = one(&mut all, now, &[1, 2]).unwrap();
            assert_eq!(last.index, 0);
            all.give(last);
            let almost = now + Duration::from_millis(expected - 1);
            assert_ne!(taken(&mut all, almost, &[1]), Some(0));
            all.give(chosen(2));
            now = now + Duration::from_millis(expected);
        }
        assert!(works(&all, chosen(0)));
        assert!(!works(&all, chosen(0)), "told once");
        assert!(fails(&all, chosen(0), now));
        assert_eq!(all.list.all[0].out_until.load(Relaxed), (now + UPSTREAM_PAUSE).as_nanos());
    }

    #[test]
    fn one_connection_at_a_time_tries_an_upstream_that_failed() {
        let (mut all, now) = (three(), Instant::from_nanos(1));
        fails(&all, chosen(0), now);
        let later = now + Duration::from_secs(1);
        let tries = |all: &mut Choice| {
            let taken: Vec<_> = (0..30).map(|_| one(all, later, &[]).unwrap()).collect();
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
        assert!(works(&all, second[0]));
        assert!(tries(&mut all).len() > 1);
    }

    #[test]
    fn an_upstream_that_is_not_there_any_more_is_known_to_its_connections_and_takes_no_others() {
        let (mut all, now) = (three(), Instant::from_nanos(1));
        let shared = Arc::clone(&all.shared);
        let last = one(&mut all, now, &[1, 2]).unwrap();
        assert!(fails(&all, last, now));
        assert!(shared.set(addresses([3, 4, 4])));
        let mut each: Vec<_> = (0..4).map(|_| taken(&mut all, now, &[]).unwrap()).collect();
        each.sort_unstable();
        assert_eq!(each, [2, 2, 3, 3]);
        assert_eq!(all.address(last.index).to_string(), "127.0.0.1:1");
        all.give(last);
        // It comes back, and is what it was.
        assert!(shared.set(addresses([1])));
        assert_eq!(taken(&mut all, now, &[]), Some(0));
        assert!(!fails(&all, last, now) && works(&all, last));
        let many = (0..=MAX_UPSTREAMS).map(|number| Address::Unix(PathBuf::from(number.to_string()).into()));
        assert!(!shared.set(many.collect()));
        assert_eq!(taken(&mut all, now, &[]), Some(0));
    }

    #[test]
    fn checks_decide_beside_the_requests() {
        let (mut all, now) = (three(), Instant::from_nanos(1));
        let shared = Arc::clone(&all.shared);
        let check = |all: &mut Choice, passed: bool| {
            let outcome = if passed { Ok(()) } else { Err(Failure::Status) };
            shared.checked(&shared.active().next().unwrap(), outcome, now);
            let told: Vec<_> = all.take_news().into_iter().collect();
            for line in &told {
                let upstream = all.address(0).clone();
                assert_eq!(
                    *line,
                    Line::Upstream { at: now, upstream, failure: outcome.err(), sign: Sign::Check }
                );
            }
            let taken = (0..9).filter(|_| taken(all, now, &[]) == Some(0)).count();
            (told.len(), taken > 0)
        };
        // Not before three in a row have failed, and two have passed; then it is told once.
        let outcomes = [
            (false, (0, true)),
            (false, (0, true)),
            (true, (0, true)),
            (false, (0, true)),
            (false, (0, true)),
            (false, (1, false)),
            (false, (0, false)),
            (true, (0, false)),
            (false, (0, false)),
            (true, (0, false)),
            (true, (1, true)),
        ];
        for (number, (passed, expected)) in outcomes.into_iter().enumerate() {
            assert_eq!(check(&mut all, passed), expected, "{number}");
        }
        // What is down for one reason stays down for the other, and is told when the last has gone.
        assert!(fails(&all, chosen(0), now));
        assert_eq!([false; 3].map(|passed| check(&mut all, passed)), [(0, false); 3], "told before");
        assert!(!works(&all, chosen(0)), "its checks fail");
        assert!(!fails(&all, chosen(0), now));
        assert_eq!([true; 2].map(|passed| check(&mut all, passed).0), [0; 2]);
        assert!(works(&all, chosen(0)));
        // Where nothing else is left, it is taken.
        assert_eq!([false; 3].map(|passed| check(&mut all, passed).0), [0, 0, 1]);
        assert_eq!(taken(&mut all, now, &[1, 2]), Some(0));
    }
}
