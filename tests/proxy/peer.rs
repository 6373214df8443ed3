//! One end of a connection, a client's or a server's, on plain blocking sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::daemon::PATIENCE;
use crate::upstream::Log;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
}

/// Bounded by patience: what never comes is a failure, not a hang.
pub struct Peer {
    pub stream: TcpStream,
    pub address: SocketAddr,
    unread: Vec<u8>,
    pub sent: u64,
    pub came: u64,
    pub log: Option<Arc<Log>>,
}

impl Peer {
    pub fn connect(to: SocketAddr) -> Peer {
        Peer::of(TcpStream::connect(to).unwrap(), None)
    }

    /// A peer that has connected and sent this.
    pub fn asking(to: SocketAddr, request: impl AsRef<[u8]>) -> Peer {
        let mut peer = Peer::connect(to);
        peer.send(request);
        peer
    }

    pub fn of(stream: TcpStream, log: Option<Arc<Log>>) -> Peer {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let address = stream.local_addr().unwrap();
        Peer { stream, address, unread: Vec::new(), sent: 0, came: 0, log }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    /// Fails where the other side has reset.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), ErrorKind> {
        let bytes = bytes.as_ref();
        self.sent += bytes.len() as u64;
        self.stream.write_all(bytes).map_err(|error| {
            assert!(
                matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
                "{error} after {PATIENCE:?}?"
            );
            if let Some(log) = &self.log {
                log.end(End::Reset);
            }
            error.kind()
        })
    }

    /// Reads what there is, once; the end, if there is nothing.
    fn fill(&mut self) -> Option<End> {
        let mut buffer = [0; 65_536];
        loop {
            let end = match self.stream.read(&mut buffer) {
                Ok(0) => End::Fin,
                Ok(count) => {
                    self.came += count as u64;
                    self.unread.extend_from_slice(&buffer[..count]);
                    if let Some(log) = &self.log {
                        log.add(&buffer[..count]);
                    }
                    return None;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
                Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&self.unread)),
            };
            if let Some(log) = &self.log {
                log.end(end);
            }
            return Some(end);
        }
    }

    /// The next so many bytes.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        self.try_take(count).unwrap_or_else(|end| {
            let unread = String::from_utf8_lossy(&self.unread);
            panic!("{end:?} after {} of {count} bytes: {:.300}", self.unread.len(), unread)
        })
    }

    pub fn try_take(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.unread.len() < count {
            if let Some(end) = self.fill() {
                return Err(end);
            }
        }
        let rest = self.unread.split_off(count);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    /// The next head, with the empty line behind it.
    #[track_caller]
    pub fn head(&mut self) -> String {
        self.try_head().unwrap_or_else(|end| {
            panic!("{end:?} instead of a head: {:.300}", String::from_utf8_lossy(&self.unread))
        })
    }

    pub fn try_head(&mut self) -> Result<String, End> {
        self.try_until(b"\r\n\r\n")
    }

    /// All up to these bytes, and they.
    fn try_until(&mut self, mark: &[u8]) -> Result<String, End> {
        let mut looked = 0;
        loop {
            let found = self.unread[looked..].windows(mark.len()).position(|some| some == mark);
            if let Some(at) = found {
                let text = self.try_take(looked + at + mark.len())?;
                return Ok(String::from_utf8(text).unwrap());
            }
            looked = self.unread.len().saturating_sub(mark.len() - 1);
            if let Some(end) = self.fill() {
                return Err(end);
            }
        }
    }

    /// The next body in chunks, without their sizes.
    pub fn try_chunks(&mut self) -> Result<Vec<u8>, End> {
        let mut body = Vec::new();
        loop {
            let size = self.try_until(b"\r\n")?;
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            body.extend_from_slice(&self.try_take(size)?);
            assert_eq!(self.try_take(2)?, b"\r\n", "a chunk ends where it should");
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// The next message with a Content-Length, or none and so no body; interim responses are passed over.
    #[track_caller]
    pub fn message(&mut self) -> (String, Vec<u8>) {
        loop {
            let head = self.head();
            if head.starts_with("HTTP/1.1 1") {
                continue;
            }
            let length = head
                .split("Content-Length: ")
                .nth(1)
                .map_or(0, |rest| rest.split("\r\n").next().and_then(|length| length.parse().ok()).unwrap());
            let body = self.take(length);
            return (head, body);
        }
    }

    /// All that still comes, and how it ends.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Some(end) = self.fill() {
                return (std::mem::take(&mut self.unread), end);
            }
        }
    }

    /// Reads and forgets to the end.
    pub fn forget(&mut self) {
        while self.fill().is_none() {
            self.unread.clear();
        }
    }

    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends it with a RST.
    pub fn reset(self) {
        self.abort_on_close();
    }

    /// Whatever closes it sends a RST.
    pub fn abort_on_close(&self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
