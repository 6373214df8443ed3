//! A stream of tokio-uring's as a borrowed descriptor.

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use tokio_uring::net::TcpStream;

/// A stream of tokio-uring's that can be watched and handed over: tokio-uring's own type does not implement [`AsFd`],
/// which both ask for. It reads and writes as the stream in it does.
pub struct UringStream(pub TcpStream);

impl AsFd for UringStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the stream owns its descriptor and keeps it open for as long as it is borrowed here.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

impl Deref for UringStream {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl DerefMut for UringStream {
    fn deref_mut(&mut self) -> &mut TcpStream {
        &mut self.0
    }
}
