//! Heartbeat frames, in and out.

use std::os::fd::AsFd;

use super::Tracking;
use crate::frame::{Decoded, Decoder, Frame, FrameError, Kind};
use crate::liveness::{Fact, PeerId};
use crate::partial_frame::PartialFrame;
use crate::sys::tcp;
use crate::time::Instant;

/// The frames of one connection.
pub(super) struct Frames {
    decoder: Decoder,
    /// The sequence and the timestamp of the last PING that was sent and not answered; the timestamp is 0 if there is
    /// none.
    asked: (u32, u64),
}

impl Frames {
    pub(super) fn new() -> Frames {
        Frames { decoder: Decoder::new(), asked: (0, 0) }
    }

    /// Notes a PING that is sent.
    pub(super) fn asked(&mut self, ping: &Frame) {
        self.asked = (ping.sequence, ping.timestamp);
    }

    /// When the PING was sent that `frame` answers. A peer cannot make round trips up: no other frame answers it, and one
    /// frame only.
    fn answered(&mut self, frame: &Frame) -> Option<Instant> {
        let answers = frame.timestamp > 0 && (frame.sequence, frame.timestamp) == self.asked;
        answers.then(|| {
            self.asked = (0, 0);
            Instant::from_nanos(frame.timestamp)
        })
    }
}

/// How a batch of bytes ended.
enum Outcome {
    More,
    Bye,
    Garbage(FrameError),
}

impl Tracking {
    /// Feeds the frames in `bytes`, and answers the newest PING among them: one answer a batch is enough to show that this
    /// side is alive, and bounds what a flood of PINGs can make it send.
    pub(super) fn parse(&mut self, peer: PeerId, mut bytes: &[u8], now: Instant) {
        let Some(frames) = self.frames.get_mut(peer.index() as usize) else { return };
        let mut ping = None;
        let outcome = loop {
            match frames.decoder.next(&mut bytes) {
                Ok(Some(Decoded::Frame(frame))) => {
                    match frame.kind {
                        Kind::Bye => break Outcome::Bye,
                        Kind::Ping => ping = Some(frame),
                        Kind::Pong | Kind::Hello => {
                            if let Some(asked) = frames.answered(&frame) {
                                self.recorder.rtt(now.since(asked));
                            }
                        }
                    }
                    let fact = Fact::Frame { kind: frame.kind, sequence: frame.sequence };
                    self.tracker.handle(peer, fact, now);
                }
                Ok(Some(Decoded::Hello { identity, .. })) => {
                    self.tracker.handle(peer, Fact::Hello(identity), now);
                }
                Ok(None) => break Outcome::More,
                Err(error) => break Outcome::Garbage(error),
            }
        };
        match outcome {
            Outcome::More => {
                if let Some(answer) = ping.and_then(|ping| ping.answer()) {
                    self.send(peer, answer);
                }
            }
            Outcome::Bye => {
                let evidence = self.evidence(peer);
                self.tracker.handle(peer, Fact::Bye(evidence), now);
            }
            Outcome::Garbage(error) => {
                let evidence = self.evidence(peer);
                self.tracker.handle(peer, Fact::Garbage(error, evidence), now);
            }
        }
    }

    /// Sends a frame now or not at all: a peer that does not take sixteen bytes is stuck, not dead, and a send that fails
    /// tells nothing that the poll does not tell. The rest of a frame that was sent in part is kept and goes first the
    /// next time: half a frame would spoil all that follow.
    pub(super) fn send(&mut self, peer: PeerId, frame: Frame) {
        let Some(Some(conn)) = self.conns.get(peer.index() as usize) else { return };
        let mut partial = self.partial_frames.remove(&peer.index()).unwrap_or(PartialFrame::new());
        let _ = partial.send(&mut tcp::Now(conn.as_fd()), &frame.encode());
        if !partial.is_empty() {
            self.partial_frames.insert(peer.index(), partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pong_to_the_ping_that_was_sent_is_a_round_trip_and_once() {
        let mut frames = Frames::new();
        let pong = |sequence, timestamp| Frame { kind: Kind::Pong, sequence, timestamp };
        assert_eq!(frames.answered(&pong(0, 0)), None, "a heartbeat");
        assert_eq!(frames.answered(&pong(1, 1)), None, "nothing was asked");
        frames.asked(&Frame { kind: Kind::Ping, sequence: 7, timestamp: 5_000_000_000 });
        for (sequence, timestamp) in [(7, 1), (6, 5_000_000_000), (7, 0)] {
            assert_eq!(frames.answered(&pong(sequence, timestamp)), None);
        }
        assert_eq!(frames.answered(&pong(7, 5_000_000_000)), Some(Instant::from_nanos(5_000_000_000)));
        assert_eq!(frames.answered(&pong(7, 5_000_000_000)), None);
    }
}
