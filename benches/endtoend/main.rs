//! End-to-end measurements of section 5 of issue 2: the daemon against an epoll loop and against
//! bare loops that do the same system calls, in alternating rounds of one run.
//!
//! ```sh
//! cargo bench --bench endtoend -- all            # everything, about half an hour
//! cargo bench --bench endtoend -- cpu --rounds 3
//! cargo bench --bench endtoend -- detect silent --quick --json figures.json
//! ```
//!
//! This program starts itself again for its roles: the load and the injector on one core, the
//! yardsticks on the other. All sockets are on loopback; every wait is bounded; children die with
//! their parent. Nothing here is a timed test: a goal that is missed is printed, not failed.
//! `--test` is the smoke run: 200 connections, seconds, and a failure if nothing was counted.
// The roles are system calls and a bare ring by nature; every block says why it is sound.
#![allow(unsafe_code)]

mod beating;
mod child;
mod cpu;
mod detect;
mod epoll;
mod floor;
mod herd;
mod idle;
mod injector;
mod load;
mod outcome;
mod proc;
mod rates;
mod silent;
mod storm;
mod stream;
mod subject;
mod sys;
mod table;
mod verdicts;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use outcome::{Bench, Doubts, Outcome, Scale};
use subject::{Stage, Subject};

type Experiment = fn(&Bench) -> io::Result<Outcome>;

const EXPERIMENTS: [(&str, &str, Experiment); 7] = [
    ("cpu", "CPU per beat, process and machine", cpu::run),
    ("idle", "memory per quiet connection, user and kernel", idle::run),
    ("rates", "CPU per peer at 1, 10 and 100 beats/s", rates::run),
    ("detect", "from FIN or RST to the verdict", detect::run),
    ("silent", "from the last beat to the verdict on silence", silent::run),
    ("storm", "15,000 resets in one instant", storm::run),
    ("stream", "throughput of one peer that sends all it can", stream::run),
];

#[derive(Debug, Parser)]
#[command(name = "endtoend", about = "Measures the daemon end to end", disable_version_flag = true)]
struct Arguments {
    /// What to measure: cpu, idle, rates, detect, silent, storm, stream, or all
    experiments: Vec<String>,
    /// The same loads for a shorter time and fewer rounds
    #[arg(long)]
    quick: bool,
    /// Rounds, where subjects take turns [default: 5, quick 2]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// Length of the measured window of cpu and rates, in seconds [default: 30, quick 8]
    #[arg(long)]
    window: Option<f64>,
    /// In cpu, let all connections reach their low-water marks together instead of evenly in time
    #[arg(long)]
    in_phase: bool,
    /// In cpu, how long a beat may wait for the sender's next stroke, in microseconds: the longer, the
    /// cheaper is the sender, and the larger the batches that a server meets
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    stroke: Option<u64>,
    /// Only these servers, e.g. epoll,floor-lazy
    #[arg(long, value_delimiter = ',')]
    subjects: Option<Vec<Subject>>,
    /// Writes every figure to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measures this program instead of the one that cargo built
    #[arg(long)]
    deadpeer: Option<PathBuf>,
    /// Smoke run, as `cargo bench -- --test` asks for
    #[arg(long)]
    test: bool,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true, requires = "plan")]
    role: Option<String>,
    #[arg(long, hide = true)]
    plan: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match (&arguments.role, &arguments.plan) {
        (Some(role), Some(plan)) => play(role, plan).map_err(|error| format!("{role}: {error}")),
        _ => measure(&arguments).map_err(|error| error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("endtoend: {error}");
            ExitCode::FAILURE
        }
    }
}

fn play(role: &str, plan: &str) -> io::Result<()> {
    match role {
        "load" => load::run(&serde_json::from_str(plan)?),
        "stream" => load::stream(&serde_json::from_str(plan)?),
        "inject" => injector::run(&serde_json::from_str(plan)?),
        "epoll" => epoll::run(&serde_json::from_str(plan)?),
        "floor" => floor::run(&serde_json::from_str(plan)?),
        _ => Err(io::Error::other("no such role")),
    }
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    let chosen = choose(arguments);
    if chosen.is_empty() {
        return Ok(());
    }
    let bench = prepare(arguments)?;
    let mut doubts = Doubts::default();
    if cfg!(debug_assertions) {
        doubts.add("this is a debug build: use `cargo bench`".into());
    }
    if bench.stage.deadpeer.components().any(|part| part.as_os_str() == "debug") {
        doubts.add(format!("{} looks like a debug build", bench.stage.deadpeer.display()));
    }
    if bench.stage.server_core == bench.stage.load_core {
        doubts.add("one core only: server and load take turns on it".into());
    }
    doubts.print();

    let mut outcomes = Vec::new();
    for (name, _, experiment) in chosen {
        eprintln!("{name}");
        let outcome = experiment(&bench).map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        outcome.print();
        outcomes.push(outcome);
    }
    if let Some(path) = &arguments.json {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let report = serde_json::json!({
            "kernel": kernel.trim(), "deadpeer": bench.stage.deadpeer, "scale": bench.scale,
            "cores": bench.stage.cores(), "doubts": doubts, "outcomes": outcomes,
        });
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .map_err(|error| io::Error::other(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(())
}

/// `cargo bench` runs every bench with the same arguments, also with none and with names that are
/// another bench's: these are no error, but nothing is run for them.
fn choose(arguments: &Arguments) -> Vec<(&'static str, &'static str, Experiment)> {
    let named = &arguments.experiments;
    let all = named.iter().any(|name| name == "all") || (named.is_empty() && arguments.test);
    let chosen: Vec<_> = EXPERIMENTS
        .into_iter()
        .filter(|(name, ..)| all || named.iter().any(|wanted| wanted == name))
        .collect();
    if chosen.is_empty() {
        println!("endtoend: nothing to run; name experiments after `cargo bench --bench endtoend --`:");
        for (name, what, _) in EXPERIMENTS {
            println!("  {name:<8}{what}");
        }
        println!("  {:<8}each of them in turn", "all");
    }
    chosen
}

fn prepare(arguments: &Arguments) -> io::Result<Bench> {
    let descriptors = sys::raise_descriptors()?;
    let scale = match (arguments.test, arguments.quick) {
        (true, _) => Scale::Smoke,
        (_, true) => Scale::Quick,
        _ => Scale::Full,
    };
    if scale != Scale::Smoke && descriptors < 16_000 {
        return Err(io::Error::other(format!(
            "15,000 connections need as many descriptors, and the hard limit is {descriptors}: raise it with \
             `ulimit -Hn 20000`"
        )));
    }
    let cores = std::thread::available_parallelism()?.get();
    let load_core = usize::from(cores > 1);
    // We sleep while something is measured, but what we do is done beside the load.
    sys::move_to_core(load_core)?;
    let built = PathBuf::from(env!("CARGO_BIN_EXE_deadpeer"));
    let deadpeer = arguments.deadpeer.clone().unwrap_or(built);
    let window = arguments.window.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.1, 600.0)));
    Ok(Bench {
        stage: Stage { deadpeer, server_core: 0, load_core },
        scale,
        rounds: arguments.rounds.map(usize::from),
        window,
        in_phase: arguments.in_phase,
        stroke_ns: arguments.stroke.map(|micros| micros * 1_000),
        subjects: arguments.subjects.clone(),
    })
}
