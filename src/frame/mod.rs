//! The heartbeat frame: sixteen bytes by which a program says "I am still there".
//!
//! *Intuition.* TCP tells that a machine answers, not that a program does. A program that writes a
//! frame now and then tells it, and a frame that is answered also tells how long the way is.
//!
//! *Model.* Every frame is sixteen bytes, so a reader always knows how many it waits for:
//!
//! ```text
//!   0      2       3      4          8                  16
//!   | magic | version | kind | sequence |    timestamp     |   then, after a HELLO only,
//!   | F5 AD |   01    | 1..4 |  u32 be  |      u64 be      |   `sequence` bytes of identity
//! ```
//!
//! `HELLO` names the sender, `PING` asks, `PONG` answers, `BYE` says that the end which follows is
//! meant. A `PONG` that answers nothing (timestamp 0) is the ordinary heartbeat. The rules, for
//! people who write the other end, are in `docs/PROTOCOL.md`, and a test holds the two together.
//!
//! *Contract.* [`Decoder`] takes bytes in pieces of any size and gives the same frames for every
//! way of cutting them. It allocates nothing, holds at most one unfinished frame, and says no as
//! soon as the bytes allow it: whatever is no heartbeat is refused within sixteen bytes, and after
//! a refusal the decoder stays refused, since a stream that was misread once has no next frame.
//! No input makes it panic.
//!
//! ```
//! use deadpeer::frame::{Decoded, Decoder, Frame, Kind};
//!
//! let ping = Frame { kind: Kind::Ping, sequence: 7, timestamp: 1_000 };
//! let wire = ping.encode();
//!
//! let mut decoder = Decoder::new();
//! let (mut first, mut second) = wire.split_at(5);
//! assert_eq!(decoder.next(&mut first), Ok(None)); // half a frame is no sign of life
//! assert_eq!(decoder.partial(), 5);
//! assert_eq!(decoder.next(&mut second), Ok(Some(Decoded::Frame(ping))));
//! assert_eq!(ping.answer().unwrap().encode()[3], Kind::Pong as u8);
//! ```

use std::fmt;

use crate::limits::MAX_IDENTITY;

/// The first two bytes of every frame. 0xF5 occurs in no UTF-8 text, so neither ASCII nor HTTP nor
/// a log line can begin like a frame; a TLS record begins with 0x14 to 0x18, telnet with 0xFF. The
/// second byte differs from the first and is no version or kind, so that a stream which is read
/// one byte off is refused at once.
pub const MAGIC: [u8; 2] = [0xF5, 0xAD];

/// The only version there is.
pub const VERSION: u8 = 1;

/// Bytes of a frame; a HELLO has its identity behind it.
pub const FRAME_BYTES: usize = 16;

/// The longest that one frame can be: a HELLO with the longest identity.
pub const MAX_FRAME_BYTES: usize = FRAME_BYTES + MAX_IDENTITY;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// "This is who I am": optional, once, before everything else.
    Hello = 1,
    /// "Are you there?": whoever receives it answers with a [`Kind::Pong`].
    Ping = 2,
    /// "I am here": an answer, or with timestamp 0 an ordinary heartbeat.
    Pong = 3,
    /// "I leave on purpose": the last frame, followed by the end of the stream.
    Bye = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Hello),
            2 => Some(Kind::Ping),
            3 => Some(Kind::Pong),
            4 => Some(Kind::Bye),
            _ => None,
        }
    }
}

/// Why bytes are no heartbeat. Each is final for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameError {
    /// A frame did not begin with [`MAGIC`].
    BadMagic,
    /// A frame of another version than [`VERSION`].
    WrongVersion,
    /// A kind that version 1 does not have.
    UnknownKind,
    /// A HELLO that is not the first frame.
    LateHello,
    /// An identity of more than [`MAX_IDENTITY`] bytes.
    IdentityTooLong,
    /// An identity that is not UTF-8, or has control characters in it, which would let a peer
    /// write to the terminal of whoever reads its name.
    IdentityNotText,
    /// Bytes after a BYE.
    AfterBye,
}

impl FrameError {
    /// Every error, for tables and tests.
    pub const ALL: [FrameError; 7] = [
        FrameError::BadMagic,
        FrameError::WrongVersion,
        FrameError::UnknownKind,
        FrameError::LateHello,
        FrameError::IdentityTooLong,
        FrameError::IdentityNotText,
        FrameError::AfterBye,
    ];

    /// The name for machines: in events, and in `docs/PROTOCOL.md`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            FrameError::BadMagic => "bad_magic",
            FrameError::WrongVersion => "wrong_version",
            FrameError::UnknownKind => "unknown_kind",
            FrameError::LateHello => "late_hello",
            FrameError::IdentityTooLong => "identity_too_long",
            FrameError::IdentityNotText => "identity_not_text",
            FrameError::AfterBye => "after_bye",
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::BadMagic => {
                write!(f, "a frame begins with {:02x} {:02x}, this does not", MAGIC[0], MAGIC[1])
            }
            FrameError::WrongVersion => write!(f, "the frame is not of version {VERSION}"),
            FrameError::UnknownKind => write!(f, "the frame's kind is not 1, 2, 3 or 4"),
            FrameError::LateHello => write!(f, "a HELLO came after another frame"),
            FrameError::IdentityTooLong => write!(f, "the identity has more than {MAX_IDENTITY} bytes"),
            FrameError::IdentityNotText => {
                write!(f, "the identity is not UTF-8 or contains control characters")
            }
            FrameError::AfterBye => write!(f, "bytes came after a BYE"),
        }
    }
}

impl std::error::Error for FrameError {}

/// A frame without an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// What it says.
    pub kind: Kind,
    /// PING: the sender's count. PONG: that of the PING it answers, or the sender's own count of
    /// heartbeats. BYE: the count that the next heartbeat would have had.
    pub sequence: u32,
    /// Nanoseconds of the monotonic clock of whoever asked, opaque to everyone else; 0 where
    /// nothing is asked or answered.
    pub timestamp: u64,
}

impl Frame {
    /// The ordinary heartbeat: a PONG that answers nothing.
    #[must_use]
    pub const fn beat(sequence: u32) -> Frame {
        Frame { kind: Kind::Pong, sequence, timestamp: 0 }
    }

    /// The farewell.
    #[must_use]
    pub const fn bye(sequence: u32) -> Frame {
        Frame { kind: Kind::Bye, sequence, timestamp: 0 }
    }

    /// What must be sent on receiving this frame: the same count and time for a PING, nothing for
    /// any other.
    #[must_use]
    pub fn answer(&self) -> Option<Frame> {
        (self.kind == Kind::Ping).then_some(Frame { kind: Kind::Pong, ..*self })
    }

    /// The frame's sixteen bytes.
    ///
    /// # Panics
    ///
    /// On a HELLO with a `sequence` other than 0: that field is the length of an identity which a
    /// `Frame` does not have. [`encode_hello`] writes those.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_BYTES] {
        assert!(
            self.kind != Kind::Hello || self.sequence == 0,
            "a HELLO with an identity is not sixteen bytes"
        );
        header(self.kind, self.sequence, self.timestamp)
    }
}

/// A HELLO with its identity, which may be empty.
///
/// # Errors
///
/// [`FrameError::IdentityTooLong`] and [`FrameError::IdentityNotText`], as a decoder would say.
pub fn encode_hello(identity: &str, timestamp: u64) -> Result<Vec<u8>, FrameError> {
    let identity = Identity::new(identity)?;
    let mut bytes = header(Kind::Hello, u32::from(identity.length), timestamp).to_vec();
    bytes.extend_from_slice(identity.as_str().as_bytes());
    Ok(bytes)
}

fn header(kind: Kind, sequence: u32, timestamp: u64) -> [u8; FRAME_BYTES] {
    let mut bytes = [0; FRAME_BYTES];
    bytes[..2].copy_from_slice(&MAGIC);
    bytes[2] = VERSION;
    bytes[3] = kind as u8;
    bytes[4..8].copy_from_slice(&sequence.to_be_bytes());
    bytes[8..].copy_from_slice(&timestamp.to_be_bytes());
    bytes
}

/// The name a peer gave itself: text of at most [`MAX_IDENTITY`] bytes without control characters,
/// held inline. It is a claim, not a proof.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    bytes: [u8; MAX_IDENTITY],
    length: u8,
}

impl Identity {
    /// An identity from text.
    ///
    /// # Errors
    ///
    /// [`FrameError::IdentityTooLong`] and [`FrameError::IdentityNotText`].
    pub fn new(text: &str) -> Result<Identity, FrameError> {
        if text.len() > MAX_IDENTITY {
            return Err(FrameError::IdentityTooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(FrameError::IdentityNotText);
        }
        let mut bytes = [0; MAX_IDENTITY];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Identity { bytes, length: text.len() as u8 })
    }

    fn from_bytes(bytes: &[u8]) -> Result<Identity, FrameError> {
        Identity::new(std::str::from_utf8(bytes).map_err(|_| FrameError::IdentityNotText)?)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = std::str::from_utf8(&self.bytes[..usize::from(self.length)]);
        text.expect("`new` is the only maker and copies a whole str")
    }

    /// Whether the peer said HELLO without a name.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// One complete frame. The difference in size is that of the identity, and the value lives for one
/// step of a loop: a box would cost an allocation for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A PING, PONG or BYE.
    Frame(Frame),
    /// A HELLO.
    Hello {
        /// Who it says it is; possibly empty.
        identity: Identity,
        /// Its monotonic clock.
        timestamp: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No frame yet: a HELLO may come.
    Fresh,
    /// A frame came: no HELLO may.
    Spoken,
    /// BYE came: nothing may.
    Left,
    Failed(FrameError),
}

/// Turns a stream of bytes into frames, however it is cut.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    held: [u8; MAX_FRAME_BYTES],
    length: u8,
    stage: Stage,
}

/// There is one decoder for every connection.
const _: () = assert!(size_of::<Decoder>() <= 96);
const _: () = assert!(MAX_FRAME_BYTES <= u8::MAX as usize);

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub const fn new() -> Decoder {
        Decoder { held: [0; MAX_FRAME_BYTES], length: 0, stage: Stage::Fresh }
    }

    /// Takes bytes from the front of `bytes` until a frame is complete. `None` means that all were
    /// taken and no frame is complete yet. Call it until it says so.
    ///
    /// # Errors
    ///
    /// The first reason why the stream is none of heartbeats, now and at every later call. What is
    /// left in `bytes` then has no meaning.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Decoded>, FrameError> {
        if let Stage::Failed(error) = self.stage {
            return Err(error);
        }
        let outcome = self.advance(bytes);
        if let Err(error) = outcome {
            self.stage = Stage::Failed(error);
            self.length = 0;
        }
        outcome
    }

    /// Bytes held of a frame that is not complete. They are no sign of life: a peer that sends one
    /// byte now and then never completes a thought.
    #[must_use]
    pub const fn partial(&self) -> usize {
        self.length as usize
    }

    /// Whether the peer said BYE, so that the end of the stream is no surprise.
    #[must_use]
    pub fn left(&self) -> bool {
        self.stage == Stage::Left
    }

    fn advance(&mut self, bytes: &mut &[u8]) -> Result<Option<Decoded>, FrameError> {
        // Up to three rounds: nothing held, a header held, a header and an identity held.
        loop {
            let held = usize::from(self.length);
            let whole = self.whole_length()?;
            assert!(held <= whole && whole <= MAX_FRAME_BYTES);
            if held == whole {
                return self.complete().map(Some);
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            if self.stage == Stage::Left {
                return Err(FrameError::AfterBye);
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(whole - held));
            self.held[held..held + taken.len()].copy_from_slice(taken);
            self.length += taken.len() as u8;
            *bytes = rest;
        }
    }

    /// How long the frame will be, as far as the bytes held can tell. They are judged in their
    /// order, each as soon as it is there, so that the verdict does not depend on how they came.
    fn whole_length(&self) -> Result<usize, FrameError> {
        let held = &self.held[..usize::from(self.length)];
        if held.iter().zip(MAGIC).any(|(&byte, magic)| byte != magic) {
            return Err(FrameError::BadMagic);
        }
        if held.get(2).is_some_and(|&version| version != VERSION) {
            return Err(FrameError::WrongVersion);
        }
        let Some(&kind) = held.get(3) else { return Ok(FRAME_BYTES) };
        let kind = Kind::from_byte(kind).ok_or(FrameError::UnknownKind)?;
        if kind != Kind::Hello {
            return Ok(FRAME_BYTES);
        }
        if self.stage != Stage::Fresh {
            return Err(FrameError::LateHello);
        }
        if held.len() < 8 {
            return Ok(FRAME_BYTES);
        }
        match usize::try_from(self.sequence()) {
            Ok(identity) if identity <= MAX_IDENTITY => Ok(FRAME_BYTES + identity),
            _ => Err(FrameError::IdentityTooLong),
        }
    }

    fn complete(&mut self) -> Result<Decoded, FrameError> {
        let length = usize::from(std::mem::take(&mut self.length));
        assert!(length >= FRAME_BYTES);
        let kind = Kind::from_byte(self.held[3]).ok_or(FrameError::UnknownKind)?;
        let (sequence, timestamp) = (self.sequence(), self.timestamp());
        self.stage = if kind == Kind::Bye { Stage::Left } else { Stage::Spoken };
        if kind == Kind::Hello {
            let identity = Identity::from_bytes(&self.held[FRAME_BYTES..length])?;
            return Ok(Decoded::Hello { identity, timestamp });
        }
        Ok(Decoded::Frame(Frame { kind, sequence, timestamp }))
    }

    fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.held[4], self.held[5], self.held[6], self.held[7]])
    }

    fn timestamp(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.held[8..FRAME_BYTES]);
        u64::from_be_bytes(bytes)
    }
}

#[cfg(test)]
mod tests;
