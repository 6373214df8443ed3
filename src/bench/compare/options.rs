//! The settings of a comparison: the load, the subjects, and what is measured.

use std::collections::BTreeSet;
use std::time::Duration;

use super::subjects::Yardstick;
use crate::bench::peers::PACE_NS;
use crate::measure::result::{ComparisonSettings, OutputKind};

/// A measurement of each subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Measure {
    /// CPU per connection accepted.
    Accept,
    /// CPU per beat, and kernel memory of unread bytes.
    Beats,
    /// The time from FIN or RST to the verdict.
    Detection,
    /// Memory of quiet connections.
    Idle,
    /// CPU per death.
    Death,
    /// All deaths in one instant.
    Storm,
    /// CPU per peer at 1, 10 and 100 beats a second.
    Rates,
    /// One peer that sends as fast as it can.
    Stream,
}

impl Measure {
    pub const USUAL: [Measure; 6] =
        [Measure::Accept, Measure::Beats, Measure::Detection, Measure::Idle, Measure::Death, Measure::Storm];
}

/// Beats of each connection before the window: the first sixteen are cheaper than the later ones.
pub(super) const WARM_UP_BEATS: u64 = 20;

/// The settings of a comparison.
#[derive(Clone, Debug)]
pub struct Options {
    /// The yardsticks; deadpeer itself always runs.
    pub against: Vec<Yardstick>,
    /// The load on each subject.
    pub settings: ComparisonSettings,
    pub measures: BTreeSet<Measure>,
    /// The names of the subjects to run; `None` for all.
    pub subjects: Option<Vec<String>>,
    /// The engine of every deadpeer whose own arguments name none, as `--io` has it.
    pub io: String,
    /// The seed of victims and instants.
    pub seed: u64,
    /// Whether all connections reach their low-water marks together, instead of each at its own time.
    pub in_phase: bool,
    /// The time between two strokes of the sender. A longer one makes a cheaper sender and larger batches for the
    /// server.
    pub stroke: Duration,
}

impl Options {
    /// The default load: five rounds, with a window in which each peer is visited once.
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
                output: OutputKind::Memory,
            },
            measures: Measure::USUAL.into(),
            subjects: None,
            io: "auto".into(),
            seed: 1,
            in_phase: false,
            stroke: Duration::from_nanos(PACE_NS),
        }
    }

    /// The same load with shorter windows.
    pub fn quick(against: Vec<Yardstick>) -> Options {
        let mut options = Options::full(against);
        options.settings.window_ns = 8_000_000_000;
        options.settings.deaths = 2_000;
        options
    }

    /// Sets the number of connections, with three times as many quiet ones, and the rate of beats over all of them. The
    /// warm-up stays at 20 beats of each.
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

    /// The time between two deaths that come one after the other.
    pub(super) fn death_spacing_ns(&self) -> f64 {
        1e9 / self.settings.deaths_per_second as f64
    }

    pub(super) fn measures(&self, measure: Measure) -> bool {
        self.measures.contains(&measure)
    }

    pub(super) fn measures_any(&self, any: &[Measure]) -> bool {
        any.iter().any(|&measure| self.measures(measure))
    }
}
