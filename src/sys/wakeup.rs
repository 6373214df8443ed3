//! An eventfd: other threads wake a ring that polls it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Wakes whoever polls it. Many wakes before the poller looks are one.
#[derive(Debug)]
pub struct Wakeup(File);

impl Wakeup {
    /// A new one.
    ///
    /// # Errors
    ///
    /// EMFILE or ENFILE when there is no descriptor left.
    pub fn new() -> io::Result<Wakeup> {
        // SAFETY: no memory is passed. The result is checked, and owned by nobody else.
        let file = unsafe {
            let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            File::from(OwnedFd::from_raw_fd(fd))
        };
        Ok(Wakeup(file))
    }

    /// Wakes. Never blocks: a counter that is full has already woken.
    pub fn wake(&self) {
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }

    /// Takes the wakes that came so far, so that the next one is seen.
    pub fn clear(&self) {
        let _ = (&self.0).read(&mut [0; 8]);
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Wakeup {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
