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
//! use deadpeer::sys::engine::{self, EngineChoice, Token, Wait};
//! use std::io::Write;
//! use std::os::fd::AsFd;
//! use std::os::unix::net::UnixStream;
//!
//! let (mut one, other) = UnixStream::pair()?;
//! for choice in [EngineChoice::Auto, EngineChoice::Epoll] {
//!     let (mut engine, _) = engine::open(choice, 8, 16)?;
//!     engine.watch_once(other.as_fd(), libc::POLLIN as u16, Token::new(1, 0, 7))?;
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

pub use super::operations::{Completion, Counters, Engine, EngineChoice, Lent, Token, Wait};
use super::uring::{Ring, RingError};
pub use epoll::EpollEngine;
#[cfg(feature = "hosted")]
pub use readiness::Awaited;
pub use readiness::Readiness;
pub use self_test::{SelfTestError, self_test};

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

/// Sets an engine up and tests the kernel on it; a ring of `sq` submission and `cq` completion entries. Returns also why it
/// is no better one: why there is no ring where there should be. Errors: [`EngineError`], whose message names the cause
/// and the cure. With [`EngineChoice::Auto`] only where there is no epoll either.
pub fn open(
    choice: EngineChoice,
    sq: u32,
    cq: u32,
) -> Result<(Box<dyn Engine>, Option<EngineError>), EngineError> {
    let ring = || tested(Ring::new(sq, cq).map_err(EngineError::Ring)?);
    let why_not = match choice {
        EngineChoice::Epoll => None,
        EngineChoice::Uring => return Ok((ring()?, None)),
        EngineChoice::Auto => match ring() {
            Ok(ring) => return Ok((ring, None)),
            Err(error) => Some(error),
        },
    };
    Ok((tested(EpollEngine::new().map_err(EngineError::Epoll)?)?, why_not))
}

/// Tests the kernel on an engine. A mismatch has to show twice: under memory pressure, of a container say, the kernel does not
/// keep to a low-water mark for a moment.
fn tested(mut engine: impl Engine + 'static) -> Result<Box<dyn Engine>, EngineError> {
    let first = self_test(&mut engine);
    let result = if let Err(SelfTestError::Mismatch { .. }) = first { self_test(&mut engine) } else { first };
    result.map_err(EngineError::SelfTest)?;
    Ok(Box::new(engine))
}
