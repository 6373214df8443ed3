//! A completion's result, decoded once.
//!
//! The result of a batched `recv` is one `i32`: bytes above zero, the end of the stream at zero, a
//! negated errno below. [`received`] turns it into a [`Received`]; the table of [`errno`](super::errno) tells which errno
//! belongs to the peer, to the path or to this side.
//!
//! ```
//! use deadpeer::liveness::decode::{Received, received};
//!
//! assert_eq!(received(16), Received::Bytes(16));
//! assert_eq!(received(0), Received::End);
//! assert_eq!(received(-104), Received::Failed(104)); // ECONNRESET: the peer's
//! assert_eq!(received(-105), Received::Starved); // ENOBUFS: an error of this side, no peer dies of it
//! ```

use super::errno::{Meaning, meaning};
use super::fact::PollMask;

/// The meaning of the result of a `recv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes were read.
    Bytes(u32),
    /// The FIN was seen, or a reset whose error another reader took: the socket's state tells which.
    End,
    /// Nothing is there to read at the moment.
    Nothing,
    /// This side is out of buffers or memory: replenish, then ask again.
    Starved,
    /// This side took the request back.
    Cancelled,
    /// The end by the peer or the path, or a request that the kernel refused; the errno, positive.
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

/// Decodes the result of a poll: a mask.
///
/// # Errors
///
/// The errno, positive, of a poll that could not be kept.
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
    fn every_result_has_a_meaning_and_no_fault_of_this_side_is_a_death() {
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
