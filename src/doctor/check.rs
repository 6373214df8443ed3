//! One finding, and how serious it is.

use crate::measure::report::show::count as grouped;

words! {
    /// How serious a finding is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Verdict {
        /// Nothing to do.
        Ok = "ok",
        /// The program starts, and this limits it.
        Warn = "warn",
        /// The program does not start.
        Bad = "bad",
    }
}

/// One finding of `doctor`, with its cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The stable name of the check.
    pub name: &'static str,
    /// How serious the finding is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do or type; `None` if the verdict is [`Verdict::Ok`].
    pub cure: Option<String>,
}

impl Check {
    /// A finding; the cure is dropped if the verdict is `Ok`.
    pub(super) fn new(
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Check {
        let cure = (verdict != Verdict::Ok).then(|| cure.into());
        Check { name, verdict, found: found.into(), cure }
    }

    pub(super) fn warn(name: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Check {
        Check::new(name, Verdict::Warn, found, cure)
    }

    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check::new(name, Verdict::Ok, found, "")
    }

    /// The value is not to be found on this machine, which is no fault.
    pub(super) fn not_found(name: &'static str) -> Check {
        Check::ok(name, "not found")
    }

    /// A warning if the value is below `enough`.
    pub(super) fn at_least(
        name: &'static str,
        value: Option<u64>,
        enough: u64,
        what: &str,
        cure: &str,
    ) -> Check {
        let Some(value) = value else { return Check::not_found(name) };
        let verdict = if value < enough { Verdict::Warn } else { Verdict::Ok };
        Check::new(name, verdict, format!("{} {what}", grouped(value)), cure)
    }
}
