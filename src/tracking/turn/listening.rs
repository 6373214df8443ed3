//! Who comes in, within the budget of connections and descriptors, and who waits outside.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use socket2::SockRef;

use super::{AdoptError, Driver, kind};
use crate::evidence::evidence_of;
use crate::frame::Decoder;
use crate::limits;
use crate::liveness::{Event, EventKind, Heartbeat, PeerId, PollMask, TcpState};
use crate::reactor::EventSink;
use crate::reactor::{self, NotAccepted};
use crate::sys::engine::{Token, Wait};
use crate::sys::tcp;
use crate::time::Instant;
use crate::tracking::conn::Conn;

/// How often a saturated listener looks whether another ring has given something back.
const SATURATED_PAUSE: Duration = Duration::from_millis(20);

impl<S: EventSink> Driver<S> {
    pub(super) fn arm(&mut self) -> io::Result<()> {
        self.watch_wakeup()?;
        for index in 0..self.listeners.len() {
            self.watch_listener(index)?;
        }
        self.engine.submit_and_wait(Wait::NOT)
    }

    pub(super) fn watch_listener(&mut self, index: usize) -> io::Result<()> {
        let fd = self.listeners[index].listener.as_raw_fd();
        self.engine.watch(fd, PollMask::IN, Token::new(kind::LISTENER, 0, index as u32))
    }

    /// Gives the ports back. The kernel takes a ring apart some time after its descriptor was closed,
    /// and an armed poll holds its listener until then: whoever starts anew at once would find the
    /// port taken.
    pub(crate) fn stop_listening(&mut self) -> io::Result<()> {
        for index in 0..self.listeners.len() as u32 {
            let (watch, cancel) = (Token::new(kind::LISTENER, 0, index), Token::new(kind::CANCEL, 0, index));
            let fd = self.listeners[index as usize].listener.as_raw_fd();
            self.engine.cancel(fd, watch, cancel)?;
        }
        self.engine.submit_and_wait(Wait::NOT)?;
        self.listeners.clear();
        Ok(())
    }

    pub(super) fn watch_wakeup(&mut self) -> io::Result<()> {
        self.engine.watch(self.wakeup.as_raw_fd(), PollMask::IN, Token::new(kind::WAKEUP, 0, 0))
    }

    pub(super) fn accept_pending(&mut self) -> io::Result<()> {
        if !self.listeners.iter().any(|listening| listening.pending) {
            return Ok(());
        }
        let now = Instant::now();
        if self.accept_pause.is_some_and(|until| now < until) {
            return Ok(());
        }
        self.accept_pause = None;
        for index in 0..self.listeners.len() {
            if self.listeners[index].pending && self.accept_pause.is_none() {
                self.accept(index)?;
            }
        }
        Ok(())
    }

    /// Accepts what waits at a listener, within the turn's bounds and the connections that are left.
    pub(super) fn accept(&mut self, index: usize) -> io::Result<()> {
        let began = Instant::now();
        for _ in 0..limits::MAX_ACCEPTS_PER_TURN {
            // Not the turn's time: who came during the turn is not older than it.
            let now = Instant::now();
            if now.since(began) > limits::TURN_BUDGET {
                return Ok(());
            }
            if self.tracker.is_full() || !self.shared.take() {
                self.saturate("max_connections", now, SATURATED_PAUSE);
                return Ok(());
            }
            match self.listeners[index].listener.accept() {
                Ok((fd, address)) => {
                    self.resume(now);
                    let local = match self.listeners[index].local {
                        Some(local) => local,
                        None => {
                            let wildcard = self.listeners[index].listener.address();
                            let local = tcp::local_address(fd.as_fd()).unwrap_or(wildcard);
                            self.locals.intern(plain(local))
                        }
                    };
                    let Some(peer) = self.tracker.accept(plain(address), local, now) else {
                        unreachable!("it was not full");
                    };
                    self.held_places += 1;
                    self.hold(Conn::new(fd), peer);
                    self.watch(peer)?;
                }
                Err(why) => {
                    self.shared.give(1);
                    match why {
                        NotAccepted::Over => continue,
                        NotAccepted::NobodyWaits => {
                            self.listeners[index].pending = false;
                            // There was a descriptor for it, had somebody waited.
                            self.resume(now);
                        }
                        NotAccepted::NoRoom => self.saturate("descriptors", now, limits::ACCEPT_PAUSE),
                        NotAccepted::Broken => self.saturate("accept", now, limits::ACCEPT_PAUSE),
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether bytes are heartbeat frames, and read.
    pub(super) fn reads_frames(&self) -> bool {
        self.config.tracker.policy.heartbeat == Heartbeat::Frames
    }

    /// Takes a connected socket over that somebody else has accepted or made.
    ///
    /// # Errors
    ///
    /// [`AdoptError`] with the socket: it is no TCP socket (ENOPROTOOPT, EOPNOTSUPP, ENOTSOCK), not connected
    /// (ENOTCONN), or there is no room for one more (ENOSPC).
    pub fn adopt(&mut self, socket: OwnedFd) -> Result<PeerId, AdoptError> {
        if self.tracker.is_empty() {
            // Nobody was kept waiting until now, however long ago the last turn was.
            self.rest_until = self.rest_until.max(Instant::now());
        }
        match self.take_over(&socket) {
            Ok(peer) => {
                self.held_places += 1;
                self.hold(Conn::new(socket), peer);
                // An engine that takes nothing any more says so in the next turn.
                let _ = self.watch(peer);
                Ok(peer)
            }
            Err(reason) => Err(AdoptError { socket, reason }),
        }
    }

    fn take_over(&mut self, socket: &OwnedFd) -> io::Result<PeerId> {
        let os = io::Error::from_raw_os_error;
        let info = tcp::info(socket.as_fd())?;
        if matches!(TcpState::from_kernel(info.state), TcpState::Listen | TcpState::SynSent | TcpState::Close)
        {
            return Err(os(libc::ENOTCONN));
        }
        let unread = tcp::unread(socket.as_fd())?;
        let address = tcp::peer_address(socket.as_fd())?;
        let local = plain(tcp::local_address(socket.as_fd())?);
        if self.tracker.is_full() || !self.shared.take() {
            return Err(os(libc::ENOSPC));
        }
        // From here on it is ours: one that is refused comes back as it was.
        let inherited = reactor::inherit(SockRef::from(socket), &self.config.tracker);
        // A close must not wait for a dead peer to take our last bytes.
        let inherited = inherited.and_then(|()| SockRef::from(socket).set_linger(None));
        if let Err(error) = inherited {
            self.shared.give(1);
            return Err(error);
        }
        let local = self.locals.intern(local);
        let now = Instant::now();
        let Some(peer) = self.tracker.accept(plain(address), local, now) else {
            unreachable!("it was not full");
        };
        // Looked at before the bytes: what comes in between is one to be taken.
        let received = evidence_of(&info, PollMask(0), self.ticks).received;
        self.tracker.taken_before(peer, received.saturating_sub(u64::from(unread)));
        Ok(peer)
    }

    pub(super) fn hold(&mut self, conn: Conn, peer: PeerId) {
        let index = peer.index() as usize;
        if self.conns.len() <= index {
            self.conns.resize_with(index + 1, || None);
        }
        assert!(self.conns[index].is_none(), "a place is given out again only after its release");
        self.conns[index] = Some(conn);
        if self.reads_frames() {
            if self.decoders.len() <= index {
                self.decoders.resize_with(index + 1, Decoder::new);
            }
            self.decoders[index] = Decoder::new();
        }
    }

    pub(super) fn saturate(&mut self, limit: &'static str, now: Instant, pause: Duration) {
        self.accept_pause = Some(now + pause);
        if self.shared.saturate() {
            self.tracker.notice(Event { at: now, subject: None, kind: EventKind::Saturated { limit } });
        }
    }

    pub(super) fn resume(&mut self, now: Instant) {
        if self.shared.resume() {
            self.tracker.notice(Event { at: now, subject: None, kind: EventKind::Resumed });
        }
    }

    pub(super) fn give_back_places(&mut self) {
        let freed = self.held_places - self.tracker.len();
        if freed > 0 {
            self.held_places -= freed;
            self.shared.give(freed);
        }
    }
}

/// An IPv4 address that came through an IPv6 socket, as IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
