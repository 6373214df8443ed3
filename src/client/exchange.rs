//! What a connection that is up sends and receives.

use std::io::{self, ErrorKind, Read};

use mio::event::Event;

use super::connection::{Connection, Loss, Phase};
use super::limits::{MAX_READS_PER_TURN, MAX_TIMERS_PER_TURN, READ_BYTES};
use super::{Client, STOP};
use crate::frame::{Decoded, Frame};
use crate::partial_frame::Sent;
use crate::time::Instant;

impl Client {
    /// Handles one readiness event. A connection that was closed earlier in the same batch has no stream. The event
    /// cannot belong to its successor, since connects start between two polls.
    pub(super) fn handle(&mut self, event: &Event, now: Instant) {
        if event.token() == STOP {
            return;
        }
        let index = event.token().0 - 1;
        if self.connections[index].phase == Phase::Connecting {
            self.connect_answered(index, now);
        } else if self.connections[index].phase == Phase::Up && event.is_writable() {
            self.flush(index, now);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(index, now);
        }
    }

    pub(super) fn flush(&mut self, index: usize, now: Instant) {
        let Connection { stream: Some(stream), partial, .. } = &mut self.connections[index] else { return };
        if let Err(error) = partial.flush(stream) {
            self.lose(index, Loss::Failed(error), now);
        }
    }

    /// Sends a frame, or skips it if the socket is full; returns whether it was sent.
    pub(super) fn send(&mut self, index: usize, frame: &[u8], now: Instant) -> bool {
        let Connection { stream: Some(stream), partial, .. } = &mut self.connections[index] else {
            return false;
        };
        match partial.send(stream, frame) {
            // Begun: a part is sent and the rest follows.
            Ok(Sent::Whole | Sent::Begun) => true,
            Ok(Sent::Skipped) => {
                self.progress.totals.skipped += 1;
                false
            }
            Err(error) => {
                self.lose(index, Loss::Failed(error), now);
                false
            }
        }
    }

    pub(super) fn fire_timers(&mut self, now: Instant) {
        for _ in 0..MAX_TIMERS_PER_TURN {
            let Some(&(at, index)) = self.timers.first() else { break };
            if at > now {
                break;
            }
            self.clear_timer(index);
            match self.connections[index].phase {
                Phase::Waiting => self.queue.push_back(index),
                Phase::Connecting => {
                    self.connect_failed(index, &io::Error::from_raw_os_error(libc::ETIMEDOUT), now);
                }
                Phase::Up => self.beat(index, now),
                Phase::Leaving | Phase::Gone => unreachable!("their timers were cleared"),
            }
        }
    }

    pub(super) fn beat(&mut self, index: usize, now: Instant) {
        let connection = &mut self.connections[index];
        let frame = Frame::beat(connection.sequence);
        // Heartbeats that this thread was too late for are skipped, not sent in a burst.
        let next = self.rhythm.place_at(index, now).max(connection.place + 1);
        let missed = next - connection.place - 1;
        connection.sequence = connection.sequence.wrapping_add((missed as u32).wrapping_add(1));
        connection.place = next;
        let due = self.rhythm.due(index, next, &mut self.rng);
        self.progress.totals.skipped += missed;
        self.set_timer(index, due);
        if self.send(index, &frame.encode(), now) {
            self.progress.totals.beats += 1;
            self.connections[index].attempts = 0;
        }
    }

    /// Reads from the connections that had more to read than one turn allows.
    pub(super) fn read_on(&mut self, now: Instant) {
        for index in std::mem::take(&mut self.unread) {
            self.connections[index].unread = false;
            self.read(index, now);
        }
    }

    /// Reads until the socket is empty, as an edge-triggered poll requires, or until the bound of a turn.
    pub(super) fn read(&mut self, index: usize, now: Instant) {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..MAX_READS_PER_TURN {
            let connection = &mut self.connections[index];
            if !matches!(connection.phase, Phase::Up | Phase::Leaving) {
                return;
            }
            let stream = connection.stream.as_mut().expect("a connection that is up has a stream");
            match stream.read(&mut buffer) {
                Ok(0) => return self.lose(index, Loss::Closed, now),
                Ok(length) => self.take(index, &buffer[..length], now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.lose(index, Loss::Failed(error), now),
            }
        }
        let connection = &mut self.connections[index];
        if !connection.unread {
            connection.unread = true;
            self.unread.push(index);
        }
    }

    /// Decodes received bytes and answers PINGs. Bytes that arrive after our BYE are dropped; they were read so that
    /// the close does not send a RST.
    pub(super) fn take(&mut self, index: usize, mut bytes: &[u8], now: Instant) {
        while self.connections[index].phase == Phase::Up {
            match self.connections[index].decoder.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(Decoded::Hello { .. })) => {}
                Ok(Some(Decoded::Frame(frame))) => {
                    let Some(answer) = frame.answer() else { continue };
                    if self.send(index, &answer.encode(), now) {
                        self.progress.totals.pongs_answered += 1;
                    }
                }
                Err(_) => self.lose(index, Loss::Protocol, now),
            }
        }
    }

    pub(super) fn lose(&mut self, index: usize, loss: Loss, now: Instant) {
        match self.connections[index].phase {
            Phase::Up => self.progress.connected -= 1,
            Phase::Leaving => {
                self.leaving -= 1;
                return self.release(index, now);
            }
            phase => unreachable!("{phase:?} cannot be lost"),
        }
        let totals = &mut self.progress.totals;
        match loss {
            Loss::Closed => totals.lost_closed += 1,
            Loss::Protocol => totals.lost_protocol += 1,
            Loss::Failed(error) => match error.kind() {
                // EPIPE is what a write returns after a RST that was not read.
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => totals.lost_reset += 1,
                _ => {
                    totals.lost_path += 1;
                    totals.last_errno = error.raw_os_error().or(totals.last_errno);
                }
            },
        }
        self.release(index, now);
    }
}
