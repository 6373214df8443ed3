//! The descriptor that tells a program which waits elsewhere when an engine may have completions.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
#[cfg(feature = "hosted")]
use std::{
    io,
    task::{Context, Poll, ready},
};

#[cfg(feature = "hosted")]
use tokio::io::{Interest, unix::AsyncFd};

use crate::sys::wakeup::Wakeup;

/// A descriptor to wait for: see [`Engine::readiness`](super::Engine::readiness).
#[derive(Debug)]
pub enum Readiness {
    /// Written by the ring.
    Eventfd(Wakeup),
    /// The epoll instance itself.
    Epoll(OwnedFd),
    /// Written by other threads.
    Shared(Arc<Wakeup>),
}

impl AsRawFd for Readiness {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Readiness::Eventfd(eventfd) => eventfd.as_fd(),
            Readiness::Epoll(epoll) => epoll.as_fd(),
            Readiness::Shared(wakeup) => wakeup.as_fd(),
        }
    }
}

/// Waits in tokio's I/O driver (which tokio-uring's runtime has too) for one descriptor.
#[cfg(feature = "hosted")]
#[derive(Debug)]
pub struct Awaited(AsyncFd<Readiness>);

#[cfg(feature = "hosted")]
impl Awaited {
    /// Registers the descriptor with the present runtime. Errors: those of the runtime's own epoll. Panics outside of
    /// a runtime with I/O.
    pub fn new(readiness: Readiness) -> io::Result<Awaited> {
        // SAFETY: the descriptor is owned by `readiness`, is always the same one, and is moved in: it is open as
        // long as it is registered.
        let registered = unsafe { AsyncFd::register_with_interest(readiness, Interest::READABLE) };
        Ok(Awaited(registered?))
    }

    /// Ready when the descriptor was signalled since the last time. Errors: when the runtime is being shut down.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(context))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}
