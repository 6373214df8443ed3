//! A simulator on virtual time, with an oracle that knows the truth.
//!
//! [`world`] has the peers and a model of the kernel, [`driver`] does what a driver does, [`faults`]
//! are what goes wrong meanwhile, and [`oracle`] holds every event against what was true. Everything
//! follows from one seed:
//!
//! ```text
//! SIM_SEED=42 cargo test --test simulation       # this run only, and its trace if it fails
//! SIM_EVENTS=100000000 cargo test --test simulation
//! SIM_FROM=5000 SIM_ALL=1 cargo test --test simulation    # other seeds, and all that go wrong
//! ```

mod driver;
mod faults;
mod oracle;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpeer::liveness::{Heartbeat, Policy, TrackerConfig, Wake};
use fastrand::Rng;

use driver::{Bug, Driver};
use faults::Faults;
use oracle::{Oracle, Violation};
use world::{SECOND, World};

/// What happens in the gate: acts of peers, and completions that tell of them. A flood of frames in one
/// completion counts as one.
const EVENTS: u64 = 1_000_000;
/// Mixtures of policy, faults and peers that the gate makes at least.
const RUNS: u64 = 600;

struct Outcome {
    events: u64,
    lives: usize,
    virtual_seconds: u64,
    violation: Option<Violation>,
    trace: Vec<(u64, usize, String)>,
    about: String,
}

/// One run: a policy, faults, some hundred lives.
fn run(seed: u64, bug: Option<Bug>, trace: bool) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let config = configuration(&mut rng);
    let mut faults = Faults::random(&mut rng, config.policy.detection_time());
    if let Some(bug) = bug {
        faults = provoking(bug, faults);
    }
    let start = rng.u64(SECOND..1_000_000 * SECOND);
    let about = format!("{config:?}\n{faults:?}");
    let mut world = World::new(rng.fork(), faults.clone(), config, start);
    if trace {
        world.trace = Some(Vec::new());
    }
    let lives = rng.usize(20..300);
    // So close together that the places are sometimes not enough.
    let spread = config.policy.idle.as_nanos() as u64 * rng.u64(1..=20);
    let together = rng.u8(..4) == 0;
    for life in 0..lives as u64 {
        let at = start + if together { life * 1_000 } else { rng.u64(..spread) };
        let script = world::script(&mut rng, &config);
        let answers = rng.bool();
        world.add_peer(at, script, answers);
    }
    let mut oracle = Oracle::new(&config, &faults);
    let mut driver = Driver::new(config, faults, rng.fork(), bug, start);
    while world.waiting_to_connect > 0 && oracle.violation().is_none() {
        driver.turn(&mut world, &mut oracle);
    }
    driver.finish(&mut world, &mut oracle);
    oracle.on_end(&driver.tracker, &world);
    Outcome {
        events: world.events,
        lives,
        virtual_seconds: (world.now - start) / SECOND,
        violation: oracle.violation().cloned(),
        trace: world.trace.take().unwrap_or_default(),
        about,
    }
}

fn configuration(rng: &mut Rng) -> TrackerConfig {
    let millis = Duration::from_millis;
    let heartbeat = [Heartbeat::Bytes, Heartbeat::Frames, Heartbeat::None][rng.usize(..3)];
    let base = match rng.u8(..5) {
        0 => Policy::STANDARD,
        1 => Policy::STRICT,
        2 => Policy { idle: millis(400), interval: millis(100), handshake: millis(800), ..Policy::STRICT },
        3 => Policy {
            idle: millis(rng.u64(100..3_000)),
            interval: millis(rng.u64(50..4_000)),
            probes: rng.u32(1..6),
            handshake: millis(rng.u64(100..5_000)),
            ..Policy::STRICT
        },
        _ => Policy {
            idle: millis(rng.u64(1_000..30_000)),
            interval: millis(rng.u64(500..9_000)),
            probes: rng.u32(1..9),
            handshake: millis(rng.u64(1_000..40_000)),
            ..Policy::STRICT
        },
    };
    let floor = if heartbeat == Heartbeat::None { millis(2_000) } else { Duration::ZERO };
    let grace = if rng.bool() { Duration::ZERO } else { millis(rng.u64(1..20_000)) };
    let policy = Policy { heartbeat, idle: base.idle.max(floor), half_closed_grace: grace, ..base };
    assert_eq!(policy.check(), Ok(()), "{policy:?}");
    let capacity = if rng.u8(..3) == 0 { rng.usize(1..40) } else { 1_000 };
    TrackerConfig {
        wake: if rng.bool() { Wake::Lazy } else { Wake::Beat },
        unread: [1, 64, 256, 1_024, 4_096][rng.usize(..5)],
        drain_every: rng.u8(1..10),
        dead_kept: [0, 3, 10_000][rng.usize(..3)],
        ..TrackerConfig::new(policy, capacity)
    }
}

/// The faults without which a bug would not show.
fn provoking(bug: Bug, faults: Faults) -> Faults {
    let mut faults = Faults { spurious: 0, ..faults };
    match bug {
        Bug::IgnoredGeneration => faults.stale = 300,
        Bug::DroppedEvent => faults.stuck = (50, SECOND),
        Bug::DeathByStarvation => faults.starved = 100,
        Bug::UntoldStall => faults.stall = (50, 20 * SECOND),
        Bug::ForgottenWatch => faults.disarmed = 200,
        Bug::JudgeInOverflow => faults.overflow = (200, 500 * faults::MS),
        _ => faults = Faults { ..Faults::NONE },
    }
    faults
}

/// Runs a seed, and turns an assertion that failed on the way into a violation.
fn judged(seed: u64, bug: Option<Bug>, trace: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(seed, bug, trace))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let what = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Outcome {
            events: 0,
            lives: 0,
            virtual_seconds: 0,
            violation: Some(Violation { life: None, what: format!("panicked: {what:?}") }),
            trace: Vec::new(),
            about: String::new(),
        }
    })
}

fn explain(seed: u64) -> String {
    let outcome = judged(seed, None, true);
    let violation = outcome.violation.expect("a seed repeats itself");
    let mut text = format!("SIM_SEED={seed}\n{}\n{}\n", outcome.about, violation.what);
    for (at, life, line) in &outcome.trace {
        if Some(*life) == violation.life || *life == usize::MAX {
            text += &format!("{at:>20} {line}\n");
        }
    }
    text
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn every_event_is_true_in_time_and_told_once_whatever_goes_wrong() {
    if let Some(seed) = variable("SIM_SEED") {
        let outcome = judged(seed, None, false);
        assert!(outcome.violation.is_none(), "{}", explain(seed));
        println!("seed {seed}: {} events of {} lives\n{}", outcome.events, outcome.lives, outcome.about);
        return;
    }
    let wanted = variable("SIM_EVENTS").unwrap_or(EVENTS);
    let next = AtomicU64::new(variable("SIM_FROM").unwrap_or(0));
    let total = Mutex::new(Total::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while total.lock().unwrap().wants_more(wanted) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let outcome = judged(seed, None, false);
                    total.lock().unwrap().add(seed, &outcome);
                }
            });
        }
    });
    let Total { events, runs, lives, seconds, wrong } = total.into_inner().unwrap();
    if let Some(&seed) = wrong.first() {
        panic!("wrong in the runs {wrong:?}; the first of them:\n{}", explain(seed));
    }
    println!("{events} events of {lives} lives in {runs} runs of {seconds} s together");
}

/// All runs so far.
#[derive(Default)]
struct Total {
    events: u64,
    runs: u64,
    lives: usize,
    seconds: u64,
    /// Seeds that found something, in order.
    wrong: Vec<u64>,
}

impl Total {
    /// A run that went wrong is enough, unless all are asked for.
    fn wants_more(&self, events: u64) -> bool {
        let all = std::env::var_os("SIM_ALL").is_some();
        (self.wrong.is_empty() || all) && (self.events < events || self.runs < RUNS)
    }

    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.events += outcome.events;
        self.runs += 1;
        self.lives += outcome.lives;
        self.seconds += outcome.virtual_seconds;
        if outcome.violation.is_some() {
            self.wrong.push(seed);
            self.wrong.sort_unstable();
        }
    }
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..5 {
        let (once, again) = (judged(seed, None, true), judged(seed, None, true));
        assert_eq!(once.trace, again.trace);
    }
}

/// Whether a planted bug is found within some runs, and by what.
fn found(bug: Bug) -> Option<(u64, String)> {
    (0..200).find_map(|seed| Some((seed, judged(seed, Some(bug), false).violation?.what)))
}

#[test]
fn every_bug_that_is_planted_in_the_driver_is_found() {
    for bug in Bug::ALL {
        let found = found(bug);
        println!("{bug:?}: {found:?}");
        assert!(found.is_some(), "{bug:?} was not found");
    }
}
