//! What every measurement needs: the command of a role, the present instant, and an observer that hears of each step
//! and can end the measurement.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::time::Instant;

/// The sub-command by which this program starts itself again for a role.
pub const ROLE_COMMAND: &str = "bench-role";

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

    pub(super) fn check(&self) -> io::Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
        }
        Ok(())
    }
}

/// Whether this is an [`Observer`]'s error after the signal.
pub(super) fn is_interruption(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

/// The present instant of CLOCK_MONOTONIC, in nanoseconds.
pub(super) fn now() -> u64 {
    Instant::now().as_nanos()
}
