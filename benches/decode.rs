//! The time of decoding a completion, and of a step in the table of transitions: two pure functions on every path.
//!
//! The inputs are random, so that a branch predictor cannot learn them, and few enough to stay in the first cache.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use deadpeer::liveness::decode::{self, Received};
use deadpeer::liveness::errno::{self, Meaning};
use deadpeer::liveness::state::{Input, next};
use deadpeer::liveness::{Evidence, Fact, PeerId, PollMask, State};
use deadpeer::sys::uring::{Completion, Token};

const INPUTS: usize = 1_024;
const RECV: u8 = 1;
const POLL: u8 = 2;

/// The fact of a completion, as the tracker's loop decodes it, without the evidence of an end, which needs a system
/// call.
fn fact(completion: &Completion) -> Option<(PeerId, Fact)> {
    let evidence = Evidence::default();
    let fact = match completion.token.kind() {
        RECV => match decode::received(completion.result) {
            Received::Bytes(bytes) => Fact::Taken { bytes },
            Received::Nothing | Received::Cancelled => Fact::Emptied,
            Received::End => Fact::End(evidence),
            Received::Failed(errno) => Fact::Failed { errno, evidence },
            Received::Starved => return None,
        },
        _ => match decode::polled(completion.result) {
            Ok(mask) => Fact::Ready(mask),
            Err(errno) => match errno::meaning(errno) {
                Meaning::Again | Meaning::Resources | Meaning::Cancelled => return None,
                _ => Fact::Failed { errno, evidence },
            },
        },
    };
    Some((PeerId::new(completion.token.index(), completion.token.generation()), fact))
}

/// Completions of random peers with the results of `draw`.
fn completions(draw: impl Fn(&mut fastrand::Rng) -> (u8, i32)) -> Vec<Completion> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut one = || {
        let (kind, result) = draw(&mut random);
        let token = Token::new(kind, random.u32(..1 << 24), random.u32(..1_000_000));
        Completion { token, result, more: kind == POLL, buffer: None }
    };
    (0..INPUTS).map(|_| one()).collect()
}

/// The results on a busy server: wakes and reads in turn, sometimes an end.
fn busy(random: &mut fastrand::Rng) -> (u8, i32) {
    match random.u8(..100) {
        0..48 => (POLL, i32::from(PollMask::IN)),
        48..50 => (POLL, i32::from(PollMask::IN | PollMask::RDHUP)),
        50..90 => (RECV, random.i32(1..4_096)),
        90..98 => (RECV, -libc::EAGAIN),
        98 => (RECV, 0),
        _ => (RECV, -libc::ECONNRESET),
    }
}

/// `result` is the decoding alone; `fact` also makes the fact for the tracker, of some 200 bytes, since an end carries its
/// evidence.
fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(INPUTS as u64));
    let batches = [
        ("beats", completions(|_| (RECV, 16))),
        ("busy", completions(busy)),
        ("errors", completions(|random| (RECV, -random.i32(1..134)))),
    ];
    for (name, batch) in &batches {
        group.bench_function(BenchmarkId::new("result", name), |bencher| {
            bencher.iter(|| {
                for completion in black_box(batch) {
                    black_box(decode::received(completion.result));
                }
            });
        });
        group.bench_function(BenchmarkId::new("fact", name), |bencher| {
            bencher.iter(|| {
                for completion in black_box(batch) {
                    black_box(&fact(completion));
                }
            });
        });
    }
    group.finish();
}

/// `usual` is nine living peers in ten steps, as on a server; in `random` all pairs are equally likely, which no branch
/// predictor can help with.
fn transition(criterion: &mut Criterion) {
    let mut random = fastrand::Rng::with_seed(2);
    let mut pairs = |usual: bool| -> Vec<(State, Input)> {
        let mut pair = || {
            if usual && random.u8(..10) > 0 {
                return (State::Alive, Input::Life);
            }
            let state = random.choice(State::ALL).expect("there are states");
            (state, random.choice(Input::ALL).expect("there are inputs"))
        };
        (0..INPUTS).map(|_| pair()).collect()
    };
    let mut group = criterion.benchmark_group("transition");
    group.throughput(Throughput::Elements(INPUTS as u64));
    for (name, pairs) in [("usual", pairs(true)), ("random", pairs(false))] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for &(state, input) in black_box(&pairs) {
                    black_box(next(state, input));
                }
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    decode(&mut criterion);
    transition(&mut criterion);
    criterion.final_summary();
}
