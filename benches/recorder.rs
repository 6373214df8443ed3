//! The time of recording a duration: in a thread's `Recorder`, in the `Recorded` of a result
//! file, and in the histograms that they consist of. It shows the time for each turn that the two digits of a recorder save.
//!
//! The values are spread evenly over the decades from 100 ns to 1 s, so that the counts are spread over as
//! much of the array as in a bad hour; in a good one they share a few cache lines.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use deadpeer::measure::Recorder;
use deadpeer::measure::recorded::Recorded;
use hdrhistogram::Histogram;

const VALUES: usize = 4_096;

fn values() -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..VALUES).map(|_| 10_f64.powf(2.0 + 7.0 * random.f64()) as u64).collect()
}

fn record(criterion: &mut Criterion) {
    let values = values();
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(VALUES as u64));

    let mut recorder = Recorder::new();
    group.bench_function("recorder", |bencher| {
        bencher.iter(|| {
            for &nanos in black_box(&values) {
                recorder.verdict(Duration::from_nanos(nanos));
            }
            black_box(&mut recorder);
        });
    });
    let mut recorded = Recorded::new();
    group.bench_function("recorded", |bencher| {
        bencher.iter(|| {
            for &nanos in black_box(&values) {
                recorded.record(nanos);
            }
            black_box(&mut recorded);
        });
    });
    for digits in [2, 3] {
        let histogram = Histogram::<u64>::new_with_bounds(1, Recorded::LONGEST, digits);
        let mut histogram = histogram.expect("an hour and so many digits are in range");
        group.bench_function(format!("hdrhistogram/{digits}_digits"), |bencher| {
            bencher.iter(|| {
                for &nanos in black_box(&values) {
                    histogram.saturating_record(nanos);
                }
                black_box(&mut histogram);
            });
        });
    }
    group.finish();
}

/// The work at the end of a run or an interval, for one thread.
fn merge(criterion: &mut Criterion) {
    let mut thread = Recorder::new();
    values().into_iter().for_each(|nanos| thread.verdict(Duration::from_nanos(nanos)));
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements(1));
    let mut whole = Recorder::new();
    group.bench_function("recorder", |bencher| {
        bencher.iter(|| whole.merge(black_box(&thread)));
    });
    group.bench_function("summary", |bencher| bencher.iter(|| black_box(&thread).summary()));
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    record(&mut criterion);
    merge(&mut criterion);
    criterion.final_summary();
}
