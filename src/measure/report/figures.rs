//! What is concluded from what a result counted: plain numbers that every format shares.
//!
//! # Model
//!
//! [`Figures`] has, for each way to die, a [`Spread`]; the [qualities](Qualities) of the detector; and for a
//! comparison a [`Row`] for each subject with a [`Cell`] for each [`Figure`]. A cell's ratio is taken within
//! each round, against the base in the same round, and only then summed up: what the machine was
//! doing meanwhile hits both and cancels out. Two results are held against each other by
//! [`differences`], which names the circumstances that were not the same.
//!
//! # Contract
//!
//! Pure, total, and never a panic, whatever a file says. What was not measured, or is not carried by its
//! sample, is `None`.

use std::collections::{BTreeMap, HashSet};

use serde::{Serialize, Serializer};

use super::super::recorded::Recorded;
use super::super::result::{
    BareRecv, Basis, Beats, Comparison, ComparisonSettings, Cost, Experiment, ResultFile, Run, Settings,
    Subject, Way, WayResult,
};
use super::ReportError;

/// All that a report says of one result, beside what the result says itself.
#[derive(Clone, Debug)]
pub struct Figures<'a> {
    /// Where it all comes from: machine, command line, doubts.
    pub result: &'a ResultFile,
    /// The detection experiment.
    pub detection: Option<Detected<'a>>,
    /// The comparison.
    pub comparison: Option<Compared<'a>>,
}

/// What became of those that died, and how good the detector was.
#[derive(Clone, Debug, Serialize)]
pub struct Detected<'a> {
    /// What was asked for.
    pub settings: &'a Settings,
    /// In the order of the file.
    pub ways: Vec<WayFigures<'a>>,
    /// What the machine takes for a death without any tracker.
    pub bare_recv: Option<BareFigures<'a>>,
    /// The detector's.
    pub qualities: Qualities,
}

/// One way to die.
#[derive(Clone, Debug, Serialize)]
pub struct WayFigures<'a> {
    /// Which.
    pub way: Way,
    /// From which instant `latency` counts.
    pub basis: Basis,
    /// Why it was not run, if it was not.
    pub not_run: Option<&'a str>,
    /// Deaths that were caused.
    pub injected: u64,
    /// Deaths with a verdict.
    pub told: u64,
    /// Deaths without one.
    pub missed: u64,
    /// Verdicts beyond the first.
    pub doubled: u64,
    /// Verdicts with another cause than expected.
    pub misnamed: u64,
    /// Verdicts before their time.
    pub early: u64,
    /// From the basis to the verdict.
    pub latency: Spread,
    /// From the last sign of life to the verdict, where the basis is the expiry.
    pub silence: Option<Spread>,
    /// From the scheduled instant to the injector's system call.
    pub injector_late: Spread,
    /// The result's own record, for those that draw it.
    #[serde(skip)]
    pub source: &'a WayResult,
}

/// No way to die, but a yardstick for them.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BareFigures<'a> {
    /// From the scheduled instant to the return of the `recv`.
    pub latency: Spread,
    /// From the scheduled instant to the system call that ended the connection.
    pub injector_late: Spread,
    /// The result's own record, for those that draw it.
    #[serde(skip)]
    pub source: &'a Recorded,
}

/// A distribution of nanoseconds in a few numbers. `None`: the sample does not carry it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Samples.
    pub count: u64,
    /// Samples beyond the histogram's range, which are counted at its end.
    pub clipped: u64,
    /// The least.
    pub min_ns: Option<u64>,
    /// The mean, within a thousandth.
    pub mean_ns: Option<u64>,
    /// The median.
    pub p50_ns: Option<u64>,
    /// From 100 samples on.
    pub p90_ns: Option<u64>,
    /// From 1,000 samples on.
    pub p99_ns: Option<u64>,
    /// From 10,000 samples on.
    pub p999_ns: Option<u64>,
    /// From 100,000 samples on.
    pub p9999_ns: Option<u64>,
    /// The greatest.
    pub max_ns: Option<u64>,
}

impl Spread {
    /// Of a distribution.
    #[must_use]
    pub fn of(recorded: &Recorded) -> Spread {
        Spread {
            count: recorded.count(),
            clipped: recorded.clipped(),
            min_ns: recorded.min(),
            mean_ns: recorded.mean().map(|mean| mean.round() as u64),
            p50_ns: recorded.percentile(50.0),
            p90_ns: recorded.percentile(90.0),
            p99_ns: recorded.percentile(99.0),
            p999_ns: recorded.percentile(99.9),
            p9999_ns: recorded.percentile(99.99),
            max_ns: recorded.max(),
        }
    }

    /// Its times by their names, as columns and thresholds have them.
    #[must_use]
    pub fn times(&self) -> [(&'static str, Option<u64>); 8] {
        [
            ("min", self.min_ns),
            ("mean", self.mean_ns),
            ("p50", self.p50_ns),
            ("p90", self.p90_ns),
            ("p99", self.p99_ns),
            ("p999", self.p999_ns),
            ("p9999", self.p9999_ns),
            ("max", self.max_ns),
        ]
    }
}

/// The qualities of a failure detector, after Chen, Toueg and Aguilera.
#[derive(Clone, Debug, Serialize)]
pub struct Qualities {
    /// Detection time as the policy promises it.
    pub promised_ns: u64,
    /// Detection time as it was: from the last sign of life to the verdict, over all silent ways.
    pub detection_time: Spread,
    /// Connection-time that was watched.
    pub watched_ns: u64,
    /// Living peers that were suspected or called dead.
    pub mistakes: u64,
    /// Living peers that were called dead.
    pub false_verdicts: u64,
    /// Mistake rate: mistakes in an hour of one connection.
    pub mistakes_per_hour: Option<f64>,
    /// Until a mistake was taken back.
    pub mistake_duration: Spread,
}

/// Subjects under the same load.
#[derive(Clone, Debug, Serialize)]
pub struct Compared<'a> {
    /// What was asked for.
    pub settings: &'a ComparisonSettings,
    /// The subject that ratios are taken against. `None` when there are no subjects.
    pub base: Option<&'a str>,
    /// One for each subject, in the order of the file.
    pub rows: Vec<Row<'a>>,
    /// Runs by subject and round, for ratios against others than the base.
    #[serde(skip)]
    runs: BTreeMap<(&'a str, u64), &'a Run>,
}

/// One subject.
#[derive(Clone, Debug, Serialize)]
pub struct Row<'a> {
    /// Who, and what is given up.
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

/// One figure of one subject, over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Which.
    pub figure: Figure,
    /// Rounds that have it.
    pub rounds: u64,
    /// In the figure's [unit](Figure::unit).
    #[serde(serialize_with = "whole")]
    pub value: Option<Rounds>,
    /// Against the base, within each round.
    pub ratio: Option<Rounds>,
}

/// A figure over rounds: the least, the median, the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rounds {
    /// The least.
    pub min: f64,
    /// The median; of an even number of rounds the mean of the middle two.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

/// In files nanoseconds and bytes are whole.
fn whole<S: Serializer>(rounds: &Option<Rounds>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Whole {
        min: i64,
        median: i64,
        max: i64,
    }
    let whole = |value: f64| value.round() as i64;
    let rounds = rounds.map(|Rounds { min, median, max }| Whole {
        min: whole(min),
        median: whole(median),
        max: whole(max),
    });
    rounds.serialize(serializer)
}

impl Rounds {
    /// Of the values of all rounds that have one.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Rounds> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (below, above) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Rounds { min, median: below + (above - below) / 2.0, max })
    }
}

/// What subjects are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// CPU of the server's process, for each beat.
    Cpu,
    /// Busy time of the machine, for each beat.
    Machine,
    /// CPU of the process, for each connection accepted.
    Accept,
    /// CPU of the process, for each quiet death.
    Death,
    /// Detection among beats, the median.
    DetectP50,
    /// The same, p99.
    DetectP99,
    /// The same, the greatest.
    DetectMax,
    /// Memory of the process, for each quiet connection.
    User,
    /// Memory of the kernel, for each quiet connection.
    Kernel,
    /// Kernel memory that unread bytes hold, for each connection that beats.
    Unread,
    /// Until all deaths of a storm are known.
    Storm,
    /// Until all of it was caused.
    StormReset,
    /// The longest turn of the loop in that life.
    StormTurn,
    /// CPU of the process in a second, for each peer that beats once in it.
    Rate1,
    /// The same, ten times.
    Rate10,
    /// The same, a hundred times.
    Rate100,
    /// How long a peer takes to send a gigabyte (10^9 bytes).
    StreamTime,
    /// CPU of the process for that.
    StreamCpu,
}

impl Figure {
    /// All of them, in the order of tables.
    pub const ALL: [Figure; 18] = [
        Figure::Cpu,
        Figure::Machine,
        Figure::Accept,
        Figure::Death,
        Figure::DetectP50,
        Figure::DetectP99,
        Figure::DetectMax,
        Figure::User,
        Figure::Kernel,
        Figure::Unread,
        Figure::Storm,
        Figure::StormReset,
        Figure::StormTurn,
        Figure::Rate1,
        Figure::Rate10,
        Figure::Rate100,
        Figure::StreamTime,
        Figure::StreamCpu,
    ];

    /// As thresholds and JSON have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Figure::Cpu => "cpu",
            Figure::Machine => "machine",
            Figure::Accept => "accept",
            Figure::Death => "death",
            Figure::DetectP50 => "detect-p50",
            Figure::DetectP99 => "detect-p99",
            Figure::DetectMax => "detect-max",
            Figure::User => "user",
            Figure::Kernel => "kernel",
            Figure::Unread => "unread",
            Figure::Storm => "storm",
            Figure::StormReset => "storm-reset",
            Figure::StormTurn => "storm-turn",
            Figure::Rate1 => "rate-1",
            Figure::Rate10 => "rate-10",
            Figure::Rate100 => "rate-100",
            Figure::StreamTime => "stream-time",
            Figure::StreamCpu => "stream-cpu",
        }
    }

    /// As the head of a column has it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Figure::Cpu => "CPU per beat",
            Figure::Machine => "machine per beat",
            Figure::Accept => "CPU per accept",
            Figure::Death => "CPU per death",
            Figure::DetectP50 => "detection p50",
            Figure::DetectP99 => "detection p99",
            Figure::DetectMax => "detection max",
            Figure::User => "user memory per connection",
            Figure::Kernel => "kernel memory per connection",
            Figure::Unread => "unread kernel memory per connection",
            Figure::Storm => "storm all known",
            Figure::StormReset => "all reset",
            Figure::StormTurn => "longest turn",
            Figure::Rate1 => "CPU per peer-second, 1 beat/s",
            Figure::Rate10 => "10 beats/s",
            Figure::Rate100 => "100 beats/s",
            Figure::StreamTime => "time per GB streamed",
            Figure::StreamCpu => "CPU per GB streamed",
        }
    }

    /// What its values are in.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Figure::User | Figure::Kernel | Figure::Unread => Unit::Bytes,
            _ => Unit::Nanos,
        }
    }

    /// Of one run.
    #[must_use]
    pub fn of(self, run: &Run) -> Option<f64> {
        let detection = |percentile| run.detection.as_ref()?.latency.percentile(percentile);
        let further = |name: &str| run.further.get(name).map(|value| *value as f64);
        match self {
            Figure::Cpu => per_beat(run.beats, |beats| beats.process_ns),
            Figure::Machine => per_beat(run.beats, |beats| beats.machine_ns),
            Figure::Accept => each(run.accept),
            Figure::Death => each(run.death),
            Figure::DetectP50 => detection(50.0).map(|nanos| nanos as f64),
            Figure::DetectP99 => detection(99.0).map(|nanos| nanos as f64),
            Figure::DetectMax => run.detection.as_ref()?.latency.max().map(|nanos| nanos as f64),
            Figure::User => run.idle.and_then(|idle| divide(idle.user_bytes as f64, idle.connections)),
            Figure::Kernel => run.idle.and_then(|idle| divide(idle.kernel_bytes? as f64, idle.connections)),
            Figure::Unread => {
                run.beats.and_then(|beats| divide(beats.unread_kernel_bytes? as f64, beats.connections))
            }
            Figure::Storm => run.storm?.last_verdict_ns.map(|nanos| nanos as f64),
            Figure::StormReset => run.storm.map(|storm| storm.last_reset_ns as f64),
            Figure::StormTurn => run.storm?.longest_turn_ns.map(|nanos| nanos as f64),
            Figure::Rate1 => further("rate_1_process_ns_per_peer_second"),
            Figure::Rate10 => further("rate_10_process_ns_per_peer_second"),
            Figure::Rate100 => further("rate_100_process_ns_per_peer_second"),
            Figure::StreamTime => {
                further("stream_bytes_per_second").filter(|speed| *speed > 0.0).map(|speed| 1e18 / speed)
            }
            Figure::StreamCpu => further("stream_process_ns_per_gigabyte"),
        }
    }
}

fn divide(whole: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| whole / count as f64)
}

fn each(cost: Option<Cost>) -> Option<f64> {
    cost.and_then(|cost| divide(cost.process_ns as f64, cost.count))
}

fn per_beat(beats: Option<Beats>, nanos: impl Fn(&Beats) -> u64) -> Option<f64> {
    beats.and_then(|beats| divide(nanos(&beats) as f64, beats.count))
}

/// What a number is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Nanoseconds.
    Nanos,
    /// Bytes.
    Bytes,
    /// How many.
    Count,
    /// One to another.
    Ratio,
}

impl<'a> Figures<'a> {
    /// Derives them. `base` names the subject that ratios are taken against; without one it is
    /// `epoll`, else the first that is not ours, else the first.
    ///
    /// # Errors
    ///
    /// When there is a comparison and no subject of that name in it.
    pub fn of(result: &'a ResultFile, base: Option<&str>) -> Result<Figures<'a>, ReportError> {
        let bare_recv = result.machine.bare_recv.as_ref().filter(|bare| bare.latency.count() > 0);
        let detection = result.experiment.as_ref().map(|experiment| detected(experiment, bare_recv));
        let comparison = result.comparison.as_ref();
        let comparison = comparison.map(|comparison| Compared::of(comparison, base)).transpose()?;
        Ok(Figures { result, detection, comparison })
    }
}

fn detected<'a>(experiment: &'a Experiment, bare_recv: Option<&'a BareRecv>) -> Detected<'a> {
    let mut silences = Recorded::new();
    experiment.ways.iter().filter_map(|way| way.silence.as_ref()).for_each(|silence| silences.merge(silence));
    let quality = &experiment.quality;
    let hours = quality.watched_ns as f64 / 3.6e12;
    Detected {
        settings: &experiment.settings,
        ways: experiment.ways.iter().map(way_figures).collect(),
        bare_recv: bare_recv.map(|bare| BareFigures {
            latency: Spread::of(&bare.latency),
            injector_late: Spread::of(&bare.injector_late),
            source: &bare.latency,
        }),
        qualities: Qualities {
            promised_ns: experiment.settings.detection_time_ns,
            detection_time: Spread::of(&silences),
            watched_ns: quality.watched_ns,
            mistakes: quality.mistakes,
            false_verdicts: quality.false_verdicts,
            mistakes_per_hour: (hours > 0.0).then(|| quality.mistakes as f64 / hours),
            mistake_duration: Spread::of(&quality.mistake_duration),
        },
    }
}

fn way_figures(way: &WayResult) -> WayFigures<'_> {
    WayFigures {
        way: way.way,
        basis: way.basis,
        not_run: way.not_run.as_deref(),
        injected: way.injected,
        told: way.told,
        missed: way.missed,
        doubled: way.doubled,
        misnamed: way.misnamed,
        early: way.early,
        latency: Spread::of(&way.latency),
        silence: way.silence.as_ref().map(Spread::of),
        injector_late: Spread::of(&way.injector_late),
        source: way,
    }
}

impl<'a> Compared<'a> {
    fn of(comparison: &'a Comparison, base: Option<&str>) -> Result<Compared<'a>, ReportError> {
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

    /// Whether anybody has any of these figures.
    #[must_use]
    pub fn has(&self, figures: &[Figure]) -> bool {
        self.rows.iter().any(|row| figures.iter().any(|figure| row.cell(*figure).value.is_some()))
    }

    /// The row of a subject.
    #[must_use]
    pub fn find(&self, subject: &str) -> Option<&Row<'a>> {
        self.rows.iter().find(|row| row.subject.name == subject)
    }

    /// Runs of a subject, round by round.
    pub fn runs(&self, subject: &'a str) -> impl Iterator<Item = &'a Run> + '_ {
        self.runs.range((subject, 0)..=(subject, u64::MAX)).map(|(_, run)| *run)
    }

    /// A figure of one subject against another's, within each round that has both.
    #[must_use]
    pub fn ratio(&self, figure: Figure, subject: &'a str, base: &'a str) -> Option<Rounds> {
        let ratio = |run: &Run| {
            let against = figure.of(self.runs.get(&(base, run.round))?).filter(|against| *against > 0.0)?;
            Some(figure.of(run)? / against)
        };
        Rounds::of(self.runs(subject).filter_map(ratio))
    }

    /// Detection of a subject among beats, all rounds together.
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

/// What was not the same when two results were measured, a line each: name, first, second. Ratios
/// between them are about this as much as about the program.
#[must_use]
pub fn differences(first: &ResultFile, second: &ResultFile) -> Vec<(String, String, String)> {
    let (first, second) = (circumstances(first), circumstances(second));
    let names: BTreeMap<_, _> = first.iter().chain(&second).map(|(name, _)| (name, ())).collect();
    let said = |side: &BTreeMap<String, String>, name: &String| {
        side.get(name).cloned().unwrap_or_else(|| "-".to_owned())
    };
    let sides = names.into_keys().map(|name| (name.clone(), said(&first, name), said(&second, name)));
    sides.filter(|(_, first, second)| first != second).collect()
}

/// Machine and settings, flat, by the names of the file.
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
    // What was measured of the moment is never the same; doubts tell of it where it matters.
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
