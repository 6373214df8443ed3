//! HTTP/1 as far as a relay must know it: where each message begins and ends.
//!
//! # Intuition
//!
//! A relay that wants to know whether a client waits for an answer must know where requests and responses end. Two
//! programs that disagree about that can be played off against each other (request smuggling). So a message that could
//! be read in two ways is not read at all: the result is a [`Reason`], and the caller stops following that connection.
//!
//! # Model
//!
//! ```text
//!   bytes ──► RequestHead / ResponseHead ──► Framing ──► Body: how many of these bytes belong to the message?
//!                 (head)                                  (body, chunked)
//!   bytes behind an Upgrade ──► Frames: has this side closed its WebSocket? (websocket)
//! ```
//!
//! # Contract
//!
//! - Pure: no clock, no descriptor. Nothing is kept of the bytes but counts.
//! - A message ends in the same place, however its bytes are cut into pieces.
//! - Lines end in CR LF. Bare CR, bare LF, NUL, folded lines, two lengths, a length beside a transfer coding, a coding
//!   that is not exactly `chunked`, and sizes that are not plain hexadecimal numbers are [`Reason`]s (RFC 9112
//!   sections 2.2, 5.2, 6.1 to 6.3, 7.1, which leave each of them to the recipient).
//!
//! # Example
//!
//! ```
//! use deadpeer::http::{Body, Head, RequestHead, Scan};
//!
//! let wire = b"POST /query HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n";
//! let mut scan = Scan::default();
//! let Head::Whole { head, length } = RequestHead::read(wire, &mut scan) else { unreachable!() };
//! assert_eq!((head.method(), head.target()), ("POST", "/query"));
//! let mut body = Body::new(head.framing());
//! let fed = body.feed(&wire[length..]).unwrap();
//! assert_eq!((fed.taken, fed.over), (3, true)); // what follows is another request
//! ```

mod body;
mod forwarded;
mod head;
mod reason;
#[cfg(test)]
mod tests;
mod websocket;

pub use body::{Body, Fed, Framing};
pub use forwarded::{Forwarded, rewrite};
pub use head::{Head, RequestHead, ResponseHead, Scan, fields};
pub use reason::Reason;
pub use websocket::Frames;
