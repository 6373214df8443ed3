//! Bodies: where they end.

use super::Reason;
use super::chunked::Chunked;

/// What says where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// There is no body.
    None,
    /// It has this many bytes.
    Length(u64),
    /// It is sent in chunks, of which the last is empty.
    Chunked,
    /// It ends with the connection. Only responses have such bodies.
    UntilClose,
}

/// How many of some bytes belong to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// The number of bytes at the beginning that belong to it.
    pub taken: usize,
    /// Whether the message ends with them.
    pub over: bool,
}

/// Follows one body to its end.
#[derive(Clone, Debug)]
pub struct Body(State);

#[derive(Clone, Debug)]
enum State {
    Left(u64),
    Chunked(Chunked),
    UntilClose,
}

impl Body {
    /// A body of which nothing has come.
    #[must_use]
    pub const fn new(framing: Framing) -> Body {
        Body(match framing {
            Framing::None => State::Left(0),
            Framing::Length(length) => State::Left(length),
            Framing::Chunked => State::Chunked(Chunked::new()),
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether the body has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match &self.0 {
            State::Left(left) => *left == 0,
            State::Chunked(chunked) => chunked.is_over(),
            State::UntilClose => false,
        }
    }

    /// Whether the body ends only with the connection.
    #[must_use]
    pub const fn ends_with_connection(&self) -> bool {
        matches!(self.0, State::UntilClose)
    }

    /// Takes the next bytes of the connection. Returns how many of them belong to the body, and whether it ends with them.
    ///
    /// # Errors
    ///
    /// The reason why the end of the body cannot be known. Nothing more can be known of this connection.
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
