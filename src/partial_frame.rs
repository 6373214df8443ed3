//! The rest of a frame that did not fit a full socket, to be sent before any other frame.

use std::io::{self, ErrorKind, Write};

use crate::frame::MAX_FRAME_BYTES;

/// How much of a frame was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The kernel took all bytes.
    Whole,
    /// The kernel took a part, and the rest is kept: half a frame would corrupt the stream.
    Begun,
    /// The kernel took no byte, and none is kept.
    Skipped,
}

/// The rest of at most one frame.
#[derive(Clone, Debug)]
pub(crate) struct PartialFrame {
    rest: [u8; MAX_FRAME_BYTES],
    length: u8,
}

impl PartialFrame {
    pub(crate) const fn new() -> PartialFrame {
        PartialFrame { rest: [0; MAX_FRAME_BYTES], length: 0 }
    }

    /// Whether no rest is kept.
    pub(crate) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Writes `frame`, unless an older rest waits or the socket is full. No frame is queued behind a rest: heartbeats
    /// that arrive together are worth one.
    pub(crate) fn send(&mut self, socket: &mut impl Write, frame: &[u8]) -> io::Result<Sent> {
        assert!(!frame.is_empty() && frame.len() <= MAX_FRAME_BYTES);
        self.flush(socket)?;
        if !self.is_empty() {
            return Ok(Sent::Skipped);
        }
        let written = write(socket, frame)?;
        if written == frame.len() {
            return Ok(Sent::Whole);
        }
        if written == 0 {
            return Ok(Sent::Skipped);
        }
        self.keep(&frame[written..]);
        Ok(Sent::Begun)
    }

    /// Writes as much of the rest as the socket takes.
    pub(crate) fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let waiting = self.rest;
        let waiting = &waiting[..usize::from(self.length)];
        let written = write(socket, waiting)?;
        self.keep(&waiting[written..]);
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.rest[..bytes.len()].copy_from_slice(bytes);
        self.length = bytes.len() as u8;
    }
}

/// Writes once, and again after a signal. Returns the number of bytes taken: 0 if the socket is full.
fn write(socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket with room for `room` bytes.
    #[derive(Default)]
    struct Narrow {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.room);
            if length == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= length;
            self.taken.extend(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_socket_costs_the_frame_and_keeps_nothing() {
        let (mut partial, mut socket) = (PartialFrame::new(), Narrow::default());
        assert_eq!(partial.send(&mut socket, b"first").unwrap(), Sent::Skipped);
        socket.room = 100;
        assert_eq!(partial.send(&mut socket, b"second").unwrap(), Sent::Whole);
        assert_eq!(socket.taken, b"second");
    }

    #[test]
    fn a_frame_that_began_is_finished_before_any_other_and_those_between_are_skipped() {
        let (mut partial, mut socket) = (PartialFrame::new(), Narrow { room: 2, taken: vec![] });
        assert_eq!(partial.send(&mut socket, b"first").unwrap(), Sent::Begun);
        assert_eq!(partial.send(&mut socket, b"second").unwrap(), Sent::Skipped);
        socket.room = 1;
        partial.flush(&mut socket).unwrap();
        assert_eq!(partial.send(&mut socket, b"third").unwrap(), Sent::Skipped);
        socket.room = 100;
        assert_eq!(partial.send(&mut socket, b"fourth").unwrap(), Sent::Whole);
        assert_eq!(socket.taken, b"firstfourth");
    }
}
