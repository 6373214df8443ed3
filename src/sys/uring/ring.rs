//! The ring itself: set-up, operations, waiting, completions.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::types::Fd;
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use super::buffers::BufferPool;
use super::token::Token;

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
}

impl RingFeatures {
    /// The names of those that it has.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (self.defer_taskrun, "defer_taskrun"),
            (self.no_sqarray, "no_sqarray"),
            (self.min_wait, "min_wait"),
            (self.no_iowait, "no_iowait"),
        ]
        .into_iter()
        .filter_map(|(have, name)| have.then_some(name))
    }
}

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

    /// Whether io_uring is forbidden or missing here, as against a shortage.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EACCES | libc::EINVAL))
    }

    fn cure(&self) -> &'static str {
        match self.source.raw_os_error() {
            Some(libc::ENOSYS) => {
                "the kernel has no io_uring, or a seccomp profile hides it (Docker, containerd and Podman do by \
                 default): run on Linux 6.1 or newer, with a profile that allows io_uring_setup, io_uring_enter \
                 and io_uring_register"
            }
            Some(libc::EPERM | libc::EACCES) => {
                "io_uring is forbidden here: set sysctl kernel.io_uring_disabled=0, or allow io_uring_setup, \
                 io_uring_enter and io_uring_register in the seccomp profile"
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

/// How long to wait, and for how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Wake at so many completions.
    pub completions: u32,
    /// Once there is one, wait at most this long for the others; zero wakes at the first.
    pub window: Duration,
    /// Wake after this long whatever happens.
    pub timeout: Duration,
}

impl Wait {
    /// Takes what is there and does not wait.
    pub const NOT: Wait = Wait { completions: 0, window: Duration::ZERO, timeout: Duration::ZERO };
}

/// One completion, as a plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What it belongs to.
    pub token: Token,
    /// Bytes, a mask or a negated errno.
    pub result: i32,
    /// Whether the operation goes on and will complete again (F_MORE).
    pub more: bool,
    /// The buffer that the kernel took for it, to be recycled whatever the result is.
    pub buffer: Option<u16>,
}

/// What the ring did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Calls of io_uring_enter.
    pub enters: u64,
    /// Operations submitted.
    pub submitted: u64,
    /// Completions taken.
    pub completions: u64,
    /// Times that the completion queue was found overflown.
    pub overflows: u64,
}

/// One thread's ring.
pub struct Ring {
    inner: IoUring,
    features: RingFeatures,
    counters: RingCounters,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_usec: u32,
    timespec: u64,
}

impl Ring {
    /// Sets up a ring with `sq` submission and `cq` completion entries, taking flags back step by
    /// step on an older kernel.
    ///
    /// # Errors
    ///
    /// [`RingError`], whose message names the cause and the cure.
    pub fn new(sq: u32, cq: u32) -> Result<Ring, RingError> {
        let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
        for (defer_taskrun, no_sqarray) in Ring::STEPS {
            match Ring::with(sq, cq, defer_taskrun, no_sqarray) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
                result => return result.map_err(|error| RingError::new("set up io_uring", error)),
            }
        }
        Err(RingError::new("set up io_uring", refused))
    }

    /// The flags to try, best first: DEFER_TASKRUN (6.1) and NO_SQARRAY (6.6).
    const STEPS: [(bool, bool); 3] = [(true, true), (true, false), (false, false)];

    fn with(sq: u32, cq: u32, defer_taskrun: bool, no_sqarray: bool) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(cq).setup_clamp().setup_submit_all().dontfork();
        if defer_taskrun {
            builder.setup_single_issuer().setup_defer_taskrun();
        } else {
            builder.setup_coop_taskrun();
        }
        if no_sqarray {
            builder.setup_no_sqarray();
        }
        let inner = builder.build(sq)?;
        let parameters = inner.params();
        if !parameters.is_feature_ext_arg() || !parameters.is_feature_nodrop() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let features = RingFeatures {
            defer_taskrun,
            no_sqarray,
            min_wait: parameters.is_feature_min_timeout(),
            no_iowait: parameters.is_feature_no_iowait(),
        };
        Ok(Ring { inner, features, counters: RingCounters::default() })
    }

    /// What the kernel gave us.
    #[must_use]
    pub const fn features(&self) -> RingFeatures {
        self.features
    }

    /// What the ring did so far.
    #[must_use]
    pub const fn counters(&self) -> RingCounters {
        self.counters
    }

    pub(super) fn inner(&self) -> &IoUring {
        &self.inner
    }

    /// Watches `fd` for the events in `mask` until [`Ring::cancel`]: one completion each time that
    /// something wakes it. A completion without `more` means that the watch is over.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_enter(2)`, when a full queue had to be submitted first.
    pub fn watch(&mut self, fd: RawFd, mask: u16, token: Token) -> io::Result<()> {
        self.push(&opcode::PollAdd::new(Fd(fd), u32::from(mask)).multi(true).build(), token)
    }

    /// Watches `fd` until one of the events in `mask` is there, at once if one is: one completion, and the
    /// watch is over.
    ///
    /// # Errors
    ///
    /// As [`Ring::watch`].
    pub fn watch_once(&mut self, fd: RawFd, mask: u16, token: Token) -> io::Result<()> {
        self.push(&opcode::PollAdd::new(Fd(fd), u32::from(mask)).build(), token)
    }

    /// Takes an operation back. Its last completion still comes; a success of the taking back itself
    /// is not reported.
    ///
    /// # Errors
    ///
    /// As [`Ring::watch`].
    pub fn cancel(&mut self, what: Token, token: Token) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(what.user_data()).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&entry, token)
    }

    /// Takes up to `length` unread bytes off a TCP socket and throws them away, without waiting.
    ///
    /// # Errors
    ///
    /// As [`Ring::watch`].
    ///
    /// # Panics
    ///
    /// When `length` is 0: a recv of nothing gives 0, which is a FIN to everybody who reads it.
    pub fn discard(&mut self, fd: RawFd, length: u32, token: Token) -> io::Result<()> {
        assert!(length > 0, "a recv of nothing looks like a FIN");
        // tcp(7): with MSG_TRUNC the bytes are discarded and the buffer is not touched, so there is
        // none. A socket of another kind would answer EFAULT.
        let entry = opcode::Recv::new(Fd(fd), std::ptr::null_mut(), length)
            .flags(libc::MSG_TRUNC | libc::MSG_DONTWAIT)
            .build();
        self.push(&entry, token)
    }

    /// Receives into a buffer of the pool, without waiting.
    ///
    /// # Errors
    ///
    /// As [`Ring::watch`].
    pub fn receive(&mut self, fd: RawFd, token: Token) -> io::Result<()> {
        let entry = opcode::Recv::new(Fd(fd), std::ptr::null_mut(), 0)
            .flags(libc::MSG_DONTWAIT)
            .buf_group(BufferPool::GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(&entry, token)
    }

    /// Does nothing and completes: for measuring the ring.
    ///
    /// # Errors
    ///
    /// As [`Ring::watch`].
    pub fn nop(&mut self, token: Token) -> io::Result<()> {
        self.push(&opcode::Nop::new().build(), token)
    }

    fn push(&mut self, entry: &squeue::Entry, token: Token) -> io::Result<()> {
        let entry = entry.clone().user_data(token.user_data());
        // Room is made without working off what is queued for us: in a storm that would be thousands of
        // completions in the middle of a turn. Only if the kernel wants it first.
        let mut events = false;
        loop {
            // SAFETY: the entries built above refer to no memory of ours: a watch and a cancel have
            // none, a discarding recv has none, and a pooled recv writes into the registered pool.
            if unsafe { self.inner.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.enter(0, events, None)?;
            events = true;
        }
    }

    /// Submits what is queued and waits. Completions that are already there end the wait at once.
    ///
    /// # Errors
    ///
    /// Those of `io_uring_enter(2)` that are not about time, signals or a full queue.
    pub fn submit_and_wait(&mut self, wait: Wait) -> io::Result<()> {
        if wait.completions == 0 || !self.inner.completion().is_empty() {
            return self.enter(0, true, None);
        }
        let timespec = libc::timespec {
            tv_sec: wait.timeout.as_secs() as i64,
            tv_nsec: wait.timeout.subsec_nanos().into(),
        };
        // The kernel looks at the timeout only after the window. With a window of 0 it would wait for
        // the whole batch.
        let window = wait.window.min(wait.timeout).as_micros();
        let batch = self.features.min_wait && window > 0;
        let arg = GetEventsArg {
            sigmask: 0,
            sigmask_size: 0,
            min_wait_usec: if batch { u32::try_from(window).unwrap_or(u32::MAX) } else { 0 },
            timespec: (&raw const timespec) as u64,
        };
        self.enter(if batch { wait.completions } else { 1 }, true, Some(&arg))
    }

    fn enter(&mut self, want: u32, events: bool, arg: Option<&GetEventsArg>) -> io::Result<()> {
        let queued = {
            let mut queue = self.inner.submission();
            queue.sync();
            queue.len() as u32
        };
        let mut flags = EnterFlags::empty();
        if events {
            flags |= EnterFlags::GETEVENTS;
        }
        if arg.is_some() {
            flags |= EnterFlags::EXT_ARG;
        }
        if self.features.no_iowait && want > 0 {
            flags |= EnterFlags::NO_IOWAIT;
        }
        self.counters.enters += 1;
        // SAFETY: every queued entry was checked in `push`. `arg` and the timespec that it points to
        // belong to the caller's frame and are read during the call only.
        let result = unsafe {
            match arg {
                Some(arg) => self.inner.submitter().enter(queued, want, flags.bits(), Some(arg)),
                None => self.inner.submitter().enter::<libc::sigset_t>(queued, want, flags.bits(), None),
            }
        };
        match result {
            Ok(submitted) => {
                self.counters.submitted += submitted as u64;
                Ok(())
            }
            // Time is up, a signal came, or the kernel wants its completions reaped first.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Copies at most `most` completions out, in order, behind what `into` holds. Returns whether
    /// more are waiting.
    pub fn reap(&mut self, into: &mut Vec<Completion>, most: usize) -> bool {
        let mut queue = self.inner.completion();
        queue.sync();
        let before = into.len();
        into.extend(queue.by_ref().take(most).map(|entry: cqueue::Entry| Completion {
            token: Token::from_user_data(entry.user_data()),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
            buffer: cqueue::buffer_select(entry.flags()),
        }));
        self.counters.completions += (into.len() - before) as u64;
        !queue.is_empty()
    }

    /// Whether the kernel holds completions back because the queue was full. They come with the next
    /// [`Ring::submit_and_wait`] after some were reaped.
    pub fn is_overflown(&mut self) -> bool {
        let overflown = self.inner.submission().cq_overflow();
        self.counters.overflows += u64::from(overflown);
        overflown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::uring::self_test;
    use crate::time::Instant;

    #[test]
    fn completions_beyond_the_queue_are_kept_by_the_kernel_and_said_to_be() {
        let mut ring = Ring::new(8, 16).unwrap();
        let all = 100;
        for index in 0..all {
            ring.nop(Token::new(1, 0, index)).unwrap();
        }
        ring.submit_and_wait(Wait::NOT).unwrap();
        assert!(ring.is_overflown());
        let mut seen = Vec::new();
        while seen.len() < all as usize {
            let before = seen.len();
            ring.reap(&mut seen, 5);
            ring.submit_and_wait(Wait::NOT).unwrap();
            assert!(seen.len() > before, "only {before} of {all}");
        }
        let indices: Vec<_> = seen.iter().map(|completion| completion.token.index()).collect();
        assert_eq!(indices, (0..all).collect::<Vec<_>>());
        assert!(!ring.is_overflown());
    }

    #[test]
    #[should_panic(expected = "looks like a FIN")]
    fn a_recv_of_nothing_is_never_submitted() {
        let mut ring = Ring::new(8, 16).unwrap();
        let _ = ring.discard(0, 0, Token::new(1, 0, 0));
    }

    #[test]
    fn a_ring_with_the_flags_of_an_older_kernel_works_too_with_and_without_the_newer_waits() {
        for (defer_taskrun, no_sqarray) in Ring::STEPS {
            for old in [false, true] {
                let mut ring = Ring::with(8, 16, defer_taskrun, no_sqarray).unwrap();
                if old {
                    ring.features.min_wait = false;
                    ring.features.no_iowait = false;
                }
                assert_eq!(ring.features.defer_taskrun, defer_taskrun);
                self_test(&mut ring).unwrap();
            }
        }
    }

    #[test]
    fn one_completion_ends_a_wait_however_short_the_batch_window_is() {
        let patience = Duration::from_secs(20);
        for window in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(1), Duration::MAX] {
            let mut ring = Ring::new(8, 16).unwrap();
            ring.nop(Token::new(1, 2, 3)).unwrap();
            let timeout = if window > patience { Duration::from_millis(1) } else { patience };
            let before = Instant::now();
            ring.submit_and_wait(Wait { completions: 16, window, timeout }).unwrap();
            assert!(before + patience > Instant::now(), "a window of {window:?} waited for more");
            let mut reaped = Vec::new();
            assert!(!ring.reap(&mut reaped, 16));
            assert_eq!(reaped[0].token, Token::new(1, 2, 3));
        }
    }
}
