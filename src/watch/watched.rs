//! The watch of a socket, and a stream together with its watch.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::slot::{Gone, Token};
use super::thread::{Handle, Ticket};
use crate::liveness::Proof;
use crate::liveness::watch::Verdict;

/// The watch of one socket. Dropping it ends the watch after a last look, whose verdict all waiters get.
pub struct Watch {
    handle: Arc<Handle>,
    ticket: Ticket,
}

impl Watch {
    pub(super) fn new(handle: Arc<Handle>, ticket: Ticket) -> Watch {
        Watch { handle, ticket }
    }

    /// The verdict as it is now. It takes a lock and makes no system call.
    #[must_use]
    pub fn state(&self) -> Verdict {
        self.ticket.slot.verdict()
    }

    /// What the verdict rests on: what was seen when the peer half-closed or went, and while it is here, what the socket
    /// shows now. It tells for how long the peer's program and its kernel have been silent, one apart from the other.
    /// `None` when the socket is closed.
    #[must_use]
    pub fn proof(&self) -> Option<Proof> {
        self.ticket.slot.proof().or_else(|| self.handle.proof(&self.ticket))
    }

    /// Waits until the peer is gone, or until the watch ends, and returns the last verdict. The future belongs to no runtime
    /// and borrows nothing.
    pub fn gone(&self) -> Gone {
        self.token().gone()
    }

    /// Waits until the peer has half-closed or is gone, or until the watch ends, and returns the last verdict.
    pub fn left(&self) -> Gone {
        self.token().left()
    }

    /// Blocks until the peer is gone, or until the watch ends, and returns the last verdict.
    pub fn wait_gone(&self) -> Verdict {
        self.ticket.slot.wait(Verdict::is_gone)
    }

    /// Calls `callback` once when the peer is gone: on the watcher's thread, where it must not block; at once on this thread
    /// if the peer is gone already; or on the thread that drops the watch, if the peer is gone by then and the watcher's
    /// thread has not taken it up. It is dropped without a call if the watch ends while the peer is there. Dropping the
    /// watch does not wait for a callback: one that the watcher's thread has taken up is called there, before or after.
    ///
    /// ```
    /// use deadpeer::{Policy, Watcher, WatcherConfig};
    /// use std::net::{TcpListener, TcpStream};
    /// use std::sync::mpsc;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let client = TcpStream::connect(listener.local_addr()?)?;
    /// let (stream, _) = listener.accept()?;
    ///
    /// let watcher = Watcher::start(WatcherConfig::default())?;
    /// let stream = watcher.watch(stream, Policy::STANDARD.transport_only())?;
    /// let (tell, told) = mpsc::channel();
    /// stream.on_gone(move |verdict| tell.send(verdict).unwrap());
    /// drop(client);
    /// assert!(told.recv()?.is_gone());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_gone(&self, callback: impl FnOnce(Verdict) + Send + 'static) {
        self.ticket.slot.on_gone(Box::new(callback));
    }

    /// A handle that waits for the verdict without the stream.
    #[must_use]
    pub fn token(&self) -> Token {
        Token::new(self.ticket.slot.clone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.handle.leave(&self.ticket);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.state()).finish()
    }
}

/// A stream together with its [`Watch`]. It dereferences to the stream and has the methods of the watch.
#[derive(Debug)]
pub struct Watched<S> {
    // Dropped first: the watch ends before the stream closes.
    watch: Watch,
    stream: S,
}

impl<S> Watched<S> {
    pub(super) fn new(watch: Watch, stream: S) -> Watched<S> {
        Watched { watch, stream }
    }

    /// The watch of this stream.
    #[must_use]
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Ends the watch and gives the stream back.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// The verdict as it is now, as [`Watch::state`].
    #[must_use]
    pub fn state(&self) -> Verdict {
        self.watch.state()
    }

    /// What the verdict rests on, as [`Watch::proof`].
    #[must_use]
    pub fn proof(&self) -> Option<Proof> {
        self.watch.proof()
    }

    /// Waits until the peer is gone, as [`Watch::gone`].
    pub fn gone(&self) -> Gone {
        self.watch.gone()
    }

    /// Waits until the peer has half-closed or is gone, as [`Watch::left`].
    pub fn left(&self) -> Gone {
        self.watch.left()
    }

    /// Blocks until the peer is gone, as [`Watch::wait_gone`].
    pub fn wait_gone(&self) -> Verdict {
        self.watch.wait_gone()
    }

    /// Calls `callback` once when the peer is gone, as [`Watch::on_gone`].
    pub fn on_gone(&self, callback: impl FnOnce(Verdict) + Send + 'static) {
        self.watch.on_gone(callback);
    }

    /// A handle that waits without the stream, as [`Watch::token`].
    #[must_use]
    pub fn token(&self) -> Token {
        self.watch.token()
    }
}

impl<S> Deref for Watched<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.stream
    }
}

impl<S> DerefMut for Watched<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}
