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
        let steps = [(true, true), (true, false), (false, false)];
        let mut refused = None;
        for (defer_taskrun, no_sqarray) in steps {
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
            match builder.build(sq) {
                Ok(inner) => {
                    let parameters = inner.params();
                    if !parameters.is_feature_ext_arg() || !parameters.is_feature_nodrop() {
                        let too_old = io::Error::from_raw_os_error(libc::EINVAL);
                        return Err(RingError::new("use this kernel's io_uring", too_old));
                    }
                    let features = RingFeatures {
                        defer_taskrun,
                        no_sqarray,
                        min_wait: parameters.is_feature_min_timeout(),
                        no_iowait: parameters.is_feature_no_iowait(),
                    };
                    return Ok(Ring { inner, features, counters: RingCounters::default() });
                }
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = Some(error),
                Err(error) => return Err(RingError::new("set up io_uring", error)),
            }
        }
        let error = refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL));
        Err(RingError::new("set up io_uring", error))
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
    pub fn discard(&mut self, fd: RawFd, length: u32, token: Token) -> io::Result<()> {
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
        loop {
            // SAFETY: the entries built above refer to no memory of ours: a watch and a cancel have
            // none, a discarding recv has none, and a pooled recv writes into the registered pool.
            if unsafe { self.inner.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.enter(0, false, None)?;
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
        let batch = self.features.min_wait && !wait.window.is_zero();
        let arg = GetEventsArg {
            sigmask: 0,
            sigmask_size: 0,
            min_wait_usec: if batch { u32::try_from(wait.window.as_micros()).unwrap_or(u32::MAX) } else { 0 },
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
        if events || self.features.defer_taskrun {
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
