//! The engine of a loop: io_uring, or epoll where there is no io_uring.
//!
//! # Intuition
//!
//! A loop queues operations, submits them with its wait, and takes completions. That is io_uring's shape, and
//! nothing in it needs io_uring: a poll that is armed can be an entry in epoll, and a recv that never waits can be
//! a system call. So the loop is written once, against this shape, and where a kernel or a container forbids
//! io_uring it runs on epoll with the same facts in the same order, a few system calls more each turn.
//!
//! # Model
//!
//! | operation | [`Ring`] | [`EpollEngine`] |
//! |---|---|---|
//! | [`watch`](Engine::watch): each wake-up, until cancelled | multishot POLL_ADD | EPOLLET |
//! | [`watch_once`](Engine::watch_once): one wake-up | POLL_ADD | EPOLLONESHOT, armed again in place |
//! | [`cancel`](Engine::cancel): a last completion | ASYNC_CANCEL | EPOLL_CTL_DEL |
//! | [`discard`](Engine::discard), [`receive`](Engine::receive) | RECV, in one submission | recv(2), one by one |
//! | a wait for a batch or a short time | min-wait (6.12) | a rest of that time after the first |
//!
//! # Contract
//!
//! - Whatever is queued is done by the next [`submit_and_wait`](Engine::submit_and_wait), in order, and completes exactly
//!   once without [`more`](Completion::more), a watch at its end.
//! - A descriptor that is watched or being read is not closed before its last completion.
//! - A wait may end early and find nothing. That means nothing.
//!
//! # Example
//!
//! ```
//! use deadpeer::sys::engine::{Engine, EngineChoice, Token, Wait};
//! use std::io::Write;
//! use std::os::unix::net::UnixStream;
//!
//! let (mut one, other) = UnixStream::pair()?;
//! for choice in [EngineChoice::Auto, EngineChoice::Epoll] {
//!     let mut engine = Engine::open(choice, 8, 16)?;
//!     engine.watch_once(&other, libc::POLLIN as u16, Token::new(1, 0, 7))?;
//!     one.write_all(b"x")?;
//!     engine.submit_and_wait(Wait { completions: 1, ..Wait::NOT })?;
//!     let mut completions = Vec::new();
//!     engine.reap(&mut completions, 10);
//!     assert_eq!(completions[0].token, Token::new(1, 0, 7));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod epoll;
mod readiness;
mod self_test;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

pub use super::completion::{Completion, Counters, Lent, Token, Wait};
use super::uring::{Ring, RingError};
use super::wakeup::Wakeup;
pub use epoll::EpollEngine;
#[cfg(feature = "hosted")]
pub use readiness::Awaited;
pub use readiness::Readiness;
pub use self_test::{SelfTestError, self_test};

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

/// Why there is no engine.
#[derive(Debug)]
pub enum EngineError {
    /// The ring could not be set up.
    Ring(RingError),
    /// One that is not to be trusted.
    SelfTest(SelfTestError),
    /// Epoll could not be set up.
    Epoll(io::Error),
}

impl EngineError {
    /// Whether io_uring is missing here or does not do what it should.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            EngineError::Ring(error) => error.is_missing(),
            EngineError::SelfTest(SelfTestError::Mismatch { .. }) => true,
            // A test that could not be made: there is no loopback, for example, and epoll's cannot be made either.
            EngineError::SelfTest(SelfTestError::Io { .. }) | EngineError::Epoll(_) => false,
        }
    }

    /// Whether io_uring is forbidden here.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, EngineError::Ring(error) if error.is_forbidden())
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::Ring(error) => error.fmt(f),
            EngineError::SelfTest(error) => error.fmt(f),
            EngineError::Epoll(source) => {
                write!(
                    f,
                    "cannot set up epoll: {}; raise `ulimit -n` (LimitNOFILE=)",
                    super::describe(source)
                )
            }
        }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            EngineError::Ring(error) => Some(error),
            EngineError::SelfTest(error) => Some(error),
            EngineError::Epoll(source) => Some(source),
        }
    }
}

/// What to wait on. See the [module](self).
#[allow(clippy::large_enum_variant)] // one a thread
pub enum Engine {
    /// An io_uring.
    Uring(Ring),
    /// The epoll engine, in the shape of a ring.
    Epoll(EpollEngine),
}

impl Engine {
    /// Sets one up and tests the kernel on it; a ring of `sq` submission and `cq` completion entries. Errors:
    /// [`EngineError`], whose message names the cause and the cure. With [`EngineChoice::Auto`] only where there is
    /// no epoll either.
    pub fn open(choice: EngineChoice, sq: u32, cq: u32) -> Result<Engine, EngineError> {
        Engine::open_and_tell(choice, sq, cq).map(|(engine, _)| engine)
    }

    /// As [`Engine::open`], and says why it is no better one: why there is no ring where there should be. Errors: as
    /// [`Engine::open`].
    pub fn open_and_tell(
        choice: EngineChoice,
        sq: u32,
        cq: u32,
    ) -> Result<(Engine, Option<EngineError>), EngineError> {
        let mut why_not = None;
        if choice != EngineChoice::Epoll {
            match Engine::ring(sq, cq) {
                Ok(engine) => return Ok((engine, None)),
                Err(error) if choice == EngineChoice::Auto => why_not = Some(error),
                Err(error) => return Err(error),
            }
        }
        let mut engine = Engine::Epoll(EpollEngine::new().map_err(EngineError::Epoll)?);
        tested(&mut engine)?;
        Ok((engine, why_not))
    }

    fn ring(sq: u32, cq: u32) -> Result<Engine, EngineError> {
        let mut engine = Engine::Uring(Ring::new(sq, cq).map_err(EngineError::Ring)?);
        tested(&mut engine)?;
        Ok(engine)
    }

    /// What it is called: `io_uring` or `epoll`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Engine::Uring(_) => "io_uring",
            Engine::Epoll(_) => "epoll",
        }
    }

    /// The names of what the kernel gave it.
    #[must_use]
    pub fn features(&self) -> Vec<&'static str> {
        match self {
            Engine::Uring(ring) => ring.features().names().collect(),
            Engine::Epoll(_) => Vec::new(),
        }
    }

    /// What the kernel could have given it and did not, and what to do about it.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        match self {
            Engine::Uring(ring) => ring.features().missing(),
            Engine::Epoll(_) => None,
        }
    }

    /// What it did so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        match self {
            Engine::Uring(ring) => ring.counters(),
            Engine::Epoll(epoll) => epoll.counters(),
        }
    }

    /// Makes [buffers](crate::limits::FRAME_BUFFERS) for [`Engine::receive`]. Errors: [`EngineError`]: the kernel is
    /// too old for them, or memory is short.
    pub fn lend_buffers(&mut self) -> Result<(), EngineError> {
        match self {
            Engine::Uring(ring) => return ring.lend_buffers().map_err(EngineError::Ring),
            Engine::Epoll(epoll) => epoll.lend_buffers(),
        }
        Ok(())
    }

    /// The first `length` bytes of a buffer that a completion named. Panics when it is another engine's, or shorter.
    #[must_use]
    pub fn bytes(&self, lent: &Lent, length: usize) -> &[u8] {
        match self {
            Engine::Uring(ring) => ring.bytes(lent, length),
            Engine::Epoll(epoll) => epoll.bytes(lent, length),
        }
    }

    /// Gives a buffer back, for the next [`Engine::publish`]. Once for every completion that names one, whatever its
    /// result says. Panics when it is another engine's.
    pub fn recycle(&mut self, lent: Lent) {
        match self {
            Engine::Uring(ring) => ring.recycle(lent),
            Engine::Epoll(epoll) => epoll.recycle(lent),
        }
    }

    /// Lets what was given back be used again: once a batch.
    pub fn publish(&mut self) {
        if let Engine::Uring(ring) = self {
            ring.publish();
        }
    }

    /// Watches `fd` for the events in `mask` until [`Engine::cancel`]: one completion each time that something wakes
    /// it. A completion without `more` means that the watch is over. Errors: those of `io_uring_enter(2)`, when a
    /// full queue had to be submitted first.
    pub fn watch(&mut self, fd: impl AsFd, mask: u16, token: Token) -> io::Result<()> {
        match self {
            Engine::Uring(ring) => return ring.watch(fd.as_fd(), mask, token),
            Engine::Epoll(epoll) => epoll.watch(fd.as_fd().as_raw_fd(), mask, token),
        }
        Ok(())
    }

    /// Watches `fd` until one of the events in `mask` is there, at once if one is: one completion, and the watch is
    /// over. Errors: as [`Engine::watch`].
    pub fn watch_once(&mut self, fd: impl AsFd, mask: u16, token: Token) -> io::Result<()> {
        match self {
            Engine::Uring(ring) => return ring.watch_once(fd.as_fd(), mask, token),
            Engine::Epoll(epoll) => epoll.watch_once(fd.as_fd().as_raw_fd(), mask, token),
        }
        Ok(())
    }

    /// Takes the watch `what` of `fd` back. Its last completion still comes; a success of the taking back itself is
    /// not reported. Errors: as [`Engine::watch`].
    pub fn cancel(&mut self, fd: impl AsFd, what: Token, token: Token) -> io::Result<()> {
        match self {
            Engine::Uring(ring) => return ring.cancel(what, token),
            Engine::Epoll(epoll) => epoll.cancel(fd.as_fd().as_raw_fd(), what),
        }
        Ok(())
    }

    /// Takes up to `length` unread bytes off a TCP socket and throws them away, without waiting. Errors: as
    /// [`Engine::watch`]. Panics when `length` is 0: a recv of nothing returns 0, which means a FIN.
    pub fn discard(&mut self, fd: impl AsFd, length: u32, token: Token) -> io::Result<()> {
        match self {
            Engine::Uring(ring) => return ring.discard(fd.as_fd(), length, token),
            Engine::Epoll(epoll) => epoll.discard(fd.as_fd().as_raw_fd(), length, token),
        }
        Ok(())
    }

    /// Receives into a buffer that was [lent](Engine::lend_buffers), without waiting. Errors: as [`Engine::watch`].
    /// Panics when no buffers were lent.
    pub fn receive(&mut self, fd: impl AsFd, token: Token) -> io::Result<()> {
        match self {
            Engine::Uring(ring) => return ring.receive(fd.as_fd(), token),
            Engine::Epoll(epoll) => epoll.receive(fd.as_fd().as_raw_fd(), token),
        }
        Ok(())
    }

    /// Submits what is queued and waits. Completions that are already there end the wait at once. Errors: those of
    /// the kernel that are not about time, signals or a full queue.
    pub fn submit_and_wait(&mut self, wait: Wait) -> io::Result<()> {
        match self {
            Engine::Uring(ring) => ring.submit_and_wait(wait),
            Engine::Epoll(epoll) => epoll.submit_and_wait(wait),
        }
    }

    /// Moves at most `most` completions out, in order, behind what `into` holds. Returns whether
    /// more are waiting.
    pub fn reap(&mut self, into: &mut Vec<Completion>, most: usize) -> bool {
        match self {
            Engine::Uring(ring) => ring.reap(into, most),
            Engine::Epoll(epoll) => epoll.reap(into, most),
        }
    }

    /// Whether the kernel holds completions back because the queue was full. They come with the next
    /// [`Engine::submit_and_wait`] after some were reaped.
    pub fn is_overflown(&mut self) -> bool {
        match self {
            Engine::Uring(ring) => ring.is_overflown(),
            Engine::Epoll(_) => false,
        }
    }

    /// Whether completions are there to be reaped.
    pub fn is_ready(&mut self) -> bool {
        match self {
            Engine::Uring(ring) => ring.is_ready(),
            Engine::Epoll(epoll) => epoll.is_ready(),
        }
    }

    /// A descriptor that becomes readable, edge by edge, when there may be something to reap: for a program that
    /// waits elsewhere. Call [`submit_and_wait`](Engine::submit_and_wait) with [`Wait::NOT`] then. Errors: when there
    /// are no descriptors left.
    pub fn readiness(&mut self) -> io::Result<Readiness> {
        match self {
            // Not the ring's own descriptor: work that it puts off until it is asked is no readiness of that.
            Engine::Uring(ring) => {
                let eventfd = Wakeup::new()?;
                ring.notify(eventfd.as_fd())?;
                Ok(Readiness::Eventfd(eventfd))
            }
            Engine::Epoll(epoll) => Ok(Readiness::Epoll(epoll.as_fd().try_clone_to_owned()?)),
        }
    }
}

/// Tests the kernel on an engine. A mismatch has to show twice: under memory pressure, of a container say, the kernel does not
/// keep to a low-water mark for a moment.
fn tested(engine: &mut Engine) -> Result<(), EngineError> {
    match self_test(engine) {
        Err(SelfTestError::Mismatch { .. }) => self_test(engine).map_err(EngineError::SelfTest),
        result => result.map_err(EngineError::SelfTest),
    }
}
