//! What the tracker wants done to a socket, as submissions and plain calls.

use std::io;
use std::os::fd::AsFd;

use super::{Driver, kind};
use crate::evidence;
use crate::frame::{Frame, Kind};
use crate::limits;
use crate::liveness::{Action, Evidence, Fact, PeerId, PollMask, TcpState, Wake};
use crate::partial_frame::PartialFrame;
use crate::reactor::EventSink;
use crate::sys::engine::{Completion, Token};
use crate::sys::tcp;
use crate::time::Instant;
use crate::tracking::conn::Conn;

/// What a connection's poll waits for; ERR and HUP come by themselves.
const INTEREST: u16 = PollMask::IN | PollMask::RDHUP;

impl<S: EventSink> Driver<S> {
    pub(super) fn perform(&mut self, now: Instant) -> io::Result<()> {
        while let Some(action) = self.tracker.poll_action() {
            match action {
                Action::Drain { peer, to_end } => self.drain(peer, to_end)?,
                Action::Inspect(peer) => {
                    let evidence = self.evidence(peer);
                    self.tracker.handle(peer, Fact::Inspected(evidence), now);
                }
                Action::SetLowWater { peer, bytes } => {
                    if let Some(Some(conn)) = self.conns.get(peer.index() as usize) {
                        // It fails only for what is no socket; then the next look at it says so.
                        let _ = tcp::set_low_water_mark(conn.as_fd(), bytes);
                    }
                }
                Action::Probe { peer, sequence } => {
                    self.send(peer, Frame { kind: Kind::Ping, sequence, timestamp: now.as_nanos() });
                }
                Action::Close { peer, abort } => self.close(peer, abort)?,
            }
        }
        Ok(())
    }

    /// Looks at the socket. One that cannot be looked at is as good as closed.
    pub(super) fn evidence(&mut self, peer: PeerId) -> Evidence {
        let gone = Evidence { tcp_state: TcpState::Close, ..Evidence::default() };
        let Some(Some(conn)) = self.conns.get(peer.index() as usize) else { return gone };
        match evidence::inspect(conn.as_fd(), conn.mask, self.ticks) {
            Ok(mut evidence) => {
                // Reading it takes it: before the end it is the recv's, which may be under way.
                let errs = conn.has(Conn::ENDED) && conn.mask.has(PollMask::ERR);
                if errs && evidence.tcp_state == TcpState::Close {
                    evidence.so_error = tcp::take_error(conn.as_fd()).ok().filter(|&errno| errno != 0);
                }
                evidence
            }
            Err(_) => Evidence { mask: conn.mask, ..gone },
        }
    }

    /// Sends a frame now or not at all: a peer that does not take sixteen bytes is stuck, not dead,
    /// and a send that fails tells nothing that the poll does not tell. Of a frame that was begun the
    /// rest is kept and goes first the next time: half a frame would spoil all that follow.
    pub(super) fn send(&mut self, peer: PeerId, frame: Frame) {
        let Some(Some(conn)) = self.conns.get(peer.index() as usize) else { return };
        let mut partial = self.partial_frames.remove(&peer.index()).unwrap_or(PartialFrame::new());
        let _ = partial.send(&mut tcp::Now(conn.as_fd()), &frame.encode());
        if !partial.is_empty() {
            self.partial_frames.insert(peer.index(), partial);
        }
    }

    /// Takes off what is unread: by the ring, together with what the others have. An end that comes alone is read
    /// here and now.
    pub(super) fn drain(&mut self, peer: PeerId, to_end: bool) -> io::Result<()> {
        let at_once = to_end && self.ends_at_once > 0 && !self.reads_frames();
        let Some(Some(conn)) = self.conns.get_mut(peer.index() as usize) else { return Ok(()) };
        if to_end {
            conn.set(Conn::TO_END);
            if at_once && !conn.has(Conn::RECEIVING | Conn::CLOSING) {
                self.ends_at_once -= 1;
                conn.set(Conn::FRESH);
                conn.clear(Conn::UNREAD);
                let token = Token::new(kind::RECV, peer.generation(), peer.index());
                let result = tcp::discard(conn.raw(), limits::MAX_DISCARD);
                // Not the turn's time: the end may have come since.
                let now = Instant::now();
                return self.on_recv(Completion { token, result, more: false, buffer: None }, now);
            }
            self.urgent = true;
        }
        if conn.has(Conn::RECEIVING) {
            conn.set(Conn::AGAIN);
            return Ok(());
        }
        conn.set(Conn::FRESH);
        self.receive(peer)
    }

    pub(super) fn receive(&mut self, peer: PeerId) -> io::Result<()> {
        let Some(Some(conn)) = self.conns.get_mut(peer.index() as usize) else { return Ok(()) };
        if conn.has(Conn::CLOSING) {
            return Ok(());
        }
        debug_assert!(!conn.has(Conn::RECEIVING));
        conn.set(Conn::RECEIVING);
        conn.clear(Conn::UNREAD);
        self.urgent |= conn.has(Conn::TO_END);
        self.reading_on |= conn.has(Conn::STREAMING);
        let token = Token::new(kind::RECV, peer.generation(), peer.index());
        let fd = conn.raw();
        if self.reads_frames() {
            self.engine.receive(fd, token)
        } else {
            self.engine.discard(fd, limits::MAX_DISCARD, token)
        }
    }

    /// Arms the poll. In lazy mode wakes are rare and nearly always the end, so the poll is one that ends
    /// by itself: taking it back from a dead peer cost a search through all that are armed, two more
    /// completions and a turn, a quarter of all that a death costs. A wake that was followed by no recv would
    /// repeat itself at once and for ever: such a connection, and one whose FIN was read, is watched by
    /// a poll that tells of wakes only.
    pub(super) fn watch(&mut self, peer: PeerId) -> io::Result<()> {
        let lazy = self.config.tracker.wake == Wake::Lazy;
        let Some(Some(conn)) = self.conns.get_mut(peer.index() as usize) else { return Ok(()) };
        conn.set(Conn::WATCHED);
        let token = Token::new(kind::WATCH, peer.generation(), peer.index());
        if lazy && !conn.has(Conn::ENDED | Conn::UNREAD) {
            conn.set(Conn::ONCE);
            self.engine.watch_once(conn.raw(), INTEREST, token)
        } else {
            conn.clear(Conn::ONCE);
            self.engine.watch(conn.raw(), INTEREST, token)
        }
    }

    /// Arms the polls that ended with a wake, except of those who are being read, and of the dead.
    pub(super) fn watch_again(&mut self) -> io::Result<()> {
        let mut unwatched = std::mem::take(&mut self.unwatched);
        let mut kept = 0;
        for position in 0..unwatched.len() {
            let peer = unwatched[position];
            let token = Token::new(kind::WATCH, peer.generation(), peer.index());
            let Some((_, conn)) = self.conn(token) else { continue };
            if conn.has(Conn::CLOSING | Conn::WATCHED) {
                continue;
            }
            if conn.has(Conn::RECEIVING | Conn::AGAIN) {
                unwatched[kept] = peer;
                kept += 1;
                continue;
            }
            self.watch(peer)?;
        }
        unwatched.truncate(kept);
        self.unwatched = unwatched;
        Ok(())
    }

    pub(super) fn close(&mut self, peer: PeerId, abort: bool) -> io::Result<()> {
        let Some(Some(conn)) = self.conns.get_mut(peer.index() as usize) else { return Ok(()) };
        conn.set(if abort { Conn::CLOSING | Conn::ABORT } else { Conn::CLOSING });
        if conn.has(Conn::WATCHED) {
            let watch = Token::new(kind::WATCH, peer.generation(), peer.index());
            let cancel = Token::new(kind::CANCEL, peer.generation(), peer.index());
            self.engine.cancel(conn.raw(), watch, cancel)?;
        }
        self.close_if_quiet(peer);
        Ok(())
    }

    /// Closes a dead peer's descriptor once nothing is under way on it: an armed request would keep
    /// the socket open behind our back, and its FIN with it.
    pub(super) fn close_if_quiet(&mut self, peer: PeerId) {
        let place = &mut self.conns[peer.index() as usize];
        let Some(conn) = place else { return };
        if conn.has(Conn::WATCHED | Conn::RECEIVING) {
            return;
        }
        if conn.has(Conn::ABORT) {
            let _ = tcp::abort_on_close(conn.as_fd()); // at worst it is closed with a FIN
        }
        *place = None;
        self.partial_frames.remove(&peer.index());
        self.tracker.release(peer);
    }
}
