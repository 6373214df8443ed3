//! What a completion says: decoded once, and fed to the tracker as a fact.

use std::io;
use std::time::Duration;

use super::{Driver, kind};
use crate::frame::{Decoded, Kind};
use crate::limits;
use crate::liveness::decode::{self, Received};
use crate::liveness::errno::{self, Meaning};
use crate::liveness::{Fact, PeerId};
use crate::reactor::EventSink;
use crate::sys::engine::{Completion, Lent, Token};
use crate::time::Instant;
use crate::tracking::conn::Conn;

/// How long starved operations rest before they are tried again.
const STARVED_PAUSE: Duration = Duration::from_millis(1);

impl<S: EventSink> Driver<S> {
    pub(super) fn complete(&mut self, completion: Completion, now: Instant) -> io::Result<()> {
        let token = completion.token;
        match token.kind() {
            kind::LISTENER => {
                let index = token.index() as usize;
                self.listeners[index].pending = true;
                if !completion.more {
                    self.rearms += 1;
                    self.watch_listener(index)?;
                }
                Ok(())
            }
            kind::WAKEUP => {
                self.wakeup.clear();
                if completion.more { Ok(()) } else { self.watch_wakeup() }
            }
            kind::WATCH => self.on_poll(completion, now),
            kind::RECV => self.on_recv(completion, now),
            kind::CANCEL => Ok(()), // it was already over: its last completion is here or on its way
            kind => unreachable!("no operation of kind {kind} is ever submitted"),
        }
    }

    /// The connection that a completion belongs to, unless its place has a new life.
    pub(super) fn conn(&mut self, token: Token) -> Option<(PeerId, &mut Conn)> {
        let peer = PeerId::new(token.index(), token.generation());
        if !self.tracker.has(peer) {
            return None;
        }
        let conn = self.conns.get_mut(token.index() as usize)?.as_mut()?;
        Some((peer, conn))
    }

    pub(super) fn on_poll(&mut self, completion: Completion, now: Instant) -> io::Result<()> {
        let Some((peer, conn)) = self.conn(completion.token) else { return Ok(()) };
        if !completion.more {
            conn.clear(Conn::WATCHED);
        }
        if conn.has(Conn::CLOSING) {
            self.close_if_quiet(peer);
            return Ok(());
        }
        match decode::polled(completion.result) {
            Ok(mask) => {
                conn.mask = mask;
                if !completion.more {
                    let once = conn.has(Conn::ONCE);
                    conn.set(Conn::UNREAD);
                    self.rearms += u64::from(!once);
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

    pub(super) fn on_recv(&mut self, completion: Completion, now: Instant) -> io::Result<()> {
        let full = if self.reads_frames() { limits::FRAME_BUFFER_BYTES } else { limits::MAX_DISCARD };
        let Some((peer, conn)) = self.conn(completion.token) else {
            self.recycle(completion.buffer);
            return Ok(());
        };
        conn.clear(Conn::RECEIVING);
        if conn.has(Conn::CLOSING) {
            self.recycle(completion.buffer);
            self.close_if_quiet(peer);
            return Ok(());
        }
        let again = conn.take(Conn::AGAIN);
        // The first stroke of a drain tells whether it streams, and whether it streams still.
        let fresh = conn.take(Conn::FRESH);
        let to_end = conn.has(Conn::TO_END);
        match decode::received(completion.result) {
            Received::Bytes(bytes) => {
                if bytes >= limits::STREAM_BYTES {
                    conn.set(Conn::STREAMING);
                } else if fresh {
                    conn.clear(Conn::STREAMING);
                }
                let streams = conn.has(Conn::STREAMING);
                self.tracker.handle(peer, Fact::Taken { bytes }, now);
                if let Some(buffer) = &completion.buffer {
                    self.parse(peer, buffer, bytes as usize, now);
                }
                if again || to_end || streams || bytes >= full {
                    self.receive(peer)?;
                } else {
                    self.tracker.handle(peer, Fact::Emptied, now);
                }
            }
            Received::Nothing | Received::Cancelled => {
                if again {
                    self.receive(peer)?;
                } else {
                    conn.clear(if fresh { Conn::TO_END | Conn::STREAMING } else { Conn::TO_END });
                    self.paced |= conn.has(Conn::STREAMING);
                    self.tracker.handle(peer, Fact::Emptied, now);
                }
            }
            Received::End => {
                conn.set(Conn::ENDED);
                let evidence = self.evidence(peer);
                self.tracker.handle(peer, Fact::End(evidence), now);
            }
            Received::Starved => {
                conn.set(Conn::AGAIN);
                self.starve(peer, now);
            }
            Received::Failed(errno) => {
                // It may be a soft error: then the connection goes on, and what was asked for meanwhile.
                if !again {
                    conn.clear(Conn::TO_END);
                }
                self.failed(peer, errno, now);
                if again {
                    self.receive(peer)?;
                }
            }
        }
        self.recycle(completion.buffer);
        Ok(())
    }

    /// Feeds the frames in a buffer, and answers the newest PING among them: one answer a batch is
    /// enough to tell that we are here, and bounds what a flood of PINGs can make us send.
    pub(super) fn parse(&mut self, peer: PeerId, buffer: &Lent, length: usize, now: Instant) {
        let Some(decoder) = self.decoders.get_mut(peer.index() as usize) else { return };
        let mut bytes = self.engine.bytes(buffer, length);
        let mut ping = None;
        let outcome = loop {
            match decoder.next(&mut bytes) {
                Ok(Some(Decoded::Frame(frame))) => match frame.kind {
                    Kind::Bye => break Ok(true),
                    Kind::Ping => {
                        ping = Some(frame);
                        self.tracker.handle(
                            peer,
                            Fact::Frame { kind: frame.kind, sequence: frame.sequence },
                            now,
                        );
                    }
                    Kind::Pong | Kind::Hello => {
                        // Our own clock comes back: what lies between is the round trip. A peer can
                        // only spoil its own sample by sending something else.
                        if frame.timestamp > 0 && frame.timestamp <= now.as_nanos() {
                            self.recorder.rtt(now.since(Instant::from_nanos(frame.timestamp)));
                        }
                        self.tracker.handle(
                            peer,
                            Fact::Frame { kind: frame.kind, sequence: frame.sequence },
                            now,
                        );
                    }
                },
                Ok(Some(Decoded::Hello { identity, .. })) => {
                    self.tracker.handle(peer, Fact::Hello(identity), now);
                }
                Ok(None) => break Ok(false),
                Err(error) => break Err(error),
            }
        };
        match outcome {
            Ok(false) => {}
            Ok(true) => {
                let evidence = self.evidence(peer);
                self.tracker.handle(peer, Fact::Bye(evidence), now);
                return;
            }
            Err(error) => {
                let evidence = self.evidence(peer);
                self.tracker.handle(peer, Fact::Garbage(error, evidence), now);
                return;
            }
        }
        if let Some(answer) = ping.and_then(|ping| ping.answer()) {
            self.send(peer, answer);
        }
    }

    pub(super) fn recycle(&mut self, buffer: Option<Lent>) {
        if let Some(buffer) = buffer {
            self.engine.recycle(buffer);
        }
    }

    pub(super) fn failed(&mut self, peer: PeerId, errno: i32, now: Instant) {
        let evidence = self.evidence(peer);
        self.tracker.handle(peer, Fact::Failed { errno, evidence }, now);
    }

    pub(super) fn starve(&mut self, peer: PeerId, now: Instant) {
        if self.starved.is_empty() {
            self.starved_until = now + STARVED_PAUSE;
        }
        self.starved.push_back(peer);
    }

    /// Tries again what was starved, in order, and no more of it than there are buffers: the others
    /// would only starve again.
    pub(super) fn retry(&mut self, now: Instant) -> io::Result<()> {
        if self.starved.is_empty() || now < self.starved_until {
            return Ok(());
        }
        self.starved_until = now + STARVED_PAUSE;
        for _ in 0..limits::FRAME_BUFFERS {
            let Some(peer) = self.starved.pop_front() else { break };
            let token = Token::new(kind::RECV, peer.generation(), peer.index());
            let Some((_, conn)) = self.conn(token) else { continue };
            if conn.has(Conn::CLOSING) {
                continue;
            }
            // A recv that is under way sees for itself that there was another wish.
            let receive = !conn.has(Conn::RECEIVING) && conn.take(Conn::AGAIN);
            if !conn.has(Conn::WATCHED) {
                self.rearms += 1;
                self.watch(peer)?;
            }
            if receive {
                self.receive(peer)?;
            }
        }
        Ok(())
    }
}
