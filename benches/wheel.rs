//! What a timer costs on the wheel, and on a sorted map beside it.
//!
//! Both hold the same deadlines, spread over ten seconds at random, and meet the keys in random
//! order, as a server meets its peers. The map also keeps each key's deadline, as it must to find
//! its entry again. Run one size with `cargo bench --bench wheel -- /100000`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use deadpeer::time::Instant;
use deadpeer::wheel::{TICK, Wheel};

const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
const START: Instant = Instant::from_nanos(1_000_000_000);
const SPREAD: Duration = Duration::from_secs(10);

/// What both timers can do.
trait Timers {
    fn with_capacity(keys: usize) -> Self;
    fn schedule(&mut self, key: u32, at: Instant);
    fn expire(&mut self, now: Instant) -> Option<u32>;
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

    fn next_due(&self) -> Option<Instant> {
        Wheel::next_due(self)
    }
}

/// A sorted map, and each key's place in it.
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

    fn next_due(&self) -> Option<Instant> {
        self.order.first_key_value().map(|(&(at, _), ())| at)
    }
}

/// All sizes; without the greatest in a smoke test, where the map alone would take ten seconds.
fn sizes() -> &'static [usize] {
    if std::env::args().any(|argument| argument == "--test") { &SIZES[..2] } else { &SIZES }
}

/// Every key once, in random order, with a random deadline.
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

/// Every key is put in for the first time.
fn schedule(criterion: &mut Criterion) {
    fn run<T: Timers>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, keys: usize) {
        let deadlines = deadlines(keys, 1);
        group.bench_function(BenchmarkId::new(name, keys), |bencher| {
            bencher.iter_batched(
                || T::with_capacity(keys),
                |mut timers| {
                    for &(key, at) in &deadlines {
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
    }
}

/// Every key is moved from one random deadline to another.
fn reschedule(criterion: &mut Criterion) {
    fn run<T: Timers>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, keys: usize) {
        let rounds = [deadlines(keys, 2), deadlines(keys, 3)];
        let mut timers: T = filled(&rounds[1]);
        let mut turn = 0;
        group.bench_function(BenchmarkId::new(name, keys), |bencher| {
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
    }
}

/// As many keys as there are come out one by one as time passes, are not due yet, and go back in:
/// what a quiet server with living peers does all day. The clock goes from due time to due time.
fn lazy_visit(criterion: &mut Criterion) {
    fn run<T: Timers>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, keys: usize) {
        let mut timers: T = filled(&deadlines(keys, 4));
        let mut now = START;
        group.bench_function(BenchmarkId::new(name, keys), |bencher| {
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
    for &keys in sizes() {
        let mut group = group(criterion, "lazy_visit", keys);
        run::<Wheel>(&mut group, "wheel", keys);
        run::<Map>(&mut group, "btreemap", keys);
    }
}

/// Every key has passed, and comes out in one turn.
fn mass_expiry(criterion: &mut Criterion) {
    fn run<T: Timers>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, keys: usize) {
        let deadlines = deadlines(keys, 5);
        group.bench_function(BenchmarkId::new(name, keys), |bencher| {
            bencher.iter_batched(
                || filled::<T>(&deadlines),
                |mut timers| {
                    while let Some(key) = timers.expire(START + SPREAD + TICK) {
                        black_box(key);
                    }
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
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    schedule(&mut criterion);
    reschedule(&mut criterion);
    lazy_visit(&mut criterion);
    mass_expiry(&mut criterion);
    criterion.final_summary();
}
