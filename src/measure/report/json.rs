//! The derived figures for programs: integer nanoseconds and bytes, and ratios.
//!
//! `{"format":"deadpeer-report","version":1,"results":[...]}`; of two results also `differences`,
//! `changes` and the `doubts` about comparing them.
//! docs/MEASURING.md describes the fields.

use serde::Serialize;

use super::diff::{Change, Difference, changes, differences, other_engine};
use super::figures::{Compared, Detected, Figures};
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
    #[serde(skip_serializing_if = "Option::is_none")]
    doubts: Option<Vec<Doubt>>,
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

pub fn render(results: &[Figures]) -> String {
    let pair = if let [first, second] = results { Some((first, second)) } else { None };
    let report = Report {
        format: "deadpeer-report",
        version: 1,
        results: results.iter().map(one).collect(),
        differences: pair.map(|(first, second)| differences(first.result, second.result)),
        changes: pair.map(|(first, second)| changes(first, second)),
        doubts: pair.map(|(first, second)| other_engine(first.result, second.result).into_iter().collect()),
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
