//! Accepting: the listeners, the budget of connections and descriptors, and what is told of its limits.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::address::Address;
use super::listener::{Listener, NotAccepted};
use super::sockets::Descriptor;
use super::{EventSink, Reactor, Room, Service, kind};
use crate::limits;
use crate::liveness::PollMask;
use crate::sys::engine::{Completion, Token, Wait};
use crate::time::Instant;

/// How often a loop without room looks whether another loop has given a connection back.
const SATURATED_PAUSE: Duration = Duration::from_millis(20);

/// A connection that was accepted.
pub struct Accepted {
    /// Its descriptor, close-on-exec and non-blocking.
    pub(crate) fd: OwnedFd,
    /// The peer's address; an IPv4 address that came through an IPv6 socket as IPv4.
    pub(crate) address: Address,
    /// Which listener accepted it, counted from 0.
    pub(crate) listener: usize,
    /// When it was accepted.
    pub(crate) at: Instant,
}

/// A listener and its poll.
pub(crate) struct Listening {
    pub(crate) listener: Listener,
    /// Tells the polls of a listener and of its replacement apart.
    generation: u32,
    /// Connections may wait although no wake-up is expected.
    pending: bool,
}

/// All listeners of a loop.
pub(crate) struct Listeners {
    pub(crate) all: Vec<Listening>,
    /// No connection is accepted before this instant.
    pause: Option<Instant>,
    /// The pause is one for want of a place, which a connection of this loop may leave.
    full: bool,
    /// When it is looked whether a saturation has ended, if this loop has met one.
    look: Option<Instant>,
}

impl Listeners {
    pub(super) fn new(listeners: Vec<Listener>) -> Listeners {
        let all = listeners
            .into_iter()
            .map(|listener| Listening { listener, generation: 0, pending: false })
            .collect();
        Listeners { all, pause: None, full: false, look: None }
    }

    /// When the next accept is due without a wake-up.
    pub(super) fn next_due(&self, now: Instant) -> Instant {
        let look = self.look.unwrap_or(Instant::NEVER);
        match self.all.iter().any(|listening| listening.pending) {
            true => self.pause.unwrap_or(now).min(look),
            false => look,
        }
    }
}

impl<S: Service, K: EventSink<S::Event, S::Counts>> Reactor<S, K> {
    pub(super) fn arm(&mut self) -> io::Result<()> {
        self.poll_wakeup()?;
        for index in 0..self.listeners.all.len() {
            self.poll_listener(index)?;
        }
        self.sockets.engine().submit_and_wait(Wait::NOT)
    }

    pub(super) fn poll_wakeup(&mut self) -> io::Result<()> {
        let token = Token::new(kind::WAKEUP, 0, 0);
        self.sockets.engine().watch(self.wakeup.as_fd(), PollMask::IN, token)
    }

    fn poll_listener(&mut self, index: usize) -> io::Result<()> {
        let Listening { listener, generation, .. } = &self.listeners.all[index];
        let token = Token::new(kind::LISTENER, *generation, index as u32);
        self.sockets.engine().watch(listener.as_fd(), PollMask::IN, token)
    }

    pub(super) fn on_listener(&mut self, completion: &Completion) -> io::Result<()> {
        let index = completion.token.index() as usize;
        let current = self.listeners.all.get_mut(index);
        let Some(listening) = current.filter(|one| one.generation == completion.token.generation()) else {
            self.sockets.retired(completion);
            return Ok(());
        };
        listening.pending = true;
        if !completion.more {
            self.sockets.rearms += 1;
            self.poll_listener(index)?;
        }
        Ok(())
    }

    /// Gives the ports back. The kernel takes a ring apart some time after its descriptor was closed, and an armed poll
    /// holds its listener until then: the next start would find the port in use.
    pub(crate) fn stop_listening(&mut self) -> io::Result<()> {
        for (index, Listening { listener, generation, .. }) in self.listeners.all.drain(..).enumerate() {
            let [poll, cancel] =
                [kind::LISTENER, kind::CANCEL].map(|kind| Token::new(kind, generation, index as u32));
            self.sockets.engine().cancel(listener.as_fd(), poll, cancel)?;
            self.sockets.engine().submit_and_wait(Wait::NOT)?;
        }
        Ok(())
    }

    /// Accepts what the kernel has accepted already: a connection whose listener is closed would be reset.
    pub(super) fn accept_the_last(&mut self) -> io::Result<()> {
        let end = Instant::now() + limits::LAST_ACCEPTS;
        for index in 0..self.listeners.all.len() {
            self.listeners.all[index].pending = true;
            self.listeners.pause = None;
            while self.listeners.all[index].pending
                && self.listeners.pause.is_none()
                && self.service.room() == Room::Free
                && Instant::now() < end
            {
                self.accept(index)?;
            }
        }
        Ok(())
    }

    pub(super) fn accept_pending(&mut self) -> io::Result<()> {
        let Listeners { all, pause, look, .. } = &mut self.listeners;
        if look.is_none() && !all.iter().any(|listening| listening.pending) {
            return Ok(());
        }
        let now = Instant::now();
        if look.take_if(|at| now >= *at).is_some() {
            // An accept shows whether there is room, whether a connection waits or not.
            all.iter_mut().for_each(|listening| listening.pending = true);
        }
        if pause.is_some_and(|until| now < until) || self.service.room() == Room::Held {
            return Ok(());
        }
        self.listeners.pause = None;
        for index in 0..self.listeners.all.len() {
            if self.listeners.all[index].pending && self.listeners.pause.is_none() {
                self.accept(index)?;
            }
        }
        Ok(())
    }

    /// Accepts what waits at a listener, within the bounds of a turn and the connections that are left.
    fn accept(&mut self, index: usize) -> io::Result<()> {
        let began = Instant::now();
        for _ in 0..limits::MAX_ACCEPTS_PER_TURN {
            // Not the turn's time: a connection that came during the turn is not older than it.
            let at = Instant::now();
            if at.since(began) > limits::TURN_BUDGET {
                return Ok(());
            }
            if self.service.room() == Room::Full || !self.shared.take() {
                let waiting = self.listeners.all[index].listener.waiting();
                if waiting > 0 {
                    self.saturate("max_connections", at, SATURATED_PAUSE);
                    self.make_room(waiting, at);
                } else {
                    self.listeners.all[index].pending = false;
                    self.resume(at);
                }
                return Ok(());
            }
            match self.listeners.all[index].listener.accept() {
                Ok((fd, address)) => {
                    self.held += 1;
                    self.resume(at);
                    let accepted = Accepted { fd, address, listener: index, at };
                    self.service.accepted(&mut self.sockets, accepted)?;
                }
                Err(reason) => {
                    self.shared.give(1);
                    match reason {
                        NotAccepted::Ended => continue,
                        NotAccepted::NoneWaits => {
                            self.listeners.all[index].pending = false;
                            // The kernel takes a descriptor before it looks for a connection: there was one.
                            self.resume(at);
                        }
                        NotAccepted::NoRoom => {
                            self.saturate("descriptors", at, limits::ACCEPT_PAUSE);
                            self.make_room(1, at);
                        }
                        NotAccepted::Forbidden => self.saturate("accept", at, limits::ACCEPT_PAUSE),
                        NotAccepted::Destroyed => {
                            self.saturate("accept", at, limits::ACCEPT_PAUSE);
                            self.reopen(index)?;
                        }
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Replaces a socket that was destroyed. While no other can be bound (the machine may have lost the address), the
    /// old one stays pending, and the next accept fails as this one did.
    fn reopen(&mut self, index: usize) -> io::Result<()> {
        let listening = &mut self.listeners.all[index];
        let Ok(listener) = listening.listener.reopen() else { return Ok(()) };
        let poll = Token::new(kind::LISTENER, listening.generation, index as u32);
        let destroyed = std::mem::replace(&mut listening.listener, listener);
        listening.generation = (listening.generation + 1) % (1 << limits::GENERATION_BITS);
        listening.pending = true;
        self.listeners.pause = None;
        self.sockets.retire(Descriptor::polled(destroyed.into()), poll, false);
        self.poll_listener(index)
    }

    fn saturate(&mut self, limit: &'static str, now: Instant, pause: Duration) {
        self.listeners.pause = Some(now + pause);
        self.listeners.full = false;
        self.listeners.look = Some(now + limits::RESUME_AFTER);
        if self.shared.saturate(now) {
            self.service.saturated(limit, now);
        }
    }

    /// Has connections end for those that wait, here or at another loop. Their places end the pause.
    fn make_room(&mut self, waiting: usize, now: Instant) {
        self.listeners.full = true;
        if self.service.can_make_room() {
            self.service.make_room(&mut self.sockets, waiting, now);
        } else {
            self.shared.want(waiting);
        }
    }

    /// Makes room for what waits at other loops.
    pub(super) fn make_room_for_others(&mut self) {
        if self.service.can_make_room() {
            let wanted = self.shared.take_wanted();
            if wanted > 0 {
                self.service.make_room(&mut self.sockets, wanted, Instant::now());
            }
        }
    }

    fn resume(&mut self, now: Instant) {
        let Some(at) = self.shared.resumes_at() else { return };
        self.shared.want(0);
        if self.shared.resume(now) {
            self.service.resumed(now);
        } else {
            self.listeners.look = Some(at.max(now)); // a limit was met a short while ago, here or by another loop
        }
    }

    /// Gives back the places of connections that are over.
    pub(super) fn give_back_places(&mut self) {
        let freed = self.held - self.service.connections();
        if freed > 0 {
            self.held -= freed;
            self.shared.give(freed);
            if std::mem::take(&mut self.listeners.full) {
                self.listeners.pause = None;
            }
        }
    }
}
