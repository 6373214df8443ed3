//! How soon a FIN or RST is a verdict, among thousands that go on beating.

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::outcome::{Bench, Doubts, Outcome, ratios};
use crate::subject::Subject;
use crate::table::{Goal, Latencies, Spread, Table, short};
use crate::verdicts::{self, Mistakes, Shape};

/// Beyond the batch window, which is 0 in lazy mode and 500 us in beat mode.
const SLACK_US: f64 = 200.0;
const BEAT_WINDOW_US: f64 = 500.0;
const AGAINST_EPOLL: f64 = 1.25;

/// All in microseconds, p50, p99 and maximum.
#[derive(Clone, Copy, Debug, Serialize)]
struct Run {
    /// From the scheduled instant to the verdict.
    latency: [f64; 3],
    /// From the instant when the injector really did it.
    from_call: [f64; 3],
    injector_late: [f64; 3],
    verdicts: u64,
    mistakes: Mistakes,
}

pub fn run(bench: &Bench) -> io::Result<Outcome> {
    let (living, rate, kills, kill_rate) = bench.by_scale(
        (10_000, 20_000.0, 5_000, 1_000.0),
        (10_000, 20_000.0, 3_000, 1_000.0),
        (200, 2_000.0, 100, 500.0),
    );
    let shape = Shape {
        // So that there are `living` in the middle of the run.
        connections: living + kills / 2,
        rate,
        warm_up: Duration::from_secs_f64(bench.by_scale(2.0, 1.5, 0.2)),
        kills,
        kill_rate: Some(kill_rate),
        half_by_fin: true,
    };
    let subjects = bench.subjects(&[Subject::Lazy, Subject::Beat, Subject::Epoll]);
    let mut doubts = Doubts::default();
    let rounds =
        bench.alternate(&subjects, bench.rounds(), |subject| one(bench, subject, &shape, &mut doubts))?;

    let mut table = Table::new(
        format!(
            "verdict on FIN and RST, {kill_rate}/s among {living} connections with {rate} beats/s: us, median \
             of {} rounds",
            rounds.len()
        ),
        &[
            "us",
            "p50",
            "p99",
            "max",
            "from call p50",
            "p99",
            "injector late p50",
            "p99",
            "verdicts",
            "missed",
            "doubled",
            "invented",
            "misnamed",
        ],
    );
    let mut goals = Vec::new();
    for &subject in &subjects {
        let runs: Vec<&Run> =
            rounds.iter().flatten().filter(|(who, _)| *who == subject).map(|(_, run)| run).collect();
        let median = |figure: &dyn Fn(&Run) -> f64| {
            Spread::of(runs.iter().map(|run| figure(run))).map_or(f64::NAN, |spread| spread.median)
        };
        let mut mistakes = Mistakes::default();
        runs.iter().for_each(|run| mistakes.add(run.mistakes));
        let p99 = median(&|run| run.latency[1]);
        table.row(vec![
            subject.name().into(),
            short(median(&|run| run.latency[0])),
            short(p99),
            short(median(&|run| run.latency[2])),
            short(median(&|run| run.from_call[0])),
            short(median(&|run| run.from_call[1])),
            short(median(&|run| run.injector_late[0])),
            short(median(&|run| run.injector_late[1])),
            runs.iter().map(|run| run.verdicts).sum::<u64>().to_string(),
            mistakes.missed.to_string(),
            mistakes.doubled.to_string(),
            mistakes.invented.to_string(),
            mistakes.misnamed.to_string(),
        ]);
        let window = if subject == Subject::Beat { BEAT_WINDOW_US } else { 0.0 };
        if subject != Subject::Epoll {
            let name = subject.name();
            goals.push(Goal::at_most(format!("{name}: p99, us"), p99, window + SLACK_US));
            goals.push(Goal::at_most(format!("{name}: mistakes"), mistakes.sum() as f64, 0.0));
        }
    }
    for (what, index) in [("p50", 0), ("p99", 1)] {
        let ratios = ratios(&rounds, Subject::Lazy, Subject::Epoll, |run: &Run| run.latency[index]);
        if let Some(spread) = Spread::of(ratios) {
            let what = format!("deadpeer lazy / epoll: {what}");
            goals.push(Goal::at_most(what, spread.median, AGAINST_EPOLL));
        }
    }
    let figures = serde_json::json!({"shape": shape, "rounds": rounds});
    Ok(Outcome { experiment: "detect", tables: vec![table], goals, doubts, figures })
}

fn one(bench: &Bench, subject: Subject, shape: &Shape, doubts: &mut Doubts) -> io::Result<Run> {
    let injected = verdicts::inject(&bench.stage, subject, shape, doubts)?;
    let (found, mistakes) = verdicts::join(&injected.caused, &injected.lines);
    let [mut latency, mut from_call, mut late] = std::array::from_fn(|_| Latencies::new());
    let mut before_call = 0;
    for verdict in &found {
        latency.record(verdict.at.saturating_sub(verdict.caused.due));
        from_call.record(verdict.at.saturating_sub(verdict.caused.called));
        before_call += usize::from(verdict.at < verdict.caused.called);
    }
    for death in &injected.caused {
        late.record(death.called - death.due);
    }
    let name = subject.name();
    if latency.count() == 0 {
        return Err(io::Error::other(format!("{name}: not one verdict was counted")));
    }
    if before_call > 0 {
        doubts.add(format!("{name}: {before_call} verdicts are dated before the death they are about"));
    }
    if late.micros(99.0) > SLACK_US / 2.0 {
        doubts.add(format!("{name}: the injector itself was {:.0} us late at p99", late.micros(99.0)));
    }
    let three = |latencies: &Latencies| [50.0, 99.0, 100.0].map(|percentile| latencies.micros(percentile));
    Ok(Run {
        latency: three(&latency),
        from_call: three(&from_call),
        injector_late: three(&late),
        verdicts: latency.count(),
        mistakes,
    })
}
