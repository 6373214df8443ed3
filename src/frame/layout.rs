//! The bytes of a frame.

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
