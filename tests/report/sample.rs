//! Believable results, drawn from a seed: as large as a real file, and the same every time.
//!
//! The figures resemble those of a machine with two cores; nothing was measured. An experiment has all eight ways, the
//! last of them not run; a comparison has twelve subjects.

use std::collections::BTreeMap;

use deadpeer::measure::recorded::Recorded;
use deadpeer::measure::result::{
    BareRecv, Beats, Comparison, ComparisonSettings, Cost, Detection, Doubt, DoubtKind, EngineUsed,
    Experiment, FORMAT, Idle, Interval, Machine, OutputKind, Program, Quality, ResultFile, Run, Settings,
    Storm, Subject, VERSION, Way, WayResult,
};
use fastrand::Rng;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// An experiment and a comparison with doubts: everything that a file can hold.
pub fn whole(seed: u64) -> ResultFile {
    let mut rng = Rng::with_seed(seed);
    let experiment = experiment(&mut rng, 12_000);
    let comparison = comparison(&mut rng);
    file(seed, Some(experiment), Some(comparison), doubts())
}

/// An experiment with so few deaths that only the median is carried.
pub fn few(seed: u64) -> ResultFile {
    let experiment = experiment(&mut Rng::with_seed(seed), 40);
    let doubt = Doubt {
        kind: DoubtKind::TooFewSamples,
        text: "fin, rst and 5 others: 40 deaths each do not carry p90".to_owned(),
        remedy: "raise --duration or --deaths".to_owned(),
    };
    file(seed, Some(experiment), None, vec![doubt])
}

/// An experiment, as without `--against`.
pub fn without_comparison(seed: u64) -> ResultFile {
    let experiment = experiment(&mut Rng::with_seed(seed), 2_000);
    file(seed, Some(experiment), None, Vec::new())
}

/// A comparison only.
pub fn without_experiment(seed: u64) -> ResultFile {
    let comparison = comparison(&mut Rng::with_seed(seed));
    file(seed, None, Some(comparison), doubts())
}

/// Everything again, of another machine.
pub fn elsewhere(seed: u64) -> ResultFile {
    let mut other = whole(seed);
    other.machine.kernel = "6.1.0-42-amd64".to_owned();
    other.machine.cpu = "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz".to_owned();
    other.machine.cores = 28;
    if let Some(experiment) = &mut other.experiment {
        experiment.settings.connections = 12_000;
    }
    other
}

fn file(
    seed: u64,
    experiment: Option<Experiment>,
    comparison: Option<Comparison>,
    doubts: Vec<Doubt>,
) -> ResultFile {
    let words = "deadpeer bench --connections 6000 --beats 40000 --against tokio,tokio-uring,epoll,floor";
    let seed_word = seed.to_string();
    let command = words.split(' ').chain(["--seed", &seed_word, "--out", "a result.json"]);
    ResultFile {
        format: FORMAT.to_owned(),
        version: VERSION,
        program: Program {
            version: "0.1.0".to_owned(),
            build: "release".to_owned(),
            commit: Some("5e7a6e4".to_owned()),
            engine: Some(EngineUsed {
                name: "io_uring".to_owned(),
                features: vec!["multishot-poll".to_owned(), "defer-taskrun".to_owned()],
                why_not: None,
            }),
        },
        command: command.map(str::to_owned).collect(),
        started: "2026-11-25T07:40:00Z".to_owned(),
        took_ns: 612 * SECOND,
        seed,
        machine: Machine {
            kernel: "6.12.9-amd64".to_owned(),
            cpu: "AMD EPYC 9R14 96-Core Processor <KVM> & friends".to_owned(),
            cores: 2,
            memory_bytes: 8 << 30,
            virtual_machine: true,
            tick_ns: 4 * MILLI,
            descriptors: 1 << 20,
            memlock_bytes: Some(8 << 20),
            root: true,
            load_thousandths: 140,
            server_cores: vec![1],
            load_cores: vec![0],
            bare_recv: Some(bare_recv()),
        },
        experiment,
        comparison,
        doubts,
    }
}

/// The latency of a bare recv.
fn bare_recv() -> BareRecv {
    let mut rng = Rng::with_seed(11);
    let mut bare = BareRecv::default();
    for _ in 0..1_000 {
        let late = draw(&mut rng, 400);
        bare.injector_late.record(late);
        bare.latency.record(late + draw(&mut rng, 40_000));
    }
    bare
}

fn doubts() -> Vec<Doubt> {
    let doubt =
        |kind, text: &str, remedy: &str| Doubt { kind, text: text.to_owned(), remedy: remedy.to_owned() };
    vec![
        doubt(
            DoubtKind::NoisyRounds,
            "tokio-uring: CPU per beat differs by 31 % between rounds",
            "run on a quieter machine, or with more rounds",
        ),
        doubt(DoubtKind::NotMeasured, "path-loss was not run: network namespaces need root", "run as root"),
        doubt(
            DoubtKind::SharedCore,
            "load and tracker took turns on core 1",
            "give the machine three cores, or pin the load elsewhere",
        ),
    ]
}

/// A duration about `middle` with a long tail.
fn draw(rng: &mut Rng, middle: u64) -> u64 {
    let mut value = middle / 2 + rng.u64(0..=middle);
    while rng.u32(0..12) == 0 {
        value = value.saturating_mul(2 + rng.u64(0..2));
    }
    value.min(400 * MILLI)
}

fn experiment(rng: &mut Rng, deaths: u64) -> Experiment {
    let settings = Settings {
        connections: 6_000,
        beats_per_second: 40_000,
        beat_bytes: 16,
        deaths_per_second: 400,
        duration_ns: 15 * SECOND,
        threads: 1,
        wake: "lazy".to_owned(),
        batch_window_ns: 0,
        detection_time_ns: 1_500 * MILLI,
        half_closed_grace_ns: 500 * MILLI,
        load_processes: 2,
    };
    let ways = Way::ALL.map(|way| match way {
        Way::PathLoss => not_run(way),
        way => died(rng, way, deaths),
    });
    let mut mistake_duration = Recorded::new();
    (0..7).for_each(|_| mistake_duration.record(draw(rng, 20 * MILLI)));
    Experiment {
        settings,
        start_ns: 81_000 * SECOND + 123_456_789,
        lasted_ns: 17 * SECOND,
        ways: ways.into(),
        quality: Quality {
            watched_ns: 6_000 * 15 * SECOND,
            mistakes: 8,
            false_verdicts: 1,
            mistake_duration,
        },
        summary: serde_json::json!({ "event": "summary", "deaths": 7 * deaths, "turns": 123_456 }),
    }
}

fn not_run(way: Way) -> WayResult {
    WayResult {
        way,
        basis: way.basis(),
        not_run: Some("network namespaces need root".to_owned()),
        injected: 0,
        told: 0,
        missed: 0,
        doubled: 0,
        misnamed: 0,
        early: 0,
        latency: Recorded::new(),
        silence: None,
        injector_late: Recorded::new(),
        intervals: Vec::new(),
    }
}

fn died(rng: &mut Rng, way: Way, deaths: u64) -> WayResult {
    let (middle, promised) = match way {
        Way::Fin | Way::Rst => (35 * MICRO, None),
        Way::DataRst | Way::HalfCloseRst => (48 * MICRO, None),
        Way::HalfClose => (60 * MICRO, None),
        Way::Silence | Way::Stop | Way::PathLoss => (2 * MILLI, Some(1_500 * MILLI)),
    };
    let length_ns = 500 * MILLI;
    let (mut latency, mut injector_late, mut intervals) = (Recorded::new(), Recorded::new(), Vec::new());
    let mut silence = promised.map(|_| Recorded::new());
    let (missed, early) = (u64::from(way == Way::Stop), 2 * u64::from(way == Way::Silence));
    let told = deaths - missed - early;
    for slot in 0..30 {
        let mut interval = Recorded::new();
        for _ in told * slot / 30..told * (slot + 1) / 30 {
            let value = draw(rng, middle);
            interval.record(value);
            injector_late.record(draw(rng, 6 * MICRO));
            if let (Some(silence), Some(promised)) = (&mut silence, promised) {
                silence.record(promised + value);
            }
        }
        latency.merge(&interval);
        // An interval without deaths is not written.
        if interval.count() > 0 {
            intervals.push(Interval { from_ns: slot * length_ns, length_ns, latency: interval });
        }
    }
    WayResult {
        way,
        basis: way.basis(),
        not_run: None,
        injected: deaths,
        told,
        missed,
        doubled: 0,
        misnamed: u64::from(way == Way::DataRst),
        early,
        latency,
        silence,
        injector_late,
        intervals,
    }
}

/// A subject and its typical costs, in nanoseconds: CPU of the process per beat, busy time of the machine per beat, CPU
/// per accept and per death, p50 of detection; then bytes of user and kernel memory, and milliseconds of the storm.
struct Typical {
    name: &'static str,
    what: &'static str,
    gives_up: &'static str,
    beat: u64,
    machine: u64,
    accept: u64,
    death: u64,
    detection: u64,
    user: i64,
    kernel: i64,
    storm: u64,
}

const TYPICAL: [Typical; 12] = [
    typical(
        "deadpeer",
        "one multishot poll each, low-water mark 1024",
        "beats lie unread up to 1 KiB",
        [48, 2_900, 9_800, 6_100, 31, 122, 256, 95],
    ),
    typical(
        "deadpeer --wake beat",
        "woken by every beat",
        "nothing: every beat is read as it comes",
        [1_450, 6_800, 9_900, 6_200, 33, 122, 256, 97],
    ),
    typical(
        "deadpeer --batch-window 100us",
        "waits 100 us for more",
        "up to 100 us of every verdict",
        [47, 2_880, 9_700, 5_200, 95, 122, 256, 92],
    ),
    typical(
        "deadpeer --batch-window 1ms",
        "waits 1 ms for more",
        "up to 1 ms of every verdict",
        [47, 2_870, 9_600, 4_800, 610, 122, 256, 90],
    ),
    typical(
        "deadpeer --unread 256",
        "low-water mark 256",
        "beats lie unread up to 256 B",
        [140, 3_100, 9_800, 6_100, 32, 122, 256, 95],
    ),
    typical(
        "deadpeer --unread 4096",
        "low-water mark 4096",
        "beats lie unread up to 4 KiB",
        [22, 2_800, 9_800, 6_150, 31, 122, 256, 96],
    ),
    typical(
        "epoll",
        "edge-triggered, timing wheel of idle deadlines",
        "nothing: every beat is read as it comes",
        [4_300, 14_200, 11_000, 9_400, 28, 210, 192, 160],
    ),
    typical(
        "epoll, low-water trick",
        "the same with SO_RCVLOWAT and TCP_INFO",
        "beats lie unread up to 1 KiB",
        [60, 3_000, 11_200, 9_500, 29, 190, 192, 158],
    ),
    typical(
        "tokio",
        "a task per connection, tokio::time::timeout",
        "nothing: every beat is read as it comes",
        [4_900, 15_100, 14_500, 12_800, 29, 1_180, 192, 240],
    ),
    typical(
        "tokio-uring",
        "a task per connection, one-shot reads",
        "nothing: every beat is read as it comes",
        [8_100, 19_800, 17_900, 15_400, 41, 1_420, 520, 380],
    ),
    typical(
        "floor",
        "a bare ring loop that judges nothing",
        "every judgement: silence is never noticed",
        [46, 2_850, 9_300, 5_700, 30, 60, 256, 88],
    ),
    typical(
        "floor --wake beat",
        "the same, woken by every beat",
        "every judgement: silence is never noticed",
        [1_380, 6_600, 9_350, 5_750, 31, 60, 256, 89],
    ),
];

const fn typical(
    name: &'static str,
    what: &'static str,
    gives_up: &'static str,
    [beat, machine, accept, death, detection, user, kernel, storm]: [u64; 8],
) -> Typical {
    let (user, kernel) = (user as i64, kernel as i64);
    Typical { name, what, gives_up, beat, machine, accept, death, detection, user, kernel, storm }
}

fn comparison(rng: &mut Rng) -> Comparison {
    let settings = ComparisonSettings {
        rounds: 5,
        connections: 6_000,
        beats_per_second: 40_000,
        beat_bytes: 16,
        warm_up_ns: SECOND,
        window_ns: 6 * SECOND,
        deaths: 1_500,
        deaths_per_second: 500,
        idle_connections: 15_000,
        output: OutputKind::Memory,
    };
    let subjects = TYPICAL.iter().map(|typical| Subject {
        name: typical.name.to_owned(),
        what: typical.what.to_owned(),
        gives_up: typical.gives_up.to_owned(),
        ours: typical.name.starts_with("deadpeer"),
    });
    let mut runs = Vec::new();
    for round in 0..settings.rounds {
        // The machine is slower or faster during a whole round.
        let weather = 900 + rng.u64(0..200);
        for typical in &TYPICAL {
            runs.push(run(rng, typical, round, weather));
        }
    }
    Comparison { settings, subjects: subjects.collect(), runs }
}

fn run(rng: &mut Rng, typical: &Typical, round: u64, weather: u64) -> Run {
    let mut about = |value: u64| value * weather * (970 + rng.u64(0..60)) / 1_000_000;
    let beats = 240_000;
    let beats = Beats {
        connections: 6_000,
        count: beats,
        window_ns: 6 * SECOND,
        process_ns: about(typical.beat * beats),
        load_ns: about(2_300 * beats),
        machine_ns: about(typical.machine * beats),
        machine_sampled_ns: about(typical.machine * beats / 2),
        foreign_ns: about(3 * MILLI),
        stolen_ns: 0,
        sleeps: about(18_000),
        load_late_p99_ns: about(180 * MICRO),
        unread_kernel_bytes: typical.gives_up.contains("unread").then_some(6_000 * 1_900),
    };
    let accept = Cost { count: 15_000, process_ns: about(typical.accept * 15_000) };
    let death = Cost { count: 7_500, process_ns: about(typical.death * 7_500) };
    let storm = Storm {
        connections: 15_000,
        last_verdict_ns: Some(about(typical.storm * MILLI)),
        last_reset_ns: about(typical.storm * MILLI * 3 / 4),
        missed: 0,
        longest_turn_ns: typical.name.starts_with("deadpeer").then(|| about(4 * MILLI)),
        process_ns: about(typical.death * 12_000),
    };
    let (mut latency, mut injector_late) = (Recorded::new(), Recorded::new());
    for _ in 0..1_500 {
        latency.record(draw(rng, typical.detection * MICRO));
        injector_late.record(draw(rng, 6 * MICRO));
    }
    // The floor judges nothing, so it reports no quiet deaths. tokio-uring lost one storm.
    let floor = typical.name.starts_with("floor");
    let lost = typical.name == "tokio-uring" && round == 1;
    Run {
        subject: typical.name.to_owned(),
        round,
        accept: Some(accept),
        beats: Some(beats),
        death: (!floor).then_some(death),
        detection: Some(Detection { injected: 1_500, missed: 0, false_verdicts: 0, latency, injector_late }),
        idle: Some(Idle {
            connections: 15_000,
            user_bytes: typical.user * 15_000 + rng.i64(0..40_960),
            kernel_bytes: Some(typical.kernel * 15_000 + rng.i64(0..40_960)),
        }),
        storm: Some(if lost { Storm { last_verdict_ns: None, missed: 3, ..storm } } else { storm }),
        further: BTreeMap::from([
            ("rearms".to_owned(), rng.i64(0..50)),
            ("rate_10_process_ns_per_peer_second".to_owned(), 4_500 + rng.i64(0..900)),
            ("stream_bytes_per_second".to_owned(), 4_000_000_000 + rng.i64(0..900_000_000)),
        ]),
    }
}
