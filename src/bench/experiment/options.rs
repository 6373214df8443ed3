//! The settings of an experiment.

use std::time::Duration;

use crate::measure::result::Way;

/// The longest time of a start or an orderly end on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The settings of an experiment.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of connections at the start.
    pub connections: usize,
    /// Beats a second over all connections.
    pub beats_per_second: u64,
    /// Deaths a second over all ways that die one by one.
    pub deaths_per_second: u64,
    /// The time in which peers die.
    pub duration: Duration,
    /// The ways to die.
    pub ways: Vec<Way>,
    /// The seed of the schedule.
    pub seed: u64,
    /// The number of the tracker's threads.
    pub threads: usize,
    /// The tracker's batch window; `None` for its default.
    pub batch_window: Option<Duration>,
    /// `lazy` or `beat`.
    pub wake: String,
    /// The tracker's engine, as `--io` has it.
    pub io: String,
    /// Another tracker than this program, for tests.
    pub tracker: Option<std::path::PathBuf>,
}
