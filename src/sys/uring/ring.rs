//! The ring itself: set-up, operations, waiting, completions.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::register::{Probe, Restriction};
use io_uring::types::Fd;
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use super::buffers::BufferPool;
use super::error::RingError;
use super::features::RingFeatures;
use crate::sys::engine::Readiness;
use crate::sys::operations::{Completion, Counters, Engine, EngineChoice, Lent, Token, Wait};
use crate::sys::wakeup::Wakeup;

/// `IORING_REGISTER_EVENTFD` and `IORING_REGISTER_PBUF_RING` of `linux/io_uring.h`.
const IORING_REGISTER_EVENTFD: u8 = 4;
const IORING_REGISTER_PBUF_RING: u8 = 22;

/// The ring of one thread.
pub struct Ring {
    // Dropped before the buffers: see `BufferPool`.
    inner: IoUring,
    buffers: Option<BufferPool>,
    features: RingFeatures,
    counters: Counters,
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
    /// Sets up a ring with `sq` submission and `cq` completion entries, taking flags back step by step on an older
    /// kernel. Errors: [`RingError`], whose message names the cause and the cure.
    pub fn new(sq: u32, cq: u32) -> Result<Ring, RingError> {
        Ring::open(sq, cq, false)
    }

    /// As [`Ring::new`], and allows [`Ring::nop`], for measurements. Errors: as [`Ring::new`].
    pub fn with_nop(sq: u32, cq: u32) -> Result<Ring, RingError> {
        Ring::open(sq, cq, true)
    }

    fn open(sq: u32, cq: u32, nop: bool) -> Result<Ring, RingError> {
        let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
        for (defer_taskrun, no_sqarray) in Ring::STEPS {
            match Ring::with(sq, cq, defer_taskrun, no_sqarray, nop) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
                result => return result.map_err(|error| RingError::new("set up io_uring", error)),
            }
        }
        Err(RingError::new("set up io_uring", refused))
    }

    /// The flags to try, best first: DEFER_TASKRUN (6.1) and NO_SQARRAY (6.6).
    const STEPS: [(bool, bool); 3] = [(true, true), (true, false), (false, false)];

    /// The operations that the program submits, and the registrations after the set-up. The kernel refuses all others,
    /// also to another program that gets the descriptor.
    const OPERATIONS: [u8; 3] = [opcode::PollAdd::CODE, opcode::AsyncCancel::CODE, opcode::Recv::CODE];
    const REGISTRATIONS: [u8; 2] = [IORING_REGISTER_EVENTFD, IORING_REGISTER_PBUF_RING];

    fn restrict(inner: &IoUring, nop: bool) -> bool {
        let flags = (squeue::Flags::BUFFER_SELECT | squeue::Flags::SKIP_SUCCESS).bits();
        let mut allowed: Vec<_> = Ring::OPERATIONS
            .into_iter()
            .map(Restriction::sqe_op)
            .chain(Ring::REGISTRATIONS.into_iter().map(Restriction::register_op))
            .chain([Restriction::sqe_flags_allowed(flags)])
            .chain(nop.then(|| Restriction::sqe_op(opcode::Nop::CODE)))
            .collect();
        inner.submitter().register_restrictions(&mut allowed).is_ok()
    }

    fn with(sq: u32, cq: u32, defer_taskrun: bool, no_sqarray: bool, nop: bool) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(cq).setup_clamp().setup_submit_all().setup_r_disabled().dontfork();
        if defer_taskrun {
            builder.setup_single_issuer().setup_defer_taskrun();
        } else {
            builder.setup_coop_taskrun();
        }
        builder.setup_taskrun_flag();
        if no_sqarray {
            builder.setup_no_sqarray();
        }
        let inner = builder.build(sq)?;
        let parameters = inner.params();
        if !parameters.is_feature_ext_arg() || !parameters.is_feature_nodrop() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // A ring without restrictions works too; a ring that cannot be enabled does not.
        let restricted = Ring::restrict(&inner, nop);
        inner.submitter().register_enable_rings()?;
        let features = RingFeatures {
            defer_taskrun,
            no_sqarray,
            min_wait: parameters.is_feature_min_timeout(),
            no_iowait: parameters.is_feature_no_iowait(),
            restricted,
        };
        Ok(Ring { inner, buffers: None, features, counters: Counters::default() })
    }

    /// Submits an operation that does nothing and completes, for measurements. Errors: as [`Ring::watch`].
    pub fn nop(&mut self, token: Token) -> io::Result<()> {
        self.push(&opcode::Nop::new().build(), token)
    }

    fn push(&mut self, entry: &squeue::Entry, token: Token) -> io::Result<()> {
        let entry = entry.clone().user_data(token.user_data());
        // A full queue is submitted without GETEVENTS first: in a storm that would complete thousands of operations in
        // the middle of a turn. With it only if the kernel takes nothing otherwise.
        let mut events = false;
        loop {
            // SAFETY: the entries built above refer to no memory of ours: a watch and a cancel have
            // none, a discarding recv has none, and a pooled recv writes into the pool that this ring keeps.
            if unsafe { self.inner.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.enter(0, events, None)?;
            events = true;
        }
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
            // A timeout, a signal, or the kernel wants its completions to be reaped first.
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

    /// Makes the kernel process deferred work, if its flag says that there is some; returns whether completions came. The
    /// flag may be set without work: it is raised after the work is queued, which may be done by then.
    fn work_off(&mut self) -> bool {
        // The next submission meets the error again and returns it.
        self.has_put_off() && self.enter(0, true, None).is_ok() && !self.inner.completion().is_empty()
    }

    /// Whether the kernel says that it has deferred work.
    fn has_put_off(&mut self) -> bool {
        self.inner.submission().taskrun()
    }
}

impl Engine for Ring {
    fn choice(&self) -> EngineChoice {
        EngineChoice::Uring
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn features(&self) -> Vec<&'static str> {
        self.features.names().collect()
    }

    fn missing(&self) -> Option<String> {
        self.features.missing()
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn lend_buffers(&mut self) -> Result<(), RingError> {
        if self.buffers.is_none() {
            let pool = BufferPool::new(&self.inner);
            self.buffers = Some(pool.map_err(|source| RingError::new("lend buffers to io_uring", source))?);
        }
        Ok(())
    }

    fn bytes(&self, lent: &Lent, length: usize) -> &[u8] {
        self.buffers.as_ref().expect("a lent buffer has a pool").bytes(lent, length)
    }

    fn recycle(&mut self, lent: Lent) {
        self.buffers.as_mut().expect("a lent buffer has a pool").recycle(lent);
    }

    fn publish(&mut self) {
        if let Some(buffers) = &mut self.buffers {
            buffers.publish();
        }
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, mask: u16, token: Token) -> io::Result<()> {
        self.push(&opcode::PollAdd::new(Fd(fd.as_raw_fd()), u32::from(mask)).multi(true).build(), token)
    }

    fn watch_once(&mut self, fd: BorrowedFd<'_>, mask: u16, token: Token) -> io::Result<()> {
        self.push(&opcode::PollAdd::new(Fd(fd.as_raw_fd()), u32::from(mask)).build(), token)
    }

    fn cancel(&mut self, _: BorrowedFd<'_>, what: Token, token: Token) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(what.user_data()).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&entry, token)
    }

    fn discard(&mut self, fd: BorrowedFd<'_>, length: u32, token: Token) -> io::Result<()> {
        assert!(length > 0, "a recv of nothing looks like a FIN");
        // tcp(7): with MSG_TRUNC the kernel discards the bytes and does not touch the buffer, so there is none. A socket
        // of another protocol returns EFAULT.
        let entry = opcode::Recv::new(Fd(fd.as_raw_fd()), std::ptr::null_mut(), length)
            .flags(libc::MSG_TRUNC | libc::MSG_DONTWAIT)
            .build();
        self.push(&entry, token)
    }

    fn receive(&mut self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        assert!(self.buffers.is_some(), "nothing to receive into");
        let entry = opcode::Recv::new(Fd(fd.as_raw_fd()), std::ptr::null_mut(), 0)
            .flags(libc::MSG_DONTWAIT)
            .buf_group(BufferPool::GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(&entry, token)
    }

    fn submit_and_wait(&mut self, wait: Wait) -> io::Result<()> {
        if wait.completions == 0 || !self.inner.completion().is_empty() {
            return self.enter(0, true, None);
        }
        let timespec = libc::timespec {
            tv_sec: wait.timeout.as_secs() as i64,
            tv_nsec: wait.timeout.subsec_nanos().into(),
        };
        // The kernel checks the timeout only after the window. With a window of 0 it would wait for the whole batch.
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

    // Operations that were complete before the call are all returned: with DEFER_TASKRUN one call of the kernel processes
    // only some 20 (measured, 6.18), so it is called again until none is left.
    fn reap(&mut self, into: &mut Vec<Completion>, most: usize) -> bool {
        let before = into.len();
        loop {
            let mut queue = self.inner.completion();
            queue.sync();
            let room = most - (into.len() - before);
            let buffers = self.buffers.as_ref();
            into.extend(queue.by_ref().take(room).map(|entry: cqueue::Entry| {
                Completion {
                    token: Token::from_user_data(entry.user_data()),
                    result: entry.result(),
                    more: cqueue::more(entry.flags()),
                    buffer: buffers.and_then(|pool| {
                        cqueue::buffer_select(entry.flags()).map(|buffer| pool.lent(buffer))
                    }),
                }
            }));
            let left = !queue.is_empty();
            drop(queue);
            let full = into.len() - before == most;
            if full || left || !self.work_off() {
                self.counters.completions += (into.len() - before) as u64;
                return left || (full && self.has_put_off());
            }
        }
    }

    fn is_ready(&mut self) -> bool {
        !self.inner.completion().is_empty() || self.work_off()
    }

    fn is_overflown(&mut self) -> bool {
        let overflown = self.inner.submission().cq_overflow();
        self.counters.overflows += u64::from(overflown);
        overflown
    }

    // Not the ring's own descriptor: work that it puts off until it is asked is no readiness of that.
    fn readiness(&mut self) -> io::Result<Readiness> {
        let eventfd = Wakeup::new()?;
        self.inner.submitter().register_eventfd(eventfd.as_raw_fd())?;
        Ok(Readiness::Eventfd(eventfd))
    }
}

/// The operations that the program uses, and whether the kernel has them; empty if there is no ring to ask.
#[must_use]
pub fn supported_operations() -> Vec<(&'static str, bool)> {
    let mut probe = Probe::new();
    let asked = IoUring::new(2).and_then(|ring| ring.submitter().register_probe(&mut probe));
    if asked.is_err() {
        return Vec::new();
    }
    let names = ["POLL_ADD", "ASYNC_CANCEL", "RECV"];
    names.into_iter().zip(Ring::OPERATIONS.map(|operation| probe.is_supported(operation))).collect()
}

#[cfg(test)]
mod tests;
