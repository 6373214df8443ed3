//! What it costs to read a completion, and to step along the table of transitions: the two pure
//! functions that everything else is built around.
//!
//! The inputs are drawn at random, so that a branch predictor cannot learn them by heart; there are
//! few enough of them to stay in the first cache.

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

/// What a completion tells of a peer, as the driver reads it. The evidence of an end is a system call
/// of its own, and is left out.
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

/// Completions of random peers with the results that `draw` gives.
fn completions(draw: impl Fn(&mut fastrand::Rng) -> (u8, i32)) -> Vec<Completion> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut one = || {
        let (kind, result) = draw(&mut random);
        let token = Token::new(kind, random.u32(..1 << 24), random.u32(..1_000_000));
        Completion { token, result, more: kind == POLL, buffer: None }
    };
    (0..INPUTS).map(|_| one()).collect()
}

/// A busy server's: wakes and reads by turns, now and then an end.
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

/// `result` is the decoding alone; `fact` also makes the fact that the tracker is fed, which is some 200
/// bytes large because an end carries its evidence.
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

/// `usual` is what a server sees, nine lives in ten steps; `random` is any pair as likely as any other,
/// which no branch predictor can help with.
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
