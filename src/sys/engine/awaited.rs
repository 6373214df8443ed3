//! Readiness as a future of tokio's.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Readiness;

/// Waits in tokio's I/O driver (which tokio-uring's runtime has too) for one descriptor.
#[derive(Debug)]
pub struct Awaited(AsyncFd<Readiness>);

impl Awaited {
    /// Registers the descriptor with the present runtime.
    ///
    /// # Errors
    ///
    /// Those of the runtime's own epoll.
    ///
    /// # Panics
    ///
    /// Outside of a runtime with I/O.
    pub fn new(readiness: Readiness) -> io::Result<Awaited> {
        // SAFETY: the descriptor is owned by `readiness`, is always the same one, and is moved in: it is open as
        // long as it is registered.
        let registered = unsafe { AsyncFd::register_with_interest(readiness, Interest::READABLE) };
        Ok(Awaited(registered?))
    }

    /// Ready when the descriptor was signalled since the last time.
    ///
    /// # Errors
    ///
    /// When the runtime is being shut down.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(context))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}
