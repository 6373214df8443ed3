//! The watcher's thread, and what it shares with the threads that watch.
//!
//! One lock guards the records. Both sides hold it for a few microseconds: a caller while it enters or leaves a socket, the
//! thread while it looks at a portion of those that woke. Verdicts are left in their slots under the lock; wakers and
//! callbacks run outside of it, so a callback may watch, drop, and stop.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::WatchError;
use super::slot::Slot;
use crate::evidence::evidence_of;
use crate::limits;
use crate::liveness::watch::{Look, Watches};
use crate::liveness::{PeerId, Policy, PollMask, Proof};
use crate::sys::epoll::{Epoll, ReadyList};
use crate::sys::tcp::{self, TcpInfo, TickClock};
use crate::sys::wakeup::Wakeup;
use crate::time::Instant;

/// Only the end wakes the thread, a byte does not. Edge-triggered, so that a reset behind a FIN is seen too.
const INTEREST: u32 = (libc::EPOLLRDHUP | libc::EPOLLET).cast_unsigned();
const WAKEUP: u64 = u64::MAX;

/// The owner's part of one watch.
pub(super) struct Ticket {
    id: PeerId,
    pub(super) slot: Arc<Slot>,
}

/// The thread's part of one watch. The descriptor belongs to the program, which may close it at any time: compare the
/// cookie before each use.
struct Entry {
    fd: RawFd,
    cookie: u64,
    mask: PollMask,
    slot: Arc<Slot>,
}

struct Book {
    watches: Watches,
    /// By the index of the id.
    entries: Vec<Option<Entry>>,
    /// The time until which the thread sleeps: a caller that adds an earlier appointment wakes it.
    asleep_until: Instant,
}

struct Shared {
    epoll: Epoll,
    wakeup: Wakeup,
    book: Mutex<Book>,
    stopping: AtomicBool,
    ticks: TickClock,
}

/// The handle that all clones of a watcher and all its watches share. The drop of the last one ends the thread.
pub(super) struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The process of the thread: a forked child has the memory and not the thread.
    process: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("watched", &self.len()).finish()
    }
}

impl Handle {
    pub(super) fn start(capacity: usize) -> Result<Handle, (&'static str, io::Error)> {
        let epoll = Epoll::new().map_err(|error| ("set up epoll", error))?;
        let wakeup = Wakeup::new().map_err(|error| ("make an eventfd", error))?;
        let waking = epoll.add(wakeup.as_fd(), libc::EPOLLIN.cast_unsigned(), WAKEUP);
        waking.map_err(|error| ("watch an eventfd", error))?;
        let now = Instant::now();
        let book =
            Book { watches: Watches::new(capacity, now), entries: Vec::new(), asleep_until: Instant::NEVER };
        let shared = Arc::new(Shared {
            epoll,
            wakeup,
            book: Mutex::new(book),
            stopping: AtomicBool::new(false),
            ticks: TickClock::new(),
        });
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("deadpeer-watch".into())
            .spawn(move || of_thread.run())
            .map_err(|error| ("start a watcher's thread", error))?;
        Ok(Handle { shared, thread: Mutex::new(Some(thread)), process: std::process::id() })
    }

    /// Adds a socket; `info` is the first look at it.
    pub(super) fn enter(
        &self,
        socket: RawFd,
        cookie: u64,
        policy: Policy,
        info: &TcpInfo,
    ) -> Result<Ticket, WatchError> {
        if self.process != std::process::id() {
            return Err(WatchError::Stopped);
        }
        let now = Instant::now();
        let look = self.shared.see(socket, info, PollMask(0));
        let mut book = lock(&self.shared.book);
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(WatchError::Stopped);
        }
        let Some(id) = book.watches.add(policy, &look, now) else {
            return Err(WatchError::Full { capacity: book.watches.capacity() });
        };
        // A socket that has ended already is looked at at once: epoll reports it when it is added.
        if let Err(source) = self.shared.epoll.add_number(socket, INTEREST, token(id)) {
            book.watches.remove(id);
            return Err(match source.raw_os_error() {
                Some(libc::EEXIST) => WatchError::Twice,
                _ => WatchError::Io { attempted: "watch the socket", source },
            });
        }
        let slot = Arc::new(Slot::new());
        let index = id.index() as usize;
        if book.entries.len() <= index {
            book.entries.resize_with(index + 1, || None);
        }
        book.entries[index] = Some(Entry { fd: socket, cookie, mask: PollMask(0), slot: slot.clone() });
        let early = book.watches.next_due().is_some_and(|due| due < book.asleep_until);
        drop(book);
        if early {
            self.shared.wakeup.wake();
        }
        Ok(Ticket { id, slot })
    }

    /// Ends a watch after a last look: the program's own read may see an end before the thread does, and drop the stream for
    /// it. This does not wait for the thread: the callbacks that it has taken out of the slot are called there, perhaps
    /// after this returns. All others are called here if the peer is gone, and dropped otherwise.
    pub(super) fn leave(&self, ticket: &Ticket) {
        if self.process != std::process::id() {
            return; // the entry in epoll belongs to the parent
        }
        let mut book = lock(&self.shared.book);
        if book.watches.has(ticket.id) && !self.shared.stopping.load(Ordering::Acquire) {
            let _ = self.shared.judge(&mut book, ticket.id); // told by the end below
        }
        if book.watches.remove(ticket.id) {
            let entry = book.entries[ticket.id.index() as usize].take();
            if let Some(entry) = entry {
                // By its cookie: the number may mean another socket by now, which is watched too.
                if tcp::cookie(entry.fd).is_ok_and(|cookie| cookie == entry.cookie) {
                    let _ = self.shared.epoll.delete_number(entry.fd);
                }
            }
        }
        drop(book);
        ticket.slot.end();
    }

    /// The proof by what the socket shows now.
    pub(super) fn proof(&self, ticket: &Ticket) -> Option<Proof> {
        let book = lock(&self.shared.book);
        let entry = book.entries.get(ticket.id.index() as usize)?.as_ref()?;
        let info = tcp::info_if_still(entry.fd, entry.cookie)?;
        let look = self.shared.see(entry.fd, &info, entry.mask);
        book.watches.proof(ticket.id, &look, Instant::now())
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.shared.book).watches.len()
    }

    pub(super) fn stop(&self) {
        self.shared.stop();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The thread is not joined: the last handle may be dropped in a callback, or where blocking is not allowed.
        self.shared.stop();
    }
}

fn token(id: PeerId) -> u64 {
    u64::from(id.generation()) << 32 | u64::from(id.index())
}

/// Ends all watches when the thread ends, also by a panic, so that no waiter blocks without end.
struct Last<'a>(&'a Shared);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.0.stop();
        let slots: Vec<_> =
            lock(&self.0.book).entries.iter().flatten().map(|entry| entry.slot.clone()).collect();
        for slot in slots {
            slot.end();
        }
    }
}

impl Shared {
    fn stop(&self) {
        // Under the lock: a caller that enters has seen the flag, or its entry is seen when the thread ends.
        let book = lock(&self.book);
        self.stopping.store(true, Ordering::Release);
        drop(book);
        self.wakeup.wake();
    }

    fn see(&self, fd: RawFd, info: &TcpInfo, mask: PollMask) -> Look {
        let data = info.tcpi_bytes_sent.saturating_sub(info.tcpi_bytes_retrans);
        Look {
            evidence: evidence_of(info, mask, self.ticks),
            acknowledged_beyond_data: info.tcpi_bytes_acked.cast_signed().wrapping_sub(data.cast_signed()),
            unread: tcp::unread_of(fd).unwrap_or(0),
        }
    }

    fn run(&self) {
        let mut found = ReadyList::new(limits::WATCH_PORTION);
        let mut changed: Vec<Arc<Slot>> = Vec::with_capacity(2 * limits::WATCH_PORTION);
        let _last = Last(self);
        while !self.stopping.load(Ordering::Acquire) {
            let before = Instant::now();
            let until = {
                let mut book = lock(&self.book);
                // At most this long, so that a stall of the thread can be told from quiet.
                let until =
                    book.watches.next_due().map_or(Instant::NEVER, |due| due.min(before + limits::MAX_WAIT));
                book.asleep_until = until;
                until
            };
            // After a wait that fails, what is due is looked at all the same; the pause keeps a broken descriptor from
            // spinning.
            if self.epoll.wait(&mut found, Some(until.since(before))).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let now = Instant::now();
            self.look(&found, (before, until), now, &mut changed);
            for slot in changed.drain(..) {
                slot.notify();
            }
        }
    }

    /// Looks at the sockets that woke and at those that are due, a portion of each.
    fn look(
        &self,
        found: &ReadyList,
        (before, until): (Instant, Instant),
        now: Instant,
        changed: &mut Vec<Arc<Slot>>,
    ) {
        let mut book = lock(&self.book);
        let book = &mut *book;
        book.asleep_until = Instant::ZERO; // awake
        if now > until.max(before) + limits::STALL_THRESHOLD {
            // From the time at which the stall began: with many due at once the oldest appointment is long past.
            book.watches.handle_stall(until.max(before), now);
        }
        for ready in found.iter() {
            if ready.token == WAKEUP {
                self.wakeup.clear();
                continue;
            }
            let id = PeerId::new(ready.token as u32, (ready.token >> 32) as u32);
            if !book.watches.has(id) {
                continue;
            }
            if let Some(Some(entry)) = book.entries.get_mut(id.index() as usize) {
                entry.mask = PollMask(ready.mask as u16);
            }
            changed.extend(self.judge(book, id));
        }
        for _ in 0..limits::WATCH_PORTION {
            let Some(id) = book.watches.expire(now) else { break };
            changed.extend(self.judge(book, id));
        }
    }

    /// Looks at a socket and leaves the verdict in its slot, under the lock of the book: a watch that ends before the
    /// slot is notified has the verdict all the same. Returns the slot if the verdict changed.
    fn judge(&self, book: &mut Book, id: PeerId) -> Option<Arc<Slot>> {
        let entry = book.entries.get(id.index() as usize)?.as_ref()?;
        let info = tcp::info_if_still(entry.fd, entry.cookie);
        // Read after the look, so that what it shows is not newer.
        let now = Instant::now();
        let change = match info {
            Some(info) => book.watches.look(id, &self.see(entry.fd, &info, entry.mask), now),
            None => book.watches.lost(id, now),
        };
        entry.slot.set(&change?);
        Some(entry.slot.clone())
    }
}
