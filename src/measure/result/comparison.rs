//! The comparison with yardsticks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::measure::recorded::Recorded;

/// Servers under the same load, in turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The settings, defaults filled in.
    pub settings: ComparisonSettings,
    /// The subjects, in the order of tables.
    pub subjects: Vec<Subject>,
    /// The runs, in the order in which they were made.
    pub runs: Vec<Run>,
}

/// The settings of a comparison.
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
    /// The time of beats before anything is counted.
    pub warm_up_ns: u64,
    /// The window in which CPU per beat is counted.
    pub window_ns: u64,
    /// Deaths among the beating, for the latency.
    pub deaths: u64,
    /// Deaths a second among the beating.
    pub deaths_per_second: u64,
    /// Connections of the idle part: memory, cost of quiet deaths, and the storm.
    pub idle_connections: u64,
    /// What the servers wrote their events to. Files from before it was kept: memory.
    #[serde(default)]
    pub output: OutputKind,
}

/// What a server's standard output is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// A file in memory: a write wakes no reader.
    #[default]
    Memory,
    /// A pipe that a thread on the load's cores reads.
    Pipe,
    /// A file on the disk of /var/tmp.
    File,
}

/// A server that is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The name in tables: `deadpeer`, `deadpeer --wake beat`, `tokio`.
    pub name: String,
    /// What the subject is, in a sentence.
    pub what: String,
    /// What its user gives up: when bytes are read, what lies unread.
    pub gives_up: String,
    /// Whether the subject is a deadpeer.
    pub ours: bool,
}

/// One run of one subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The name of the subject.
    pub subject: String,
    /// The round, from 0.
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
    /// All connections are reset at one instant.
    pub storm: Option<Storm>,
    /// Further figures by names that hold their unit.
    #[serde(default)]
    pub further: BTreeMap<String, i64>,
}

/// CPU of a process for a number of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// The number of operations.
    pub count: u64,
    /// User and system time of the server's process for all operations.
    pub process_ns: u64,
}

/// The window of beats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beats {
    /// Connections that beat; 0 in older files.
    #[serde(default)]
    pub connections: u64,
    /// Beats that were sent in the window.
    pub count: u64,
    /// The length of the window.
    pub window_ns: u64,
    /// User and system time of the server's process.
    pub process_ns: u64,
    /// User and system time of the load's processes.
    pub load_ns: u64,
    /// Busy time of the cores in use: wall time less idle and stolen time.
    pub machine_ns: u64,
    /// Busy time as sampled by the kernel's tick. It misses much; for comparison with other tools.
    pub machine_sampled_ns: u64,
    /// CPU of all other processes.
    pub foreign_ns: u64,
    /// Time that the hypervisor took away.
    pub stolen_ns: u64,
    /// The number of times that the server went to sleep.
    pub sleeps: u64,
    /// The lateness of the load, p99.
    pub load_late_p99_ns: u64,
    /// Kernel memory (slabs) at the end of the window above that before the first beat. Measured as root only.
    pub unread_kernel_bytes: Option<i64>,
}

/// Deaths among connections that beat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Deaths that were caused.
    pub injected: u64,
    /// Deaths without a verdict.
    pub missed: u64,
    /// Verdicts beyond the first, or about living peers.
    pub false_verdicts: u64,
    /// From the scheduled instant to the verdict.
    pub latency: Recorded,
    /// From the scheduled instant to the injector's system call.
    pub injector_late: Recorded,
}

/// The memory that all quiet connections added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idle {
    /// The number of connections.
    pub connections: u64,
    /// The resident memory of the server's process.
    pub user_bytes: i64,
    /// Slabs of the kernel above those of a process that only accepts; both hold the sockets of both ends. Measured as
    /// root only.
    pub kernel_bytes: Option<i64>,
}

/// All connections are reset at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storm {
    /// The number of resets.
    pub connections: u64,
    /// From the instant to the last verdict. `None`: a verdict is missing.
    pub last_verdict_ns: Option<u64>,
    /// From the instant to the last reset: the injector's own time.
    pub last_reset_ns: u64,
    /// Resets without a verdict.
    pub missed: u64,
    /// The longest turn of a deadpeer's loop, as its summary says. `None`: not a deadpeer.
    #[serde(default)]
    pub longest_turn_ns: Option<u64>,
    /// CPU of the server's process.
    pub process_ns: u64,
}
