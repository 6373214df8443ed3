//! What goes into an engine's wait and what comes out of it, as plain values.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::token::Token;

/// How long to wait, and for how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Wake at so many completions.
    pub completions: u32,
    /// Wait at most about this long for the others once there is one (epoll), or in all where there is one by then
    /// (a ring); zero wakes at the first.
    pub window: Duration,
    /// Wake after this long whatever happens.
    pub timeout: Duration,
}

impl Wait {
    /// Takes what is there and does not wait.
    pub const NOT: Wait = Wait { completions: 0, window: Duration::ZERO, timeout: Duration::ZERO };
}

/// One completion, as a plain value.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion {
    /// What it belongs to.
    pub token: Token,
    /// Bytes, a mask or a negated errno.
    pub result: i32,
    /// Whether the operation goes on and will complete again (F_MORE).
    pub more: bool,
    /// The buffer that was taken for it, to be recycled whatever the result is.
    pub buffer: Option<Lent>,
}

/// A buffer with received bytes. It belongs to the loop until it is recycled. It cannot be copied or made elsewhere, so no
/// code reads what the kernel is writing.
#[derive(Debug, PartialEq, Eq)]
pub struct Lent {
    pool: u32,
    buffer: u16,
}

impl Lent {
    /// A number that no other pool of this process has.
    pub(in crate::sys) fn pool_number() -> u32 {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        NUMBERS.fetch_add(1, Ordering::Relaxed)
    }

    pub(in crate::sys) const fn new(pool: u32, buffer: u16) -> Lent {
        Lent { pool, buffer }
    }

    pub(in crate::sys) fn of(&self, pool: u32) -> u16 {
        assert_eq!(self.pool, pool, "this buffer is another pool's");
        self.buffer
    }
}

/// What an engine did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls of io_uring_enter or epoll_wait.
    pub enters: u64,
    /// The number of operations submitted.
    pub submitted: u64,
    /// The number of completions taken.
    pub completions: u64,
    /// Times that the completion queue was found overflown.
    pub overflows: u64,
}
