//! Readiness as a future of tokio's.

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Readiness;

/// Waits in tokio's I/O driver (which tokio-uring's runtime has too) for what an [`Engine`](super::Engine) waits for.
#[derive(Debug)]
pub struct Awaited(AsyncFd<Readiness>);

impl Awaited {
    /// Enters it into the present runtime.
    ///
    /// # Errors
    ///
    /// When the runtime's own epoll does not take it.
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

    /// Waits until there may be something; from then on only what is new makes it ready again.
    ///
    /// # Errors
    ///
    /// When the runtime is being shut down.
    pub async fn ready(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
