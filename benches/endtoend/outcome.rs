//! What an experiment hands back, and what every experiment is given.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::subject::{Stage, Subject};
use crate::table::{Goal, Table};

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// The sizes of the promise.
    Full,
    /// The same load for a shorter time.
    Quick,
    /// 200 connections for a moment: does the harness count anything?
    Smoke,
}

pub struct Bench {
    pub stage: Stage,
    pub scale: Scale,
    pub rounds: Option<usize>,
    pub window: Option<Duration>,
    pub in_phase: bool,
    pub stroke_ns: Option<u64>,
    pub subjects: Option<Vec<Subject>>,
}

impl Bench {
    pub fn by_scale<T>(&self, full: T, quick: T, smoke: T) -> T {
        match self.scale {
            Scale::Full => full,
            Scale::Quick => quick,
            Scale::Smoke => smoke,
        }
    }

    /// Rounds, by default 5, quick 2, smoke 1.
    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or_else(|| self.by_scale(5, 2, 1))
    }

    pub fn window(&self, full: f64, quick: f64, smoke: f64) -> Duration {
        self.window.unwrap_or_else(|| Duration::from_secs_f64(self.by_scale(full, quick, smoke)))
    }

    /// Those of `all` that were asked for.
    pub fn subjects(&self, all: &[Subject]) -> Vec<Subject> {
        let asked = |subject: &&Subject| self.subjects.as_ref().is_none_or(|asked| asked.contains(subject));
        all.iter().filter(asked).copied().collect()
    }

    /// Alternating rounds, each beginning with another subject, so that nobody is always first.
    pub fn alternate<T>(
        &self,
        subjects: &[Subject],
        rounds: usize,
        mut run: impl FnMut(Subject) -> io::Result<T>,
    ) -> io::Result<Vec<Vec<(Subject, T)>>> {
        let mut results = Vec::new();
        for round in 0..rounds {
            let mut results_of_round = Vec::new();
            for turn in 0..subjects.len() {
                let subject = subjects[(round + turn) % subjects.len()];
                eprintln!("  round {} of {rounds}: {}", round + 1, subject.name());
                results_of_round.push((subject, run(subject)?));
            }
            results.push(results_of_round);
        }
        Ok(results)
    }
}

/// The figure of one subject in one round.
pub fn of<T>(round: &[(Subject, T)], subject: Subject) -> Option<&T> {
    round.iter().find(|(who, _)| *who == subject).map(|(_, result)| result)
}

/// Per round, `figure` of one subject divided by that of another.
pub fn ratios<T>(
    rounds: &[Vec<(Subject, T)>],
    subject: Subject,
    by: Subject,
    figure: impl Fn(&T) -> f64,
) -> Vec<f64> {
    let ratio = |round: &Vec<(Subject, T)>| Some(figure(of(round, subject)?) / figure(of(round, by)?));
    rounds.iter().filter_map(ratio).collect()
}

/// Reasons not to trust a figure, each said once.
#[derive(Debug, Default, Serialize)]
pub struct Doubts(BTreeSet<String>);

impl Doubts {
    pub fn add(&mut self, doubt: String) {
        self.0.insert(doubt);
    }

    pub fn print(&self) {
        for doubt in &self.0 {
            println!("doubt: {doubt}");
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Outcome {
    pub experiment: &'static str,
    pub tables: Vec<Table>,
    pub goals: Vec<Goal>,
    pub doubts: Doubts,
    /// Every single figure, for programs.
    pub figures: serde_json::Value,
}

impl Outcome {
    pub fn print(&self) {
        for table in &self.tables {
            println!("{table}");
        }
        if !self.goals.is_empty() {
            println!("{}", Goal::table(&self.goals));
        }
        self.doubts.print();
    }
}
