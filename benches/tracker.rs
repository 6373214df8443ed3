//! The time of a turn of the tracker with a thousand, a hundred thousand and a million peers, without the
//! kernel: facts go in, the wheel visits, actions come out and are answered at once.
//!
//! Each peer beats once a second, 8 to 23 bytes at its own instant, so the peers are visited in random
//! order, and their drains are spread in time. `visit` is the default mode, in which a beat costs nothing until
//! a visit; its element is a look. `beat` is `--wake beat`, where each beat is a completion;
//! its element is a beat, with the drains and appointments that beats cause.
//! Run one size with `cargo bench --bench tracker -- '/100000$'`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use deadpeer::liveness::{Action, Evidence, Fact, PeerId, Policy, PollMask, Tracker, TrackerConfig, Wake};
use deadpeer::time::Instant;
use deadpeer::wheel::TICK;

const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];
const START: Instant = Instant::from_nanos(1_000_000_000);
const SECOND: u64 = 1_000_000_000;
/// The number of elements of one iteration: a divisor of each size.
const BATCH: u32 = 250;

/// The offset of a peer's beats in a second. It is computed (with the mixing of MurmurHash3), since a table of a million
/// would add a cache miss to the measured ones.
fn phase(place: u32) -> Duration {
    let mut mixed = place.wrapping_add(1);
    mixed = (mixed ^ mixed >> 16).wrapping_mul(0x85eb_ca6b);
    mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
    Duration::from_nanos((u64::from(mixed ^ (mixed >> 16)) * SECOND) >> 32)
}

/// The instant at which it connects and first beats. Peers that all began in one second would all be visited in one
/// second of four.
fn born(place: u32) -> Duration {
    phase(place) + Duration::from_secs((place % 4).into())
}

/// A tracker and its peers.
struct World {
    tracker: Tracker,
    now: Instant,
    /// The peers in the order of their beats.
    peers: Vec<PeerId>,
    /// By place: the bytes that were read.
    taken: Vec<u64>,
    next: usize,
    visits: u64,
}

impl World {
    fn new(size: u32, wake: Wake) -> World {
        let config = TrackerConfig { wake, ..TrackerConfig::new(Policy::STRICT, size as usize) };
        let mut tracker = Tracker::new(config, START);
        let address = ([192, 0, 2, 7], 40_000).into();
        let mut accept = |place| {
            let peer = tracker.accept(address, 0, START + born(place)).expect("there is room");
            assert_eq!(peer.index(), place);
            peer
        };
        let mut peers: Vec<PeerId> = (0..size).map(&mut accept).collect();
        peers.sort_unstable_by_key(|peer| phase(peer.index()));
        while tracker.poll_event().is_some() {}
        World { tracker, now: START, peers, taken: vec![0; size as usize], next: 0, visits: 0 }
    }

    /// The kernel's evidence of a peer that has beaten once a second since it connected.
    fn evidence(&self, peer: PeerId) -> Evidence {
        let beating = self.now.since(START).as_nanos() as u64;
        let (beats, ago) = match beating.checked_sub(born(peer.index()).as_nanos() as u64) {
            Some(since) => (since / SECOND + 1, since % SECOND),
            None => (0, 0),
        };
        let last_data = self.now - Duration::from_nanos(ago);
        let bytes = 8 + u64::from(peer.index() % 16);
        Evidence { received: beats * bytes, last_data, last_ack: last_data, ..Evidence::default() }
    }

    /// The wheel's part of a turn, and the answers to the tracker's actions.
    fn turn(&mut self) {
        while self.tracker.next_due().is_some_and(|due| due <= self.now) {
            self.tracker.handle_time(self.now);
            self.perform();
        }
        self.perform();
        while let Some(event) = self.tracker.poll_event() {
            black_box(event);
        }
    }

    fn perform(&mut self) {
        while let Some(action) = self.tracker.poll_action() {
            match action {
                Action::Inspect(peer) => {
                    self.visits += 1;
                    self.tracker.handle(peer, Fact::Inspected(self.evidence(peer)), self.now);
                }
                Action::Drain { peer, .. } => {
                    let received = self.evidence(peer).received;
                    let taken = &mut self.taken[peer.index() as usize];
                    let bytes = (received - *taken) as u32;
                    *taken = received;
                    if bytes > 0 {
                        self.tracker.handle(peer, Fact::Taken { bytes }, self.now);
                    }
                    self.tracker.handle(peer, Fact::Emptied, self.now);
                }
                Action::SetLowWater { .. } => {}
                _ => unreachable!("all peers live: {action:?}"),
            }
        }
    }

    /// Makes `count` looks. A turn makes all that are due, so the surplus is subtracted from the next call.
    fn visit(&mut self, until: u64) {
        while self.visits < until {
            let due = self.tracker.next_due().expect("every peer has an appointment");
            self.now = due.max(self.now + TICK);
            self.turn();
        }
    }

    /// One turn after a batch of beats of the next peers.
    fn beat(&mut self, beats: impl Fn(PeerId) -> bool) {
        let batch = self.next..self.next + BATCH as usize;
        self.next = batch.end % self.peers.len();
        self.now = self.now + Duration::from_nanos(SECOND * u64::from(BATCH) / self.peers.len() as u64);
        for position in batch {
            let peer = self.peers[position];
            if beats(peer) {
                self.tracker.handle(peer, Fact::Ready(PollMask(PollMask::IN)), self.now);
            }
        }
        self.turn();
    }

    /// Nine seconds of beats, after which all peers have connected and have a known pace.
    fn calm(&mut self) {
        for second in 0..9 {
            for _ in 0..self.peers.len() / BATCH as usize {
                self.beat(|peer| peer.index() % 4 <= second);
            }
        }
    }
}

/// Before the measurement each peer is looked at twice: then its appointments are spread as they stay.
fn visits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("visit");
    group.throughput(Throughput::Elements(BATCH.into()));
    for size in SIZES {
        let mut world = None;
        let mut until = 2 * u64::from(size);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            let world = world.get_or_insert_with(|| {
                let mut world = World::new(size, Wake::Lazy);
                world.visit(until);
                world
            });
            bencher.iter(|| {
                until += u64::from(BATCH);
                world.visit(until);
            });
            check(world);
        });
    }
    group.finish();
}

/// The steady state, in which all paces are known.
fn beats(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("beat");
    group.throughput(Throughput::Elements(BATCH.into()));
    for size in SIZES {
        let mut world = None;
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            let world = world.get_or_insert_with(|| {
                let mut world = World::new(size, Wake::Beat);
                world.calm();
                world
            });
            bencher.iter(|| world.beat(|_| true));
            check(world);
        });
    }
    group.finish();
}

/// Asserts that no peer was suspected: else something else was measured.
fn check(world: &World) {
    let counts = world.tracker.counts();
    assert_eq!((counts.suspected, counts.living as usize), (0, world.peers.len()), "{counts:?}");
    assert_eq!(counts.visits, world.visits, "{counts:?}");
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    visits(&mut criterion);
    beats(&mut criterion);
    criterion.final_summary();
}
