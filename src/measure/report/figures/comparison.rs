//! The figures of a comparison.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::figure::Figure;
use super::spread::{Rounds, Spread, whole};
use crate::measure::recorded::Recorded;
use crate::measure::report::options::ReportError;
use crate::measure::result::{Comparison, ComparisonSettings, Run, Subject};

/// The figures of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Compared<'a> {
    /// The settings of the comparison.
    pub settings: &'a ComparisonSettings,
    /// The subject that ratios are taken against. `None` when there are no subjects.
    pub base: Option<&'a str>,
    /// The subjects, in the order of the file.
    pub rows: Vec<Row<'a>>,
    /// Runs by subject and round, for ratios against others than the base.
    #[serde(skip)]
    runs: BTreeMap<(&'a str, u64), &'a Run>,
}

/// The figures of one subject.
#[derive(Clone, Debug, Serialize)]
pub struct Row<'a> {
    /// The subject of the row.
    pub subject: &'a Subject,
    /// Rounds in which it ran.
    pub rounds: u64,
    /// One for each of [`Figure::ALL`], in that order.
    pub cells: Vec<Cell>,
    /// Detection among beats, all rounds together.
    pub detection: Spread,
    /// Deaths without a verdict among beats and in storms, all rounds together.
    pub missed: u64,
    /// Verdicts beyond the first, or on the living.
    pub false_verdicts: u64,
}

impl Row<'_> {
    /// The cell of a figure.
    #[must_use]
    pub fn cell(&self, figure: Figure) -> &Cell {
        &self.cells[figure as usize]
    }
}

/// One figure of one subject over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// The figure of the cell.
    pub figure: Figure,
    /// Rounds that have it.
    pub rounds: u64,
    /// In the figure's [unit](Figure::unit).
    #[serde(serialize_with = "whole")]
    pub value: Option<Rounds>,
    /// The ratio to the base, taken within each round.
    pub ratio: Option<Rounds>,
}

impl<'a> Compared<'a> {
    /// Derives the figures of a comparison.
    pub(super) fn of(comparison: &'a Comparison, base: Option<&str>) -> Result<Compared<'a>, ReportError> {
        let names = || comparison.subjects.iter().map(|subject| subject.name.as_str());
        let base = match base {
            Some(wanted) => Some(names().find(|name| *name == wanted).ok_or_else(|| ReportError::Base {
                wanted: wanted.to_owned(),
                names: names().map(str::to_owned).collect(),
            })?),
            None => names()
                .find(|name| *name == "epoll")
                .or_else(|| comparison.subjects.iter().find(|subject| !subject.ours).map(|s| s.name.as_str()))
                .or_else(|| names().next()),
        };
        let mut runs = BTreeMap::new();
        for run in &comparison.runs {
            runs.entry((run.subject.as_str(), run.round)).or_insert(run);
        }
        let mut compared = Compared { settings: &comparison.settings, base, rows: Vec::new(), runs };
        let mut seen = HashSet::new();
        let subjects = comparison.subjects.iter().filter(|subject| seen.insert(subject.name.as_str()));
        compared.rows = subjects.map(|subject| compared.row(subject)).collect();
        Ok(compared)
    }

    /// Whether any subject has any of these figures.
    #[must_use]
    pub fn has(&self, figures: &[Figure]) -> bool {
        self.rows.iter().any(|row| figures.iter().any(|figure| row.cell(*figure).value.is_some()))
    }

    /// The row of a subject.
    #[must_use]
    pub fn find(&self, subject: &str) -> Option<&Row<'a>> {
        self.rows.iter().find(|row| row.subject.name == subject)
    }

    /// The runs of a subject, round by round.
    pub fn runs(&self, subject: &'a str) -> impl Iterator<Item = &'a Run> + '_ {
        self.runs.range((subject, 0)..=(subject, u64::MAX)).map(|(_, run)| *run)
    }

    /// The ratio of a subject's figure to another's, taken within each round that has both.
    #[must_use]
    pub fn ratio(&self, figure: Figure, subject: &'a str, base: &'a str) -> Option<Rounds> {
        let ratio = |run: &Run| {
            let against = figure.of(self.runs.get(&(base, run.round))?).filter(|against| *against > 0.0)?;
            Some(figure.of(run)? / against)
        };
        Rounds::of(self.runs(subject).filter_map(ratio))
    }

    /// The detection of a subject among beats, all rounds together.
    #[must_use]
    pub fn pooled(&self, subject: &'a str) -> Option<Recorded> {
        let mut latencies = self.runs(subject).filter_map(|run| Some(&run.detection.as_ref()?.latency));
        let mut pooled = latencies.next()?.clone();
        latencies.for_each(|latency| pooled.merge(latency));
        Some(pooled)
    }

    fn row(&self, subject: &'a Subject) -> Row<'a> {
        let name = subject.name.as_str();
        let cell = |figure: Figure| {
            let values: Vec<f64> = self.runs(name).filter_map(|run| figure.of(run)).collect();
            Cell {
                figure,
                rounds: values.len() as u64,
                value: Rounds::of(values),
                ratio: self.base.and_then(|base| self.ratio(figure, name, base)),
            }
        };
        let detections = || self.runs(name).filter_map(|run| run.detection.as_ref());
        let storms = self.runs(name).filter_map(|run| run.storm).map(|storm| storm.missed);
        let missed = detections().map(|detection| detection.missed).chain(storms);
        Row {
            subject,
            rounds: self.runs(name).count() as u64,
            cells: Figure::ALL.map(cell).into(),
            detection: self.pooled(name).as_ref().map(Spread::of).unwrap_or_default(),
            missed: missed.fold(0, u64::saturating_add),
            false_verdicts: detections().map(|d| d.false_verdicts).fold(0, u64::saturating_add),
        }
    }
}
