//! The bytes of a frame.

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
