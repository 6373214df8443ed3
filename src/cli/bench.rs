//! `deadpeer bench`: an experiment in one command.
//!
//! Progress goes to standard error, if that is a terminal; the report goes to standard output. Exit codes: 0,
//! 1 when something failed, 2 for wrong arguments, 130 after an interruption.

mod out;
mod progress;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, ValueEnum};
use out::Destination;
use progress::Progress;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::bench::compare::{Measure, Yardstick};
use crate::bench::{Observer, baseline, compare, doubts, experiment, machine};
use crate::cli::duration;
use crate::measure::report::{Format, render};
use crate::measure::result::{
    Comparison, Doubt, Experiment, FORMAT, Machine, Program, ResultFile, VERSION, Way,
};
use crate::time::{Instant, WallClock, nanos};

/// Arguments of `deadpeer bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Connections at the start [default: 10000, with --quick 3000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(20..=10_000_000))]
    pub connections: Option<u32>,

    /// Beats a second over all connections, open-loop [default: 20000, with --quick 12000]
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub beats: Option<u64>,

    /// Deaths a second over all ways that die one by one [default: 500, with --quick 300; fewer where a
    /// quarter of the peers would not live on]
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub deaths: Option<u64>,

    /// How long peers die [default: 15s, with --quick 2s]
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub duration: Option<Duration>,

    /// Ways to die, all by default. path-loss wants root: it is a path between two network namespaces. With
    /// --against: run the experiment, too
    #[arg(long, value_name = "WAYS", value_enum, value_delimiter = ',')]
    pub ways: Option<Vec<WayName>>,

    /// Draws the same deaths again
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,

    /// Ring threads of the tracker
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,

    /// The tracker's batch window [default: the tracker's own]
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub batch_window: Option<Duration>,

    /// How the tracker notices a beat
    #[arg(long, value_name = "MODE", default_value = "lazy")]
    pub wake: super::run::WakeName,

    /// A smaller experiment, done within 8 s. The default takes less than 30 s. With --against: windows
    /// of 8 s, which may miss what lazy servers do twice a minute
    #[arg(long)]
    pub quick: bool,

    /// Compare with these instead: the same load on each of them in turn, in several rounds. Takes 12
    /// minutes a round, 4 with --quick
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub against: Vec<YardstickName>,

    /// Rounds, in which every server has its turn [default: 5]
    #[arg(long, value_name = "N", requires = "against", help_heading = "With --against",
          value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: Option<u16>,

    /// What is measured of each server [default: all but rates and stream]
    #[arg(
        long,
        value_name = "LIST",
        requires = "against",
        help_heading = "With --against",
        value_enum,
        value_delimiter = ','
    )]
    pub measure: Option<Vec<MeasureName>>,

    /// How long CPU per beat is counted [default: 30s, with --quick 8s]
    #[arg(long, value_name = "D", requires = "against", help_heading = "With --against",
          value_parser = duration::parse)]
    pub window: Option<Duration>,

    /// Only these servers, by their names in the table
    #[arg(
        long,
        value_name = "NAMES",
        requires = "against",
        help_heading = "With --against",
        value_delimiter = ','
    )]
    pub subjects: Option<Vec<String>>,

    /// Let all connections reach their low-water marks together, not evenly in time
    #[arg(long, requires = "against", help_heading = "With --against")]
    pub in_phase: bool,

    /// How long a beat may wait for the sender's next stroke: the longer, the larger are the batches that
    /// a server meets [default: 473us]
    #[arg(long, value_name = "D", requires = "against", help_heading = "With --against",
          value_parser = duration::parse)]
    pub stroke: Option<Duration>,

    /// Write the result to this file, for `deadpeer report`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Measure this program instead
    #[arg(long, hide = true)]
    pub tracker: Option<PathBuf>,
}

/// The ways to die, as arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WayName {
    /// An orderly close: FIN
    Fin,
    /// A reset: RST
    Rst,
    /// Bytes, and a reset behind them
    DataRst,
    /// FIN, and the peer goes on reading
    HalfClose,
    /// FIN, and a reset behind it
    HalfCloseRst,
    /// No more beats
    Silence,
    /// SIGSTOP of the peers' process
    Stop,
    /// A path that loses every packet
    PathLoss,
}

impl WayName {
    fn all() -> Vec<WayName> {
        WayName::value_variants().to_vec()
    }

    fn way(self) -> Way {
        match self {
            WayName::Fin => Way::Fin,
            WayName::Rst => Way::Rst,
            WayName::DataRst => Way::DataRst,
            WayName::HalfClose => Way::HalfClose,
            WayName::HalfCloseRst => Way::HalfCloseRst,
            WayName::Silence => Way::Silence,
            WayName::Stop => Way::Stop,
            WayName::PathLoss => Way::PathLoss,
        }
    }
}

/// What to compare with, as arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YardstickName {
    /// A task for each connection on tokio
    Tokio,
    /// A task for each connection on tokio-uring
    TokioUring,
    /// An edge-triggered epoll loop, without and with a low-water mark
    Epoll,
    /// A bare ring loop that judges nothing, in both ways of waking
    Floor,
}

impl YardstickName {
    fn yardstick(self) -> Yardstick {
        match self {
            YardstickName::Tokio => Yardstick::Tokio,
            YardstickName::TokioUring => Yardstick::TokioUring,
            YardstickName::Epoll => Yardstick::Epoll,
            YardstickName::Floor => Yardstick::Floor,
        }
    }
}

/// What is measured, as arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MeasureName {
    /// CPU per connection accepted
    Accept,
    /// CPU per beat, and what lies unread
    Beats,
    /// From FIN or RST to the verdict
    Detection,
    /// Memory of quiet connections
    Idle,
    /// CPU per death
    Death,
    /// All at once
    Storm,
    /// CPU of a peer at 1, 10 and 100 beats a second
    Rates,
    /// One peer that sends all it can
    Stream,
}

impl MeasureName {
    fn measure(self) -> Measure {
        match self {
            MeasureName::Accept => Measure::Accept,
            MeasureName::Beats => Measure::Beats,
            MeasureName::Detection => Measure::Detection,
            MeasureName::Idle => Measure::Idle,
            MeasureName::Death => Measure::Death,
            MeasureName::Storm => Measure::Storm,
            MeasureName::Rates => Measure::Rates,
            MeasureName::Stream => Measure::Stream,
        }
    }
}

/// Runs `deadpeer bench`.
#[must_use]
pub fn bench(args: BenchArgs) -> ExitCode {
    match measure(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => ExitCode::from(130),
        Err(error) => {
            let _ = writeln!(io::stderr(), "deadpeer bench: {}", crate::sys::describe(&error));
            // Ours, not a system call's EINVAL: an argument that names nothing.
            let usage = error.kind() == io::ErrorKind::InvalidInput && error.raw_os_error().is_none();
            if usage { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn measure(args: &BenchArgs) -> io::Result<()> {
    let out = args.out.as_deref().map(Destination::new).transpose()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let bar = Progress::new();
    let mut progress = |what: &str, lasts: Duration| bar.step(what, lasts);
    let (began, date) = (Instant::now(), WallClock::read());
    let options = options(args);
    let mut observer = Observer { interrupted: &interrupted, progress: &mut progress };
    let outcome = run(args, &options, &mut observer);
    bar.end();
    let Found { machine, experiment, comparison, doubts } = outcome?;
    let result = ResultFile {
        format: FORMAT.into(),
        version: VERSION,
        program: Program {
            version: env!("CARGO_PKG_VERSION").into(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
            commit: None,
            engine: None,
        },
        command: std::env::args().collect(),
        started: date.rfc3339(began),
        took_ns: nanos(Instant::now().since(began)),
        seed: args.seed,
        machine,
        experiment,
        comparison,
        doubts,
    };
    if let Some(out) = &out {
        out.write(&result.to_json())?;
    }
    tell(&result)
}

/// What was measured.
struct Found {
    machine: Machine,
    experiment: Option<Experiment>,
    comparison: Option<Comparison>,
    doubts: Vec<Doubt>,
}

/// The machine, and then the experiment, or the comparison, or both where both are asked for.
fn run(args: &BenchArgs, options: &experiment::Options, observer: &mut Observer<'_>) -> io::Result<Found> {
    let mut doubts = Vec::new();
    let (server_cores, load_cores) = machine::share_out(options.threads);
    let mut machine = machine::describe(&server_cores, &load_cores);
    observer.step("bare recv", baseline::LASTS)?;
    let bare_recv = baseline::recv(&server_cores, &load_cores);
    doubts.extend(doubts::of_the_machine(&bare_recv));
    machine.bare_recv = bare_recv.ok();
    let mut experiment = None;
    if args.against.is_empty() || args.ways.is_some() {
        let (found, seen) = experiment::run(options, observer)?;
        doubts.extend(doubts::of_an_experiment(&found, &seen));
        experiment = Some(found);
    }
    let mut comparison = None;
    if !args.against.is_empty() {
        let (found, its_doubts) = compare::run(&comparison_options(args), observer)?;
        doubts.extend(its_doubts);
        comparison = Some(found);
    }
    doubts.sort();
    doubts.dedup();
    Ok(Found { machine, experiment, comparison, doubts })
}

fn comparison_options(args: &BenchArgs) -> compare::Options {
    let against = args.against.iter().map(|name| name.yardstick()).collect();
    let mut options =
        if args.quick { compare::Options::quick(against) } else { compare::Options::full(against) };
    options.resize(args.connections.map(u64::from), args.beats);
    let settings = &mut options.settings;
    settings.rounds = args.rounds.map_or(settings.rounds, u64::from);
    settings.window_ns = args.window.map_or(settings.window_ns, nanos);
    let dying = args.duration.unwrap_or(Duration::from_secs(settings.deaths / settings.deaths_per_second));
    settings.deaths_per_second = args.deaths.unwrap_or(settings.deaths_per_second);
    settings.deaths = (settings.deaths_per_second as f64 * dying.as_secs_f64()) as u64;
    if let Some(measure) = &args.measure {
        options.measures = measure.iter().map(|name| name.measure()).collect();
    }
    options.subjects.clone_from(&args.subjects);
    options.seed = args.seed;
    options.in_phase = args.in_phase;
    options.stroke = args.stroke.unwrap_or(options.stroke);
    options
}

fn options(args: &BenchArgs) -> experiment::Options {
    let by_size = |full: u64, quick: u64| if args.quick { quick } else { full };
    let connections = args.connections.map_or(by_size(10_000, 3_000), u64::from);
    let duration = args.duration.unwrap_or(Duration::from_secs(by_size(15, 2)));
    // Whoever gives only a number of connections, or only a duration, gets what fits it.
    let affordable = (connections as f64 * 0.75 / duration.as_secs_f64()) as u64;
    experiment::Options {
        connections: connections as usize,
        beats_per_second: args.beats.unwrap_or(by_size(20_000, 12_000)),
        deaths_per_second: args.deaths.unwrap_or(by_size(500, 300).min(affordable).max(1)),
        duration,
        ways: args.ways.clone().unwrap_or_else(WayName::all).into_iter().map(WayName::way).collect(),
        seed: args.seed,
        threads: usize::from(args.threads),
        batch_window: args.batch_window,
        wake: args.wake.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned()),
        tracker: args.tracker.clone(),
    }
}

fn tell(result: &ResultFile) -> io::Result<()> {
    let text = render(std::slice::from_ref(result), Format::Text, &super::report::for_standard_output());
    let mut out = io::stdout().lock();
    match out.write_all(text.map_err(io::Error::other)?.as_bytes()).and_then(|()| out.flush()) {
        // Whoever closed our output has seen enough; that is no fault.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
