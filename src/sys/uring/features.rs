//! The features of a ring that depend on the kernel.

/// The features that the kernel granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// SINGLE_ISSUER and DEFER_TASKRUN (6.1): the kernel completes operations during our calls only.
    pub defer_taskrun: bool,
    /// NO_SQARRAY (6.6): one indirection less for each submission.
    pub no_sqarray: bool,
    /// Waiting for a batch or for a short time after the first completion (6.12).
    pub min_wait: bool,
    /// Waiting without being counted as I/O wait (6.15).
    pub no_iowait: bool,
    /// The kernel refuses every operation on this ring that the program does not use (5.10).
    pub restricted: bool,
}

impl RingFeatures {
    /// Each feature: whether it was granted, its name, and the version of the first kernel that has it.
    fn table(self) -> [(bool, &'static str, (u32, u32)); 5] {
        [
            (self.defer_taskrun, "defer_taskrun", (6, 1)),
            (self.no_sqarray, "no_sqarray", (6, 6)),
            (self.min_wait, "min_wait", (6, 12)),
            (self.no_iowait, "no_iowait", (6, 15)),
            (self.restricted, "restricted", (5, 10)),
        ]
    }

    /// The names of the granted features.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.table().into_iter().filter_map(|(have, name, _)| have.then_some(name))
    }

    /// The missing features and the first kernel that has all of them; `None` if none is missing.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let missing = || self.table().into_iter().filter(|(have, ..)| !have);
        let (major, minor) = missing().map(|(.., version)| version).max()?;
        let names: Vec<_> = missing().map(|(_, name, _)| name).collect();
        Some(format!("this kernel has no {}: Linux {major}.{minor} has", names.join(", ")))
    }
}
