//! A stream that knows whether its peer is there.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::slot::{Gone, Token};
use super::thread::{Handle, Ticket};
use crate::liveness::Proof;
use crate::liveness::watch::Verdict;

/// The watch of one socket. Dropping it ends the watch, after a last look: whoever waits gets the verdict of
/// that.
pub struct Watch {
    handle: Arc<Handle>,
    ticket: Ticket,
}

impl Watch {
    pub(super) fn new(handle: Arc<Handle>, ticket: Ticket) -> Watch {
        Watch { handle, ticket }
    }

    /// The verdict of now.
    #[must_use]
    pub fn state(&self) -> Verdict {
        self.ticket.slot.verdict()
    }

    /// Why the verdict is right: what was seen when the peer half-closed or went, and while it is here, what the
    /// socket shows now. How long its program and its kernel have been silent is in it, apart. `None` when there
    /// is no socket any more to be looked at.
    #[must_use]
    pub fn proof(&self) -> Option<Proof> {
        self.ticket.slot.proof().or_else(|| self.handle.proof(&self.ticket))
    }

    /// Waits until the peer is gone; or, where the watch ends before, until then, with the last verdict. The
    /// future belongs to no runtime and borrows nothing.
    pub fn gone(&self) -> Gone {
        self.token().gone()
    }

    /// Waits until the peer has half-closed or is gone; as [`gone`](Watch::gone) otherwise.
    pub fn left(&self) -> Gone {
        self.token().left()
    }

    /// As [`gone`](Watch::gone), for threads: blocks.
    pub fn wait_gone(&self) -> Verdict {
        self.ticket.slot.wait(Verdict::is_gone)
    }

    /// Has `callback` called once when the peer is gone: on the watcher's thread, where it must not block; at
    /// once on this one if it is gone already; or on the one that drops the watch, if the last look finds it gone.
    /// Not called if the watch ends before.
    pub fn on_gone(&self, callback: impl FnOnce(Verdict) + Send + 'static) {
        self.ticket.slot.on_gone(Box::new(callback));
    }

    /// A handle to wait with from anywhere.
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

/// A stream and its [`Watch`]: is the one, and has the methods of the other.
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

    /// The watch alone.
    #[must_use]
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Ends the watch and gives the stream back.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// As [`Watch::state`].
    #[must_use]
    pub fn state(&self) -> Verdict {
        self.watch.state()
    }

    /// As [`Watch::proof`].
    #[must_use]
    pub fn proof(&self) -> Option<Proof> {
        self.watch.proof()
    }

    /// As [`Watch::gone`].
    pub fn gone(&self) -> Gone {
        self.watch.gone()
    }

    /// As [`Watch::left`].
    pub fn left(&self) -> Gone {
        self.watch.left()
    }

    /// As [`Watch::wait_gone`].
    pub fn wait_gone(&self) -> Verdict {
        self.watch.wait_gone()
    }

    /// As [`Watch::on_gone`].
    pub fn on_gone(&self, callback: impl FnOnce(Verdict) + Send + 'static) {
        self.watch.on_gone(callback);
    }

    /// As [`Watch::token`].
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
