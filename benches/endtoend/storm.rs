//! Every connection is reset in one instant: each reported exactly once, and soon.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::child::Line;
use crate::outcome::{Bench, Doubts, Outcome};
use crate::subject::Subject;
use crate::table::{Goal, Spread, Table, short};
use crate::verdicts::{self, Mistakes, Shape};

const ALL_WITHIN_MS: f64 = 1_000.0;
const TURN_MS: f64 = 20.0;

#[derive(Clone, Copy, Debug, Serialize)]
struct Run {
    /// From the instant to the last verdict.
    last_ms: f64,
    /// From the instant to the last reset: the storm's own length.
    injector_ms: f64,
    /// The longest turn of the server's loop, as it says itself.
    turn_ms: Option<f64>,
    reported: usize,
    mistakes: Mistakes,
}

pub fn run(bench: &Bench) -> io::Result<Outcome> {
    let connections = bench.by_scale(15_000, 15_000, 200);
    let shape = Shape {
        connections,
        // Each has beaten once or so before the storm, and what it sent lies unread.
        rate: connections as f64,
        warm_up: Duration::from_secs_f64(bench.by_scale(1.5, 1.5, 0.2)),
        kills: connections,
        kill_rate: None,
        half_by_fin: false,
    };
    let subjects = bench.subjects(&[Subject::Lazy, Subject::Beat, Subject::Epoll]);
    let mut doubts = Doubts::default();
    let rounds =
        bench.alternate(&subjects, bench.rounds(), |subject| one(bench, subject, &shape, &mut doubts))?;

    let mut table = Table::new(
        format!("{connections} resets in one instant: worst of {} rounds", rounds.len()),
        &[
            "ms",
            "to the last verdict",
            "to the last reset",
            "longest turn",
            "reported",
            "missed",
            "doubled",
            "misnamed",
        ],
    );
    let mut goals = Vec::new();
    for &subject in &subjects {
        let runs: Vec<Run> =
            rounds.iter().flatten().filter(|(who, _)| *who == subject).map(|(_, run)| *run).collect();
        let worst = |figure: &dyn Fn(&Run) -> Option<f64>| {
            Spread::of(runs.iter().filter_map(figure)).map_or(f64::NAN, |spread| spread.max)
        };
        let mut mistakes = Mistakes::default();
        runs.iter().for_each(|run| mistakes.add(run.mistakes));
        let last = worst(&|run| Some(run.last_ms));
        let turn = worst(&|run| run.turn_ms);
        table.row(vec![
            subject.name().into(),
            short(last),
            short(worst(&|run| Some(run.injector_ms))),
            short(turn),
            runs.iter().map(|run| run.reported).sum::<usize>().to_string(),
            mistakes.missed.to_string(),
            mistakes.doubled.to_string(),
            mistakes.misnamed.to_string(),
        ]);
        if subject != Subject::Epoll {
            let name = subject.name();
            goals.push(Goal::at_most(format!("{name}: mistakes"), mistakes.sum() as f64, 0.0));
            goals.push(Goal::at_most(format!("{name}: last verdict, ms"), last, ALL_WITHIN_MS));
            goals.push(Goal::at_most(format!("{name}: longest turn, ms"), turn, TURN_MS));
            if turn.is_nan() {
                doubts.add(format!("{name}: its summary names no longest turn of the loop"));
            }
        }
    }
    let figures = serde_json::json!({"shape": shape, "rounds": rounds});
    Ok(Outcome { experiment: "storm", tables: vec![table], goals, doubts, figures })
}

fn one(bench: &Bench, subject: Subject, shape: &Shape, doubts: &mut Doubts) -> io::Result<Run> {
    let injected = verdicts::inject(&bench.stage, subject, shape, doubts)?;
    let (found, mistakes) = verdicts::join(&injected.caused, &injected.lines);
    if found.is_empty() {
        return Err(io::Error::other(format!("{}: not one verdict was counted", subject.name())));
    }
    let instant = injected.caused.iter().map(|death| death.due).min().unwrap_or(0);
    let last = found.iter().map(|verdict| verdict.at).max().unwrap_or(0);
    let millis = |until: u64| until.saturating_sub(instant) as f64 / 1e6;
    Ok(Run {
        last_ms: millis(last),
        injector_ms: millis(injected.finished),
        turn_ms: longest_turn_us(&injected.lines).map(|micros| micros / 1e3),
        reported: found.len(),
        mistakes,
    })
}

/// `loop_turn_us` of the summary, wherever it lies in it: its `max`, or the number itself.
fn longest_turn_us(lines: &[Line]) -> Option<f64> {
    fn look(value: &Value) -> Option<f64> {
        let object = value.as_object()?;
        let turn = object.get("loop_turn_us").and_then(|turn| turn.get("max").unwrap_or(turn).as_f64());
        turn.or_else(|| object.values().find_map(look))
    }
    let summary = lines.iter().rev().find(|line| line.event == "summary")?;
    look(&Value::Object(summary.rest.clone()))
}
