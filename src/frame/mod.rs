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

mod decoder;
mod encode;
mod error;
mod identity;
mod layout;

pub use decoder::{Decoded, Decoder};
pub use encode::{Frame, encode_hello};
pub use error::FrameError;
pub use identity::Identity;
pub use layout::{FRAME_BYTES, Kind, MAGIC, MAX_FRAME_BYTES, VERSION};

#[cfg(test)]
mod tests;
