//! Why a stream is refused.

use std::fmt;

use super::layout::{MAGIC, VERSION};
use crate::limits::MAX_IDENTITY;

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
