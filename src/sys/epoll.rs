//! epoll: who of many descriptors has something to say (`epoll(7)`).
//!
//! A thin layer: masks and tokens are the kernel's own, and what they mean is the caller's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// An epoll instance. It watches descriptors without owning them: one that is closed leaves by itself,
/// unless a duplicate of it is open somewhere.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
}

/// A descriptor that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What it was added with.
    pub token: u64,
    /// EPOLLIN and its kind.
    pub mask: u32,
}

/// Room for what one wait finds. What does not fit comes with the next one.
pub struct ReadyList {
    events: Vec<libc::epoll_event>,
    count: usize,
}

impl ReadyList {
    /// Room for so many.
    ///
    /// # Panics
    ///
    /// When `most` is 0, which the kernel refuses, or beyond `i32`.
    #[must_use]
    pub fn new(most: usize) -> ReadyList {
        assert!(most > 0 && i32::try_from(most).is_ok(), "the kernel takes a positive i32");
        ReadyList { events: vec![libc::epoll_event { events: 0, u64: 0 }; most], count: 0 }
    }

    /// Whether the last wait found as much as there is room for.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count == self.events.len()
    }

    /// What the last wait found.
    pub fn iter(&self) -> impl Iterator<Item = Ready> {
        self.events[..self.count].iter().map(|event| Ready { token: event.u64, mask: event.events })
    }
}

impl Epoll {
    /// A new one that watches nothing, close-on-exec.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: a system call on a plain number.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Epoll { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Watches a descriptor. EPOLLERR and EPOLLHUP come without being asked for.
    ///
    /// # Errors
    ///
    /// Those of `epoll_ctl(2)`: it is watched already, or cannot be.
    pub fn add(&self, fd: BorrowedFd<'_>, mask: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), mask, token)
    }

    /// Changes mask and token of one that is watched.
    ///
    /// # Errors
    ///
    /// Those of `epoll_ctl(2)`: it is not watched.
    pub fn modify(&self, fd: BorrowedFd<'_>, mask: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), mask, token)
    }

    /// Watches it no more.
    ///
    /// # Errors
    ///
    /// Those of `epoll_ctl(2)`: it is not watched.
    pub fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), 0, 0)
    }

    /// As [`add`](Epoll::add), for a descriptor whose owner only has its number at hand.
    ///
    /// # Errors
    ///
    /// As [`add`](Epoll::add), or it is no descriptor.
    pub fn add_number(&self, fd: RawFd, mask: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, mask, token)
    }

    /// As [`modify`](Epoll::modify), for a descriptor whose owner only has its number at hand.
    ///
    /// # Errors
    ///
    /// As [`modify`](Epoll::modify), or it is no descriptor.
    pub fn modify_number(&self, fd: RawFd, mask: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, mask, token)
    }

    /// Watches a descriptor no more that somebody else owns and may have closed. Whatever the number means by
    /// now, only what this instance watches can be affected.
    ///
    /// # Errors
    ///
    /// Those of `epoll_ctl(2)`: it is not watched, or is no descriptor.
    pub fn delete_number(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(&self, operation: i32, fd: RawFd, mask: u32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: mask, u64: token };
        // SAFETY: `event` is ours and outlives the call, which reads it and keeps a copy.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &mut event) })?;
        Ok(())
    }

    /// Waits until something is ready, or for so long; without a timeout, for ever. A signal ends the wait
    /// with nothing found. The timeout is rounded up to a whole millisecond, the kernel's grain here.
    ///
    /// # Errors
    ///
    /// Those of `epoll_wait(2)`.
    pub fn wait(&self, found: &mut ReadyList, timeout: Option<Duration>) -> io::Result<()> {
        found.count = 0;
        let millis = timeout
            .map_or(-1, |timeout| i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
        let room = i32::try_from(found.events.len()).expect("it was checked when the list was made");
        // SAFETY: `found.events` is borrowed exclusively for the call, which writes at most `room` of its
        // entries and keeps nothing.
        let count =
            check(unsafe { libc::epoll_wait(self.fd.as_raw_fd(), found.events.as_mut_ptr(), room, millis) });
        match count {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            count => {
                found.count = usize::try_from(count?).expect("not negative");
                Ok(())
            }
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
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
    fn what_is_added_is_found_by_its_token_until_it_is_deleted() {
        let epoll = Epoll::new().unwrap();
        let (mut one, other) = UnixStream::pair().unwrap();
        epoll.add(other.as_fd(), IN, 7).unwrap();
        assert_eq!(found(&epoll, 4), []);
        one.write_all(b"x").unwrap();
        assert_eq!(found(&epoll, 4), [Ready { token: 7, mask: IN }]);
        epoll.modify(other.as_fd(), IN, u64::MAX).unwrap();
        assert_eq!(found(&epoll, 4), [Ready { token: u64::MAX, mask: IN }]);
        epoll.delete(other.as_fd()).unwrap();
        assert_eq!(found(&epoll, 4), []);
        assert!(epoll.delete(other.as_fd()).is_err());
    }

    #[test]
    fn what_does_not_fit_comes_with_the_next_wait() {
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
