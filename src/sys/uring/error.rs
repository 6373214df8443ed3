//! Why there is no ring.

use std::fmt;
use std::io;

/// Why there is no ring.
#[derive(Debug)]
pub struct RingError {
    attempted: &'static str,
    source: io::Error,
}

impl RingError {
    pub(super) fn new(attempted: &'static str, source: io::Error) -> RingError {
        RingError { attempted, source }
    }

    /// Whether the kernel has no io_uring, or one that is too old.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
    }

    /// Whether a sysctl or a seccomp profile forbids io_uring.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::EPERM | libc::EACCES))
    }

    fn cure(&self) -> &'static str {
        match self.source.raw_os_error() {
            Some(libc::ENOSYS) => {
                "the kernel has no io_uring, or a seccomp profile hides it (Docker, containerd and Podman do by \
                 default): run on Linux 6.1 or newer, with a profile that allows io_uring_setup, io_uring_enter \
                 and io_uring_register (`deadpeer doctor --seccomp-profile` prints one)"
            }
            Some(libc::EPERM | libc::EACCES) => {
                "io_uring is forbidden here: set sysctl kernel.io_uring_disabled=0, or allow io_uring_setup, \
                 io_uring_enter and io_uring_register in the seccomp profile (`deadpeer doctor --seccomp-profile` prints \
                 one)"
            }
            Some(libc::ENOMEM) => {
                "out of lockable memory, not of RAM: raise `ulimit -l` (LimitMEMLOCK= in a systemd unit), take \
                 fewer --threads, or grant CAP_IPC_LOCK"
            }
            Some(libc::EMFILE | libc::ENFILE) => "out of descriptors: raise `ulimit -n` (LimitNOFILE=)",
            Some(libc::EINVAL) => "the kernel is too old: run on Linux 6.1 or newer",
            _ => "see io_uring_setup(2)",
        }
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}; {}", self.attempted, crate::sys::describe(&self.source), self.cure())
    }
}

impl std::error::Error for RingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
