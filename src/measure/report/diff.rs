//! Two results: which figures became better or worse, and which circumstances differ.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::figures::Figures;
use super::names::{self, Named};
use super::unit::Unit;
use crate::measure::result::{Doubt, DoubtKind, EngineUsed, ResultFile};

/// The part by which a figure has to differ. A smaller difference is within noise, whatever the samples say.
const NOISE: f64 = 0.05;

/// A figure in two results.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The name in thresholds.
    pub name: String,
    pub unit: Unit,
    pub first: Option<f64>,
    pub second: Option<f64>,
    /// The second value divided by the first.
    pub ratio: Option<f64>,
    /// The number of samples behind each value: deaths or rounds.
    pub samples: [Option<u64>; 2],
    /// `None`: nothing to judge by, as for a maximum, or for a figure that one result lacks.
    pub judgement: Option<Judgement>,
}

/// Whether a figure of the second result is better than that of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// The second value is greater. Less is better in all figures.
    Worse,
    Better,
    /// The difference is small, or both values may be the same within their spread.
    WithinNoise,
}

impl Judgement {
    /// The words of a report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Judgement::Worse => "worse",
            Judgement::Better => "better",
            Judgement::WithinNoise => "within noise",
        }
    }
}

/// All figures that at least one of two results has.
pub fn changes(first: &Figures<'_>, second: &Figures<'_>) -> Vec<Change> {
    let mut seen = BTreeSet::new();
    let all = names::all(first).into_iter().chain(names::all(second));
    let changes = all.filter(|name| seen.insert(name.clone())).filter_map(|name| {
        let [one, two] = [first, second].map(|figures| names::find(figures, &name));
        let unit = one.as_ref().or(two.as_ref())?.unit;
        let judgement = one.as_ref().zip(two.as_ref()).and_then(|(one, two)| judge(&name, one, two));
        let samples = [&one, &two].map(|named| named.as_ref().and_then(|named| named.samples));
        let [first, second] = [one, two].map(|named| named.and_then(|named| named.value.ok()));
        let ratio = first.zip(second).filter(|(first, _)| *first > 0.0).map(|(first, second)| second / first);
        Some(Change { name, unit, first, second, ratio, samples, judgement })
    });
    changes.filter(|change| change.first.is_some() || change.second.is_some()).collect()
}

fn judge(name: &str, first: &Named, second: &Named) -> Option<Judgement> {
    let (one, two) = (first.value.as_ref().ok()?, second.value.as_ref().ok()?);
    let direction = if two > one { Judgement::Worse } else { Judgement::Better };
    // A fault more is a fault more. The number of samples is no figure of merit.
    if first.unit == Unit::Count {
        let judged = if one == two { Judgement::WithinNoise } else { direction };
        return (!name.ends_with(".count")).then_some(judged);
    }
    let ((low, high), (lower, higher)) = (first.range?, second.range?);
    let apart = (two - one).abs() > NOISE * one.abs();
    let overlap = low <= higher && lower <= high;
    Some(if apart && !overlap { direction } else { Judgement::WithinNoise })
}

/// A doubt when two results were measured on different engines.
pub fn other_engine(first: &ResultFile, second: &ResultFile) -> Option<Doubt> {
    let engines = [first, second].map(|result| result.program.engine.as_ref());
    let names = engines.map(|engine| engine.map(|engine| engine.name.as_str()));
    let said = |engine: Option<&EngineUsed>| {
        let Some(engine) = engine else { return "an unknown engine".to_owned() };
        let why = engine.why_not.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        format!("{}{why}", engine.name)
    };
    (names[0] != names[1]).then(|| Doubt {
        kind: DoubtKind::OtherEngine,
        text: format!("the first result is of {}, the second of {}", said(engines[0]), said(engines[1])),
        remedy: "measure both with the same --io".to_owned(),
    })
}

/// A circumstance that was not the same when two results were measured.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    pub what: String,
    pub first: String,
    pub second: String,
}

/// The circumstances that were not the same when two results were measured. Ratios between the results show these as
/// much as the program.
pub fn differences(first: &ResultFile, second: &ResultFile) -> Vec<Difference> {
    let sides = [first, second].map(circumstances);
    let names: BTreeSet<&String> = sides.iter().flat_map(BTreeMap::keys).collect();
    let all = names.into_iter().map(|what| {
        let said = |side: &BTreeMap<String, String>| side.get(what).map_or("-", String::as_str).to_owned();
        Difference { what: what.clone(), first: said(&sides[0]), second: said(&sides[1]) }
    });
    all.filter(|difference| difference.first != difference.second).collect()
}

/// Machine, program and settings by the names of their fields.
fn circumstances(result: &ResultFile) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    let mut add = |name: &str, value: serde_json::Value| {
        let serde_json::Value::Object(fields) = value else { return };
        for (field, value) in fields {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            flat.insert(format!("{name}.{field}"), value);
        }
    };
    let plain = "plain data can be written";
    let mut machine = serde_json::to_value(&result.machine).expect(plain);
    // The state of the moment is never the same; where it matters a doubt says so.
    for measured in ["load_thousandths", "bare_recv"] {
        machine.as_object_mut().map(|fields| fields.remove(measured));
    }
    add("machine", machine);
    add("program", serde_json::to_value(&result.program).expect(plain));
    if let Some(experiment) = &result.experiment {
        add("experiment", serde_json::to_value(&experiment.settings).expect(plain));
    }
    if let Some(comparison) = &result.comparison {
        add("comparison", serde_json::to_value(&comparison.settings).expect(plain));
    }
    flat
}
