//! Experiments: servers, peers that live and die by a plan, and what the servers reported of them.
//!
//! # Intuition
//!
//! A server that measures itself cannot see its own faults. So the server under test, the peers, and the program that
//! compares the planned deaths with the reported ones are processes of their own.
//!
//! # Model
//!
//! - `peers`: a role of this program. It holds connections, beats open-loop, and ends some of them, each at
//!   its planned instant and in its planned [way](crate::measure::result::Way).
//! - `stream`: a role: one peer that sends as fast as it can.
//! - [`experiment`]: all ways to die at once, and the tracker's verdicts on them.
//! - [`compare`]: deadpeer and the `yardsticks`, one after the other under the same load.
//! - `child`: a process of the experiment. `proc`: figures from /proc of a process and of the machine.
//! - [`baseline`]: how long the machine takes to report a death without a tracker.
//! - `connections`: many client connections, and the schedule of their beats.
//!
//! # Contract
//!
//! - All instants are CLOCK_MONOTONIC. Latency counts from the *planned* instant; how late the peers
//!   themselves were is recorded separately.
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

/// Runs the role `name` with its plan in JSON: commands come on standard input, reports go to standard output.
///
/// # Errors
///
/// When there is no such role, the plan is not one of that role, or a system call fails.
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

/// The command that starts this same program for a role.
///
/// # Errors
///
/// When the path of the program is unknown.
pub fn role_command(role: &str, plan: &impl serde::Serialize) -> io::Result<std::process::Command> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args([ROLE_COMMAND, role, &serde_json::to_string(plan)?]);
    Ok(command)
}

/// Hears of each step of a measurement, and can end it.
pub struct Observer<'a> {
    /// A signal sets it: the measurement ends.
    pub interrupted: &'a AtomicBool,
    /// Called at each step, with its name and about how long it takes.
    pub progress: &'a mut dyn FnMut(&str, Duration),
}

impl std::fmt::Debug for Observer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("interrupted", self.interrupted).finish_non_exhaustive()
    }
}

/// The longest time until an interruption is noticed.
const LOOK_EVERY_NS: u64 = 50_000_000;

impl Observer<'_> {
    /// Announces a step.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Interrupted`] after the signal.
    pub fn step(&mut self, what: &str, lasts: Duration) -> io::Result<()> {
        (self.progress)(what, lasts);
        self.check()
    }

    /// Sleeps until an instant of CLOCK_MONOTONIC.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Interrupted`] after the signal.
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

/// Whether this is an [`Observer`]'s error after the signal.
fn is_interruption(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

fn now() -> u64 {
    Instant::now().as_nanos()
}

fn nanos(duration: Duration) -> u64 {
    crate::time::nanos(duration)
}
