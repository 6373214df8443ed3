//! Whether the daemon would run well here, and what to type where it would not.
//!
//! # Intuition
//!
//! What a machine lacks shows at its worst: at the ten-thousandth connection, or not at all where a profile forbids
//! io_uring. Each of these things can be asked for beforehand, and each has a known cure.
//!
//! # Model
//!
//! [`Facts`] are read once, from /proc, /sys, the limits of this process and the kernel itself. [`examine`] weighs
//! them, one [`Check`] after the other, without looking at anything else. [`text`] and [`json`] show them.
//!
//! # Contract
//!
//! - Nothing is changed but the soft limit on descriptors of this process, as `deadpeer run` raises it.
//! - What cannot be read is a fact of its own, `not found`, and never a failure.
//! - Names of checks are stable; `docs/REFERENCE.md` lists them, and a test holds the two together.
//!
//! # Example
//!
//! ```
//! use deadpeer::doctor::{Facts, Verdict, examine};
//!
//! let facts = Facts { nofile: 100, ..Facts::read() };
//! let checks = examine(&facts);
//! let descriptors = checks.iter().find(|check| check.name == "descriptors").unwrap();
//! assert_eq!(descriptors.verdict, Verdict::Warn);
//! assert!(descriptors.cure.as_deref().unwrap().contains("ulimit -n"));
//! ```

mod checks;
mod facts;
mod show;

pub use checks::{Check, Verdict, examine, exit_code};
pub use facts::{Facts, Quota, RingFacts};
pub use show::{json, text};

#[cfg(test)]
mod tests;
