//! The heartbeat frame: sixteen bytes by which a program shows that it works.
//!
//! *Intuition.* TCP shows that a machine answers, not that a program does. A program that writes a frame now and then
//! shows it, and a frame that is answered also measures the round trip.
//!
//! *Model.* Every frame is sixteen bytes, so a reader always knows how many are missing:
//!
//! ```text
//!   0      2       3      4          8                  16
//!   | magic | version | kind | sequence |    timestamp     |   then, after a HELLO only,
//!   | F5 AD |   01    | 1..4 |  u32 be  |      u64 be      |   `sequence` bytes of identity
//! ```
//!
//! `HELLO` names the sender, `PING` asks for a `PONG`, and `BYE` announces that the sender ends the connection on
//! purpose. A `PONG` that answers no `PING` (timestamp 0) is the ordinary heartbeat. `docs/PROTOCOL.md` has the rules for
//! other implementations, and a test compares the two.
//!
//! *Contract.* [`Decoder`] takes bytes in pieces of any size, and the frames do not depend on how a stream is cut. It
//! allocates nothing and holds at most one incomplete frame. It refuses a stream at the first byte that no frame can
//! have, within sixteen bytes, and refuses everything after that, since the start of the next frame is unknown. No input
//! makes it panic.
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

mod decoder;
mod layout;

pub use decoder::{Decoded, Decoder};
pub use layout::{
    FRAME_BYTES, Frame, FrameError, Identity, Kind, MAGIC, MAX_FRAME_BYTES, VERSION, encode_hello,
};

#[cfg(test)]
mod tests;
