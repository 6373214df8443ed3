//! The slot of a watch: the watcher's thread leaves the verdict there, and other threads wait for it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::liveness::Proof;
use crate::liveness::watch::{Change, Verdict};

/// A function that is called once, with the verdict.
type Callback = Box<dyn FnOnce(Verdict) + Send>;

/// The state of one watch that both sides share.
pub(super) struct Slot {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    verdict: Verdict,
    proof: Option<Proof>,
    /// The watch was ended: the verdict changes no more.
    over: bool,
    next_key: u64,
    wakers: Vec<(u64, Waker)>,
    callbacks: Vec<Callback>,
}

impl Slot {
    pub(super) fn new() -> Slot {
        let inner = Inner {
            verdict: Verdict::Here,
            proof: None,
            over: false,
            next_key: 0,
            wakers: Vec::new(),
            callbacks: Vec::new(),
        };
        Slot { inner: Mutex::new(inner), changed: Condvar::new() }
    }

    /// No foreign code runs under the lock, not even a waker's clone or drop, so a poisoned lock protects sound data.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.lock().verdict
    }

    pub(super) fn proof(&self) -> Option<Proof> {
        self.lock().proof
    }

    /// Leaves a verdict. It runs no foreign code, so it may be called under a lock; [`notify`](Slot::notify) or
    /// [`end`](Slot::end) must follow outside of it.
    pub(super) fn set(&self, change: &Change) {
        let mut inner = self.lock();
        if !inner.over {
            inner.verdict = change.verdict;
            inner.proof = Some(change.proof);
        }
    }

    /// Wakes all waiters, and runs the callbacks if the peer is gone. They are taken out of the slot first: an
    /// [`end`](Slot::end) meanwhile neither calls nor waits for them.
    pub(super) fn notify(&self) {
        let mut inner = self.lock();
        let verdict = inner.verdict;
        let callbacks = if verdict.is_gone() { std::mem::take(&mut inner.callbacks) } else { Vec::new() };
        self.release(inner);
        for callback in callbacks {
            call(callback, verdict);
        }
    }

    /// Ends the watch: its verdict changes no more. Runs the callbacks if the peer is gone and they were not run, and
    /// drops them otherwise.
    pub(super) fn end(&self) {
        let mut inner = self.lock();
        inner.over = true;
        let verdict = inner.verdict;
        let callbacks = std::mem::take(&mut inner.callbacks);
        self.release(inner);
        for callback in callbacks {
            if verdict.is_gone() {
                call(callback, verdict);
            } else {
                guarded(|| drop(callback)); // what it owns may panic when it is dropped
            }
        }
    }

    fn release(&self, mut inner: MutexGuard<'_, Inner>) {
        let wakers = std::mem::take(&mut inner.wakers);
        drop(inner);
        self.changed.notify_all();
        for (_, waker) in wakers {
            guarded(|| waker.wake());
        }
    }

    pub(super) fn on_gone(&self, callback: Callback) {
        let mut inner = self.lock();
        let verdict = inner.verdict;
        if !verdict.is_gone() {
            if !inner.over {
                inner.callbacks.push(callback);
            }
            return;
        }
        drop(inner);
        call(callback, verdict);
    }

    pub(super) fn wait(&self, enough: fn(Verdict) -> bool) -> Verdict {
        let mut inner = self.lock();
        while !inner.over && !enough(inner.verdict) {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.verdict
    }
}

fn call(callback: Callback, verdict: Verdict) {
    guarded(|| callback(verdict));
}

/// Runs foreign code. A panic in it must not lose the verdicts of other watches; the hook has printed its message.
fn guarded(code: impl FnOnce()) {
    if let Err(payload) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(code)) {
        std::mem::forget(payload); // dropping it may panic again
    }
}

/// A future of a verdict. It belongs to no runtime, borrows nothing, and may be dropped at any time.
#[must_use = "a future does nothing until it is awaited"]
pub struct Gone {
    slot: Arc<Slot>,
    enough: fn(Verdict) -> bool,
    key: Option<u64>,
}

impl Gone {
    pub(super) fn new(slot: Arc<Slot>, enough: fn(Verdict) -> bool) -> Gone {
        Gone { slot, enough, key: None }
    }
}

impl fmt::Debug for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gone").field("verdict", &self.slot.verdict()).finish()
    }
}

impl Future for Gone {
    type Output = Verdict;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Verdict> {
        let this = &mut *self;
        let fresh = context.waker().clone();
        let mut inner = this.slot.lock();
        if inner.over || (this.enough)(inner.verdict) {
            return Poll::Ready(inner.verdict);
        }
        let key = *this.key.get_or_insert_with(|| {
            inner.next_key += 1;
            inner.next_key
        });
        let old = match inner.wakers.iter_mut().find(|(known, _)| *known == key) {
            Some((_, waker)) => Some(std::mem::replace(waker, fresh)),
            None => {
                inner.wakers.push((key, fresh));
                None
            }
        };
        drop(inner);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let mut inner = self.slot.lock();
            let place = inner.wakers.iter().position(|(known, _)| *known == key);
            let old = place.map(|place| inner.wakers.swap_remove(place));
            drop(inner);
            drop(old);
        }
    }
}

/// A handle of a watch without the stream, cheap to clone: for handlers that should stop when their client has left.
#[derive(Clone)]
pub struct Token {
    slot: Arc<Slot>,
}

impl Token {
    pub(super) fn new(slot: Arc<Slot>) -> Token {
        Token { slot }
    }

    /// The verdict as it is now; the last one after the watch has ended.
    #[must_use]
    pub fn state(&self) -> Verdict {
        self.slot.verdict()
    }

    /// Waits until the peer is gone, or until the watch ends, and returns the last verdict.
    pub fn gone(&self) -> Gone {
        Gone::new(self.slot.clone(), Verdict::is_gone)
    }

    /// Waits until the peer has half-closed or is gone, or until the watch ends, and returns the last verdict.
    pub fn left(&self) -> Gone {
        Gone::new(self.slot.clone(), |verdict| verdict != Verdict::Here)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Token").field(&self.state()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::liveness::{Cause, Evidence, Transport};
    use crate::time::Instant;

    #[test]
    fn a_watch_ends_without_waiting_for_the_callbacks_that_its_thread_has_taken() {
        let slot = Slot::new();
        let (begun, begins) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        let (called, calls) = mpsc::channel();
        slot.on_gone(Box::new(move |_| {
            begun.send(()).unwrap();
            goes_on.recv().unwrap();
        }));
        slot.on_gone(Box::new(move |verdict| called.send((verdict, std::thread::current().id())).unwrap()));
        let verdict = Verdict::Gone(Cause::Closed);
        let proof = Proof {
            errno: None,
            frame: None,
            bye: false,
            evidence: Evidence::default(),
            last_life: Instant::ZERO,
            transport: Transport::Answering,
            outage: false,
        };
        slot.set(&Change { verdict, proof });
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| slot.notify()).thread().id();
            begins.recv().unwrap();
            slot.end();
            let early = calls.try_recv();
            go_on.send(()).unwrap();
            assert!(early.is_err(), "the first callback still ran");
            assert_eq!(calls.recv(), Ok((verdict, thread)));
        });
        assert!(calls.recv().is_err(), "it is called once");
    }
}
