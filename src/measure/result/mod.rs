//! The result file: everything that a bench found, as plain data.
//!
//! # Intuition
//!
//! The figures are read when the bench is long over. So the file holds what was counted rather than what was
//! concluded: integers, whole histograms, and the circumstances. A report is a pure function of it and can be made
//! again, in another format or with another question, without measuring again.
//!
//! # Model
//!
//! A [`ResultFile`] has the program, the machine, the command and the seed; the [ways to die](WayResult) of an
//! experiment; the [runs](Run) of a [comparison](Comparison); and [doubts](Doubt), each with its remedy.
//!
//! # Contract
//!
//! - JSON; all durations are integer nanoseconds (`_ns`), sizes are bytes, instants are CLOCK_MONOTONIC.
//! - `format` and `version` come first. A field or a kind of doubt may be added within a version; a reader ignores
//!   what it does not know. Any other change is a new version, and [`ResultFile::parse`] refuses a later version than
//!   its own. docs/MEASURING.md describes the fields.
//! - What was not measured is absent or null, never zero.

mod comparison;
mod experiment;

use std::fmt;

pub use comparison::{
    Beats, Comparison, ComparisonSettings, Cost, Detection, Idle, OutputKind, Run, Storm, Subject,
};
pub use experiment::{Basis, Experiment, Interval, Quality, Settings, Way, WayResult};
use serde::{Deserialize, Serialize};

use super::recorded::{COOKIE, Recorded};
use crate::limits::MAX_RESULT_HISTOGRAMS;

/// The name of the format.
pub const FORMAT: &str = "deadpeer-result";
/// The version that this program writes, and the latest that it reads.
pub const VERSION: u32 = 1;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultFile {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// The program that measured.
    pub program: Program,
    /// The words of the command line.
    pub command: Vec<String>,
    /// The time at which it began, RFC 3339 in UTC.
    pub started: String,
    /// The whole time that it took.
    pub took_ns: u64,
    /// The seed of the schedules.
    pub seed: u64,
    /// The machine that measured.
    pub machine: Machine,
    /// The detection experiment. `None`: only a comparison was asked for.
    pub experiment: Option<Experiment>,
    /// The comparison with yardsticks. `None`: it was not asked for.
    pub comparison: Option<Comparison>,
    /// Reasons not to trust a figure.
    pub doubts: Vec<Doubt>,
}

/// The deadpeer that measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its version, as in Cargo.toml.
    pub version: String,
    /// Its build: `release` or `debug`.
    pub build: String,
    /// The commit that it was built from. `None`: unknown, as in older files.
    #[serde(default)]
    pub commit: Option<String>,
    /// The engine of the trackers that were measured. `None`: unknown, as in older files.
    #[serde(default)]
    pub engine: Option<EngineUsed>,
}

/// The I/O engine that a tracker ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineUsed {
    /// The name in `--io`: `io_uring`, `epoll` or `tokio-uring`.
    pub name: String,
    /// The kernel features that the engine used, such as `multishot-poll`.
    pub features: Vec<String>,
    /// The reason for a fallback: why io_uring could not be used. `None`: the engine was the wanted one.
    pub why_not: Option<String>,
}

/// The machine and its limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The release of the kernel, as `uname -r` prints it.
    pub kernel: String,
    /// The name of the processor in /proc/cpuinfo.
    pub cpu: String,
    /// The number of cores that the process may use.
    pub cores: u32,
    /// The memory of the machine.
    pub memory_bytes: u64,
    /// Whether the processor reports a hypervisor.
    pub virtual_machine: bool,
    /// The kernel's tick (1/HZ): the grain of `tcpi_last_data_recv`.
    pub tick_ns: u64,
    /// The hard RLIMIT_NOFILE.
    pub descriptors: u64,
    /// The soft RLIMIT_MEMLOCK. `None`: unlimited.
    pub memlock_bytes: Option<u64>,
    /// Whether the bench ran as root.
    pub root: bool,
    /// The load average of the minute before the start, in thousandths.
    pub load_thousandths: u64,
    /// The cores that the tracker or the compared servers ran on. Empty: not pinned.
    pub server_cores: Vec<u32>,
    /// The cores that load and injectors ran on. Empty: not pinned.
    pub load_cores: Vec<u32>,
    /// The time that the machine takes for a death without a tracker. `None`: not measured.
    pub bare_recv: Option<BareRecv>,
}

/// One thread that waits in `recv` for one FIN, before anything else runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BareRecv {
    /// From the scheduled `close(2)` to the return of the `recv`.
    pub latency: Recorded,
    /// From the scheduled instant to the `close(2)`; a part of `latency`.
    pub injector_late: Recorded,
}

/// A reason not to trust a figure, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Doubt {
    /// The kind, for programs.
    pub kind: DoubtKind,
    /// What was observed, with figures, and the way or the subject that it concerns.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

/// The kinds of doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DoubtKind {
    /// The program was built without optimisation.
    DebugBuild,
    /// The injector missed its instants.
    InjectorLate,
    /// The load missed its schedule.
    LoadLate,
    /// There are too few samples for a usual percentile.
    TooFewSamples,
    /// Values lie beyond the range of the histogram.
    Clipped,
    /// Load and tracker took turns on a core.
    SharedCore,
    /// Rounds differ by more than they should.
    NoisyRounds,
    /// Other processes used the machine meanwhile.
    BusyMachine,
    /// The machine takes so long to wake a thread that latencies show the machine.
    SlowMachine,
    /// A part was left out for lack of rights or time.
    NotMeasured,
    /// A window is shorter than what it measures.
    ShortWindow,
    /// Verdicts do not match the deaths.
    Mistakes,
    /// Two results were measured on different engines.
    OtherEngine,
    /// A kind of a later program that this one does not know.
    #[serde(other)]
    Other,
}

impl DoubtKind {
    /// All kinds of doubt, in the order of reports.
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

/// The number of histograms in a value, anywhere. Each begins with its cookie.
fn histograms(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => usize::from(text.starts_with(COOKIE)),
        serde_json::Value::Object(fields) => fields.values().map(histograms).sum(),
        serde_json::Value::Array(values) => values.iter().map(histograms).sum(),
        _ => 0,
    }
}

/// Why a file is not a result.
#[derive(Debug)]
#[non_exhaustive]
pub enum ParseError {
    /// The file is not JSON, or has other fields.
    Shape(serde_json::Error),
    /// The file has another format.
    Format(String),
    /// A later program wrote the file.
    Newer(u32),
    /// The file has more histograms than are read.
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
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// When the text is not a result, or is of a later version.
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
        // Checked before they are read, because each takes much more memory than its text.
        if histograms(&any) > MAX_RESULT_HISTOGRAMS {
            return Err(ParseError::TooLarge);
        }
        ResultFile::deserialize(any).map_err(ParseError::Shape)
    }

    /// The text of the file, indented.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data can be written");
        text.push('\n');
        text
    }
}
