//! epoll: which of many descriptors are ready (`epoll(7)`).
//!
//! A thin layer: masks and tokens are the kernel's own, and what they mean is the caller's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

/// An epoll instance. It does not own the descriptors that it watches: a closed one leaves by itself,
/// unless a duplicate of it is open.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

/// A descriptor that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The token that it was added with.
    pub token: u64,
    /// The events that are ready: `EPOLLIN` and others.
    pub mask: u32,
}

/// Room for the descriptors that one wait finds. Those that do not fit come with the next wait.
pub struct ReadyList {
    events: Vec<epoll::Event>,
}

impl ReadyList {
    /// Room for `most` descriptors. Panics when `most` is 0, which the kernel refuses, or beyond `i32`.
    #[must_use]
    pub fn new(most: usize) -> ReadyList {
        assert!(most > 0 && i32::try_from(most).is_ok(), "the kernel takes a positive i32");
        ReadyList { events: Vec::with_capacity(most) }
    }

    /// Whether the last wait filled the list, so that more may be ready.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.events.len() == self.events.capacity()
    }

    /// The descriptors that the last wait found.
    pub fn iter(&self) -> impl Iterator<Item = Ready> {
        self.events
            .iter()
            .map(|&epoll::Event { flags, data }| Ready { token: data.u64(), mask: flags.bits() })
    }
}

impl Epoll {
    /// Makes an instance that watches nothing, close-on-exec. Errors: when there are no descriptors left.
    pub fn new() -> io::Result<Epoll> {
        Ok(Epoll { fd: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Watches a descriptor. EPOLLERR and EPOLLHUP come without being asked for. Errors: those of `epoll_ctl(2)`: it
    /// is watched already, or cannot be.
    pub fn add(&self, fd: BorrowedFd<'_>, mask: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), mask, token)
    }

    /// As [`add`](Epoll::add), for a caller that has only the number of the descriptor. Errors: as
    /// [`add`](Epoll::add), or it is no descriptor.
    pub(crate) fn add_number(&self, fd: RawFd, mask: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, mask, token)
    }

    /// Changes mask and token of a descriptor that is watched. Errors: those of `epoll_ctl(2)`: it is not watched, or is
    /// no descriptor.
    #[cfg(any(feature = "tracker", test))]
    pub(crate) fn modify_number(&self, fd: RawFd, mask: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, mask, token)
    }

    /// Stops watching a descriptor that its owner may have closed. Whatever the number means by now, only an entry of
    /// this instance is affected. Errors: those of `epoll_ctl(2)`: it is not watched, or is no descriptor.
    pub(crate) fn delete_number(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(&self, operation: i32, fd: RawFd, mask: u32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: mask, u64: token };
        // SAFETY: `event` is ours and outlives the call, which reads it and keeps a copy.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits until a descriptor is ready, or for `timeout`; without one, for ever. A signal ends the wait with
    /// nothing found. The timeout is rounded up to a whole millisecond, the kernel's grain here. Errors: those of
    /// `epoll_wait(2)`.
    pub fn wait(&self, found: &mut ReadyList, timeout: Option<Duration>) -> io::Result<()> {
        found.events.clear();
        let timeout = timeout.map(|timeout| {
            let millis = timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i64;
            Timespec { tv_sec: millis / 1_000, tv_nsec: millis % 1_000 * 1_000_000 }
        });
        let room = rustix::buffer::spare_capacity(&mut found.events);
        match epoll::wait(&self.fd, room, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    const IN: u32 = libc::EPOLLIN as u32;

    fn found(epoll: &Epoll, room: usize) -> Vec<Ready> {
        let mut list = ReadyList::new(room);
        epoll.wait(&mut list, Some(Duration::ZERO)).unwrap();
        list.iter().collect()
    }

    #[test]
    fn a_descriptor_is_found_by_its_token_until_it_is_deleted() {
        let epoll = Epoll::new().unwrap();
        let (mut one, other) = UnixStream::pair().unwrap();
        epoll.add(other.as_fd(), IN, 7).unwrap();
        assert_eq!(found(&epoll, 4), []);
        one.write_all(b"x").unwrap();
        assert_eq!(found(&epoll, 4), [Ready { token: 7, mask: IN }]);
        epoll.modify_number(other.as_raw_fd(), IN, u64::MAX).unwrap();
        assert_eq!(found(&epoll, 4), [Ready { token: u64::MAX, mask: IN }]);
        epoll.delete_number(other.as_raw_fd()).unwrap();
        assert_eq!(found(&epoll, 4), []);
        assert!(epoll.delete_number(other.as_raw_fd()).is_err());
    }

    #[test]
    fn events_that_do_not_fit_come_with_the_next_wait() {
        let epoll = Epoll::new().unwrap();
        let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
        for (token, (one, other)) in pairs.iter().enumerate() {
            let edge = IN | libc::EPOLLET.cast_unsigned();
            epoll.add(other.as_fd(), edge, token as u64).unwrap();
            (&*one).write_all(b"x").unwrap();
        }
        let mut tokens: Vec<_> = (0..3).flat_map(|_| found(&epoll, 1)).map(|ready| ready.token).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1, 2]);
        assert_eq!(found(&epoll, 1), []);
    }
}
