//! The units of figures.

use serde::Serialize;

/// The unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Nanoseconds, shown as ns, us, ms or s.
    Nanos,
    /// Bytes, shown as B, KiB or MiB.
    Bytes,
    /// A number of things.
    Count,
    /// One number divided by another.
    Ratio,
}
