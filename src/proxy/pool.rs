//! The connections to upstreams of one thread: which client uses which, and those that none uses.
//!
//! # Intuition
//!
//! A new connection costs a round trip, and a connection that this side closes keeps its port for a minute (TIME_WAIT). So
//! a connection is kept when its exchange is over, and the next exchange with its upstream takes it, whichever client it
//! comes from.
//!
//! # Model
//!
//! ```text
//!   open ──► used by a place ──give(reusable)──► idle ──take──► used by another place
//!                    │                            └── bytes, FIN, RST, IDLE_UPSTREAM ──► closed
//!                    └──────give(not reusable)──► closing ── FIN, RST, LINGER ──► closed
//! ```
//!
//! The poll of a connection lasts as long as the connection: its token names a link, and the link names the place.
//!
//! # Contract
//!
//! A connection that is taken has neither bytes nor an end to read. No more than a fixed number is kept; beyond it, the
//! one that was idle for longest is closed.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

use slab::Slab;

use super::connection::{Doubt, INTEREST, Socket, UPSTREAM};
use super::session::End;
use crate::limits;
use crate::liveness::PollMask;
use crate::reactor::{Completion, Sockets};
use crate::sys::engine::Token;
use crate::sys::tcp;
use crate::time::Instant;

/// What has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// The client in this place.
    Place(usize),
    /// None; it goes to this upstream.
    Idle(usize),
    /// None; its upstream is to close it.
    Closing,
}

#[derive(Debug)]
struct Link {
    generation: u32,
    user: User,
}

#[derive(Debug)]
struct Kept {
    socket: Box<Socket>,
    since: Instant,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Pool {
    links: Slab<Link>,
    /// The idle connections of each upstream, that of the longest rest first.
    idle: Vec<VecDeque<Kept>>,
    closing: VecDeque<Kept>,
    /// How many of both may be kept.
    most: usize,
    kept: usize,
    /// When the first of them has been kept for long enough, or earlier.
    pub(super) sweep_at: Instant,
}

impl Pool {
    /// A pool that keeps at most so many connections.
    pub(super) fn new(most: usize) -> Pool {
        Pool {
            links: Slab::new(),
            idle: Vec::new(),
            closing: VecDeque::new(),
            most,
            kept: 0,
            sweep_at: Instant::NEVER,
        }
    }

    /// The token for the poll of a new connection of the client in that place.
    pub(super) fn open(&mut self, place: usize, generation: u32) -> Token {
        let link = self.links.insert(Link { generation, user: User::Place(place) });
        Token::new(UPSTREAM, generation, link as u32)
    }

    /// What has the connection whose poll has this token, unless it is closed.
    pub(super) fn user(&self, token: Token) -> Option<User> {
        let link = self.links.get(token.index() as usize)?;
        (link.generation == token.generation()).then_some(link.user)
    }

    /// Closes a connection that a client used.
    pub(super) fn end(&mut self, socket: Socket, how: End, sockets: &mut Sockets) {
        self.links.remove(socket.token.index() as usize);
        sockets.retire(socket.descriptor, socket.token, how == End::Abort);
    }

    /// A connection to this upstream for the client in that place, if there is one that was used at `oldest` or later.
    pub(super) fn take(
        &mut self,
        upstream: usize,
        place: usize,
        oldest: Instant,
        sockets: &mut Sockets,
    ) -> Option<Box<Socket>> {
        while let Some(last) = self.idle.get_mut(upstream)?.back()
            && last.since >= oldest
        {
            let Kept { socket, .. } = self.idle[upstream].pop_back()?;
            self.kept -= 1;
            if tcp::is_quiet(socket.descriptor.as_fd()) {
                self.links[socket.token.index() as usize].user = User::Place(place);
                return Some(socket);
            }
            self.end(*socket, End::Close, sockets);
        }
        None
    }

    /// Takes back a connection whose exchange is over. Only one that has sent nothing more is kept.
    pub(super) fn give(
        &mut self,
        mut socket: Box<Socket>,
        upstream: usize,
        reusable: bool,
        now: Instant,
        sockets: &mut Sockets,
    ) {
        let reusable = reusable && socket.is_idle();
        if self.idle.len() <= upstream {
            self.idle.resize_with(upstream + 1, VecDeque::new);
        }
        if self.kept == self.most
            && reusable
            && let Some(oldest) = self.idle[upstream].pop_front()
        {
            self.kept -= 1;
            self.end(*oldest.socket, End::Close, sockets);
        }
        let unread = socket.readable && !tcp::is_quiet(socket.descriptor.as_fd());
        let ended = socket.eof || socket.end_seen;
        if self.kept == self.most || ended || !socket.is_flushed() || reusable && unread {
            return self.end(*socket, End::Close, sockets);
        }
        self.kept += 1;
        (socket.readable, socket.doubt) = (false, Doubt::None);
        let user = if reusable { User::Idle(upstream) } else { User::Closing };
        self.links[socket.token.index() as usize].user = user;
        self.sweep_at = self.sweep_at.min(now + patience(user));
        self.list(user).push_back(Kept { socket, since: now });
    }

    fn list(&mut self, user: User) -> &mut VecDeque<Kept> {
        match user {
            User::Idle(upstream) => &mut self.idle[upstream],
            _ => &mut self.closing,
        }
    }

    /// Takes a wake-up of a connection that is kept: whatever is there to read ends it.
    pub(super) fn woken(&mut self, user: User, completion: &Completion, sockets: &mut Sockets) {
        let list = self.list(user);
        let Some(at) = list.iter().rposition(|kept| kept.socket.token == completion.token) else { return };
        let descriptor = &mut list[at].socket.descriptor;
        descriptor.poll_completed(completion);
        let mask = u16::try_from(completion.result).map(PollMask);
        let ends = PollMask::IN | PollMask::RDHUP | PollMask::ERR | PollMask::HUP;
        let quiet = mask.is_ok_and(|mask| mask.0 & ends == 0);
        if quiet && (completion.more || sockets.poll(descriptor, INTEREST, completion.token).is_ok()) {
            return;
        }
        if let Some(kept) = list.remove(at) {
            self.kept -= 1;
            self.end(*kept.socket, End::Close, sockets);
        }
    }

    /// Closes what was kept for long enough.
    pub(super) fn sweep(&mut self, now: Instant, sockets: &mut Sockets) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = Instant::NEVER;
        for user in (0..self.idle.len()).map(User::Idle).chain([User::Closing]) {
            let list = self.list(user);
            let until = |kept: &Kept| kept.since + patience(user);
            let over = list.iter().take_while(|kept| until(kept) <= now).count();
            let over: Vec<_> = list.drain(..over).collect();
            let next = list.front().map_or(Instant::NEVER, until);
            self.kept -= over.len();
            self.sweep_at = self.sweep_at.min(next);
            over.into_iter().for_each(|kept| self.end(*kept.socket, End::Close, sockets));
        }
    }

    /// Closes what is kept, and keeps nothing from now on.
    pub(super) fn close(&mut self, sockets: &mut Sockets) {
        self.most = 0;
        self.kept = 0;
        let kept: Vec<_> =
            self.idle.iter_mut().flat_map(std::mem::take).chain(self.closing.drain(..)).collect();
        kept.into_iter().for_each(|kept| self.end(*kept.socket, End::Close, sockets));
    }
}

/// How long a connection is kept.
fn patience(user: User) -> Duration {
    if matches!(user, User::Idle(_)) { limits::IDLE_UPSTREAM } else { limits::LINGER }
}
