//! The result file: everything that an experiment found, as plain data.
//!
//! # Intuition
//!
//! Whoever measured is gone when the figures are read. So the file holds what was counted, not what was
//! concluded: integers, whole histograms, and the circumstances. A report is a pure function of it and
//! can be made again, in another format or with another question, without measuring again.
//!
//! # Model
//!
//! A [`ResultFile`] has the machine, the command and the seed; the [ways to die](WayResult) of an
//! experiment; the [runs](Run) of a [comparison](Comparison); and [doubts](Doubt), each with its remedy.
//!
//! # Contract
//!
//! - JSON; all durations are integer nanoseconds (`_ns`), sizes are bytes, instants are CLOCK_MONOTONIC.
//! - `format` and `version` come first. A field or a kind of doubt may be added within a version; whoever reads
//!   ignores what it does not know. Anything else is a new version, and [`ResultFile::parse`] refuses what is newer
//!   than itself. docs/MEASURING.md describes the fields.
//! - What was not measured is absent or null, never zero.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::recorded::{COOKIE, Recorded};
use crate::limits::MAX_RESULT_HISTOGRAMS;

/// What the file calls itself.
pub const FORMAT: &str = "deadpeer-result";
/// The version that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// One experiment, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultFile {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// What measured.
    pub program: Program,
    /// The command line, word by word.
    pub command: Vec<String>,
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// How long it took in all.
    pub took_ns: u64,
    /// What the schedules were drawn from.
    pub seed: u64,
    /// Where it was measured.
    pub machine: Machine,
    /// The detection experiment, unless only a comparison was asked for.
    pub experiment: Option<Experiment>,
    /// The yardsticks, if any were asked for.
    pub comparison: Option<Comparison>,
    /// Reasons not to trust a figure.
    pub doubts: Vec<Doubt>,
}

/// The program that measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// As in Cargo.toml.
    pub version: String,
    /// `release` or `debug`.
    pub build: String,
    /// The commit that it was built from. `None`: unknown, as in files from before it was kept.
    #[serde(default)]
    pub commit: Option<String>,
    /// The engine of every deadpeer that was measured. `None`: unknown, as in files from before it was kept.
    #[serde(default)]
    pub engine: Option<EngineUsed>,
}

/// The I/O engine that a tracker ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineUsed {
    /// As `--io` has it: `io_uring`, `epoll` or `tokio-uring`.
    pub name: String,
    /// The kernel features that the engine used, such as `multishot-poll`.
    pub features: Vec<String>,
    /// The reason for a fallback: why io_uring could not be used. `None`: the engine was the wanted one.
    pub why_not: Option<String>,
}

/// The circumstances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As `uname -r`.
    pub kernel: String,
    /// As /proc/cpuinfo names it.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: u32,
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// Whether the processor says that a hypervisor is beneath it.
    pub virtual_machine: bool,
    /// The kernel's tick (1/HZ): the grain of `tcpi_last_data_recv`.
    pub tick_ns: u64,
    /// RLIMIT_NOFILE, hard.
    pub descriptors: u64,
    /// RLIMIT_MEMLOCK, soft; `None` is unlimited.
    pub memlock_bytes: Option<u64>,
    /// Whether it ran as root.
    pub root: bool,
    /// The load of the last minute when it began, in thousandths of a runnable task.
    pub load_thousandths: u64,
    /// The cores that the tracker or the compared servers ran on. Empty: not pinned.
    pub server_cores: Vec<u32>,
    /// The cores that load and injectors ran on. Empty: not pinned.
    pub load_cores: Vec<u32>,
    /// What the machine itself takes for a death, before anything else ran. `None` was not measured.
    pub bare_recv: Option<BareRecv>,
}

/// One thread waits in `recv` for one FIN.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BareRecv {
    /// From the scheduled `close(2)` to the return of the `recv`.
    pub latency: Recorded,
    /// From the scheduled instant to the `close(2)`; a part of `latency`.
    pub injector_late: Recorded,
}

/// Peers that die in several ways while others live, and what the tracker said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// What was asked for.
    pub settings: Settings,
    /// When the load began, on CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// From `start_ns` to the last verdict awaited.
    pub lasted_ns: u64,
    /// One for each way that was asked for, also for those not run.
    pub ways: Vec<WayResult>,
    /// The detector's qualities while peers lived.
    pub quality: Quality,
    /// The tracker's own `summary` event.
    pub summary: serde_json::Value,
}

/// What was asked for, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Connections at the start.
    pub connections: u64,
    /// Beats a second over all connections.
    pub beats_per_second: u64,
    /// Bytes of a beat.
    pub beat_bytes: u64,
    /// Deaths a second over all ways.
    pub deaths_per_second: u64,
    /// How long deaths went on.
    pub duration_ns: u64,
    /// Ring threads of the tracker.
    pub threads: u64,
    /// `lazy` or `beat`.
    pub wake: String,
    /// The tracker's batch window.
    pub batch_window_ns: u64,
    /// Silence until the verdict.
    pub detection_time_ns: u64,
    /// How long a peer that half-closed may go on.
    pub half_closed_grace_ns: u64,
    /// Processes that held the connections.
    pub load_processes: u64,
}

/// A way to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// An orderly close: FIN.
    Fin,
    /// A reset: RST.
    Rst,
    /// Bytes, and a reset behind them.
    DataRst,
    /// FIN, and the peer goes on reading.
    HalfClose,
    /// FIN, and a reset some time later. Measured from the reset.
    HalfCloseRst,
    /// The connection stands, and nothing comes any more.
    Silence,
    /// The peer's process is stopped; its kernel answers still.
    Stop,
    /// The path between the two loses every packet.
    PathLoss,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 8] = [
        Way::Fin,
        Way::Rst,
        Way::DataRst,
        Way::HalfClose,
        Way::HalfCloseRst,
        Way::Silence,
        Way::Stop,
        Way::PathLoss,
    ];

    /// As in arguments, reports and thresholds.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Way::Fin => "fin",
            Way::Rst => "rst",
            Way::DataRst => "data-rst",
            Way::HalfClose => "half-close",
            Way::HalfCloseRst => "half-close-rst",
            Way::Silence => "silence",
            Way::Stop => "stop",
            Way::PathLoss => "path-loss",
        }
    }

    /// From which instant its latency counts.
    #[must_use]
    pub const fn basis(self) -> Basis {
        match self {
            Way::Fin | Way::Rst | Way::DataRst | Way::HalfClose | Way::HalfCloseRst => Basis::Scheduled,
            Way::Silence | Way::Stop | Way::PathLoss => Basis::Expiry,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// The instant from which a latency counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// The instant at which the death was scheduled, however late the injector was.
    Scheduled,
    /// The last sign of life and the detection time: how much later than promised.
    Expiry,
}

/// What became of the peers that died in one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WayResult {
    /// Which.
    pub way: Way,
    /// See [`Way::basis`].
    pub basis: Basis,
    /// Why it was not run, if it was not.
    pub not_run: Option<String>,
    /// Deaths that were caused.
    pub injected: u64,
    /// Deaths with a verdict: those in `latency`.
    pub told: u64,
    /// Deaths without a verdict.
    pub missed: u64,
    /// Verdicts beyond the first.
    pub doubled: u64,
    /// Verdicts whose cause was another than expected.
    pub misnamed: u64,
    /// Verdicts before `basis`: told before the detection time had passed. They are not in `latency`.
    pub early: u64,
    /// From `basis` to the verdict.
    pub latency: Recorded,
    /// From the last sign of life to the verdict, whole, where the basis is [`Basis::Expiry`].
    pub silence: Option<Recorded>,
    /// From the scheduled instant to the injector's system call. It is part of `latency`.
    pub injector_late: Recorded,
    /// `latency` by the time of the deaths, for pictures over time.
    pub intervals: Vec<Interval>,
}

/// Deaths of one stretch of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Since `Experiment::start_ns`.
    pub from_ns: u64,
    /// Its length.
    pub length_ns: u64,
    /// `latency` of the deaths in it.
    pub latency: Recorded,
}

/// The qualities of a failure detector, after Chen, Toueg and Aguilera: how soon it is right, how
/// often it is wrong, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Connection-time that was watched while the peer lived.
    pub watched_ns: u64,
    /// Peers suspected, or called half-closed or dead, while they lived.
    pub mistakes: u64,
    /// Mistakes that were never taken back: verdicts of death on the living.
    pub false_verdicts: u64,
    /// From the mistake until it was taken back.
    pub mistake_duration: Recorded,
}

/// Servers under the same load, in turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What was asked for.
    pub settings: ComparisonSettings,
    /// Who was compared, in the order of the table.
    pub subjects: Vec<Subject>,
    /// Every run, in the order in which they were made.
    pub runs: Vec<Run>,
}

/// The load of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparisonSettings {
    /// Rounds; in each, every subject runs once.
    pub rounds: u64,
    /// Connections that beat.
    pub connections: u64,
    /// Beats a second over all of them.
    pub beats_per_second: u64,
    /// Bytes of a beat.
    pub beat_bytes: u64,
    /// Beating before anything is counted.
    pub warm_up_ns: u64,
    /// The window in which CPU per beat is counted.
    pub window_ns: u64,
    /// Deaths among the beating, for the latency.
    pub deaths: u64,
    /// How many of them a second.
    pub deaths_per_second: u64,
    /// Connections of the idle part: memory, cost of quiet deaths, and the storm.
    pub idle_connections: u64,
}

/// Who was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// As in tables: `deadpeer`, `deadpeer --wake beat`, `tokio`.
    pub name: String,
    /// What it is, in a sentence.
    pub what: String,
    /// What whoever takes it gives up: when bytes are read, what lies unread.
    pub gives_up: String,
    /// Whether it is a deadpeer.
    pub ours: bool,
}

/// One subject, once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// A name of [`Comparison::subjects`].
    pub subject: String,
    /// From 0.
    pub round: u64,
    /// CPU of accepting, per connection.
    pub accept: Option<Cost>,
    /// The window of beats.
    pub beats: Option<Beats>,
    /// CPU of deaths of quiet connections.
    pub death: Option<Cost>,
    /// From the scheduled FIN or RST to the verdict, among beats.
    pub detection: Option<Detection>,
    /// Memory of quiet connections.
    pub idle: Option<Idle>,
    /// All connections reset in one instant.
    pub storm: Option<Storm>,
    /// Further figures by name, whole numbers with their unit in the name.
    #[serde(default)]
    pub further: BTreeMap<String, i64>,
}

/// CPU of a process over a number of things that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// How many.
    pub count: u64,
    /// User and system time of the server's process for all of them.
    pub process_ns: u64,
}

/// The window of beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beats {
    /// Connections that beat; 0 in files from before it was kept.
    #[serde(default)]
    pub connections: u64,
    /// Beats that were sent in the window.
    pub count: u64,
    /// Length of the window.
    pub window_ns: u64,
    /// User and system time of the server's process.
    pub process_ns: u64,
    /// The same of the load's processes.
    pub load_ns: u64,
    /// Busy time of the cores in use: wall time less idle and stolen time.
    pub machine_ns: u64,
    /// Busy time as the kernel's tick sampled it, which misses much: for comparison with other tools.
    pub machine_sampled_ns: u64,
    /// Processes that have nothing to do with it.
    pub foreign_ns: u64,
    /// Taken away by the hypervisor.
    pub stolen_ns: u64,
    /// How often the server went to sleep.
    pub sleeps: u64,
    /// Lateness of the load at p99.
    pub load_late_p99_ns: u64,
    /// Kernel memory (slabs) held when the window closed, above that before the first beat; as root.
    pub unread_kernel_bytes: Option<i64>,
}

/// Deaths among beats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Deaths that were caused.
    pub injected: u64,
    /// Deaths without a verdict.
    pub missed: u64,
    /// Verdicts beyond the first, or on the living.
    pub false_verdicts: u64,
    /// From the scheduled instant to the verdict.
    pub latency: Recorded,
    /// From the scheduled instant to the injector's system call.
    pub injector_late: Recorded,
}

/// Memory of quiet connections: what all of them added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    /// How many.
    pub connections: u64,
    /// Resident memory of the server's process.
    pub user_bytes: i64,
    /// Slabs of the kernel above those of a process that only accepts (both ends' sockets are in both);
    /// as root.
    pub kernel_bytes: Option<i64>,
}

/// All at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storm {
    /// Resets.
    pub connections: u64,
    /// From the instant to the last verdict; `None` when verdicts are missing.
    pub last_verdict_ns: Option<u64>,
    /// From the instant to the last reset: how long the injector took.
    pub last_reset_ns: u64,
    /// Resets without a verdict.
    pub missed: u64,
    /// The longest turn of the server's loop in all of that life, as its summary has it; a deadpeer's only.
    #[serde(default)]
    pub longest_turn_ns: Option<u64>,
    /// CPU of the server's process.
    pub process_ns: u64,
}

/// A reason not to trust a figure, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Doubt {
    /// Which kind, for programs.
    pub kind: DoubtKind,
    /// What was seen, with figures and whom it concerns.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

/// The kinds of doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DoubtKind {
    /// Measured without optimisation.
    DebugBuild,
    /// The injector missed its instants.
    InjectorLate,
    /// The load missed its schedule.
    LoadLate,
    /// Too few samples for a percentile that people will look for.
    TooFewSamples,
    /// Values beyond the range of the histogram.
    Clipped,
    /// Load and tracker took turns on a core.
    SharedCore,
    /// Rounds differ by more than they should.
    NoisyRounds,
    /// Others used the machine meanwhile.
    BusyMachine,
    /// Waking a thread takes this machine so long that latencies are about it.
    SlowMachine,
    /// Something was left out, for want of rights or time.
    NotMeasured,
    /// Shorter than what it measures.
    ShortWindow,
    /// Verdicts that do not match the deaths.
    Mistakes,
    /// Two results were measured on different engines.
    OtherEngine,
    /// Of a later program: a kind that this one does not know.
    #[serde(other)]
    Other,
}

impl DoubtKind {
    /// All of them.
    pub const ALL: [DoubtKind; 14] = [
        DoubtKind::DebugBuild,
        DoubtKind::InjectorLate,
        DoubtKind::LoadLate,
        DoubtKind::TooFewSamples,
        DoubtKind::Clipped,
        DoubtKind::SharedCore,
        DoubtKind::NoisyRounds,
        DoubtKind::BusyMachine,
        DoubtKind::SlowMachine,
        DoubtKind::NotMeasured,
        DoubtKind::ShortWindow,
        DoubtKind::Mistakes,
        DoubtKind::OtherEngine,
        DoubtKind::Other,
    ];
}

/// How many histograms there are, wherever they stand: each begins with its cookie.
fn histograms(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => usize::from(text.starts_with(COOKIE)),
        serde_json::Value::Object(fields) => fields.values().map(histograms).sum(),
        serde_json::Value::Array(values) => values.iter().map(histograms).sum(),
        _ => 0,
    }
}

/// Why a file is no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum ParseError {
    /// It is no JSON, or not of this shape.
    Shape(serde_json::Error),
    /// It calls itself something else.
    Format(String),
    /// A later program wrote it.
    Newer(u32),
    /// It has more histograms than are read.
    TooLarge,
}

impl fmt::Display for ParseError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Shape(error) => {
                write!(out, "no result of `deadpeer bench`: {error}; give a file that its --out wrote")
            }
            ParseError::Format(format) => {
                write!(out, "no result of `deadpeer bench`: its format is `{format}`, not `{FORMAT}`")
            }
            ParseError::TooLarge => {
                write!(
                    out,
                    "no result of `deadpeer bench`: it has more than {MAX_RESULT_HISTOGRAMS} histograms"
                )
            }
            ParseError::Newer(version) => {
                write!(
                    out,
                    "written in version {version} of the format, and this program reads up to {VERSION}: take a newer deadpeer"
                )
            }
        }
    }
}

impl std::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ParseError::Shape(error) => Some(error),
            ParseError::Format(_) | ParseError::Newer(_) | ParseError::TooLarge => None,
        }
    }
}

impl ResultFile {
    /// Reads a file's text.
    ///
    /// # Errors
    ///
    /// When it is no result, or one of a later version.
    pub fn parse(text: &str) -> Result<ResultFile, ParseError> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let any: serde_json::Value = serde_json::from_str(text).map_err(ParseError::Shape)?;
        let head = Head::deserialize(&any).map_err(ParseError::Shape)?;
        if head.format != FORMAT {
            return Err(ParseError::Format(head.format));
        }
        if head.version > VERSION {
            return Err(ParseError::Newer(head.version));
        }
        // Before they are read, since each takes much more memory than its text.
        if histograms(&any) > MAX_RESULT_HISTOGRAMS {
            return Err(ParseError::TooLarge);
        }
        ResultFile::deserialize(any).map_err(ParseError::Shape)
    }

    /// The file's text, for people to read too.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data can be written");
        text.push('\n');
        text
    }
}
