//! The operations of an engine, what goes into its wait, and what comes out of it, as plain values.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::engine::Readiness;
use super::uring::RingError;
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

/// On what to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// A ring, with as many of its features as the kernel has; epoll where no ring is to be had.
    #[default]
    Auto,
    /// A ring or nothing.
    Uring,
    /// Epoll, even where a ring is available.
    Epoll,
}

/// What a loop waits on, and works through. Its implementations are `Ring` and `EpollEngine`.
pub trait Engine {
    /// The choice that gives this engine and no other.
    fn choice(&self) -> EngineChoice;

    /// What it is called: `io_uring` or `epoll`.
    fn name(&self) -> &'static str;

    /// The names of what the kernel gave it.
    fn features(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// What the kernel could have given it and did not, and what to do about it.
    fn missing(&self) -> Option<String> {
        None
    }

    /// What it did so far.
    fn counters(&self) -> Counters;

    /// Makes [buffers](crate::limits::FRAME_BUFFERS) for [`Engine::receive`]. Errors: [`RingError`]: the kernel is
    /// too old for them, or memory is short.
    fn lend_buffers(&mut self) -> Result<(), RingError>;

    /// The first `length` bytes of a buffer that a completion named. Panics when it is another engine's, or shorter.
    fn bytes(&self, lent: &Lent, length: usize) -> &[u8];

    /// Gives a buffer back, for the next [`Engine::publish`]. Once for every completion that names one, whatever its
    /// result says. Panics when it is another engine's.
    fn recycle(&mut self, lent: Lent);

    /// Lets what was given back be used again: once a batch.
    fn publish(&mut self) {}

    /// Watches `fd` for the events in `mask` until [`Engine::cancel`]: one completion each time that something wakes
    /// it. A completion without `more` means that the watch is over. Errors: those of `io_uring_enter(2)`, when a
    /// full queue had to be submitted first.
    fn watch(&mut self, fd: BorrowedFd<'_>, mask: u16, token: Token) -> io::Result<()>;

    /// Watches `fd` until one of the events in `mask` is there, at once if one is: one completion, and the watch is
    /// over. Errors: as [`Engine::watch`].
    fn watch_once(&mut self, fd: BorrowedFd<'_>, mask: u16, token: Token) -> io::Result<()>;

    /// Takes the watch `what` of `fd` back. Its last completion still comes; a success of the taking back itself is
    /// not reported. Errors: as [`Engine::watch`].
    fn cancel(&mut self, fd: BorrowedFd<'_>, what: Token, token: Token) -> io::Result<()>;

    /// Takes up to `length` unread bytes off a TCP socket and throws them away, without waiting. Errors: as
    /// [`Engine::watch`]. Panics when `length` is 0: a recv of nothing returns 0, which means a FIN.
    fn discard(&mut self, fd: BorrowedFd<'_>, length: u32, token: Token) -> io::Result<()>;

    /// Receives into a buffer that was [lent](Engine::lend_buffers), without waiting. Errors: as [`Engine::watch`].
    /// Panics when no buffers were lent.
    fn receive(&mut self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()>;

    /// Submits what is queued and waits. Completions that are already there end the wait at once. Errors: those of
    /// the kernel that are not about time, signals or a full queue.
    fn submit_and_wait(&mut self, wait: Wait) -> io::Result<()>;

    /// Moves at most `most` completions out, in order, behind what `into` holds. Returns whether
    /// more are waiting.
    fn reap(&mut self, into: &mut Vec<Completion>, most: usize) -> bool;

    /// Whether the kernel holds completions back because the queue was full. They come with the next
    /// [`Engine::submit_and_wait`] after some were reaped.
    fn is_overflown(&mut self) -> bool {
        false
    }

    /// Whether completions are there to be reaped.
    fn is_ready(&mut self) -> bool;

    /// A descriptor that becomes readable, edge by edge, when there may be something to reap: for a program that
    /// waits elsewhere. Call [`submit_and_wait`](Engine::submit_and_wait) with [`Wait::NOT`] then. Errors: when there
    /// are no descriptors left.
    fn readiness(&mut self) -> io::Result<Readiness>;
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
