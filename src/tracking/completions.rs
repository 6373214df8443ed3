//! What a completion says: decoded once, and fed to the tracker as a fact.

use std::io;
use std::time::Duration;

use super::{RECV, Tracking, mark};
use crate::limits;
use crate::liveness::decode::{self, Received};
use crate::liveness::errno::{self, Meaning};
use crate::liveness::{Fact, PeerId};
use crate::reactor::{Completion, Descriptor, Sockets};
use crate::sys::engine::Token;
use crate::time::Instant;

/// The pause before starved operations are tried again.
const STARVED_PAUSE: Duration = Duration::from_millis(1);

impl Tracking {
    /// The connection that a completion belongs to; `None` if another peer has its place.
    pub(super) fn conn(&mut self, token: Token) -> Option<(PeerId, &mut Descriptor)> {
        let peer = PeerId::new(token.index(), token.generation());
        if !self.tracker.has(peer) {
            return None;
        }
        let conn = self.conns.get_mut(token.index() as usize)?.as_mut()?;
        Some((peer, conn))
    }

    pub(super) fn on_poll(
        &mut self,
        sockets: &mut Sockets,
        completion: &Completion,
        now: Instant,
    ) -> io::Result<()> {
        let Some((peer, conn)) = self.conn(completion.token) else { return Ok(()) };
        conn.poll_completed(completion);
        if conn.is_closing() {
            self.release_if_over(peer);
            return Ok(());
        }
        match decode::polled(completion.result) {
            Ok(mask) => {
                conn.mask = mask;
                if !completion.more {
                    let one_shot = conn.is_one_shot();
                    conn.set(mark::UNREAD);
                    sockets.rearms += u64::from(!one_shot);
                    self.unwatched.push(peer);
                }
                self.tracker.handle(peer, Fact::Ready(mask), now);
            }
            Err(errno) => match errno::meaning(errno) {
                Meaning::Again | Meaning::Resources | Meaning::Cancelled => self.starve(peer, now),
                _ => self.failed(peer, errno, now),
            },
        }
        Ok(())
    }

    pub(super) fn on_recv(
        &mut self,
        sockets: &mut Sockets,
        completion: Completion,
        now: Instant,
    ) -> io::Result<()> {
        let full = if self.reads_frames() { limits::FRAME_BUFFER_BYTES } else { limits::MAX_DISCARD };
        let Some((peer, conn)) = self.conn(completion.token) else {
            sockets.recycle(completion.buffer);
            return Ok(());
        };
        conn.recv_completed();
        if conn.is_closing() {
            sockets.recycle(completion.buffer);
            self.release_if_over(peer);
            return Ok(());
        }
        let again = conn.take(mark::AGAIN);
        // The first recv of a drain tells whether the peer streams, and whether it still does.
        let fresh = conn.take(mark::FRESH);
        let to_end = conn.has(mark::TO_END);
        match decode::received(completion.result) {
            Received::Bytes(bytes) => {
                if bytes >= limits::STREAM_BYTES {
                    conn.set(mark::STREAMING);
                } else if fresh {
                    conn.clear(mark::STREAMING);
                }
                let streams = conn.has(mark::STREAMING);
                self.tracker.handle(peer, Fact::Taken { bytes }, now);
                if let Some(buffer) = &completion.buffer {
                    self.parse(peer, sockets.bytes(buffer, bytes as usize), now);
                }
                if again || to_end || streams || bytes >= full {
                    self.receive(sockets, peer)?;
                } else {
                    self.tracker.handle(peer, Fact::Emptied, now);
                }
            }
            Received::Nothing | Received::Cancelled => {
                if again {
                    self.receive(sockets, peer)?;
                } else {
                    conn.clear(if fresh { mark::TO_END | mark::STREAMING } else { mark::TO_END });
                    sockets.streams |= conn.has(mark::STREAMING);
                    self.tracker.handle(peer, Fact::Emptied, now);
                }
            }
            Received::End => {
                conn.set(mark::ENDED);
                let evidence = self.evidence(peer);
                self.tracker.handle(peer, Fact::End(evidence), now);
            }
            Received::Starved => {
                conn.set(mark::AGAIN);
                self.starve(peer, now);
            }
            Received::Failed(errno) => {
                // It may be a soft error: then the connection goes on, and what was asked for meanwhile.
                if !again {
                    conn.clear(mark::TO_END);
                }
                self.failed(peer, errno, now);
                if again {
                    self.receive(sockets, peer)?;
                }
            }
        }
        sockets.recycle(completion.buffer);
        Ok(())
    }

    fn failed(&mut self, peer: PeerId, errno: i32, now: Instant) {
        let evidence = self.evidence(peer);
        self.tracker.handle(peer, Fact::Failed { errno, evidence }, now);
    }

    fn starve(&mut self, peer: PeerId, now: Instant) {
        if self.starved.is_empty() {
            self.starved_until = now + STARVED_PAUSE;
        }
        self.starved.push_back(peer);
    }

    /// Tries starved operations again, in order, and no more of them than there are buffers: the others would starve
    /// again.
    pub(super) fn retry(&mut self, sockets: &mut Sockets, now: Instant) -> io::Result<()> {
        if self.starved.is_empty() || now < self.starved_until {
            return Ok(());
        }
        self.starved_until = now + STARVED_PAUSE;
        for _ in 0..limits::FRAME_BUFFERS {
            let Some(peer) = self.starved.pop_front() else { break };
            let token = Token::new(RECV, peer.generation(), peer.index());
            let Some((_, conn)) = self.conn(token) else { continue };
            if conn.is_closing() {
                continue;
            }
            // A recv in flight finds the mark when it completes.
            let receive = !conn.is_receiving() && conn.take(mark::AGAIN);
            if !conn.is_polled() {
                sockets.rearms += 1;
                self.poll(sockets, peer)?;
            }
            if receive {
                self.receive(sockets, peer)?;
            }
        }
        Ok(())
    }
}
