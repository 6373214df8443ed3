//! The time of a timer on the wheel, beside a sorted map and tokio-util's `DelayQueue`.
//!
//! All hold the same deadlines, spread over ten seconds at random, and visit the keys in random
//! order, as on a server. The map also keeps each key's deadline, which it needs to find
//! the entry again, and the queue's user keeps each key's handle. Run one size with
//! `cargo bench --bench wheel -- '/100000$'`.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::hint::black_box;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use deadpeer::time::Instant;
use deadpeer::wheel::{TICK, Wheel};
use tokio::runtime::{Builder, Runtime};
use tokio_util::time::{DelayQueue, delay_queue};

const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
const START: Instant = Instant::from_nanos(1_000_000_000);
const SPREAD: Duration = Duration::from_secs(10);

/// The operations of all timers.
trait Timers {
    fn with_capacity(keys: usize) -> Self;
    fn schedule(&mut self, key: u32, at: Instant);
    fn expire(&mut self, now: Instant) -> Option<u32>;

    /// Moves its own clock to `now`, if it has one.
    fn reach(&mut self, _now: Instant) {}
}

/// Timers that take the time as an argument, so that a loop can sleep until the next key is due.
trait Told: Timers {
    fn next_due(&self) -> Option<Instant>;
}

impl Timers for Wheel {
    fn with_capacity(keys: usize) -> Wheel {
        Wheel::with_capacity(keys, START)
    }

    fn schedule(&mut self, key: u32, at: Instant) {
        Wheel::schedule(self, key, at);
    }

    fn expire(&mut self, now: Instant) -> Option<u32> {
        Wheel::expire(self, now)
    }
}

impl Told for Wheel {
    fn next_due(&self) -> Option<Instant> {
        Wheel::next_due(self)
    }
}

/// A sorted map, and each key's deadline.
struct Map {
    order: BTreeMap<(Instant, u32), ()>,
    places: Vec<Option<Instant>>,
}

impl Timers for Map {
    fn with_capacity(keys: usize) -> Map {
        Map { order: BTreeMap::new(), places: vec![None; keys] }
    }

    fn schedule(&mut self, key: u32, at: Instant) {
        if let Some(was) = self.places[key as usize].replace(at) {
            self.order.remove(&(was, key));
        }
        self.order.insert((at, key), ());
    }

    fn expire(&mut self, now: Instant) -> Option<u32> {
        let entry = self.order.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((_, key), ()) = entry.remove_entry();
        self.places[key as usize] = None;
        Some(key)
    }
}

impl Told for Map {
    fn next_due(&self) -> Option<Instant> {
        self.order.first_key_value().map(|(&(at, _), ())| at)
    }
}

/// The runtime whose clock the queues use. The clock stands still unless it is moved.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O needs nothing")
});

/// The queue, each key's handle in it, and the instant of the runtime's clock that is [`START`].
struct Queue {
    queue: DelayQueue<u32>,
    handles: Vec<Option<delay_queue::Key>>,
    start: tokio::time::Instant,
}

impl Queue {
    fn on_its_clock(&self, at: Instant) -> tokio::time::Instant {
        self.start + at.since(START)
    }
}

impl Timers for Queue {
    fn with_capacity(keys: usize) -> Queue {
        Queue {
            queue: DelayQueue::with_capacity(keys),
            handles: vec![None; keys],
            start: tokio::time::Instant::now(),
        }
    }

    fn schedule(&mut self, key: u32, at: Instant) {
        let at = self.on_its_clock(at);
        match &mut self.handles[key as usize] {
            Some(handle) => self.queue.reset_at(handle, at),
            free => *free = Some(self.queue.insert_at(key, at)),
        }
    }

    /// Takes the keys that are due by its own clock, at the instant that was [reached](Timers::reach).
    fn expire(&mut self, _now: Instant) -> Option<u32> {
        match self.queue.poll_expired(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(expired)) => {
                let key = expired.into_inner();
                self.handles[key as usize] = None;
                Some(key)
            }
            Poll::Ready(None) | Poll::Pending => None,
        }
    }

    fn reach(&mut self, now: Instant) {
        let ahead = self.on_its_clock(now).saturating_duration_since(tokio::time::Instant::now());
        RUNTIME.block_on(tokio::time::advance(ahead));
    }
}

/// Whether this is a smoke test, which runs everything once and measures nothing.
fn smoke() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// The sizes; in a smoke test without the greatest, where the map alone would take ten seconds.
fn sizes() -> &'static [usize] {
    if smoke() { &SIZES[..2] } else { &SIZES }
}

/// Each key once, in random order, with a random deadline.
fn deadlines(keys: usize, seed: u64) -> Vec<(u32, Instant)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let spread = SPREAD.as_nanos() as u64;
    let mut all: Vec<(u32, Instant)> =
        (0..keys as u32).map(|key| (key, START + Duration::from_nanos(random.u64(..spread)))).collect();
    random.shuffle(&mut all);
    all
}

fn filled<T: Timers>(deadlines: &[(u32, Instant)]) -> T {
    let mut timers = T::with_capacity(deadlines.len());
    for &(key, at) in deadlines {
        timers.schedule(key, at);
    }
    timers
}

fn group<'a>(criterion: &'a mut Criterion, name: &str, keys: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(keys as u64));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group
}

/// Each key is inserted for the first time.
fn schedule(criterion: &mut Criterion) {
    fn run<T: Timers>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, keys: usize) {
        let deadlines = LazyCell::new(|| deadlines(keys, 1));
        group.bench_function(BenchmarkId::new(name, keys), |bencher| {
            let deadlines = LazyCell::force(&deadlines);
            bencher.iter_batched(
                || T::with_capacity(keys),
                |mut timers| {
                    for &(key, at) in deadlines {
                        timers.schedule(key, at);
                    }
                    timers
                },
                BatchSize::PerIteration,
            );
        });
    }
    for &keys in sizes() {
        let mut group = group(criterion, "schedule", keys);
        run::<Wheel>(&mut group, "wheel", keys);
        run::<Map>(&mut group, "btreemap", keys);
        run::<Queue>(&mut group, "delayqueue", keys);
    }
}

/// Each key is moved from one random deadline to another.
fn reschedule(criterion: &mut Criterion) {
    fn run<T: Timers>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, keys: usize) {
        let rounds = LazyCell::new(|| [deadlines(keys, 2), deadlines(keys, 3)]);
        let mut timers: Option<T> = None;
        let mut turn = 0;
        group.bench_function(BenchmarkId::new(name, keys), |bencher| {
            let timers = timers.get_or_insert_with(|| filled(&rounds[1]));
            bencher.iter(|| {
                for &(key, at) in &rounds[turn % 2] {
                    timers.schedule(key, at);
                }
                turn += 1;
            });
        });
    }
    for &keys in sizes() {
        let mut group = group(criterion, "reschedule", keys);
        run::<Wheel>(&mut group, "wheel", keys);
        run::<Map>(&mut group, "btreemap", keys);
        run::<Queue>(&mut group, "delayqueue", keys);
    }
}

/// As many keys as there are come out one by one as time passes, are not yet due, and go in again, as on a quiet server
/// with living peers. The clock goes from due time to due time.
fn lazy_visit(criterion: &mut Criterion) {
    fn run<T: Told>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, keys: usize) {
        let mut timers: Option<T> = None;
        let mut now = START;
        group.bench_function(BenchmarkId::new(name, keys), |bencher| {
            let timers = timers.get_or_insert_with(|| filled(&deadlines(keys, 4)));
            bencher.iter(|| {
                let mut visits = 0;
                while visits < keys {
                    let Some(key) = timers.expire(now) else {
                        let due = timers.next_due().expect("every key goes back in");
                        now = due.max(now + TICK);
                        continue;
                    };
                    timers.schedule(key, now + SPREAD);
                    visits += 1;
                }
            });
        });
    }
    /// The usual loop: the runtime sleeps until a key is due, which here moves its clock. The runtime's turn for that is
    /// part of the number.
    fn run_queue(group: &mut BenchmarkGroup<'_, WallTime>, keys: usize) {
        let mut timers: Option<Queue> = None;
        group.bench_function(BenchmarkId::new("delayqueue", keys), |bencher| {
            let Queue { queue, handles, .. } = timers.get_or_insert_with(|| filled(&deadlines(keys, 4)));
            bencher.iter(|| {
                RUNTIME.block_on(async {
                    for _ in 0..keys {
                        let expired = poll_fn(|context| queue.poll_expired(context)).await;
                        let expired = expired.expect("every key goes back in");
                        let (at, key) = (expired.deadline() + SPREAD, expired.into_inner());
                        handles[key as usize] = Some(queue.insert_at(key, at));
                    }
                });
            });
        });
    }
    for &keys in sizes() {
        let mut group = group(criterion, "lazy_visit", keys);
        run::<Wheel>(&mut group, "wheel", keys);
        run::<Map>(&mut group, "btreemap", keys);
        run_queue(&mut group, keys);
    }
}

/// All keys are due, and come out in one turn.
fn mass_expiry(criterion: &mut Criterion) {
    fn run<T: Timers>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, keys: usize) {
        let deadlines = LazyCell::new(|| deadlines(keys, 5));
        let end = START + SPREAD + TICK;
        group.bench_function(BenchmarkId::new(name, keys), |bencher| {
            bencher.iter_batched(
                || {
                    let mut timers: T = filled(&deadlines);
                    timers.reach(end);
                    timers
                },
                |mut timers| {
                    let mut expired = 0;
                    while let Some(key) = timers.expire(end) {
                        black_box(key);
                        expired += 1;
                    }
                    assert_eq!(expired, keys);
                    timers
                },
                BatchSize::PerIteration,
            );
        });
    }
    for &keys in sizes() {
        let mut group = group(criterion, "mass_expiry", keys);
        run::<Wheel>(&mut group, "wheel", keys);
        run::<Map>(&mut group, "btreemap", keys);
        run::<Queue>(&mut group, "delayqueue", keys);
    }
}

fn main() {
    let _context = RUNTIME.enter(); // the queue's timers belong to a runtime
    let mut criterion = Criterion::default().configure_from_args();
    schedule(&mut criterion);
    reschedule(&mut criterion);
    lazy_visit(&mut criterion);
    mass_expiry(&mut criterion);
    criterion.final_summary();
}
