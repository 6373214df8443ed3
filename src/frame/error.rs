//! Why a stream is refused.

use std::fmt;

use super::layout::{MAGIC, VERSION};
use crate::limits::MAX_IDENTITY;

/// Why a stream is not one of frames. Each is final for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    /// An identity that is not UTF-8, or has control characters, with which a peer could control the terminal that
    /// shows its name.
    IdentityNotText,
    /// Bytes came after a BYE, which is the last frame of a stream.
    AfterBye,
}

impl FrameError {
    /// All errors, in the order of their declaration.
    pub const ALL: [FrameError; 7] = [
        FrameError::BadMagic,
        FrameError::WrongVersion,
        FrameError::UnknownKind,
        FrameError::LateHello,
        FrameError::IdentityTooLong,
        FrameError::IdentityNotText,
        FrameError::AfterBye,
    ];

    /// The name in events and in `docs/PROTOCOL.md`.
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
