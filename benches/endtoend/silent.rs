//! Peers that fall silent at random instants: is the verdict ever early, and how late?

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::beating::{self, BEAT_BYTES, Moment, PACE_NS};
use crate::load::{Go, LoadPlan};
use crate::outcome::{Bench, Doubts, Outcome};
use crate::subject::{Options, PATIENCE, Subject};
use crate::sys;
use crate::table::{Goal, Latencies, Table, short};
use crate::verdicts::{self, Caused, Mistakes};

const LATE_MS: f64 = 10.0;

#[derive(Clone, Copy, Debug, Serialize)]
struct Shape {
    connections: usize,
    beats_per_second_each: f64,
    /// All fall silent at random instants of this window.
    window: Duration,
}

#[derive(Clone, Debug, Serialize)]
struct Run {
    name: String,
    detection_ms: f64,
    /// Of the verdict against last beat + detection time, in milliseconds; negative is early.
    earliest_ms: f64,
    /// p50, p99, maximum.
    late_ms: [f64; 3],
    early: usize,
    verdicts: usize,
    mistakes: Mistakes,
}

pub fn run(bench: &Bench) -> io::Result<Outcome> {
    let shape = bench.by_scale(
        Shape { connections: 15_000, beats_per_second_each: 1.0, window: Duration::from_secs(10) },
        Shape { connections: 15_000, beats_per_second_each: 1.0, window: Duration::from_secs(4) },
        Shape { connections: 200, beats_per_second_each: 10.0, window: Duration::from_millis(300) },
    );
    let strict = Options { idle_ms: Some(8_000), ..Options::daemon(&["--policy", "strict"]) };
    let custom_flags = ["--idle", "2s", "--interval", "500ms", "--probes", "2"];
    let custom = Options { idle_ms: Some(3_000), ..Options::daemon(&custom_flags) };
    let brief_flags = ["--idle", "500ms", "--interval", "250ms", "--probes", "1"];
    let brief = Options { idle_ms: Some(750), ..Options::daemon(&brief_flags) };
    let all = [
        (Subject::Lazy, "--policy strict", &strict),
        (Subject::Lazy, "--idle 2s ...", &custom),
        (Subject::Beat, "--idle 2s ...", &custom),
        (Subject::Epoll, "3 s", &custom),
    ];
    let smoke = [(Subject::Lazy, "--idle 500ms ...", &brief), (Subject::Epoll, "750 ms", &brief)];
    let plan = bench.by_scale(&all[..], &all[..], &smoke[..]);

    let subjects = bench.subjects(&[Subject::Lazy, Subject::Beat, Subject::Epoll]);
    let mut doubts = Doubts::default();
    let mut runs = Vec::new();
    for round in 0..bench.rounds.unwrap_or(1) {
        for (subject, policy, options) in plan.iter().filter(|(subject, ..)| subjects.contains(subject)) {
            let name = format!("{} {policy}", subject.name());
            eprintln!("  round {}: {name}", round + 1);
            runs.push((*subject, one(bench, *subject, name, options, shape, &mut doubts)?));
        }
    }

    let mut table = Table::new(
        format!(
            "{} peers fall silent within {} s: verdict - (last beat + detection time)",
            shape.connections,
            shape.window.as_secs_f64()
        ),
        &[
            "ms",
            "detection",
            "min",
            "p50",
            "p99",
            "max",
            "early",
            "verdicts",
            "missed",
            "doubled",
            "misnamed",
        ],
    );
    let mut goals = Vec::new();
    for (subject, run) in &runs {
        table.row(vec![
            run.name.clone(),
            short(run.detection_ms),
            short(run.earliest_ms),
            short(run.late_ms[0]),
            short(run.late_ms[1]),
            short(run.late_ms[2]),
            run.early.to_string(),
            run.verdicts.to_string(),
            run.mistakes.missed.to_string(),
            run.mistakes.doubled.to_string(),
            run.mistakes.misnamed.to_string(),
        ]);
        if *subject != Subject::Epoll {
            goals.push(Goal::at_least(format!("{}: earliest, ms", run.name), run.earliest_ms, 0.0));
            goals.push(Goal::at_most(format!("{}: p99, ms", run.name), run.late_ms[1], LATE_MS));
            let mistakes = run.mistakes.sum() as f64;
            goals.push(Goal::at_most(format!("{}: mistakes", run.name), mistakes, 0.0));
        }
    }
    let runs: Vec<&Run> = runs.iter().map(|(_, run)| run).collect();
    let figures = serde_json::json!({"shape": shape, "runs": runs});
    Ok(Outcome { experiment: "silent", tables: vec![table], goals, doubts, figures })
}

fn one(
    bench: &Bench,
    subject: Subject,
    name: String,
    options: &Options,
    shape: Shape,
    doubts: &mut Doubts,
) -> io::Result<Run> {
    let stage = &bench.stage;
    let mut server = stage.start(subject, options)?;
    let mut load = stage.start_role(
        "load",
        &LoadPlan {
            server: server.address,
            connections: shape.connections,
            rate: shape.connections as f64 * shape.beats_per_second_each,
            beat_bytes: BEAT_BYTES,
            pace_ns: PACE_NS,
            first_bytes: BEAT_BYTES,
            falls_silent: true,
        },
    )?;
    load.wait_for("connected", Duration::from_secs(60))?;
    server.wait_accepted(shape.connections)?;
    let start = sys::now() + 100_000_000;
    // Every one has beaten twice before the first falls silent.
    let window_from = start + (2.0 / shape.beats_per_second_each * 1e9) as u64;
    let window_to = window_from + u64::try_from(shape.window.as_nanos()).expect("seconds");
    load.tell(&Go { start, window_from, window_to })?;
    let (server_pid, load_pid) = (server.child.pid(), load.pid());
    let before = Moment::read(stage, server_pid, load_pid)?;
    sys::sleep_until(window_to);
    let after = Moment::read(stage, server_pid, load_pid)?;
    let beats = load.wait_for("done", PATIENCE)?.integer("beats").unwrap_or(0);
    let cost = after.since(&before, beats, (window_to - start) as f64 / 1e9, 0.0);
    beating::doubt_the_machine(&name, &cost, doubts);

    let caused: Vec<Caused> = load
        .lines()?
        .iter()
        .filter(|line| line.event == "last")
        .map(|line| Caused {
            peer: line.peer.clone(),
            due: line.mono_ns,
            called: line.mono_ns,
            cause: "heartbeat_expired",
        })
        .collect();
    if caused.len() != shape.connections {
        doubts.add(format!("{name}: {} of {} connections beat at all", caused.len(), shape.connections));
    }
    let detection = Duration::from_secs_f64(server.detection_ms.max(0.0) / 1e3);
    server.child.wait_count("died", shape.connections, detection + PATIENCE)?;
    std::thread::sleep(Duration::from_millis(100));
    let (found, mistakes) = verdicts::join(&caused, server.child.lines()?);
    server.end()?;
    load.finish(PATIENCE)?;
    if found.is_empty() {
        return Err(io::Error::other(format!("{name}: not one verdict was counted")));
    }

    let detection_ns = detection.as_nanos() as i128;
    let (mut late, mut early, mut earliest) = (Latencies::new(), 0, i128::MAX);
    for verdict in &found {
        let lateness = i128::from(verdict.at) - i128::from(verdict.caused.due) - detection_ns;
        earliest = earliest.min(lateness);
        match u64::try_from(lateness) {
            Ok(lateness) => late.record(lateness),
            Err(_) => early += 1,
        }
    }
    Ok(Run {
        name,
        detection_ms: detection.as_secs_f64() * 1e3,
        earliest_ms: earliest as f64 / 1e6,
        late_ms: [50.0, 99.0, 100.0].map(|percentile| late.micros(percentile) / 1e3),
        early,
        verdicts: found.len(),
        mistakes,
    })
}
