//! Frames, and how they become bytes.

use super::error::FrameError;
use super::identity::Identity;
use super::layout::{FRAME_BYTES, Kind, MAGIC, VERSION};

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
