//! Whether `deadpeer run` starts on this machine, on which engine, and what limits it.
//!
//! # Intuition
//!
//! A limit of the machine shows late: at the ten-thousandth connection, or never where a seccomp profile forbids
//! io_uring and the program runs on epoll. Each such limit can be read before the start, and each has a known cure.
//!
//! # Model
//!
//! [`Facts`] are read once, from /proc, /sys, the limits of this process and the kernel. [`examine`] judges them for
//! one `--io` and reads nothing else. [`text`] and [`json`] show the [`Diagnosis`].
//!
//! # Contract
//!
//! - The verdict is that of `deadpeer run` with the same `--io`: [`Verdict::Bad`] means that `run` does not start, and
//!   [`Diagnosis::exit_code`] is the exit code of `run`.
//! - Nothing changes but the soft limit on descriptors of this process, which `deadpeer run` raises too.
//! - A value that cannot be read is reported as `not found` and is no failure.
//! - Names of checks are stable. `docs/REFERENCE.md` lists them, and a test compares the two.
//!
//! # Example
//!
//! ```
//! use deadpeer::doctor::{Facts, Verdict, examine};
//! use deadpeer::reactor::EngineChoice;
//!
//! let facts = Facts { nofile: 100, ..Facts::read() };
//! let diagnosis = examine(&facts, EngineChoice::Auto);
//! let descriptors = diagnosis.checks.iter().find(|check| check.name == "descriptors").unwrap();
//! assert_eq!(descriptors.verdict, Verdict::Warn);
//! assert!(descriptors.cure.as_deref().unwrap().contains("ulimit -n"));
//! ```

mod check;
mod diagnosis;
mod engine;
mod facts;
mod resources;
mod show;

pub use check::{Check, Verdict};
pub use diagnosis::{Diagnosis, examine};
pub use facts::{EngineFacts, Facts};
pub use show::{json, text};

/// A seccomp profile for Docker, Podman, containerd and Kubernetes that allows what the program needs, io_uring
/// included: `docs/seccomp.json`.
pub const SECCOMP_PROFILE: &str = include_str!("../../docs/seccomp.json");

#[cfg(test)]
mod tests;
