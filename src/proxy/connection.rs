//! Both sockets of a client, and the bytes that wait for them. It judges nothing.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::SockRef;

use super::event::Failure;
use super::finishing::Finishing;
use super::line::Shown;
use super::session::Reuse;
use super::upstreams::Chosen;
use crate::evidence::inspect;
use crate::liveness::{Evidence, PollMask};
use crate::reactor::{Address, Descriptor, kind};
use crate::sys::engine::Token;
use crate::sys::tcp::{self, TickClock};
use crate::time::Instant;

/// The poll of a client.
pub(super) const CLIENT: u8 = kind::SERVICE;
/// The poll of an upstream.
pub(super) const UPSTREAM: u8 = kind::SERVICE + 1;

/// What the poll of a socket waits for: bytes, room, and ends.
pub(super) const INTEREST: u16 = PollMask::IN | PollMask::OUT | PollMask::RDHUP;

/// Bytes that the kernel did not take yet.
#[derive(Debug, Default)]
struct SendBuffer {
    bytes: Vec<u8>,
    sent: usize,
}

impl SendBuffer {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Notes that the kernel took `count` bytes. The memory is freed when it has taken all.
    fn took(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.bytes.len() {
            *self = SendBuffer::default();
        }
    }
}

/// Whether the last read of a socket did not fill the room that it had, and has not been repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    None,
    /// It did not.
    Young,
    /// It did not, and nothing was read since the last look.
    Old,
}

/// One side of a connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) descriptor: Descriptor,
    /// The token of its poll.
    pub(super) token: Token,
    buffer: SendBuffer,
    /// Bytes that it was given to send, and those that the kernel took.
    given: u64,
    written: u64,
    fin_wanted: bool,
    pub(super) fin_sent: bool,
    /// It may have bytes that were not read.
    pub(super) readable: bool,
    /// Its poll has shown an end: reads go on until they meet it.
    pub(super) end_seen: bool,
    /// Whether a short read may have left something.
    pub(super) doubt: Doubt,
    /// The end was read.
    pub(super) eof: bool,
    /// The peer's FIN has come, before any RST.
    pub(super) fin_came: bool,
    /// The error of a system call or of the poll that the session does not know yet.
    pub(super) failed: Option<i32>,
    /// The error of a write. What the peer had sent before may still be there: a server that refuses a long body answers
    /// and closes, and its answer would be lost with the rest.
    pub(super) broken: Option<i32>,
    /// The last mask and error, for events.
    pub(super) shown: Shown,
}

impl Socket {
    pub(super) fn new(descriptor: Descriptor, token: Token) -> Socket {
        Socket {
            descriptor,
            token,
            buffer: SendBuffer::default(),
            given: 0,
            written: 0,
            fin_wanted: false,
            fin_sent: false,
            readable: false,
            end_seen: false,
            doubt: Doubt::None,
            eof: false,
            fin_came: false,
            failed: None,
            broken: None,
            shown: Shown::default(),
        }
    }

    /// Whether the kernel has all bytes.
    pub(super) fn is_flushed(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether nothing is under way on it, in neither direction.
    pub(super) fn is_idle(&self) -> bool {
        self.is_flushed() && !self.is_over() && !self.eof && !self.end_seen && !self.fin_wanted
    }

    /// Whether the peer may have received some of the last `bytes` bytes that were sent. It has not if the kernel took none
    /// of them, or if the peer had sent its FIN before: a FIN acknowledges what was received before it.
    pub(super) fn may_be_received(&self, bytes: usize) -> bool {
        let before = self.given - bytes as u64;
        if self.written <= before {
            return false;
        }
        // The kernel counts this side's SYN as a byte.
        let acknowledged =
            || tcp::info(self.descriptor.as_fd()).map_or(u64::MAX, |info| info.tcpi_bytes_acked);
        !self.fin_came || acknowledged() > before + 1
    }

    fn is_over(&self) -> bool {
        self.failed.is_some() || self.broken.is_some()
    }

    /// How many bytes the peer has not acknowledged, with those that the kernel does not have.
    pub(super) fn left(&self) -> usize {
        let unsent = tcp::unsent(self.descriptor.as_fd()).unwrap_or(0);
        // The kernel counts a FIN as a byte, the last.
        self.buffer.waiting().len() + unsent.saturating_sub(u32::from(self.fin_sent)) as usize
    }

    /// Sends behind what waits.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.given += bytes.len() as u64; // also what goes nowhere: it was not received
        if self.is_over() || self.fin_sent || self.fin_wanted {
            return;
        }
        let written = if self.buffer.is_empty() { self.write(bytes) } else { 0 };
        if written < bytes.len() && !self.is_over() {
            self.buffer.bytes.extend_from_slice(&bytes[written..]);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match tcp::Now(self.descriptor.as_fd()).write(&bytes[written..]) {
                Ok(count) => {
                    written += count;
                    self.written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.broken = Some(error.raw_os_error().unwrap_or(libc::EIO));
                    (self.readable, self.end_seen) = (true, true);
                    self.buffer = SendBuffer::default();
                    break;
                }
            }
        }
        written
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn flush(&mut self) {
        if !self.buffer.is_empty() {
            let mut buffer = std::mem::take(&mut self.buffer);
            let count = self.write(buffer.waiting());
            if !self.is_over() {
                buffer.took(count);
                self.buffer = buffer;
            }
            if !self.buffer.is_empty() {
                return;
            }
        }
        if self.fin_wanted && !self.fin_sent && !self.is_over() {
            self.fin_sent = true;
            // A socket that is not connected any more needs none.
            let _ = SockRef::from(&self.descriptor).shutdown(std::net::Shutdown::Write);
        }
    }

    /// Sends a FIN behind what waits.
    pub(super) fn fin(&mut self) {
        self.fin_wanted = true;
        self.flush();
    }

    /// Takes the error of a socket whose poll has shown an end.
    pub(super) fn take_end(&mut self, mask: PollMask) {
        let error = tcp::take_error(self.descriptor.as_fd()).unwrap_or(libc::EIO);
        // A Unix peer that closes gives this mask, too: its bytes come first, and what is sent to it fails.
        let hung_up =
            || mask.has(PollMask::HUP) && !self.fin_sent && tcp::info(self.descriptor.as_fd()).is_ok();
        if error != 0 || hung_up() {
            self.failed = Some(if error == 0 { libc::ECONNRESET } else { error });
        }
    }

    /// What the socket shows now. The default when it cannot be looked at.
    pub(super) fn evidence(&self, clock: TickClock) -> Evidence {
        inspect(self.descriptor.as_fd(), PollMask::default(), clock).unwrap_or_default()
    }
}

/// Both sockets of a client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Option<Socket>,
    /// Tells the connections that one place has had apart.
    pub(super) generation: u32,
    /// The client's address, or the one that a PROXY header has named.
    pub(super) address: Address,
    /// The address that the client connected to, if a PROXY header has named it.
    pub(super) local: Option<Box<SocketAddr>>,
    /// The client's connection comes to its end.
    pub(super) finishing: Option<Box<Finishing>>,
    /// What the client had not taken, and since when it has taken nothing of it.
    stuck: Option<(usize, Instant)>,
    /// Boxed, since most clients have none most of the time.
    pub(super) upstream: Option<Box<Socket>>,
    /// The number of the upstream that is used.
    pub(super) chosen: Option<Chosen>,
    /// The number of the upstream that was used or tried last for the present request.
    pub(super) last: Option<u32>,
    /// What could not be connected to for the present request.
    pub(super) tried: Option<Box<Tried>>,
    /// Whether an idle connection will do.
    pub(super) reuse: Reuse,
    pub(super) pending: Pending,
    pub(super) connect_failed: Option<Failure>,
}

/// What a request waits for before it has a connection to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    Nothing,
    /// The end of a connect, at most until then.
    Connect {
        by: Instant,
    },
    /// A place at an upstream.
    Place {
        since: Instant,
        by: Instant,
    },
    /// The time at which all upstreams are tried again.
    Retry {
        at: Instant,
    },
}

impl Pending {
    /// When it is over at the latest.
    pub(super) const fn deadline(self) -> Option<Instant> {
        match self {
            Pending::Nothing => None,
            Pending::Connect { by: at } | Pending::Place { by: at, .. } | Pending::Retry { at } => Some(at),
        }
    }

    fn put_off(&mut self, by: Duration) {
        match self {
            Pending::Nothing => {}
            Pending::Connect { by: at } | Pending::Place { by: at, .. } | Pending::Retry { at } => {
                *at = *at + by
            }
        }
    }
}

/// Upstreams that could not be connected to. Most requests need none of it.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// Those of the present round.
    pub(super) upstreams: Vec<usize>,
    /// How often all of them were tried again.
    pub(super) rounds: u8,
}

impl Connection {
    /// The connection of a client that was accepted. `token`: of its poll.
    pub(super) fn new(fd: OwnedFd, token: Token, address: Address) -> Connection {
        Connection {
            client: Some(Socket::new(Descriptor::new(fd), token)),
            generation: token.generation(),
            address,
            local: None,
            finishing: None,
            stuck: None,
            upstream: None,
            chosen: None,
            last: None,
            tried: None,
            reuse: Reuse::New,
            pending: Pending::Nothing,
            connect_failed: None,
        }
    }

    pub(super) fn socket(&mut self, client: bool) -> Option<&mut Socket> {
        if client { self.client.as_mut() } else { self.upstream.as_deref_mut() }
    }

    /// Whether a connect is under way.
    pub(super) const fn is_connecting(&self) -> bool {
        matches!(self.pending, Pending::Connect { .. })
    }

    /// Whether there is a failure that the session may not know yet.
    pub(super) fn has_failed(&self) -> bool {
        let client = self.client.as_ref().is_some_and(Socket::is_over);
        client
            || self.connect_failed.is_some()
            || self.upstream.as_ref().is_some_and(|one| one.failed.is_some())
    }

    /// The failure of the upstream that the session does not know yet. One behind its FIN waits until the client has
    /// acknowledged everything, because the end of the client's connection would take the rest away from it.
    pub(super) fn take_upstream_failure(&mut self) -> Option<i32> {
        let upstream = self.upstream.as_mut()?;
        upstream.failed?;
        let waits = upstream.eof && self.client.as_ref().is_some_and(|client| client.left() > 0);
        if waits { None } else { upstream.failed.take() }
    }

    /// Bytes that wait here for the upstream to take them.
    pub(super) fn waits_for_upstream(&self) -> usize {
        self.upstream.as_ref().map_or(0, |upstream| upstream.buffer.bytes.len())
    }

    /// Whether the client has taken nothing for `patience` although something waits here for it.
    pub(super) fn is_stuck(&mut self, now: Instant, patience: Duration) -> bool {
        let Some(client) = self.client.as_ref().filter(|client| !client.is_flushed()) else {
            self.stuck = None;
            return false;
        };
        let left = client.left();
        match self.stuck {
            Some((before, since)) if left >= before => now.since(since) >= patience,
            _ => {
                self.stuck = Some((left, now));
                false
            }
        }
    }

    /// Puts all deadlines off by the time for which this process was absent.
    pub(super) fn put_off(&mut self, by: Duration) {
        if let Some((_, since)) = &mut self.stuck {
            *since = *since + by;
        }
        self.pending.put_off(by);
        if let Some(finishing) = &mut self.finishing {
            finishing.put_off(by);
        }
    }

    /// Whether a side has taken all that was sent to it, or does not exist.
    pub(super) fn is_flushed(&self, client: bool) -> bool {
        let socket = if client { self.client.as_ref() } else { self.upstream.as_deref() };
        socket.is_none_or(Socket::is_flushed)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::sys::engine::Token;

    fn pair() -> (Socket, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = tcp::connect(listener.local_addr().unwrap(), 65_536).unwrap();
        let socket = Socket::new(Descriptor::new(fd), Token::new(UPSTREAM, 1, 0));
        (socket, listener.accept().unwrap().0)
    }

    /// Reads as the proxy does, until the end is there.
    fn read_end(socket: &mut Socket) {
        loop {
            match -tcp::receive(socket.descriptor.as_fd().as_raw_fd(), &mut [0; 64]) {
                0 => break socket.fin_came = true,
                libc::EAGAIN => std::thread::yield_now(),
                error if error > 0 => break socket.fin_came |= error == libc::EPIPE,
                _ => {}
            }
        }
    }

    #[test]
    fn what_a_fin_does_not_acknowledge_was_not_received() {
        // The peer reads the first request, and then the second or not.
        for receives in [false, true] {
            let (mut socket, mut peer) = pair();
            socket.send(b"first");
            peer.read_exact(&mut [0; 5]).unwrap();
            if !receives {
                peer.shutdown(Shutdown::Write).unwrap();
                read_end(&mut socket);
                drop(peer);
                socket.send(b"second");
                assert!(!socket.may_be_received(6));
                read_end(&mut socket); // the RST that the second request has provoked
                assert!(!socket.may_be_received(6));
            } else {
                socket.send(b"second");
                peer.read_exact(&mut [0; 6]).unwrap();
                peer.write_all(b"x").unwrap();
                drop(peer);
                read_end(&mut socket);
                assert!(socket.may_be_received(6));
            }
        }
    }

    #[test]
    fn a_reset_says_nothing_about_what_was_received() {
        let (mut socket, peer) = pair();
        socket.send(b"request");
        tcp::abort_on_close(peer.as_fd()).unwrap();
        drop(peer);
        read_end(&mut socket);
        assert!(socket.may_be_received(7));
        // But what the kernel did not take was not sent, nor what was sent after that, however long it is.
        for next in [&b"another"[..], b"one that is longer than all before"] {
            socket.send(next);
            assert!(!socket.may_be_received(next.len()));
        }
    }
}
