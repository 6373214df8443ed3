//! Frames, and their bytes.

use super::error::FrameError;
use super::identity::Identity;
use super::layout::{FRAME_BYTES, Kind, MAGIC, VERSION};

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
