//! `deadpeer doctor`: whether `deadpeer run` would run well here.
//!
//! Exit codes: 0 if it would, 1 when that cannot be written, 77 where something is forbidden, 71 where something is missing.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;

use crate::doctor::{Facts, examine, exit_code, json, text};
use crate::sys::describe;

/// Arguments of `deadpeer doctor`.
#[derive(Args, Clone, Copy, Debug)]
pub struct DoctorArgs {
    /// Say it as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs `deadpeer doctor`.
#[must_use]
pub fn doctor(args: DoctorArgs) -> ExitCode {
    let facts = Facts::read();
    let checks = examine(&facts);
    let mut out = io::stdout().lock();
    let colourless = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour =
        out.is_terminal() && !colourless && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let shown = if args.json { json(&checks) } else { text(&checks, colour) };
    match out.write_all(shown.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has left wants no more; the verdict is in the exit code too.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "deadpeer doctor: cannot write to standard output: {}",
                describe(&error)
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::from(exit_code(&facts, &checks))
}
