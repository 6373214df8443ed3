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
//! - `peers`: a role of this program: it holds connections, beats open-loop, and lets some die, each at
//!   its planned instant and in its planned [way](crate::measure::result::Way). `stream`: one that sends all it can.
//! - [`experiment`]: all ways to die at once, and the tracker's verdicts on them.
//! - [`compare`]: deadpeer beside the `yardsticks`, under the same load, in turn.
//! - `child`: a process of the experiment; `proc`: what /proc says of it and of the machine.
//! - `baseline`: what the machine takes for a death without any tracker.
//! - `connections`: many connections, and the schedule of their beats.
//!
//! # Contract
//!
//! - All instants are CLOCK_MONOTONIC. Latency counts from the *planned* instant; how late the peers
//!   themselves were is recorded apart.
//! - A plan is drawn from a seed: the same seed gives the same deaths of the same connections.
//! - Every wait is bounded, and children end with their parent.

pub mod baseline;
mod child;
pub mod compare;
mod connections;
pub mod doubts;
pub mod experiment;
pub mod machine;
mod peers;
mod proc;
mod stream;
mod yardsticks;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
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
        "stream" => stream::run(&serde_json::from_str(plan)?),
        "epoll" => yardsticks::epoll::run(&serde_json::from_str(plan)?),
        "tokio" => yardsticks::tokio::run(&serde_json::from_str(plan)?),
        "tokio-uring" => yardsticks::tokio_uring::run(&serde_json::from_str(plan)?),
        "floor" => yardsticks::floor::run(&serde_json::from_str(plan)?),
        "hold" => yardsticks::hold::run(&serde_json::from_str(plan)?),
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

/// Who looks on: is told what happens, and may end it.
pub struct Observer<'a> {
    /// Set by a signal: everything is to end.
    pub interrupted: &'a AtomicBool,
    /// Called at each step: what is done now, and how long it will take, about.
    pub progress: &'a mut dyn FnMut(&str, Duration),
}

impl std::fmt::Debug for Observer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("interrupted", self.interrupted).finish_non_exhaustive()
    }
}

/// How soon an interruption is noticed.
const LOOK_EVERY_NS: u64 = 50_000_000;

impl Observer<'_> {
    /// Says what is done now.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Interrupted`] when it is to end.
    pub fn step(&mut self, what: &str, lasts: Duration) -> io::Result<()> {
        (self.progress)(what, lasts);
        self.check()
    }

    /// Sleeps until an instant of CLOCK_MONOTONIC.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Interrupted`] when it is to end.
    pub fn sleep_until(&mut self, at: u64) -> io::Result<()> {
        while now() < at {
            self.check()?;
            crate::time::sleep_until(Instant::from_nanos(at.min(now() + LOOK_EVERY_NS)));
        }
        self.check()
    }

    fn check(&self) -> io::Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
        }
        Ok(())
    }
}

fn now() -> u64 {
    Instant::now().as_nanos()
}

fn nanos(duration: Duration) -> u64 {
    crate::time::nanos(duration)
}
