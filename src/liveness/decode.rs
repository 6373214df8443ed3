//! A completion's result, decoded once.
//!
//! The result of a batched `recv` is one `i32`: bytes above zero, the end of the stream at zero, a
//! negated errno below. [`received`] turns it into one of five readings; which errno belongs to the
//! peer, to the path or to us is in the table of [`errno`](super::errno).
//!
//! ```
//! use deadpeer::liveness::decode::{Received, received};
//!
//! assert_eq!(received(16), Received::Bytes(16));
//! assert_eq!(received(0), Received::End);
//! assert_eq!(received(-104), Received::Failed(104)); // ECONNRESET: the peer's
//! assert_eq!(received(-105), Received::Starved); // ENOBUFS: ours, nobody dies for it
//! ```

use super::errno::{Meaning, meaning};
use super::fact::PollMask;

/// What the result of a `recv` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes.
    Bytes(u32),
    /// FIN seen, or a reset whose error somebody else took: the socket's state tells which.
    End,
    /// Nothing is there at the moment.
    Nothing,
    /// We are out of buffers or memory: replenish, then ask again.
    Starved,
    /// We took the request back.
    Cancelled,
    /// The peer's or the path's end, or a request the kernel refused; the errno, positive.
    Failed(i32),
}

/// Decodes the result of a `recv`.
#[must_use]
pub fn received(result: i32) -> Received {
    match result {
        1.. => Received::Bytes(result.unsigned_abs()),
        0 => Received::End,
        _ => {
            let errno = result.checked_neg().unwrap_or(i32::MAX);
            match meaning(errno) {
                Meaning::Again => Received::Nothing,
                Meaning::Resources => Received::Starved,
                Meaning::Cancelled => Received::Cancelled,
                Meaning::Reset
                | Meaning::TimedOut
                | Meaning::HostUnreachable
                | Meaning::NetUnreachable
                | Meaning::LocalAbort
                | Meaning::Fault => Received::Failed(errno),
            }
        }
    }
}

/// Decodes the result of a poll: a mask, or the errno of a watch that could not be kept.
pub fn polled(result: i32) -> Result<PollMask, i32> {
    match u32::try_from(result) {
        // The kernel's mask has its bits below 0x8000 (`EPOLLRDHUP` is 0x2000).
        Ok(mask) => Ok(PollMask((mask & 0xffff) as u16)),
        Err(_) => Err(result.checked_neg().unwrap_or(i32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_has_a_reading_and_none_of_ours_is_a_death() {
        for result in [i32::MIN, i32::MIN + 1, -100_000, -134] {
            assert!(matches!(received(result), Received::Failed(_)));
        }
        for ours in [libc::EAGAIN, libc::EINTR, libc::ECANCELED, libc::ETIME, libc::ENOBUFS, libc::ENOMEM] {
            assert!(!matches!(received(-ours), Received::Failed(_) | Received::End | Received::Bytes(_)));
        }
        assert_eq!(received(i32::MAX), Received::Bytes(i32::MAX.unsigned_abs()));
    }

    #[test]
    fn a_mask_keeps_the_bits_that_tell_a_fin_from_a_reset() {
        assert!(polled(0x2000).unwrap().is_end());
        assert!(!polled(0x1).unwrap().is_end());
        assert_eq!(polled(-libc::ECANCELED), Err(libc::ECANCELED));
    }
}
