//! Servers under the same load, in turn: deadpeer in its modes beside what users would take instead.
//!
//! # Intuition
//!
//! Nobody can judge a figure that stands alone, and two figures from two days are of two machines. So all
//! subjects run in one experiment, one after the other under the very same load, round after round, and
//! each round begins with another of them. What is compared are ratios within a round.
//!
//! # Model
//!
//! A subject lives twice in a round, each time as a new process:
//!
//! - `beating`: connections come at a walk (CPU per accept), beat through a window (CPU per beat, of the
//!   process and of the machine; kernel memory that lies unread), and some of them die among the beats
//!   (from the planned instant to the verdict);
//! - `quiet`: many connections that say nothing (memory); some are reset one after the other (CPU per
//!   death), and then all the others in one instant (the storm).
//!
//! The server has one core, everything else the other one.
//!
//! # Contract
//!
//! - What comes out are integers as they were counted; ratios are for the reports.
//! - What spoils a figure is a [`Doubt`], never an error: errors are for what could not be measured at all.
//! - Must be called on a thread that lives until the end: the processes die with it.

mod beating;
mod doubts;
mod further;
mod life;
mod quiet;
mod subjects;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use self::doubts::Doubts;
use self::life::Stage;
use self::subjects::{HOLD, Row};
use super::Observer;
use crate::measure::result::{Comparison, ComparisonSettings, Doubt, Run};
use crate::sys::{process, rlimit};

pub use self::subjects::Yardstick;

/// What is measured of each subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// CPU per connection accepted.
    Accept,
    /// CPU per beat, and what lies unread.
    Beats,
    /// From FIN or RST to the verdict.
    Detection,
    /// Memory of quiet connections.
    Idle,
    /// CPU per death.
    Death,
    /// All at once.
    Storm,
    /// CPU of a peer at 1, 10 and 100 beats a second.
    Rates,
    /// One peer that sends all it can.
    Stream,
}

impl Measure {
    /// Those that the table of ratios is made of.
    pub const USUAL: [Measure; 6] =
        [Measure::Accept, Measure::Beats, Measure::Detection, Measure::Idle, Measure::Death, Measure::Storm];
}

/// Beats of each connection before anything is counted: its first sixteen are cheaper than the later ones.
const WARM_UP_BEATS: u64 = 20;

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// With whom; deadpeer itself always runs.
    pub against: Vec<Yardstick>,
    /// The load.
    pub settings: ComparisonSettings,
    /// What is measured.
    pub measures: BTreeSet<Measure>,
    /// Only the subjects of these names, if there are any.
    pub subjects: Option<Vec<String>>,
    /// What victims and instants are drawn from.
    pub seed: u64,
    /// Lets all connections reach their low-water marks together, and not each at its own time.
    pub in_phase: bool,
    /// How long a beat may wait for the sender's next stroke: the longer, the cheaper is the sender, and the
    /// larger are the batches that a server meets.
    pub stroke: Duration,
}

impl Options {
    /// The load that the promises are about, in five rounds with a window that holds a visit of each peer.
    #[must_use]
    pub fn full(against: Vec<Yardstick>) -> Options {
        Options {
            against,
            settings: ComparisonSettings {
                rounds: 5,
                connections: 6_000,
                beats_per_second: 40_000,
                beat_bytes: 16,
                warm_up_ns: 3_000_000_000,
                window_ns: 30_000_000_000,
                deaths: 3_000,
                deaths_per_second: 1_000,
                idle_connections: 18_000,
            },
            measures: Measure::USUAL.into(),
            subjects: None,
            seed: 1,
            in_phase: false,
            stroke: Duration::from_nanos(super::peers::PACE_NS),
        }
    }

    /// The same load in shorter windows.
    #[must_use]
    pub fn quick(against: Vec<Yardstick>) -> Options {
        let mut options = Options::full(against);
        options.settings.window_ns = 8_000_000_000;
        options.settings.deaths = 2_000;
        options
    }

    /// Another number of connections, with three times as many of quiet ones, and another rate of beats over
    /// all of them; the warm-up stays at 20 beats of each.
    pub fn resize(&mut self, connections: Option<u64>, beats_per_second: Option<u64>) {
        let settings = &mut self.settings;
        if let Some(connections) = connections {
            settings.connections = connections;
            settings.idle_connections = 3 * connections;
        }
        settings.beats_per_second = beats_per_second.unwrap_or(settings.beats_per_second).max(1);
        let beats = u128::from(WARM_UP_BEATS) * u128::from(settings.connections);
        let warm_up = beats * 1_000_000_000 / u128::from(settings.beats_per_second);
        settings.warm_up_ns = u64::try_from(warm_up).unwrap_or(u64::MAX);
    }

    fn measures(&self, measure: Measure) -> bool {
        self.measures.contains(&measure)
    }

    fn measures_any(&self, any: &[Measure]) -> bool {
        any.iter().any(|&measure| self.measures(measure))
    }
}

/// What all parts of a comparison share.
struct Bench<'a, 'w> {
    options: &'a Options,
    stage: Stage,
    doubts: Doubts,
    observer: &'a mut Observer<'w>,
}

/// Compares.
///
/// # Errors
///
/// When a process cannot be started or does not do its part, when a subject's name is unknown, and
/// [`io::ErrorKind::Interrupted`] when `observer` says so.
pub fn run(options: &Options, observer: &mut Observer<'_>) -> io::Result<(Comparison, Vec<Doubt>)> {
    let mut options = options.clone();
    let mut doubts = Doubts::new();
    fit_descriptors(&mut options.settings, rlimit::raise_nofile()?, &mut doubts);
    let mut rows = subjects::rows(&options.against, options.subjects.as_deref())?;
    let subjects = rows.iter().map(Row::subject).collect();
    let stage = Stage::here();
    doubts.of_plan(&options, &rows, &stage);
    if options.measures(Measure::Idle) {
        rows.push(HOLD);
    }
    let (load_cores, all_cores) = (stage.load_cores.clone(), stage.all_cores.clone());
    let mut bench = Bench { options: &options, stage, doubts, observer };
    // What we do while something is measured is done beside the load.
    process::move_to_cores(&load_cores)?;
    let runs = bench.all_rounds(&rows);
    process::move_to_cores(&all_cores)?;
    // A signal from a terminal goes to the children, too: that they end is no failure of theirs.
    let runs = runs.or_else(|error| bench.observer.check().and(Err(error)))?;
    bench.doubts.of_rounds(&runs);
    let doubts = bench.doubts.into_sorted();
    Ok((Comparison { settings: options.settings, subjects, runs }, doubts))
}

impl Bench<'_, '_> {
    fn all_rounds(&mut self, rows: &[Row]) -> io::Result<Vec<Run>> {
        let rounds = self.options.settings.rounds;
        let times: Vec<Duration> = rows.iter().map(|row| takes(self.options, row)).collect();
        let round_takes: Duration = times.iter().sum();
        let mut rest = round_takes * u32::try_from(rounds).unwrap_or(u32::MAX);
        let mut runs = Vec::new();
        for round in 0..rounds {
            let begin = runs.len();
            // Each round begins with another one, so that nobody is always first.
            for turn in 0..rows.len() as u64 {
                let index = ((turn + round) % rows.len() as u64) as usize;
                let row = &rows[index];
                let minutes = rest.as_secs().div_ceil(60);
                let text = format!("round {} of {rounds}, {minutes} min to go: {}", round + 1, row.name);
                self.observer.step(&text, times[index])?;
                runs.push(self.one(row, round)?);
                rest = rest.saturating_sub(times[index]);
            }
            count_above_hold(&mut runs, begin, &mut self.doubts);
        }
        Ok(runs)
    }

    fn one(&mut self, row: &Row, round: u64) -> io::Result<Run> {
        let mut run = Run {
            subject: row.name.into(),
            round,
            accept: None,
            beats: None,
            death: None,
            detection: None,
            idle: None,
            storm: None,
            further: BTreeMap::new(),
        };
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

/// How long a subject's turn takes, about.
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

/// Turns the kernel's memory of the round's runs into what is above that of [`HOLD`], which is taken out.
fn count_above_hold(runs: &mut Vec<Run>, begin: usize, doubts: &mut Doubts) {
    let Some(position) = runs[begin..].iter().position(|run| run.subject == HOLD.name) else { return };
    let held = runs.remove(begin + position);
    let held = held.idle.and_then(|idle| Some((idle.connections, idle.kernel_bytes?)));
    for idle in runs[begin..].iter_mut().filter_map(|run| run.idle.as_mut()) {
        idle.kernel_bytes = match (held, idle.kernel_bytes) {
            (Some((connections, held)), Some(bytes)) if connections == idle.connections => Some(bytes - held),
            _ => None,
        };
    }
    if held.is_none() {
        doubts.no_slabs();
    }
}

/// Descriptors of a process that are not connections, generously.
const OTHER_DESCRIPTORS: u64 = 200;

/// Both ends hold their connections in one process each.
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
