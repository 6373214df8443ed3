//! An eventfd by which other threads wake a loop that polls it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Wakes the loop that polls it. Many wakes before that loop looks are one.
#[derive(Debug)]
pub struct Wakeup(File);

impl Wakeup {
    /// Makes the eventfd, non-blocking and close-on-exec. Errors: EMFILE or ENFILE when there is no descriptor left.
    pub fn new() -> io::Result<Wakeup> {
        Ok(Wakeup(File::from(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)))
    }

    /// Wakes. Never blocks: a counter that is full has already woken.
    pub fn wake(&self) {
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }

    /// Waits for a wake, no longer than this, and takes it.
    pub fn wait(&self, most: Duration) {
        let mut wakeup = [PollFd::new(&self.0, PollFlags::IN)];
        let most = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
        let _ = poll(&mut wakeup, Some(&most)); // a signal ends the wait early
        self.clear();
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
