//! How a body ends.

use super::Reason;
use super::chunked::Chunked;

/// What says where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, the last of which is empty.
    Chunked,
    /// It ends with the connection: only a response's.
    UntilClose,
}

/// What of some bytes belongs to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// The first so many.
    pub taken: usize,
    /// And the message ends with them.
    pub over: bool,
}

/// Follows one body.
#[derive(Clone, Debug)]
pub struct Body(State);

#[derive(Clone, Debug)]
enum State {
    Left(u64),
    Chunked(Chunked),
    UntilClose,
}

impl Body {
    /// At its beginning.
    #[must_use]
    pub const fn new(framing: Framing) -> Body {
        Body(match framing {
            Framing::None => State::Left(0),
            Framing::Length(length) => State::Left(length),
            Framing::Chunked => State::Chunked(Chunked::new()),
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match &self.0 {
            State::Left(left) => *left == 0,
            State::Chunked(chunked) => chunked.is_over(),
            State::UntilClose => false,
        }
    }

    /// Whether only the end of the connection ends it.
    #[must_use]
    pub const fn ends_with_connection(&self) -> bool {
        matches!(self.0, State::UntilClose)
    }

    /// How many of these bytes belong to it, and whether it ends with them.
    ///
    /// # Errors
    ///
    /// Why that cannot be said. From then on nothing can be said of this connection.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Fed, Reason> {
        let taken = match &mut self.0 {
            State::Left(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                taken
            }
            State::Chunked(chunked) => chunked.feed(bytes)?,
            State::UntilClose => bytes.len(),
        };
        Ok(Fed { taken, over: self.is_over() })
    }
}
