//! What a beat costs: the daemon in both modes, the yardstick, and the two floors, in turn.

use std::io;
use std::time::Duration;

use crate::beating::{self, BEAT_BYTES, Cost, Shape};
use crate::outcome::{Bench, Doubts, Outcome, ratios};
use crate::subject::{Options, Subject};
use crate::table::{Goal, Spread, Table, short};

/// The first 16 beats of a connection are cheaper than the later ones.
const WARM_UP_BEATS: f64 = 20.0;
const WINDOW_BEATS: f64 = 40.0;
/// In lazy mode a peer is visited once in about so many seconds under the standard policy.
const VISIT_PERIOD: f64 = 30.0;

/// The default low-water mark. Connections that were accepted at any time reach theirs at any time,
/// and then most drains are a wake-up of their own; when all began together they come in batches
/// of hundreds, which made the bare loop 2-4 times cheaper per beat.
const LOW_WATER: usize = 1024;

/// Subject, against whom, which figure, at most.
const PROMISES: [(Subject, Subject, Figure, f64); 6] = [
    (Subject::Lazy, Subject::Epoll, Figure::Process, 0.03),
    (Subject::Lazy, Subject::Epoll, Figure::Machine, 0.35),
    (Subject::Beat, Subject::Epoll, Figure::Process, 0.35),
    (Subject::Beat, Subject::Epoll, Figure::Machine, 0.75),
    (Subject::Lazy, Subject::FloorLazy, Figure::Process, 1.10),
    (Subject::Beat, Subject::FloorBeat, Figure::Process, 1.10),
];

#[derive(Clone, Copy)]
enum Figure {
    Process,
    Machine,
}

impl Figure {
    fn of(self, cost: &Cost) -> f64 {
        match self {
            Figure::Process => cost.process_us_per_beat(),
            Figure::Machine => cost.machine_us_per_beat(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Figure::Process => "process",
            Figure::Machine => "machine",
        }
    }
}

pub fn run(bench: &Bench) -> io::Result<Outcome> {
    let (connections, rate) = bench.by_scale((6_000, 40_000.0), (6_000, 40_000.0), (200, 4_000.0));
    let beats_per_second = rate / connections as f64;
    let shape = Shape {
        connections,
        rate,
        warm_up: Duration::from_secs_f64(bench.by_scale(1.0, 1.0, 0.2) * WARM_UP_BEATS / beats_per_second),
        window: bench.window(VISIT_PERIOD, 8.0, 0.4),
        stroke_ns: bench.stroke_ns.unwrap_or(beating::PACE_NS),
        first_bytes: if bench.in_phase { BEAT_BYTES } else { LOW_WATER },
    };
    let all = [Subject::Lazy, Subject::Beat, Subject::Epoll, Subject::FloorLazy, Subject::FloorBeat];
    let subjects = bench.subjects(&all);
    let mut doubts = Doubts::default();
    let seconds = shape.window.as_secs_f64();
    if seconds * beats_per_second < WINDOW_BEATS {
        doubts.add(format!("fewer than {WINDOW_BEATS} beats per connection in the window"));
    }
    if seconds < VISIT_PERIOD {
        doubts.add(format!(
            "a window of {seconds} s is shorter than the {VISIT_PERIOD} s between two visits of a peer in \
             lazy mode: visits may be missing"
        ));
    }
    let rounds = bench.alternate(&subjects, bench.rounds(), |subject| {
        beating::measure(&bench.stage, subject, &Options::default(), &shape, &mut doubts)
    })?;

    let title = format!(
        "CPU per beat: {connections} connections, {rate} beats/s of 16 bytes, low-water marks reached {}, \
         window {seconds} s, {} rounds",
        if bench.in_phase { "together" } else { "evenly" },
        rounds.len()
    );
    let mut costs = Table::new(
        title,
        &[
            "us per beat",
            "process min",
            "median",
            "max",
            "machine min",
            "median",
            "max",
            "load",
            "machine - load",
            "by ticks",
            "sleeps/s",
        ],
    );
    for &subject in &subjects {
        let of_subject = || rounds.iter().flatten().filter(|(who, _)| *who == subject).map(|(_, cost)| cost);
        let spread = |figure: &dyn Fn(&Cost) -> f64| Spread::of(of_subject().map(figure));
        let process = spread(&Cost::process_us_per_beat);
        let machine = spread(&Cost::machine_us_per_beat);
        if let (Some(process), Some(machine)) = (process, machine) {
            let mut cells = vec![subject.name().to_string()];
            cells.extend(process.cells());
            cells.extend(machine.cells());
            let further = [
                Cost::load_us_per_beat,
                Cost::own_us_per_beat,
                Cost::sampled_us_per_beat,
                Cost::sleeps_per_second,
            ];
            cells.extend(further.map(|figure| spread(&figure).map_or("-".into(), |all| short(all.median))));
            costs.row(cells);
        }
    }

    let mut by_round = Table::new("ratios per round", &["ratio", "min", "median", "max"]);
    let mut goals = Vec::new();
    for (subject, by, figure, limit) in PROMISES {
        let what = format!("{}: {} / {}", figure.name(), subject.name(), by.name());
        if let Some(spread) = Spread::of(ratios(&rounds, subject, by, |cost| figure.of(cost))) {
            let mut cells = vec![what.clone()];
            cells.extend(spread.cells());
            by_round.row(cells);
            goals.push(Goal::at_most(what, spread.median, limit));
        }
    }
    let figures = serde_json::json!({"shape": shape, "rounds": rounds});
    Ok(Outcome { experiment: "cpu", tables: vec![costs, by_round], goals, doubts, figures })
}
