//! `deadpeer doctor`: whether `deadpeer run` starts here, on which engine, and what limits it.
//!
//! The exit code is the one of `deadpeer run` with the same `--io`; 1 also if the output cannot be written.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;

use crate::cli::exit::print;
use crate::cli::io::Io;
use crate::doctor::{Facts, SECCOMP_PROFILE, examine, json, text};
use crate::sys::describe;

/// Arguments of `deadpeer doctor`.
#[derive(Args, Clone, Copy, Debug)]
pub struct DoctorArgs {
    /// Check for `deadpeer run` with this --io
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    pub io: Io,

    /// Check for `deadpeer run` with this --threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// Print a seccomp profile that allows io_uring, for Docker, Podman, containerd or Kubernetes, and exit
    #[arg(long, conflicts_with_all = ["io", "threads", "json"])]
    pub seccomp_profile: bool,
}

/// Runs `deadpeer doctor`.
#[must_use]
pub fn doctor(args: DoctorArgs) -> ExitCode {
    if args.seccomp_profile {
        return say(SECCOMP_PROFILE, 0);
    }
    let mut facts = Facts::read();
    facts.threads = args.threads.map_or(facts.threads, usize::from);
    let diagnosis = examine(&facts, args.io.choice());
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let colour = io::stdout().is_terminal() && !plain;
    let shown = if args.json { json(&diagnosis) } else { text(&diagnosis, colour) };
    say(&shown, diagnosis.exit_code)
}

fn say(text: &str, code: u8) -> ExitCode {
    // Where the reader has left, the exit code still tells the verdict.
    match print(text) {
        Ok(()) => ExitCode::from(code),
        Err(error) => {
            let error = describe(&error);
            let _ = writeln!(
                io::stderr(),
                "deadpeer doctor: cannot write to standard output: {error}; send it elsewhere"
            );
            ExitCode::FAILURE
        }
    }
}
