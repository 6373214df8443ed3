//! Wake-ups of sockets, the bytes behind them, and what follows.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::connection::{CLIENT, Connection, Doubt, INTEREST, Pending, Socket};
use super::event::{Failure, Phase};
use super::pool::User;
use super::service::{Conn, Proxy};
use super::session::{End, SessionFact};
use super::session_io::SessionIo;
use crate::limits;
use crate::liveness::{Cause, LocalCause, PollMask, cause_of_errno};
use crate::reactor::{Completion, Sockets};
use crate::sys::engine::Token;
use crate::sys::tcp::{self, TickClock};
use crate::time::Instant;

/// Reads of one socket in one turn; the rest waits for the others.
const READS: usize = 4;

impl Proxy {
    pub(super) fn on_socket(&mut self, sockets: &mut Sockets, completion: &Completion) -> io::Result<()> {
        let token = completion.token;
        let client = token.kind() == CLIENT;
        let user = if client { self.user(token) } else { self.worker.pool.user(token) };
        let index = match user {
            Some(User::Place(index)) => index,
            Some(user) => {
                self.worker.pool.woken(user, completion, sockets);
                return Ok(());
            }
            None => {
                sockets.retired(completion);
                return Ok(());
            }
        };
        let Some(conn) = self.conns.get_mut(index) else { return Ok(()) };
        conn.put_off(self.absent);
        let Conn { session, connection, .. } = conn;
        let connecting = !client && connection.is_connecting();
        let Some(socket) = connection.socket(client) else { return Ok(()) };
        socket.descriptor.poll_completed(completion);
        let Ok(mask) = u16::try_from(completion.result) else {
            // It cannot be polled: memory or fs.epoll.max_user_watches is used up.
            socket.failed = Some(-completion.result);
            self.settle(sockets, index);
            return Ok(());
        };
        if !completion.more {
            sockets.poll(&mut socket.descriptor, INTEREST, token)?;
        }
        let mask = PollMask(mask);
        socket.shown.mask = mask.0;
        let ended = mask.has(PollMask::ERR) || mask.has(PollMask::HUP);
        let socket_ended = mask.has(PollMask::RDHUP) || ended;
        socket.end_seen |= socket_ended;
        if mask.has(PollMask::IN) || socket.end_seen {
            socket.readable = true;
        }
        // Reads meet the end of an upstream, behind its bytes, unless its FIN was read.
        if ended && !client && socket.eof {
            socket.take_end(mask);
        }
        if connecting {
            if ended || mask.has(PollMask::OUT) {
                self.connected(sockets, index);
            }
            return Ok(());
        }
        if mask.has(PollMask::OUT) && !(client && ended) {
            if !socket.is_flushed() {
                session.hold_up(self.now);
            }
            socket.flush();
        }
        // Ends are seen at once, bytes in their turn: behind those that the last turn had no time for.
        if socket_ended || self.ready.is_empty() && Instant::now().since(self.now) < limits::TURN_BUDGET {
            self.read(sockets, index);
        } else {
            self.settle(sockets, index);
            self.queue(index);
        }
        // A client's request may lie before its reset, and was read first. Whatever is left, the client is gone.
        if ended
            && client
            && let Some(socket) = self.conns.get_mut(index).and_then(|conn| conn.connection.client.as_mut())
        {
            socket.take_end(mask);
            self.settle(sockets, index);
        }
        Ok(())
    }

    /// The place of the client whose poll has this token, unless its socket is closed.
    fn user(&self, token: Token) -> Option<User> {
        let index = token.index() as usize;
        let client = self.conns.get(index)?.connection.client.as_ref()?;
        (client.token == token).then_some(User::Place(index))
    }

    /// Reads in the next turn what is there, if it is wanted.
    fn queue(&mut self, index: usize) {
        let Some(conn) = self.conns.get_mut(index) else { return };
        if !conn.queued && (conn.wants(true) || conn.wants(false)) {
            conn.queued = true;
            self.ready.push_back((index, conn.connection.generation));
        }
    }

    /// Reads on where the last turn left bytes, as long as the turn has time.
    pub(super) fn read_ready(&mut self, sockets: &mut Sockets) {
        for _ in 0..self.ready.len() {
            if Instant::now().since(self.now) > limits::TURN_BUDGET {
                break;
            }
            let Some((index, generation)) = self.ready.pop_front() else { break };
            if self.conns.get(index).is_some_and(|conn| conn.connection.generation == generation) {
                self.conns[index].queued = false;
                self.read(sockets, index);
            }
        }
    }

    /// Reads once more what was read short, as long as the turn has time.
    pub(super) fn read_doubtful(&mut self, sockets: &mut Sockets) {
        if self.now < self.look_again {
            return;
        }
        self.look_again = Instant::NEVER;
        let mut looked = false;
        for _ in 0..self.doubtful.len() {
            let Some(&(index, generation)) = self.doubtful.front() else { break };
            let lives = self.conns.get(index).is_some_and(|conn| conn.connection.generation == generation);
            // One at least, however little time the others have left; places that have changed take none.
            if lives && looked && Instant::now().since(self.now) > limits::TURN_BUDGET {
                self.look_again = self.now;
                break;
            }
            self.doubtful.pop_front();
            let Some(conn) = self.conns.get_mut(index).filter(|_| lives) else { continue };
            conn.doubtful = false;
            let mut look = false;
            for client in [true, false] {
                let Some(socket) = conn.connection.socket(client) else { continue };
                socket.readable |= socket.doubt == Doubt::Old;
                look |= socket.doubt == Doubt::Old;
                conn.doubtful |= socket.doubt == Doubt::Young;
                // A socket that is busy needs no look: its next read takes what the last one has left.
                socket.doubt = if socket.doubt == Doubt::Young { Doubt::Old } else { Doubt::None };
            }
            if conn.doubtful {
                self.doubtful.push_back((index, generation));
                self.look_again = self.look_again.min(self.now + limits::LOOK_AGAIN);
            }
            if look {
                looked = true;
                self.read(sockets, index);
            }
        }
    }

    /// A connect has come to its end.
    fn connected(&mut self, sockets: &mut Sockets, index: usize) {
        let now = self.now;
        let Conn { session, connection, .. } = &mut self.conns[index];
        let Some(upstream) = &mut connection.upstream else { return };
        let error = tcp::take_error(upstream.descriptor.as_fd()).unwrap_or(libc::EIO);
        if error != 0 {
            connection.connect_failed = Some(Failure::of_errno(error));
        } else {
            connection.pending = Pending::Nothing;
            if let Some(version) = self.config.send_proxy {
                let own = |client: &Socket| tcp::local_address(client.descriptor.as_fd()).ok();
                let named = connection.local.as_deref().copied();
                let local = named.or_else(|| connection.client.as_ref().and_then(own));
                let header = version.header(connection.address.ip(), local);
                upstream.send(&header);
            }
            let mut io = SessionIo { connection, worker: &mut self.worker, sockets, index, now };
            io.feed(session, &self.config.rules, SessionFact::Connected { reused: false });
        }
        self.read(sockets, index);
    }

    /// Reads what is there and wanted on both sides, and settles what follows.
    pub(super) fn read(&mut self, sockets: &mut Sockets, index: usize) {
        let Some(conn) = self.conns.get_mut(index) else { return };
        conn.put_off(self.absent);
        if conn.connection.has_failed() {
            self.tell_failures(sockets, index);
        }
        self.leave_inactive(sockets, index);
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..READS {
            let client = self.read_once(sockets, index, true, &mut scratch);
            let upstream = self.read_once(sockets, index, false, &mut scratch);
            if !client && !upstream {
                break;
            }
        }
        self.scratch = scratch;
        self.conclude(sockets, index);
        self.queue(index);
    }

    /// Has an idle client give up the connection to an upstream that takes no requests any more.
    fn leave_inactive(&mut self, sockets: &mut Sockets, index: usize) {
        let now = self.now;
        let Some(Conn { session, connection, .. }) = self.conns.get_mut(index) else { return };
        if let Some(chosen) = connection.chosen.filter(|_| session.phase() == Phase::Idle)
            && !self.worker.upstreams.is_active(chosen)
        {
            let mut io = SessionIo { connection, worker: &mut self.worker, sockets, index, now };
            io.feed(session, &self.config.rules, SessionFact::UpstreamFin);
        }
    }

    /// One read of one side; returns whether it may have more.
    fn read_once(&mut self, sockets: &mut Sockets, index: usize, client: bool, scratch: &mut [u8]) -> bool {
        if client && self.is_held_up() {
            return false;
        }
        let now = self.now;
        let rules = &self.config.rules;
        let Some(conn) = self.conns.get_mut(index) else { return false };
        if !conn.wants(client) {
            let Conn { session, connection, .. } = conn;
            let behind = |socket: &Socket| socket.end_seen && socket.readable && !socket.eof;
            if client && connection.client.as_ref().is_some_and(behind) {
                let mut io = SessionIo { connection, worker: &mut self.worker, sockets, index, now };
                io.feed(session, rules, SessionFact::ClientFinAhead);
                self.follow_up(sockets, index);
            }
            return false;
        }
        let Conn { session, connection, doubtful, .. } = conn;
        // No more than there is room for, and nothing beyond the present request while too much is held.
        let room = if client { session.client_room() } else { scratch.len() };
        let scratch = &mut scratch[..room.min(limits::MAX_HELD)];
        let Some(socket) = connection.socket(client) else { return false };
        let result = tcp::receive(socket.descriptor.as_fd().as_raw_fd(), scratch);
        match result {
            1.. => {
                let bytes = &scratch[..result.cast_unsigned() as usize];
                // A short read has emptied the socket, and the next bytes cause another wake-up; unless it has stopped
                // before an urgent byte.
                let drained = bytes.len() < scratch.len() && !socket.end_seen;
                if drained {
                    socket.readable = false;
                    socket.doubt = Doubt::Young;
                    if !std::mem::replace(doubtful, true) {
                        self.doubtful.push_back((index, connection.generation));
                        self.look_again = self.look_again.min(now + limits::LOOK_AGAIN);
                    }
                }
                if client && let Some(finishing) = &mut connection.finishing {
                    finishing.heard(now);
                }
                let mut io = SessionIo { connection, worker: &mut self.worker, sockets, index, now };
                if client {
                    io.worker.counts.client_bytes += bytes.len() as u64;
                    io.feed(session, rules, SessionFact::ClientBytes(bytes));
                } else {
                    io.worker.counts.upstream_bytes += bytes.len() as u64;
                    io.feed(session, rules, SessionFact::UpstreamBytes(bytes));
                }
                // A sender with Nagle's algorithm keeps the rest of its message until what came is acknowledged.
                if drained
                    && session.is_partial(client)
                    && let Some(socket) = connection.socket(client)
                {
                    let _ = tcp::acknowledge_now(&socket.descriptor); // it may have ended
                }
            }
            // A write has taken the error, and a read shows an end in its place.
            0 if socket.broken.is_some() => {
                socket.fin_came |= socket.broken == Some(libc::EPIPE);
                socket.failed = socket.broken;
            }
            0 => {
                socket.readable = false;
                (socket.eof, socket.fin_came) = (true, true);
                let fact = if client { SessionFact::ClientFin } else { SessionFact::UpstreamFin };
                let mut io = SessionIo { connection, worker: &mut self.worker, sockets, index, now };
                io.feed(session, rules, fact);
            }
            _ => match -result {
                libc::EAGAIN => socket.readable = false,
                libc::EINTR => {}
                error => {
                    // A RST behind a FIN.
                    socket.fin_came |= error == libc::EPIPE;
                    socket.failed = Some(error);
                }
            },
        }
        self.follow_up(sockets, index);
        self.conns.get(index).is_some_and(|conn| conn.wants(client))
    }

    /// Tells the session what failed, and counts what it holds. To be called after every fact.
    fn follow_up(&mut self, sockets: &mut Sockets, index: usize) {
        if self.conns.get(index).is_some_and(|conn| conn.connection.has_failed()) {
            self.tell_failures(sockets, index);
        }
        if let Some(conn) = self.conns.get_mut(index) {
            conn.account(&mut self.worker.held);
        }
    }

    #[cold]
    fn tell_failures(&mut self, sockets: &mut Sockets, index: usize) {
        let now = self.now;
        loop {
            let Some(Conn { session, connection, .. }) = self.conns.get_mut(index) else { return };
            let rules = &self.config.rules;
            if let Some(error) =
                connection.client.as_mut().and_then(|client| client.failed.take().or(client.broken.take()))
            {
                if let Some(client) = &mut connection.client {
                    client.shown.errno = Some(error);
                }
                let cause = cause(error, connection, self.ticks);
                let mut io = SessionIo { connection, worker: &mut self.worker, sockets, index, now };
                io.feed(session, rules, SessionFact::ClientGone(cause));
                io.end_client(End::Close);
            } else if let Some(failure) = connection.connect_failed.take() {
                let mut io = SessionIo { connection, worker: &mut self.worker, sockets, index, now };
                if failure != Failure::Local {
                    io.judge_upstream(Some(failure));
                }
                if let Some(chosen) = io.connection.chosen {
                    io.connection.tried.get_or_insert_default().upstreams.push(chosen.index);
                }
                io.end_upstream(End::Close);
                if failure != Failure::Full && io.try_another() {
                    if !io.connection.is_connecting() && io.connection.upstream.is_some() {
                        io.feed(session, rules, SessionFact::Connected { reused: true });
                    }
                    continue;
                }
                if io.retry(failure) {
                    continue;
                }
                io.feed(session, rules, SessionFact::NotConnected(failure));
            } else if let Some(error) = connection.take_upstream_failure() {
                let failure = match Failure::of_errno(error) {
                    Failure::Refused | Failure::Local => Failure::Reset,
                    other => other,
                };
                let token = connection.upstream.as_ref().map(|upstream| upstream.token);
                let mut io = SessionIo { connection, worker: &mut self.worker, sockets, index, now };
                io.feed(session, rules, SessionFact::UpstreamGone(failure));
                // The session may have taken another one.
                if io.connection.upstream.as_ref().is_some_and(|upstream| Some(upstream.token) == token) {
                    io.end_upstream(End::Close);
                }
            } else {
                break;
            }
        }
    }

    /// Draws the consequences of what was done: failures of sends and connects, ends, deadlines.
    pub(super) fn settle(&mut self, sockets: &mut Sockets, index: usize) {
        self.follow_up(sockets, index);
        self.conclude(sockets, index);
    }

    /// The part of [`settle`](Proxy::settle) behind the last fact.
    fn conclude(&mut self, sockets: &mut Sockets, index: usize) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(index) else { return };
        conn.account(&mut self.worker.held); // a flush has sent what waited
        let Conn { connection, .. } = conn;
        if let Some(finishing) = connection.finishing.as_mut().filter(|finishing| finishing.is(End::Close))
            && let Some(client) = connection.client.as_ref().filter(|client| client.is_flushed())
        {
            if client.eof {
                SessionIo { connection, worker: &mut self.worker, sockets, index, now }
                    .end_client(End::Close);
            } else {
                finishing.linger(now, client.left());
            }
        }
        if connection.client.is_none() && connection.upstream.is_none() {
            return self.remove(index);
        }
        self.schedule(index);
    }
}

/// The cause of a client that ended with this errno.
fn cause(error: i32, connection: &Connection, ticks: TickClock) -> Cause {
    match error {
        libc::ETIME => Cause::Local(LocalCause::SendTimeout), // set by this side
        _ => {
            let client = connection.client.as_ref();
            cause_of_errno(error, &client.map(|client| client.evidence(ticks)).unwrap_or_default())
        }
    }
}
