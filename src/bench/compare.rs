//! The comparison: deadpeer in its modes and the yardsticks, one after the other under the same load.
//!
//! # Intuition
//!
//! A figure alone says little, and two figures from two days are of two states of the machine. So all
//! subjects run in one comparison under the same load, round after round, and each round begins with another subject.
//! The reports compare ratios within a round.
//!
//! # Model
//!
//! A subject runs twice in a round, each time as a new process:
//!
//! - `beating`: connections are made slowly (CPU per accept), beat through a window (CPU per beat, of the
//!   process and of the machine; kernel memory of unread bytes), and some of them die among the beats
//!   (from the planned instant to the verdict);
//! - `quiet`: many connections that send nothing (memory); some are reset one after the other (CPU per
//!   death), and then all the others in one instant (the storm).
//!
//! The server has a core of its own; the load and this process have the others.
//!
//! # Contract
//!
//! - The results are integers as they were counted; reports make the ratios.
//! - A circumstance that spoils a figure is a [`Doubt`], never an error; an error means that nothing could be measured.
//! - The calling thread must live until the end: the kernel kills the processes when it ends.

mod beating;
mod doubts;
mod further;
mod life;
mod options;
mod quiet;
mod subjects;
mod verdicts;

use std::io;
use std::time::Duration;

use self::doubts::Doubts;
use self::life::{Bench, Stage};
use self::subjects::{HOLD, Row};
use super::doubts::of_the_engine;
use super::{Observer, is_interruption};
use crate::measure::result::{Comparison, ComparisonSettings, Doubt, EngineUsed, Run};
use crate::sys::{process, rlimit};

pub use self::options::{Measure, Options};
pub use self::subjects::Yardstick;

/// What a comparison found.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The figures of the finished rounds.
    pub comparison: Comparison,
    /// The engine of every deadpeer whose own arguments name none; `None` when no such one ran.
    pub engine: Option<EngineUsed>,
    /// Reasons not to trust a figure.
    pub doubts: Vec<Doubt>,
    /// The observer ended it before the last round.
    pub interrupted: bool,
}

/// Runs a comparison. The error is [`io::ErrorKind::Interrupted`] when `observer` ends it before the first round is
/// finished.
pub fn run(options: &Options, observer: &mut Observer<'_>) -> io::Result<Compared> {
    let mut options = options.clone();
    let mut doubts = Doubts::default();
    fit_descriptors(&mut options.settings, rlimit::raise_nofile()?, &mut doubts);
    let mut rows = subjects::rows(&options.against, options.subjects.as_deref())?;
    let subjects = rows.iter().map(Row::subject).collect();
    let stage = Stage::here(&options);
    doubts.of_plan(&options, &rows, stage.server_cores == stage.load_cores);
    if options.measures(Measure::Idle) {
        rows.push(HOLD);
    }
    let (load_cores, all_cores) = (stage.load_cores.clone(), stage.all_cores.clone());
    let mut bench = Bench { options: &options, stage, doubts, observer, runs: Vec::new() };
    // This process sleeps or works on the load's cores while a server is measured.
    process::move_to_cores(&load_cores)?;
    let ended = bench.all_rounds(&rows);
    process::move_to_cores(&all_cores)?;
    // A signal from a terminal goes to the children, too: the failure of one of them is then no error.
    let ended = ended.or_else(|error| bench.observer.check().and(Err(error)));
    let finished = bench.runs.last().map_or(0, |run| run.round + 1);
    let interrupted = match ended {
        Err(error) if is_interruption(&error) && finished > 0 => true,
        ended => ended.map(|()| false)?,
    };
    let Bench { runs, stage, mut doubts, .. } = bench;
    if interrupted {
        doubts.interrupted(finished, options.settings.rounds);
        options.settings.rounds = finished;
    }
    doubts.of_rounds(finished, &runs);
    let engine = stage.engine.into_inner();
    doubts.all.extend(of_the_engine(engine.as_ref()));
    let comparison = Comparison { settings: options.settings, subjects, runs };
    Ok(Compared { comparison, engine, doubts: doubts.into_sorted(), interrupted })
}

impl Bench<'_, '_> {
    /// Keeps the runs of each finished round.
    fn all_rounds(&mut self, rows: &[Row]) -> io::Result<()> {
        let rounds = self.options.settings.rounds;
        let times: Vec<Duration> = rows.iter().map(|row| takes(self.options, row)).collect();
        let round_takes: Duration = times.iter().sum();
        let mut rest = round_takes * u32::try_from(rounds).unwrap_or(u32::MAX);
        for round in 0..rounds {
            let mut runs = Vec::new();
            // Each round begins with another subject, so that none is always first.
            for turn in 0..rows.len() as u64 {
                let index = ((turn + round) % rows.len() as u64) as usize;
                let row = &rows[index];
                let minutes = rest.as_secs().div_ceil(60);
                let text = format!("round {} of {rounds}, {minutes} min to go: {}", round + 1, row.name);
                self.observer.step(&text, times[index])?;
                runs.push(self.one(row, round)?);
                rest = rest.saturating_sub(times[index]);
            }
            count_above_hold(&mut runs, &mut self.doubts);
            self.runs.append(&mut runs);
        }
        Ok(())
    }

    fn one(&mut self, row: &Row, round: u64) -> io::Result<Run> {
        let mut run = Run { subject: row.name.into(), round, ..Run::default() };
        self.measure(row, &mut run)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", row.name)))?;
        Ok(run)
    }

    fn measure(&mut self, row: &Row, run: &mut Run) -> io::Result<()> {
        if row.buries() && self.options.measures_any(&beating::MEASURES) {
            beating::live(self, row, run)?;
        }
        if self.options.measures_any(&quiet::MEASURES) {
            quiet::live(self, row, run)?;
        }
        further::live(self, row, run)
    }
}

/// About how long a subject's turn takes.
fn takes(options: &Options, row: &Row) -> Duration {
    let settings = &options.settings;
    let connect = |count: u64| Duration::from_micros(count * 80) + Duration::from_millis(500);
    let mut sum = Duration::ZERO;
    if row.buries() {
        if options.measures_any(&beating::MEASURES) {
            sum += connect(settings.connections);
        }
        if options.measures(Measure::Beats) {
            sum += Duration::from_nanos(settings.warm_up_ns + settings.window_ns);
        }
        if options.measures(Measure::Detection) && row.judges() {
            sum += Duration::from_secs_f64(settings.deaths as f64 / settings.deaths_per_second as f64);
            sum += Duration::from_secs(1);
        }
        if options.measures(Measure::Death) {
            sum += quiet::FIRST_LOOKS;
            let deaths = quiet::paced_deaths(settings) as f64;
            sum += Duration::from_secs_f64(deaths / settings.deaths_per_second as f64);
        }
    }
    if options.measures_any(&quiet::MEASURES) {
        sum += connect(settings.idle_connections) + Duration::from_secs(3);
    }
    sum + further::takes(options, row)
}

/// Subtracts the kernel memory of [`HOLD`] from that of the round's other runs, and removes its run.
fn count_above_hold(runs: &mut Vec<Run>, doubts: &mut Doubts) {
    let Some(position) = runs.iter().position(|run| run.subject == HOLD.name) else { return };
    let held = runs.remove(position);
    let held = held.idle.and_then(|idle| Some((idle.connections, idle.kernel_bytes?)));
    for idle in runs.iter_mut().filter_map(|run| run.idle.as_mut()) {
        idle.kernel_bytes = match (held, idle.kernel_bytes) {
            (Some((connections, held)), Some(bytes)) if connections == idle.connections => Some(bytes - held),
            _ => None,
        };
    }
    if held.is_none() {
        doubts.no_slabs();
    }
}

/// An upper bound of a process's descriptors that are no connections.
const OTHER_DESCRIPTORS: u64 = 200;

/// Reduces the numbers of connections to what one process may hold: each end is one process.
fn fit_descriptors(settings: &mut ComparisonSettings, limit: u64, doubts: &mut Doubts) {
    let most = limit.saturating_sub(OTHER_DESCRIPTORS).max(1);
    for connections in [&mut settings.connections, &mut settings.idle_connections] {
        if *connections > most {
            doubts.too_few_descriptors(*connections, most);
            *connections = most;
        }
    }
    settings.deaths = settings.deaths.min(settings.connections);
}
