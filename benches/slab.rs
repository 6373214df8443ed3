//! The table of peers: a slab that hands out indices, beside the usual map from a number to a record.
//! Both hold records of a peer's size and visit the same keys in the same random order. Run one size with `cargo bench --bench slab -- '/100000$'`.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use slab::Slab;

const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// The number of keys that one iteration visits: a divisor of each size.
const STRIDE: usize = 500;

/// A record of a peer's size. A key names a life: an old key finds nothing.
#[derive(Clone, Copy)]
struct Record {
    generation: u32,
    life: u64,
    _rest: [u64; 10],
}

const _: () = assert!(size_of::<Record>() == 96);

/// The operations of both tables.
trait Table: Default {
    fn insert(&mut self, generation: u32) -> u64;
    /// Records a sign of life: one lookup, one write. Returns whether the key was found.
    fn touch(&mut self, key: u64, now: u64) -> bool;
    fn remove(&mut self, key: u64) -> Option<Record>;
}

fn record(generation: u32) -> Record {
    Record { generation, life: 0, _rest: [u64::from(generation); 10] }
}

/// The place and the life in one number.
#[derive(Default)]
struct Places(Slab<Record>);

impl Table for Places {
    fn insert(&mut self, generation: u32) -> u64 {
        u64::from(generation) << 32 | self.0.insert(record(generation)) as u64
    }

    fn touch(&mut self, key: u64, now: u64) -> bool {
        let found = self.0.get_mut(key as u32 as usize);
        match found.filter(|record| u64::from(record.generation) == key >> 32) {
            Some(record) => {
                record.life = now;
                true
            }
            None => false,
        }
    }

    fn remove(&mut self, key: u64) -> Option<Record> {
        self.0.try_remove(key as u32 as usize)
    }
}

/// The number of a life, which is never used again.
#[derive(Default)]
struct Numbers(HashMap<u64, Record>);

impl Table for Numbers {
    fn insert(&mut self, generation: u32) -> u64 {
        self.0.insert(generation.into(), record(generation));
        generation.into()
    }

    fn touch(&mut self, key: u64, now: u64) -> bool {
        match self.0.get_mut(&key) {
            Some(record) => {
                record.life = now;
                true
            }
            None => false,
        }
    }

    fn remove(&mut self, key: u64) -> Option<Record> {
        self.0.remove(&key)
    }
}

/// A full table, and its keys in the random order of their visits.
struct Filled<T> {
    table: T,
    keys: Vec<u64>,
    next: usize,
    generation: u32,
}

impl<T: Table> Filled<T> {
    fn new(size: usize) -> Filled<T> {
        let mut table = T::default();
        let mut keys: Vec<u64> = (0..size as u32).map(|generation| table.insert(generation)).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut keys);
        Filled { table, keys, next: 0, generation: size as u32 }
    }

    /// The position of the next keys; after the last one comes the first.
    fn stride(&mut self) -> std::ops::Range<usize> {
        let from = self.next;
        self.next = (from + STRIDE) % self.keys.len();
        from..from + STRIDE
    }

    fn touch(&mut self) {
        let stride = self.stride();
        for &key in &self.keys[stride] {
            assert!(self.table.touch(key, black_box(7)));
        }
    }

    /// Replaces keys: each new one takes a place that has just become free.
    fn churn(&mut self) {
        let stride = self.stride();
        for &key in &self.keys[stride.clone()] {
            assert!(black_box(self.table.remove(key)).is_some());
        }
        for key in &mut self.keys[stride] {
            *key = self.table.insert(self.generation);
            self.generation += 1;
        }
    }
}

fn run<T: Table>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    size: usize,
    work: fn(&mut Filled<T>),
) {
    let mut filled = None;
    group.bench_function(BenchmarkId::new(name, size), |bencher| {
        let filled = filled.get_or_insert_with(|| Filled::new(size));
        bencher.iter(|| work(filled));
    });
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(STRIDE as u64));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut touch = group(&mut criterion, "touch");
    for size in SIZES {
        run::<Places>(&mut touch, "slab", size, Filled::touch);
        run::<Numbers>(&mut touch, "hashmap", size, Filled::touch);
    }
    touch.finish();
    let mut churn = group(&mut criterion, "churn");
    for size in SIZES {
        run::<Places>(&mut churn, "slab", size, Filled::churn);
        run::<Numbers>(&mut churn, "hashmap", size, Filled::churn);
    }
    churn.finish();
    criterion.final_summary();
}
