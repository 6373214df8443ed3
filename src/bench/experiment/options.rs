//! The settings of an experiment, the number of connections of each group, and whether they fit the limits.

use std::io;
use std::time::Duration;

use crate::limits::RESERVED_FDS;
use crate::measure::result::Way;
use crate::sys::rlimit;

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

/// A group that dies together has a 20th of the connections, and at most 500.
const GROUP_SHARE: usize = 20;
const GROUP_MOST: usize = 500;
/// Descriptors that a process of peers needs besides its connections.
const OWN_DESCRIPTORS: u64 = 64;

/// The number of connections of each group.
#[derive(Clone, Debug)]
pub struct Sizes {
    pub crowds: Vec<usize>,
    pub stop: usize,
    pub path: usize,
    /// The number of deaths in all crowds together.
    pub deaths: usize,
    /// The ways to die of the crowds.
    pub ways: Vec<Way>,
}

impl Sizes {
    pub fn of(options: &Options, ways: &[Way], path: bool) -> io::Result<Sizes> {
        let connections = options.connections;
        let group = (connections / GROUP_SHARE).clamp(1, GROUP_MOST);
        let stop = if ways.contains(&Way::Stop) { group } else { 0 };
        let path = if path { group } else { 0 };
        let crowd = connections.saturating_sub(stop + path);
        let ways: Vec<Way> =
            ways.iter().copied().filter(|way| !matches!(way, Way::Stop | Way::PathLoss)).collect();
        let wanted = options.deaths_per_second as f64 * options.duration.as_secs_f64();
        let deaths = if ways.is_empty() { 0 } else { wanted as usize };
        if deaths > crowd {
            return Err(io::Error::other(format!(
                "{} deaths a second for {:?} are {deaths}, and only {crowd} connections can die: take \
                 more --connections, fewer --deaths or a shorter --duration",
                options.deaths_per_second, options.duration
            )));
        }
        let descriptors = rlimit::raise_nofile()?;
        let each = usize::try_from(descriptors.saturating_sub(OWN_DESCRIPTORS)).unwrap_or(usize::MAX);
        // The tracker holds all connections in one process, and each of its threads has a listener for each address.
        let listeners = if path > 0 { 2 } else { 1 };
        let own = RESERVED_FDS + options.threads as u64 * (2 + listeners);
        let most = descriptors.saturating_sub(own);
        if connections as u64 > most {
            return Err(io::Error::other(format!(
                "{connections} connections do not fit: the hard limit on descriptors is {descriptors}, less {own} of \
                 the tracker's own leaves {most}; raise it (`ulimit -Hn`) or take --connections {most}"
            )));
        }
        let processes = crowd.div_ceil(each.max(1)).max(1);
        let crowds =
            (0..processes).map(|turn| crowd * (turn + 1) / processes - crowd * turn / processes).collect();
        Ok(Sizes { crowds, stop, path, deaths, ways })
    }

    pub fn total(&self) -> usize {
        self.crowds.iter().sum::<usize>() + self.stop + self.path
    }
}
