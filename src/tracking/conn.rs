//! What a driver holds of one connection: eight bytes beside the tracker's record, which knows whose
//! life it is.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::liveness::PollMask;

/// One connection's descriptor and what is under way on it.
#[derive(Debug)]
pub(super) struct Conn {
    fd: OwnedFd,
    /// The last poll mask.
    pub(super) mask: PollMask,
    flags: u16,
}

impl Conn {
    /// The poll is armed: its last completion is still to come.
    pub(super) const WATCHED: u16 = 1;
    /// A recv is under way.
    pub(super) const RECEIVING: u16 = 1 << 1;
    /// Another drain was asked for meanwhile.
    pub(super) const AGAIN: u16 = 1 << 2;
    /// Take everything off, up to 0 or an error.
    pub(super) const TO_END: u16 = 1 << 3;
    /// Dead: closed as soon as nothing is under way.
    pub(super) const CLOSING: u16 = 1 << 4;
    /// Close with a RST.
    pub(super) const ABORT: u16 = 1 << 5;
    /// A recv gave 0, and gives nothing else any more.
    pub(super) const ENDED: u16 = 1 << 6;
    /// It streams: read on until nothing is there, and wait for no batch meanwhile.
    pub(super) const STREAMING: u16 = 1 << 7;
    /// A drain has begun, and its first result is to come.
    pub(super) const FRESH: u16 = 1 << 8;
    /// The poll ends with its first completion.
    pub(super) const ONCE: u16 = 1 << 9;
    /// No recv has followed the last completion of the poll.
    pub(super) const UNREAD: u16 = 1 << 10;

    pub(super) const fn new(fd: OwnedFd) -> Conn {
        Conn { fd, mask: PollMask(0), flags: 0 }
    }

    pub(super) const fn has(&self, bits: u16) -> bool {
        self.flags & bits != 0
    }

    pub(super) fn set(&mut self, bits: u16) {
        self.flags |= bits;
    }

    pub(super) fn clear(&mut self, bits: u16) {
        self.flags &= !bits;
    }

    /// Clears `bits` and says whether any of them was set.
    pub(super) fn take(&mut self, bits: u16) -> bool {
        let had = self.has(bits);
        self.clear(bits);
        had
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const _: () = assert!(size_of::<Option<Conn>>() == 8);
