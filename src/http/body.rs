//! Bodies: where they end. Chunked ones (RFC 9112 section 7.1) are read strictly.

use super::Reason;
use super::head::is_token;
use crate::limits::{MAX_CHUNK_DIGITS, MAX_CHUNK_EXTENSION, MAX_HEAD};

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

    /// The digits of the longest chunk size so far, if the next byte begins the size of a chunk. A `0` may be sent
    /// there: it is a leading zero of whatever size follows (RFC 9112 section 7.1).
    #[must_use]
    pub fn chunk_boundary(&self) -> Option<u32> {
        match &self.0 {
            State::Chunked(chunked) => chunked.boundary(),
            State::Left(_) | State::UntilClose => None,
        }
    }

    /// Whether a reader can see that a body that breaks off here is not whole. `zeros`: zeros may have been sent behind
    /// its bytes, at its [boundary](Body::chunk_boundary). A size of zero announces the end, and readers exist that do not
    /// wait for the rest of its line.
    #[must_use]
    pub const fn shows_its_truncation(&self, zeros: bool) -> bool {
        match &self.0 {
            State::Left(_) => true,
            State::Chunked(Chunked { at: At::Size, .. }) => !zeros,
            State::Chunked(Chunked { at: At::Digits, left, .. }) => *left > 0,
            State::Chunked(_) => true,
            State::UntilClose => false,
        }
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

/// A position in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the first digit of a chunk's size.
    Size,
    /// After a digit of the size.
    Digits,
    /// In a chunk extension, after its semicolon.
    Extension,
    /// After the CR of the size line.
    SizeLf,
    /// In the data of a chunk.
    Data,
    /// After the data, before its CR.
    DataCr,
    /// After the CR behind the data.
    DataLf,
    /// At the beginning of a line of the trailer section.
    TrailerStart,
    /// In the name of a trailer.
    TrailerName,
    /// In the value of a trailer.
    TrailerValue,
    /// After the CR of a trailer.
    TrailerLf,
    /// After the CR of the empty line that ends the body.
    LastLf,
    Over,
}

/// Follows a chunked body to its end.
#[derive(Clone, Debug)]
struct Chunked {
    at: At,
    /// The chunk's size as far as it was read, then the bytes of the chunk that are still to come.
    left: u64,
    /// Digits of the size, bytes of the extension, or bytes of all trailers.
    line: u32,
    /// The digits of the longest size so far.
    widest: u32,
}

impl Chunked {
    const fn new() -> Chunked {
        Chunked { at: At::Size, left: 0, line: 0, widest: 0 }
    }

    fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// The digits of the longest size so far, if the next byte begins the size of a chunk.
    fn boundary(&self) -> Option<u32> {
        (self.at == At::Size).then_some(self.widest)
    }

    /// Takes the next bytes of the connection. Returns how many of them belong to the body.
    fn feed(&mut self, bytes: &[u8]) -> Result<usize, Reason> {
        let mut taken = 0;
        while taken < bytes.len() && self.at != At::Over {
            if self.at == At::Data {
                let here = (bytes.len() - taken).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= here as u64;
                taken += here;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            self.at = self.step(bytes[taken])?;
            taken += 1;
        }
        Ok(taken)
    }

    fn step(&mut self, byte: u8) -> Result<At, Reason> {
        Ok(match (self.at, byte) {
            (At::Size | At::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.line = if self.at == At::Size { 1 } else { self.line + 1 };
                // A size of 2^63 or more is negative for a program that counts with signs.
                if self.left >= 1 << 59 || self.line > MAX_CHUNK_DIGITS {
                    return Err(Reason::ChunkSize);
                }
                self.left = self.left << 4 | u64::from(digit);
                self.widest = self.widest.max(self.line);
                At::Digits
            }
            (At::Digits, b';') => {
                self.line = 0;
                At::Extension
            }
            (At::Digits | At::Extension, b'\r') => At::SizeLf,
            (At::Extension, b'\n' | 0) => return Err(Reason::ChunkSize),
            (At::Extension, _) => {
                self.line += 1;
                if self.line > MAX_CHUNK_EXTENSION {
                    return Err(Reason::ChunkSize);
                }
                At::Extension
            }
            (At::SizeLf, b'\n') if self.left > 0 => At::Data,
            (At::SizeLf, b'\n') => {
                self.line = 0;
                At::TrailerStart
            }
            (At::Size | At::Digits | At::SizeLf, _) => return Err(Reason::ChunkSize),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size,
            (At::DataCr | At::DataLf, _) => return Err(Reason::ChunkEnd),
            (At::TrailerStart, b'\r') => At::LastLf,
            // A line that begins with a blank would continue the line before; one without a name may be a request.
            (At::TrailerName, b':') => self.trailer(At::TrailerValue)?,
            (At::TrailerStart | At::TrailerName, byte) if is_token(byte) => self.trailer(At::TrailerName)?,
            (At::TrailerStart | At::TrailerName, _) => return Err(Reason::Trailer),
            (At::TrailerValue, b'\r') => self.trailer(At::TrailerLf)?,
            (At::TrailerValue, 0..=8 | 10..=31 | 127) => return Err(Reason::Trailer),
            (At::TrailerValue, _) => self.trailer(At::TrailerValue)?,
            (At::TrailerLf, b'\n') => self.trailer(At::TrailerStart)?,
            (At::LastLf, b'\n') => At::Over,
            (At::TrailerLf | At::LastLf, _) => return Err(Reason::Trailer),
            (At::Data | At::Over, _) => unreachable!(),
        })
    }

    fn trailer(&mut self, at: At) -> Result<At, Reason> {
        self.line += 1;
        if self.line as usize > MAX_HEAD { Err(Reason::Trailer) } else { Ok(at) }
    }
}
