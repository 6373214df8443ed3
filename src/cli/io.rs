//! The values of `--io`, for every sub-command that has it.

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::reactor::EngineChoice;

/// What the event loop waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Io {
    /// io_uring with every feature that the kernel has; else epoll, and the first event says why
    Auto,
    /// io_uring; the program does not start without it
    Uring,
    /// epoll: the same verdicts
    Epoll,
    /// A ring that the tokio-uring runtime waits for
    TokioUring,
}

impl Io {
    /// The engine that the loop is built on. [`Io::TokioUring`] is a ring, too.
    #[must_use]
    pub const fn choice(self) -> EngineChoice {
        match self {
            Io::Auto => EngineChoice::Auto,
            Io::Uring | Io::TokioUring => EngineChoice::Uring,
            Io::Epoll => EngineChoice::Epoll,
        }
    }

    /// Parses `--io` of a sub-command that does not run inside tokio-uring: without [`Io::TokioUring`].
    pub(super) fn without_host() -> impl TypedValueParser<Value = Io> {
        let offered = |io: &Io| (*io != Io::TokioUring).then(|| io.to_possible_value()).flatten();
        PossibleValuesParser::new(Io::value_variants().iter().filter_map(offered))
            .try_map(|name| Io::from_str(&name, false))
    }
}
