//! The detection experiment.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::measure::recorded::Recorded;

/// Peers die in several ways while others live, and the tracker reports the deaths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// The settings, defaults filled in.
    pub settings: Settings,
    /// The begin of the load, on CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// From `start_ns` to the last verdict that was waited for.
    pub lasted_ns: u64,
    /// The ways that were asked for, including those that were not run.
    pub ways: Vec<WayResult>,
    /// Mistakes about living peers.
    pub quality: Quality,
    /// The tracker's own `summary` event.
    pub summary: serde_json::Value,
}

/// The settings of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Connections at the start.
    pub connections: u64,
    /// Beats a second over all connections.
    pub beats_per_second: u64,
    /// Bytes of a beat.
    pub beat_bytes: u64,
    /// Deaths a second over all ways.
    pub deaths_per_second: u64,
    /// The time during which peers died.
    pub duration_ns: u64,
    /// Threads of the tracker.
    pub threads: u64,
    /// The wake mode: `lazy` or `beat`.
    pub wake: String,
    /// The tracker's batch window.
    pub batch_window_ns: u64,
    /// The silence until the verdict.
    pub detection_time_ns: u64,
    /// The time that a half-closed peer is given.
    pub half_closed_grace_ns: u64,
    /// Processes that held the connections.
    pub load_processes: u64,
}

/// A way to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
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
    /// The connection stands and the peer sends nothing.
    Silence,
    /// The peer's process is stopped; its kernel still answers.
    Stop,
    /// The path between the two loses every packet.
    PathLoss,
}

impl Way {
    /// All ways to die, in the order of reports.
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

    /// The name in arguments, reports and thresholds.
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

    /// The instant from which the latency of the way counts.
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
    /// The last sign of life plus the detection time: 0 is as promised.
    Expiry,
}

/// The deaths of one way and their verdicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WayResult {
    /// The way to die.
    pub way: Way,
    /// The instant from which `latency` counts.
    pub basis: Basis,
    /// The reason why the way was not run. `None`: it was run.
    pub not_run: Option<String>,
    /// Deaths that were caused.
    pub injected: u64,
    /// Deaths with a verdict: the samples of `latency`.
    pub told: u64,
    /// Deaths without a verdict.
    pub missed: u64,
    /// Verdicts beyond the first for the same death.
    pub doubled: u64,
    /// Verdicts with another cause than expected.
    pub misnamed: u64,
    /// Verdicts before `basis`. They are not in `latency`.
    pub early: u64,
    /// From `basis` to the verdict.
    pub latency: Recorded,
    /// From the last sign of life to the verdict, where the basis is [`Basis::Expiry`].
    pub silence: Option<Recorded>,
    /// From the scheduled instant to the injector's system call. It is part of `latency`.
    pub injector_late: Recorded,
    /// `latency` by the time of the deaths.
    pub intervals: Vec<Interval>,
}

/// The deaths of one interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its begin, since `Experiment::start_ns`.
    pub from_ns: u64,
    /// The length of the interval, in nanoseconds.
    pub length_ns: u64,
    /// The latency of its deaths.
    pub latency: Recorded,
}

/// How often a failure detector is wrong and for how long, after Chen, Toueg and Aguilera.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Connection-time watched while peers lived.
    pub watched_ns: u64,
    /// Living peers that were suspected, or called half-closed or dead.
    pub mistakes: u64,
    /// Living peers that were called dead: mistakes that are never taken back.
    pub false_verdicts: u64,
    /// From a mistake until it was taken back.
    pub mistake_duration: Recorded,
}
