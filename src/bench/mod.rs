//! Experiments: servers, peers that live and die by a plan, and what was told of them.
//!
//! # Intuition
//!
//! Whoever measures a server from inside believes the server. So everything here is a process of its
//! own: the server under test, the peers that beat and die by their own clock, and the one that compares
//! afterwards what was done with what was told.
//!
//! # Model
//!
//! - [`peers`]: a role of this program: it holds connections, beats open-loop, and lets some die, each at
//!   its planned instant and in its planned [way](crate::measure::result::Way).
//! - [`child`]: a process of the experiment; [`proc`]: what /proc says of it and of the machine.
//! - [`herd`]: many connections, and the schedule of their beats.
//!
//! # Contract
//!
//! - All instants are CLOCK_MONOTONIC. Latency counts from the *planned* instant; how late the peers
//!   themselves were is recorded apart.
//! - A plan is drawn from a seed: the same seed gives the same deaths of the same connections.
//! - Every wait is bounded, and children end with their parent.

mod child;
mod herd;
mod peers;
mod proc;

use std::io;
use std::time::Duration;

use crate::time::Instant;

/// The sub-command by which this program starts itself again for a role.
pub const ROLE_COMMAND: &str = "bench-role";

/// Plays a role: `name` with its plan in JSON, commands on standard input, reports on standard output.
///
/// # Errors
///
/// When there is no such role, its plan is none, or its system calls fail.
pub fn play(name: &str, plan: &str) -> io::Result<()> {
    match name {
        "peers" => peers::run(&serde_json::from_str(plan)?),
        _ => Err(io::Error::other(format!("there is no role `{name}`"))),
    }
}

/// A command line that starts this very program for a role.
///
/// # Errors
///
/// When the path of the program is not known.
pub fn role_command(role: &str, plan: &impl serde::Serialize) -> io::Result<std::process::Command> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args([ROLE_COMMAND, role, &serde_json::to_string(plan)?]);
    Ok(command)
}

fn now() -> u64 {
    Instant::now().as_nanos()
}

fn nanos(duration: Duration) -> u64 {
    crate::time::nanos(duration)
}
