//! Frames, the identity in a HELLO, their bytes, and why a stream is refused.

use std::fmt;

use crate::limits::MAX_IDENTITY;

/// The first two bytes of every frame. 0xF5 occurs in no UTF-8 text, so neither HTTP nor a log line can begin like a
/// frame; a TLS record begins with 0x14 to 0x18, telnet with 0xFF. The second byte differs from the first and is no
/// version or kind, so that a stream which is read one byte off is refused at once.
pub const MAGIC: [u8; 2] = [0xF5, 0xAD];

/// The third byte of every frame: the version of the protocol.
pub const VERSION: u8 = 1;

/// The length of a frame in bytes, without the identity of a HELLO.
pub const FRAME_BYTES: usize = 16;

/// The length of the longest frame in bytes: a HELLO with the longest identity.
pub const MAX_FRAME_BYTES: usize = FRAME_BYTES + MAX_IDENTITY;

/// The kind of a frame: its fourth byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Names the sender: optional, once, before every other frame.
    Hello = 1,
    /// Asks the receiver for a [`Kind::Pong`].
    Ping = 2,
    /// An answer to a PING, or with timestamp 0 an ordinary heartbeat.
    Pong = 3,
    /// Announces an end on purpose: the last frame before the FIN.
    Bye = 4,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Hello),
            2 => Some(Kind::Ping),
            3 => Some(Kind::Pong),
            4 => Some(Kind::Bye),
            _ => None,
        }
    }
}

/// A frame without an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// PING, PONG, BYE, or a HELLO without an identity.
    pub kind: Kind,
    /// In a PING the sender's count of PINGs. In a PONG the sequence of the PING that it answers, or the sender's count
    /// of heartbeats. In a BYE the sequence of the next heartbeat.
    pub sequence: u32,
    /// Nanoseconds of the monotonic clock of the side that sent the PING, opaque to the other side; 0 if the frame
    /// neither asks nor answers.
    pub timestamp: u64,
}

impl Frame {
    /// The ordinary heartbeat: a PONG that answers no PING.
    #[must_use]
    pub const fn beat(sequence: u32) -> Frame {
        Frame { kind: Kind::Pong, sequence, timestamp: 0 }
    }

    /// The frame before an end on purpose.
    #[must_use]
    pub const fn bye(sequence: u32) -> Frame {
        Frame { kind: Kind::Bye, sequence, timestamp: 0 }
    }

    /// The answer that this frame asks for: a PONG with the same sequence and timestamp for a PING, `None` for others.
    #[must_use]
    pub fn answer(&self) -> Option<Frame> {
        (self.kind == Kind::Ping).then_some(Frame { kind: Kind::Pong, ..*self })
    }

    /// The sixteen bytes of the frame.
    ///
    /// # Panics
    ///
    /// If the frame is a HELLO with a `sequence` other than 0: that field is the length of the identity, which a `Frame`
    /// does not have. [`encode_hello`] writes such a HELLO.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_BYTES] {
        assert!(
            self.kind != Kind::Hello || self.sequence == 0,
            "a HELLO with an identity is not sixteen bytes"
        );
        header(self.kind, self.sequence, self.timestamp)
    }
}

/// The bytes of a HELLO with its identity, which may be empty.
///
/// # Errors
///
/// [`FrameError::IdentityTooLong`] and [`FrameError::IdentityNotText`], which a decoder would report.
pub fn encode_hello(identity: &str, timestamp: u64) -> Result<Vec<u8>, FrameError> {
    let identity = Identity::new(identity)?;
    let mut bytes = header(Kind::Hello, identity.as_str().len() as u32, timestamp).to_vec();
    bytes.extend_from_slice(identity.as_str().as_bytes());
    Ok(bytes)
}

pub(super) fn header(kind: Kind, sequence: u32, timestamp: u64) -> [u8; FRAME_BYTES] {
    let mut bytes = [0; FRAME_BYTES];
    bytes[..2].copy_from_slice(&MAGIC);
    bytes[2] = VERSION;
    bytes[3] = kind as u8;
    bytes[4..8].copy_from_slice(&sequence.to_be_bytes());
    bytes[8..].copy_from_slice(&timestamp.to_be_bytes());
    bytes
}

/// The name that a peer gives itself: text of at most [`MAX_IDENTITY`] bytes without control characters, stored inline.
/// It is a claim and proves nothing.
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

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Identity, FrameError> {
        Identity::new(std::str::from_utf8(bytes).map_err(|_| FrameError::IdentityNotText)?)
    }

    /// The identity as text, 1 to 64 bytes of UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = std::str::from_utf8(&self.bytes[..usize::from(self.length)]);
        text.expect("`new` copies a whole str")
    }

    /// Whether the text is empty: a HELLO may have no name.
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

words! {
    /// Why a stream is not one of frames. Each is final for its connection.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum FrameError {
        /// A frame did not begin with [`MAGIC`].
        BadMagic = "bad_magic",
        /// A frame of another version than [`VERSION`].
        WrongVersion = "wrong_version",
        /// A kind that version 1 does not have.
        UnknownKind = "unknown_kind",
        /// A HELLO that is not the first frame.
        LateHello = "late_hello",
        /// An identity of more than [`MAX_IDENTITY`] bytes.
        IdentityTooLong = "identity_too_long",
        /// An identity that is not UTF-8, or has control characters, with which a peer could control the terminal that
        /// shows its name.
        IdentityNotText = "identity_not_text",
        /// Bytes came after a BYE, which is the last frame of a stream.
        AfterBye = "after_bye",
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
