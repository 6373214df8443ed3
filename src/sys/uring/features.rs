//! What the kernel offers.

/// What the kernel gave us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// SINGLE_ISSUER and DEFER_TASKRUN (6.1): completions are worked off when we ask, not in between.
    pub defer_taskrun: bool,
    /// NO_SQARRAY (6.6): one indirection less.
    pub no_sqarray: bool,
    /// Waiting for a batch *or* a short time once there is work (6.12).
    pub min_wait: bool,
    /// Waiting without being shown as I/O wait (6.15).
    pub no_iowait: bool,
    /// The kernel refuses every operation on this ring but those that we use (5.10).
    pub restricted: bool,
}

impl RingFeatures {
    /// The names of those that it has.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (self.defer_taskrun, "defer_taskrun"),
            (self.no_sqarray, "no_sqarray"),
            (self.min_wait, "min_wait"),
            (self.no_iowait, "no_iowait"),
            (self.restricted, "restricted"),
        ]
        .into_iter()
        .filter_map(|(have, name)| have.then_some(name))
    }

    /// What is missing and from which kernel on there is all of it; `None` where nothing is.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let since = [
            (self.defer_taskrun, "defer_taskrun", "6.1"),
            (self.no_sqarray, "no_sqarray", "6.6"),
            (self.min_wait, "min_wait", "6.12"),
            (self.no_iowait, "no_iowait", "6.15"),
            (self.restricted, "restricted", "5.10"),
        ];
        let missing: Vec<_> = since.into_iter().filter(|&(have, ..)| !have).collect();
        let newest = missing.iter().max_by_key(|(_, _, version)| {
            version.split_once('.').and_then(|(a, b)| Some((a.parse::<u32>().ok()?, b.parse::<u32>().ok()?)))
        })?;
        let names: Vec<_> = missing.iter().map(|&(_, name, _)| name).collect();
        Some(format!("this kernel has no {}: Linux {} has", names.join(", "), newest.2))
    }
}
