//! The derived figures for programs: integer nanoseconds and bytes, and ratios.
//!
//! `{"format":"deadpeer-report","version":1,"results":[...]}`; of two results also `differences` and `changes`.
//! docs/MEASURING.md describes the fields.

use serde::Serialize;

use super::figures::{Compared, Detected, Figures, Unit, differences};
use super::names;
use crate::measure::result::{Doubt, Machine, Program};

#[derive(Serialize)]
struct Report<'a> {
    format: &'static str,
    version: u32,
    results: Vec<One<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    differences: Option<Vec<Difference>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<Change>>,
}

#[derive(Serialize)]
struct One<'a> {
    program: &'a Program,
    command: &'a [String],
    started: &'a str,
    took_ns: u64,
    seed: u64,
    machine: &'a Machine,
    detection: Option<&'a Detected<'a>>,
    comparison: Option<&'a Compared<'a>>,
    doubts: &'a [Doubt],
}

/// What was not the same.
#[derive(Serialize)]
struct Difference {
    what: String,
    first: String,
    second: String,
}

/// A figure of both results.
#[derive(Serialize)]
struct Change {
    name: String,
    unit: Unit,
    first: Option<f64>,
    second: Option<f64>,
    ratio: Option<f64>,
}

/// Writes it.
#[must_use]
pub fn render(results: &[Figures]) -> String {
    let pair = if let [first, second] = results { Some((first, second)) } else { None };
    let report = Report {
        format: "deadpeer-report",
        version: 1,
        results: results.iter().map(one).collect(),
        differences: pair.map(|(first, second)| {
            let rows = differences(first.result, second.result).into_iter();
            rows.map(|(what, first, second)| Difference { what, first, second }).collect()
        }),
        changes: pair.map(|(first, second)| changes(first, second)),
    };
    let mut text = serde_json::to_string_pretty(&report).expect("plain data can be written");
    text.push('\n');
    text
}

fn one<'a>(figures: &'a Figures) -> One<'a> {
    let result = figures.result;
    One {
        program: &result.program,
        command: &result.command,
        started: &result.started,
        took_ns: result.took_ns,
        seed: result.seed,
        machine: &result.machine,
        detection: figures.detection.as_ref(),
        comparison: figures.comparison.as_ref(),
        doubts: &result.doubts,
    }
}

/// All figures that either has.
fn changes(first: &Figures, second: &Figures) -> Vec<Change> {
    let mut seen = std::collections::BTreeSet::new();
    let all = names::all(first).into_iter().chain(names::all(second));
    let named = all.filter(|name| seen.insert(name.clone())).filter_map(|name| {
        let [one, two] = [first, second].map(|figures| names::find(figures, &name));
        let unit = one.as_ref().or(two.as_ref())?.unit;
        let [first, second] = [one, two].map(|named| named.and_then(|named| named.value.ok()));
        let ratio = first.zip(second).filter(|(first, _)| *first > 0.0).map(|(first, second)| second / first);
        Some(Change { name, unit, first, second, ratio })
    });
    named.filter(|change| change.first.is_some() || change.second.is_some()).collect()
}
