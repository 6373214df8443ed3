//! From bytes to frames.

use super::layout::{FRAME_BYTES, Frame, FrameError, Identity, Kind, MAGIC, MAX_FRAME_BYTES, VERSION};
use crate::limits::MAX_IDENTITY;

/// One complete frame. The identity stays unboxed: the value lives for one step of a loop, and a box would cost an
/// allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A PING, PONG or BYE.
    Frame(Frame),
    /// A HELLO, with the identity that it carries.
    Hello {
        /// The sender's name, which may be empty.
        identity: Identity,
        /// The sender's monotonic clock in nanoseconds.
        timestamp: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No frame came yet: a HELLO may come.
    Fresh,
    /// A frame came: no HELLO may come.
    Spoken,
    /// A BYE came: no byte may come.
    Left,
    /// The stream was refused.
    Failed(FrameError),
}

/// Turns a stream of bytes, in pieces of any size, into frames.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    held: [u8; MAX_FRAME_BYTES],
    length: u8,
    stage: Stage,
}

// There is one decoder for every connection.
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

    /// Takes bytes from the front of `bytes` until a frame is complete. `None` means that all bytes were taken and no
    /// frame is complete. Call it until it returns `None`.
    ///
    /// # Errors
    ///
    /// The first fault of the stream, now and at every later call. The rest of `bytes` is then without meaning.
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

    /// The number of bytes held of an incomplete frame. They are no sign of life: a peer that sends one byte now and
    /// then may never complete a frame.
    #[must_use]
    pub const fn partial(&self) -> usize {
        self.length as usize
    }

    /// Whether the peer sent BYE, so that the end of the stream is on purpose.
    #[must_use]
    pub fn left(&self) -> bool {
        self.stage == Stage::Left
    }

    fn advance(&mut self, bytes: &mut &[u8]) -> Result<Option<Decoded>, FrameError> {
        // At most three rounds: nothing held, a header held, a header and an identity held.
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

    /// The length of the frame, as far as the held bytes determine it. Each byte is checked in its order as soon as it
    /// is there, so that the result does not depend on how the stream was cut.
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
