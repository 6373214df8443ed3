//! How a connection comes up, and how it waits and tries again after a failure.

use std::io::{self, ErrorKind};

use mio::net::TcpStream;
use mio::{Interest, Token};

use super::Client;
use super::connection::Phase;
use super::error::ClientError;
use super::limits::{CONNECT_PATIENCE, MAX_BACKOFF, MAX_IN_FLIGHT, MIN_BACKOFF};
use crate::frame::{Decoder, encode_hello};
use crate::partial_frame::PartialFrame;
use crate::time::Instant;

impl Client {
    /// Starts connects until [`MAX_IN_FLIGHT`] are in flight. The attempts of one call are bounded too, since on
    /// loopback a refusal comes at once and leaves nothing in flight.
    pub(super) fn start_connects(&mut self, now: Instant) -> Result<(), ClientError> {
        for _ in 0..MAX_IN_FLIGHT {
            if self.progress.connecting == MAX_IN_FLIGHT {
                break;
            }
            let Some(index) = self.queue.pop_front() else { break };
            self.start_connect(index, now)?;
        }
        Ok(())
    }

    pub(super) fn start_connect(&mut self, index: usize, now: Instant) -> Result<(), ClientError> {
        let address = self.config.address;
        let connection = &mut self.connections[index];
        assert!(connection.phase == Phase::Waiting && connection.stream.is_none());
        connection.phase = Phase::Connecting;
        self.progress.waiting -= 1;
        self.progress.connecting += 1;
        let mut stream = match TcpStream::connect(address) {
            Ok(stream) => stream,
            Err(source) => {
                let open = self.progress.connected + self.progress.connecting - 1;
                return match source.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        Err(ClientError::Socket(address, open, source))
                    }
                    // With `reconnect`, ports in TIME_WAIT become free in time.
                    Some(libc::EADDRNOTAVAIL) if !self.config.reconnect => {
                        Err(ClientError::LocalPorts(address, open, source))
                    }
                    _ => {
                        self.connect_failed(index, &source, now);
                        Ok(())
                    }
                };
            }
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut stream, Token(index + 1), interest);
        registered.map_err(|source| ClientError::Watch(address, source))?;
        self.connections[index].stream = Some(stream);
        self.set_timer(index, now + CONNECT_PATIENCE);
        Ok(())
    }

    /// Handles the answer to a connect, if there is one.
    pub(super) fn connect_answered(&mut self, index: usize, now: Instant) {
        let stream = self.connections[index].stream.as_ref().expect("a connect in flight has a stream");
        match answer(stream) {
            Ok(()) => self.connected(index, now),
            Err(error) if error.kind() == ErrorKind::NotConnected => {} // not answered yet
            Err(error) => self.connect_failed(index, &error, now),
        }
    }

    pub(super) fn connected(&mut self, index: usize, now: Instant) {
        let connection = &mut self.connections[index];
        let stream = connection.stream.as_ref().expect("a connect in flight has a stream");
        // With Nagle's algorithm a heartbeat would wait for the ACK of the one before it. A failure only delays.
        let _ = stream.set_nodelay(true);
        connection.phase = Phase::Up;
        connection.decoder = Decoder::new();
        connection.partial = PartialFrame::new();
        connection.sequence = 0;
        connection.place = self.rhythm.place_after(index, now);
        let due = self.rhythm.due(index, connection.place, &mut self.rng);
        self.progress.connecting -= 1;
        self.progress.connected += 1;
        self.progress.totals.established += 1;
        self.set_timer(index, due);
        let hello = encode_hello(&self.config.identity(index), now.as_nanos());
        self.send(index, &hello.expect("the longest identity was checked"), now);
    }

    pub(super) fn connect_failed(&mut self, index: usize, error: &io::Error, now: Instant) {
        self.progress.connecting -= 1;
        if error.kind() == ErrorKind::ConnectionRefused {
            self.progress.totals.refused += 1;
        } else {
            self.progress.totals.failed += 1;
        }
        self.progress.totals.last_errno = error.raw_os_error().or(self.progress.totals.last_errno);
        self.release(index, now);
    }

    /// Closes a connection that failed or was lost: for good, or until its backoff is over.
    pub(super) fn release(&mut self, index: usize, now: Instant) {
        self.clear_timer(index);
        let connection = &mut self.connections[index];
        connection.stream = None; // closes it, which takes it out of the poll too
        if !self.config.reconnect || connection.phase == Phase::Leaving {
            connection.phase = Phase::Gone;
            return;
        }
        connection.phase = Phase::Waiting;
        self.progress.waiting += 1;
        let doubled = MIN_BACKOFF * (1 << connection.attempts.min(10));
        connection.attempts = connection.attempts.saturating_add(1);
        // Between half of the wait and all of it, at random, so that clients that were cut off together do not come
        // back together.
        let wait = doubled.min(MAX_BACKOFF).mul_f64(0.5 + 0.5 * self.rng.f64());
        self.set_timer(index, now + wait);
    }
}

/// The answer to a connect; the error `NotConnected` means that there is none yet.
pub(super) fn answer(stream: &TcpStream) -> io::Result<()> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    // If no program listens on a port of the ephemeral range, the kernel may give that port to the connecting socket.
    // The socket is then connected to itself, and would keep the port from the server.
    if stream.peer_addr()? == stream.local_addr()? {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(())
}
