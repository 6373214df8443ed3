//! What goes into an engine's wait and what comes out of it, as plain values: for the ring, and for epoll in its shape.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::limits::GENERATION_BITS;

/// The `user_data` of an operation: kind 8 | generation 24 | index 32. There are no special values:
/// a kind says what the index means, and the generation tells lives in the same place apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// The token of these parts. Panics when `generation` does not fit 24 bits.
    #[must_use]
    pub const fn new(kind: u8, generation: u32, index: u32) -> Token {
        assert!(generation < 1 << GENERATION_BITS);
        Token((kind as u64) << 56 | (generation as u64) << 32 | index as u64)
    }

    /// What kind of operation.
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The generation: it tells the lives of one place apart.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & ((1 << GENERATION_BITS) - 1)
    }

    /// The place in the slab.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    pub(super) const fn from_user_data(user_data: u64) -> Token {
        Token(user_data)
    }

    pub(super) const fn user_data(self) -> u64 {
        self.0
    }
}

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
    pub(super) fn pool_number() -> u32 {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        NUMBERS.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) const fn new(pool: u32, buffer: u16) -> Lent {
        Lent { pool, buffer }
    }

    pub(super) fn of(&self, pool: u32) -> u16 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_come_back_and_do_not_touch_each_other() {
        for (kind, generation, index) in [(0, 0, 0), (255, (1 << 24) - 1, u32::MAX), (7, 1 << 23, 1)] {
            let token = Token::from_user_data(Token::new(kind, generation, index).user_data());
            assert_eq!((token.kind(), token.generation(), token.index()), (kind, generation, index));
        }
    }
}
