//! What the tracker wants done to a socket, as submissions and plain system calls.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::{POLL, RECV, Tracking, mark};
use crate::evidence;
use crate::frame::{Frame, Kind};
use crate::limits;
use crate::liveness::{Action, Evidence, Fact, PeerId, PollMask, TcpState, Wake};
use crate::reactor::{Completion, Sockets};
use crate::sys::engine::Token;
use crate::sys::tcp;
use crate::time::Instant;

/// What the poll of a connection waits for. ERR and HUP are always reported.
const INTEREST: u16 = PollMask::IN | PollMask::RDHUP;

impl Tracking {
    pub(super) fn do_actions(&mut self, sockets: &mut Sockets, now: Instant) -> io::Result<()> {
        while let Some(action) = self.tracker.poll_action() {
            match action {
                Action::Drain { peer, to_end } => self.drain(sockets, peer, to_end)?,
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
                    let ping = Frame { kind: Kind::Ping, sequence, timestamp: now.as_nanos() };
                    if let Some(frames) = self.frames.get_mut(peer.index() as usize) {
                        frames.asked(&ping);
                    }
                    self.send(peer, ping);
                }
                Action::Close { peer, abort } => self.close(sockets, peer, abort)?,
            }
        }
        Ok(())
    }

    /// Looks at the socket. One that cannot be looked at counts as closed.
    pub(super) fn evidence(&mut self, peer: PeerId) -> Evidence {
        let gone = Evidence { tcp_state: TcpState::Close, ..Evidence::default() };
        let Some(Some(conn)) = self.conns.get(peer.index() as usize) else { return gone };
        match evidence::inspect(conn.as_fd(), conn.mask, self.ticks) {
            Ok(mut evidence) => {
                // A read of the error clears it. Before the end it is left to the recv, which may be in flight.
                let errs = conn.has(mark::ENDED) && conn.mask.has(PollMask::ERR);
                if errs && evidence.tcp_state == TcpState::Close {
                    evidence.so_error = tcp::take_error(conn.as_fd()).ok().filter(|&errno| errno != 0);
                }
                evidence
            }
            Err(_) => Evidence { mask: conn.mask, ..gone },
        }
    }

    /// Takes off what is unread: by the engine, together with what the others have. The first ends of a turn are read
    /// here and now.
    fn drain(&mut self, sockets: &mut Sockets, peer: PeerId, to_end: bool) -> io::Result<()> {
        let at_once = to_end && self.ends_at_once > 0 && !self.reads_frames();
        let Some(Some(conn)) = self.conns.get_mut(peer.index() as usize) else { return Ok(()) };
        if to_end {
            conn.set(mark::TO_END);
            if at_once && !conn.is_receiving() && !conn.is_closing() {
                self.ends_at_once -= 1;
                conn.set(mark::FRESH);
                conn.clear(mark::UNREAD);
                let token = Token::new(RECV, peer.generation(), peer.index());
                let result = tcp::discard(conn.as_fd().as_raw_fd(), limits::MAX_DISCARD);
                // Not the turn's time: the end may have come since.
                let now = Instant::now();
                let completion = Completion { token, result, more: false, buffer: None };
                return self.on_recv(sockets, completion, now);
            }
            sockets.urgent = true;
        }
        if conn.is_receiving() {
            conn.set(mark::AGAIN);
            return Ok(());
        }
        conn.set(mark::FRESH);
        self.receive(sockets, peer)
    }

    pub(super) fn receive(&mut self, sockets: &mut Sockets, peer: PeerId) -> io::Result<()> {
        let frames = self.reads_frames();
        let Some(Some(conn)) = self.conns.get_mut(peer.index() as usize) else { return Ok(()) };
        if conn.is_closing() {
            return Ok(());
        }
        debug_assert!(!conn.is_receiving());
        conn.clear(mark::UNREAD);
        sockets.urgent |= conn.has(mark::TO_END);
        sockets.read_on |= conn.has(mark::STREAMING);
        let token = Token::new(RECV, peer.generation(), peer.index());
        if frames { sockets.receive(conn, token) } else { sockets.discard(conn, limits::MAX_DISCARD, token) }
    }

    /// Arms the poll. In lazy mode a wake-up is rare and nearly always the end, so the poll ends by itself: to cancel the
    /// poll of a dead peer cost a search through all armed polls, two more completions and a turn, a quarter of all that
    /// a death costs. A wake-up without a recv after it would repeat itself at once and for ever: such a connection, and
    /// one whose FIN was read, has a multishot poll, which reports new wake-ups only.
    pub(super) fn poll(&mut self, sockets: &mut Sockets, peer: PeerId) -> io::Result<()> {
        let lazy = self.config.wake == Wake::Lazy;
        let Some(Some(conn)) = self.conns.get_mut(peer.index() as usize) else { return Ok(()) };
        let token = Token::new(POLL, peer.generation(), peer.index());
        if lazy && !conn.has(mark::ENDED | mark::UNREAD) {
            sockets.poll_once(conn, INTEREST, token)
        } else {
            sockets.poll(conn, INTEREST, token)
        }
    }

    /// Arms the polls that ended with a wake-up, except of connections that are being read or closed.
    pub(super) fn poll_again(&mut self, sockets: &mut Sockets) -> io::Result<()> {
        let mut unwatched = std::mem::take(&mut self.unwatched);
        let mut kept = 0;
        for position in 0..unwatched.len() {
            let peer = unwatched[position];
            let token = Token::new(POLL, peer.generation(), peer.index());
            let Some((_, conn)) = self.conn(token) else { continue };
            if conn.is_closing() || conn.is_polled() {
                continue;
            }
            if conn.is_receiving() || conn.has(mark::AGAIN) {
                unwatched[kept] = peer;
                kept += 1;
                continue;
            }
            self.poll(sockets, peer)?;
        }
        unwatched.truncate(kept);
        self.unwatched = unwatched;
        Ok(())
    }

    fn close(&mut self, sockets: &mut Sockets, peer: PeerId, abort: bool) -> io::Result<()> {
        let Some(Some(conn)) = self.conns.get_mut(peer.index() as usize) else { return Ok(()) };
        let poll = Token::new(POLL, peer.generation(), peer.index());
        sockets.close(conn, poll, abort)?;
        self.release_if_over(peer);
        Ok(())
    }

    /// Gives a dead peer's descriptor and place back, if nothing is in flight any more.
    pub(super) fn release_if_over(&mut self, peer: PeerId) {
        let place = &mut self.conns[peer.index() as usize];
        if place.take_if(|conn| conn.is_over()).is_some() {
            self.partial_frames.remove(&peer.index());
            self.tracker.release(peer);
        }
    }
}
