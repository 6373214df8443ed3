//! How a loop gets its engine, and why it may not start.

use std::fmt;
use std::io;

use crate::sys::clock;
use crate::sys::engine::{self, Engine, EngineChoice, EngineError};

/// Why a loop does not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// There is no engine.
    Engine(EngineError),
    /// A system call failed that the loop needs.
    Io {
        /// What the call was for.
        attempted: &'static str,
        /// The error of that call.
        source: io::Error,
    },
}

impl StartError {
    /// Whether io_uring is missing here, as against a shortage of something.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, StartError::Engine(error) if error.is_missing())
    }

    /// Whether io_uring is forbidden here.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, StartError::Engine(error) if error.is_forbidden())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Engine(error) => error.fmt(f),
            StartError::Io { attempted, source } => {
                write!(f, "cannot {attempted}: {}", crate::sys::describe(source))
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Engine(error) => Some(error),
            StartError::Io { source, .. } => Some(source),
        }
    }
}

/// The engine that was obtained.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The choice that gives every thread the same engine.
    pub choice: EngineChoice,
    /// Its name: `io_uring` or `epoll`.
    pub name: &'static str,
    /// The names of its kernel features.
    pub features: Vec<&'static str>,
    /// Why it is no better engine, and the cure.
    pub why_not: Option<String>,
}

/// Sets up a small engine, tests the kernel on it, and returns what it has. A program calls it before it starts its threads,
/// so that it refuses early and with a clear message.
///
/// # Errors
///
/// [`StartError`], whose message names the cause and the cure.
pub fn probe(choice: EngineChoice) -> Result<Probed, StartError> {
    engine::open(choice, 8, 16)
        .map(|(engine, why_not)| obtained(&*engine, why_not))
        .map_err(StartError::Engine)
}

/// Describes an engine.
pub(crate) fn obtained(engine: &dyn Engine, why_not: Option<EngineError>) -> Probed {
    let why_not = why_not.map(|error| error.to_string()).or_else(|| engine.missing());
    Probed { choice: engine.choice(), name: engine.name(), features: engine.features(), why_not }
}

/// How long the machine was suspended since boot, in nanoseconds.
pub(crate) fn suspended() -> u64 {
    clock::boottime_nanos().saturating_sub(clock::monotonic_nanos())
}
