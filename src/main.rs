//! Arguments, sub-command, exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use deadpeer::cli::beat::{BeatArgs, beat};
#[cfg(feature = "bench")]
use deadpeer::cli::bench::{BenchArgs, bench};
use deadpeer::cli::doctor::{DoctorArgs, doctor};
use deadpeer::cli::proxy::{ProxyArgs, proxy};
use deadpeer::cli::report::{ReportArgs, report};
use deadpeer::cli::run::{RunArgs, run};

/// Reports which TCP connections of a server are still alive
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// How the value `<D>` of an option is written.
const DURATION: &str = "A duration D is a number with its unit: 500us, 20ms, 1.5s, 2m, 1h.";

#[derive(Subcommand)]
enum Command {
    /// Accept connections and report each change: up, suspected, died
    #[command(after_help = DURATION)]
    Run(RunArgs),
    /// Relay to an HTTP server, detect at once that a client has left, and make the server notice
    #[command(
        after_help = DURATION,
        long_about = "Relay to an HTTP server, detect at once that a client has left, and make the server notice\n\nRelays \
                            HTTP/1 byte for byte; servers and clients stay unchanged. When a client leaves while its handler still works, the \
                            upstream's connection is aborted, so that the server cancels the work. A client that only half-closes and \
                            waits is asked, and gets its response."
    )]
    Proxy(ProxyArgs),
    /// Hold connections to `deadpeer run` and send heartbeats on them
    #[command(after_help = DURATION)]
    Beat(BeatArgs),
    #[cfg(feature = "bench")]
    /// Measure how soon each way of dying is detected, and compare with other servers
    #[command(after_help = DURATION)]
    Bench(BenchArgs),
    /// Show a result of `deadpeer bench`, or a latency log of `deadpeer run`
    Report(ReportArgs),
    /// Check whether `deadpeer run` starts on this machine, and what to change
    #[command(long_about = "Check whether `deadpeer run` starts on this machine, and what to change\n\n\
                            Reads the kernel's version, io_uring and what may forbid it, limits, memory and the \
                            kernel's tables. Changes nothing. The exit code is that of `deadpeer run` with the same \
                            --io: 0 if it starts, 77 if io_uring is forbidden, 71 if it is missing, 78 if no \
                            connection fits the limit on descriptors.")]
    Doctor(DoctorArgs),
    #[cfg(feature = "bench")]
    /// A process of an experiment
    #[command(hide = true, name = deadpeer::bench::ROLE_COMMAND)]
    BenchRole {
        /// Which
        role: String,
        /// In JSON
        plan: String,
    },
}

fn main() -> ExitCode {
    let _ = deadpeer::cli::survive_file_size_limit(); // without it, a write beyond the limit kills the process
    match Arguments::parse().command {
        Command::Run(args) => run(args),
        Command::Proxy(args) => proxy(args),
        Command::Beat(args) => beat(args),
        #[cfg(feature = "bench")]
        Command::Bench(args) => bench(args),
        #[cfg(feature = "bench")]
        Command::BenchRole { role, plan } => match deadpeer::bench::play(&role, &plan) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("deadpeer bench, {role}: {error}");
                ExitCode::FAILURE
            }
        },
        Command::Doctor(args) => doctor(args),
        Command::Report(args) => report(args),
    }
}
