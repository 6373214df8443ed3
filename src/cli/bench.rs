//! `deadpeer bench`: an experiment in one command.
//!
//! Progress goes to standard error, if that is a terminal; the report goes to standard output. Exit codes: 0,
//! 1 when something failed, 2 for wrong arguments, 130 after an interruption.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::bench::{Watch, doubts, experiment, machine};
use crate::cli::duration;
use crate::measure::result::{FORMAT, Program, ResultFile, VERSION, Way};
use crate::sys::describe;
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

    /// Deaths a second over all ways that die one by one [default: 500, with --quick 300]
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub deaths: Option<u64>,

    /// How long peers die [default: 15s, with --quick 2s]
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub duration: Option<Duration>,

    /// Ways to die. path-loss wants root: it is a path between two network namespaces
    #[arg(long, value_name = "WAYS", value_enum, value_delimiter = ',', default_values_t = WayName::all())]
    pub ways: Vec<WayName>,

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

    /// A smaller experiment, done within 8 s. The default takes less than 30 s
    #[arg(long)]
    pub quick: bool,

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

impl std::fmt::Display for WayName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.way().as_str())
    }
}

/// Runs `deadpeer bench`.
#[must_use]
pub fn bench(args: BenchArgs) -> ExitCode {
    match measure(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => ExitCode::from(130),
        Err(error) => {
            let _ = writeln!(io::stderr(), "deadpeer bench: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &BenchArgs) -> io::Result<()> {
    if let Some(path) = &args.out {
        // Better now than when everything is measured.
        check_writable(path)?;
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let bar = bar();
    let mut progress = |what: &str, lasts: Duration| {
        bar.set_message(what.to_owned());
        bar.set_prefix(if lasts < Duration::from_secs(1) {
            String::new()
        } else {
            format!("{} s", lasts.as_secs())
        });
    };
    let (began, date) = (Instant::now(), WallClock::read());
    let options = options(args);
    let machine = {
        let (server, load) = machine::share_out(options.threads);
        machine::describe(&server, &load)
    };
    let mut watch = Watch { interrupted: &interrupted, progress: &mut progress };
    let outcome = experiment::run(&options, &mut watch);
    bar.finish_and_clear();
    let (experiment, seen) = outcome?;
    let doubts = doubts::of_an_experiment(&experiment, &seen);
    let result = ResultFile {
        format: FORMAT.into(),
        version: VERSION,
        program: Program {
            version: env!("CARGO_PKG_VERSION").into(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
        },
        command: std::env::args().collect(),
        started: date.rfc3339(began),
        took_ns: nanos(Instant::now().since(began)),
        seed: args.seed,
        machine,
        experiment: Some(experiment),
        comparison: None,
        doubts,
    };
    if let Some(path) = &args.out {
        write(path, &result.to_json())?;
    }
    tell(&result)
}

fn options(args: &BenchArgs) -> experiment::Options {
    let by_size = |full: u64, quick: u64| if args.quick { quick } else { full };
    experiment::Options {
        connections: args.connections.map_or(by_size(10_000, 3_000) as usize, |count| count as usize),
        beats_per_second: args.beats.unwrap_or(by_size(20_000, 12_000)),
        deaths_per_second: args.deaths.unwrap_or(by_size(500, 300)),
        duration: args.duration.unwrap_or(Duration::from_secs(by_size(15, 2))),
        ways: args.ways.iter().map(|way| way.way()).collect(),
        seed: args.seed,
        threads: usize::from(args.threads),
        batch_window: args.batch_window,
        wake: args.wake.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned()),
        tracker: args.tracker.clone(),
    }
}

fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg} {prefix}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn check_writable(path: &Path) -> io::Result<()> {
    let open = fs::OpenOptions::new().append(true).create(true).open(path);
    open.map(drop).map_err(|error| cannot_write(path, &error))
}

/// Whole or not at all: a reader never finds half a file.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".part");
    let draft = PathBuf::from(draft);
    let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, path));
    written.map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> io::Error {
    let text = format!("cannot write {}: {}; name another file with --out", path.display(), describe(error));
    io::Error::new(error.kind(), text)
}

fn tell(result: &ResultFile) -> io::Result<()> {
    let mut text = String::new();
    if let Some(experiment) = &result.experiment {
        for way in &experiment.ways {
            text.push_str(&format!(
                "{:<15} injected {:>5} told {:>5} missed {} doubled {} misnamed {} early {} p50 {:?} p99 {:?} max {:?} late {:?}\n",
                way.way, way.injected, way.told, way.missed, way.doubled, way.misnamed, way.early,
                way.latency.percentile(50.0), way.latency.percentile(99.0), way.latency.max(),
                way.injector_late.percentile(99.0),
            ));
        }
        text.push_str(&format!("{:?}\n", experiment.quality.mistakes));
    }
    for doubt in &result.doubts {
        text.push_str(&format!("doubt: {}; {}\n", doubt.text, doubt.remedy));
    }
    io::stdout().write_all(text.as_bytes())
}
