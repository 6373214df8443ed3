//! `deadpeer bench`: an experiment in one command.
//!
//! Progress goes to standard error, if that is a terminal; the report goes to standard output. SIGINT and SIGTERM end
//! it: the finished rounds of a comparison are reported and written, nothing else. Exit codes: 0, 1 when something
//! failed, 2 for wrong arguments, 130 after a signal.

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
use crate::cli::io::Io;
use crate::cli::values::{WAKES, one_of};
use crate::liveness::Wake;
use crate::measure::report::{Format, render};
use crate::measure::result::{FORMAT, OutputKind, Program, ResultFile, VERSION, Way};
use crate::time::{Instant, WallClock, nanos};

/// Arguments of `deadpeer bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Number of connections at the start [default: 10000, with --quick 3000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(20..=10_000_000))]
    pub connections: Option<u32>,

    /// Beats a second over all connections, on a fixed schedule [default: 20000, with --quick 12000]
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub beats: Option<u64>,

    /// Deaths a second over all ways in which peers die one by one [default: 500, with --quick 300; fewer if
    /// less than a quarter of the peers would stay alive]
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub deaths: Option<u64>,

    /// Time in which peers die [default: 15s, with --quick 2s]
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub duration: Option<Duration>,

    /// Ways to die [default: all]. path-loss needs root. With --against: run this experiment, too
    #[arg(long, value_name = "WAYS", value_enum, value_delimiter = ',')]
    pub ways: Option<Vec<Way>>,

    /// Seed of the planned deaths: the same seed plans the same deaths
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,

    /// Threads of the tracker
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,

    /// Batch window of the tracker [default: that of `run`]
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub batch_window: Option<Duration>,

    /// What the tracker's event loop waits on. With --against: for each deadpeer whose name has no --io
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    pub io: Io,

    /// How the tracker notices a beat
    #[arg(long, value_name = "MODE", default_value = "lazy", value_parser = one_of(&WAKES))]
    pub wake: Wake,

    /// Run a smaller experiment, of less than 8 s; the default takes less than 30 s. With --against: measure in
    /// windows of 8 s, which may miss work that lazy servers do twice a minute
    #[arg(long)]
    pub quick: bool,

    /// Compare deadpeer with these servers instead: each has the same load in turn, in several rounds. A round
    /// takes 15 minutes, with --quick 5
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub against: Vec<Yardstick>,

    /// What is compared, and how.
    #[command(flatten)]
    pub comparison: ComparisonArgs,

    /// Write the result to this file, for `deadpeer report`. Ctrl-C keeps the finished rounds of --against
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Measure this program instead of deadpeer
    #[arg(long, hide = true)]
    pub tracker: Option<PathBuf>,
}

/// Arguments of a comparison.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "With --against")]
#[group(requires = "against")]
pub struct ComparisonArgs {
    /// Number of rounds, in each of which every server has its turn [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: Option<u16>,

    /// What to measure of each server [default: all but rates and stream]
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub measure: Option<Vec<Measure>>,

    /// Time in which CPU per beat is counted [default: 30s, with --quick 8s]
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub window: Option<Duration>,

    /// Run only these servers, by their names in the table
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub subjects: Option<Vec<String>>,

    /// What the servers write their events to
    #[arg(long, value_name = "KIND", value_enum, default_value = "memory")]
    pub output: OutputKind,

    /// Let all connections reach their low-water marks together, instead of evenly in time
    #[arg(long)]
    pub in_phase: bool,

    /// Interval at which the sender sends all beats that are due: a longer one makes larger batches for the
    /// server [default: 473us]
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub stroke: Option<Duration>,
}

/// Runs `deadpeer bench`.
#[must_use]
pub fn bench(args: BenchArgs) -> ExitCode {
    let say = |text: &str| {
        let _ = writeln!(io::stderr(), "deadpeer bench: {text}");
    };
    match measure(&args) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => {
            say("interrupted; the report and the result hold what was finished");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            say("interrupted before anything was finished; there is no result");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            say(&crate::sys::describe(&error));
            // Ours, not a system call's EINVAL: an argument that names nothing.
            let usage = error.kind() == io::ErrorKind::InvalidInput && error.raw_os_error().is_none();
            if usage { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// The exit code after SIGINT or SIGTERM, as shells have it for SIGINT.
const INTERRUPTED: u8 = 130;

/// Returns whether a signal ended it, with something to show.
fn measure(args: &BenchArgs) -> io::Result<bool> {
    let out = args.out.as_deref().map(Destination::new).transpose()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let bar = Progress::new();
    let mut progress = |what: &str, lasts: Duration| bar.step(what, lasts);
    let (began, date) = (Instant::now(), WallClock::read());
    let mut observer = Observer { interrupted: &interrupted, progress: &mut progress };
    let (server_cores, load_cores) = machine::share_out(usize::from(args.threads));
    let mut result = ResultFile {
        format: FORMAT.into(),
        version: VERSION,
        program: Program {
            version: env!("CARGO_PKG_VERSION").into(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
            commit: option_env!("DEADPEER_COMMIT").map(str::to_owned),
            engine: None,
        },
        command: std::env::args().collect(),
        started: date.rfc3339(began),
        took_ns: 0,
        seed: args.seed,
        machine: machine::describe(&server_cores, &load_cores),
        experiment: None,
        comparison: None,
        doubts: Vec::new(),
    };
    let interrupted = run(args, [&server_cores, &load_cores], &mut observer, &mut result);
    bar.end();
    let interrupted = interrupted?;
    result.took_ns = nanos(Instant::now().since(began));
    result.doubts.sort();
    result.doubts.dedup();
    if let Some(out) = &out {
        out.write(&result.to_json())?;
    }
    let text = render(&[result], Format::Text, &super::report::for_standard_output());
    super::report::print(&text.map_err(io::Error::other)?)?;
    Ok(interrupted)
}

/// The bare recv, and then the experiment, or the comparison, or both where both are asked for. Returns whether a
/// signal ended it.
fn run(
    args: &BenchArgs,
    [server_cores, load_cores]: [&[usize]; 2],
    observer: &mut Observer<'_>,
    result: &mut ResultFile,
) -> io::Result<bool> {
    let ResultFile { program, machine, experiment, comparison, doubts, .. } = result;
    observer.step("bare recv", baseline::LASTS)?;
    let bare_recv = baseline::recv(server_cores, load_cores);
    doubts.extend(doubts::of_the_machine(&bare_recv));
    machine.bare_recv = bare_recv.ok();
    if args.against.is_empty() || args.ways.is_some() {
        let (found, seen) = experiment::run(&options(args), observer)?;
        doubts.extend(doubts::of_an_experiment(&found, &seen));
        (*experiment, program.engine) = (Some(found), seen.engine);
    }
    if args.against.is_empty() {
        return Ok(false);
    }
    match compare::run(&comparison_options(args), observer) {
        Ok(found) => {
            doubts.extend(found.doubts);
            *comparison = Some(found.comparison);
            program.engine = program.engine.take().or(found.engine);
            Ok(found.interrupted)
        }
        // The experiment before it is finished.
        Err(error) if error.kind() == io::ErrorKind::Interrupted && experiment.is_some() => {
            doubts.push(doubts::no_round());
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

fn comparison_options(args: &BenchArgs) -> compare::Options {
    let (its, against) = (&args.comparison, args.against.clone());
    let mut options =
        if args.quick { compare::Options::quick(against) } else { compare::Options::full(against) };
    options.resize(args.connections.map(u64::from), args.beats);
    let settings = &mut options.settings;
    settings.rounds = its.rounds.map_or(settings.rounds, u64::from);
    settings.window_ns = its.window.map_or(settings.window_ns, nanos);
    let dying = args.duration.unwrap_or(Duration::from_secs(settings.deaths / settings.deaths_per_second));
    settings.deaths_per_second = args.deaths.unwrap_or(settings.deaths_per_second);
    settings.deaths = (settings.deaths_per_second as f64 * dying.as_secs_f64()) as u64;
    if let Some(measure) = &its.measure {
        options.measures = measure.iter().copied().collect();
    }
    options.subjects.clone_from(&its.subjects);
    options.seed = args.seed;
    options.io = name(args.io);
    options.settings.output = its.output;
    options.in_phase = its.in_phase;
    options.stroke = its.stroke.unwrap_or(options.stroke);
    options
}

fn options(args: &BenchArgs) -> experiment::Options {
    let by_size = |full: u64, quick: u64| if args.quick { quick } else { full };
    let connections = args.connections.map_or(by_size(10_000, 3_000), u64::from);
    let duration = args.duration.unwrap_or(Duration::from_secs(by_size(15, 2)));
    // The default that fits where only a number of connections, or only a duration, is given.
    let affordable = (connections as f64 * 0.75 / duration.as_secs_f64()) as u64;
    experiment::Options {
        connections: connections as usize,
        beats_per_second: args.beats.unwrap_or(by_size(20_000, 12_000)),
        deaths_per_second: args.deaths.unwrap_or(by_size(500, 300).min(affordable).max(1)),
        duration,
        ways: args.ways.clone().unwrap_or_else(|| Way::ALL.to_vec()),
        seed: args.seed,
        threads: usize::from(args.threads),
        batch_window: args.batch_window,
        wake: args.wake.as_str().to_owned(),
        io: name(args.io),
        tracker: args.tracker.clone(),
    }
}

/// A value as it is written on the command line.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}
