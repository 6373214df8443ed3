//! Many client connections, and the schedule of their beats.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// The number of source addresses on loopback, from 127.0.0.2 on, which clients take in turn: 28,000 ports each.
const SOURCES: usize = 16;

/// Connections that are opened without a pause. A longer burst would be the longest turn of each server, and bursts of
/// connects are not measured here.
const CONNECT_BURST: usize = 16;

/// One client. Dropping the socket ends the connection: by RST, unless [`Client::end_by_fin`] was called.
#[derive(Debug)]
pub struct Client {
    /// `None` after it was closed.
    pub socket: Option<Socket>,
    /// The peer's address, as the server sees it.
    pub name: SocketAddr,
}

impl Client {
    /// Makes the connection end by FIN when it is dropped.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn end_by_fin(&self) -> io::Result<()> {
        self.socket.as_ref().map_or(Ok(()), |socket| socket.set_linger(None))
    }

    /// Sends without waiting. Returns false when the socket did not take all bytes, or the peer is gone.
    #[must_use]
    pub fn send(&self, bytes: &[u8]) -> bool {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let send = |socket: &Socket| socket.send_with_flags(bytes, flags);
        self.socket.as_ref().is_some_and(|socket| send(socket).is_ok_and(|sent| sent == bytes.len()))
    }
}

/// Connects `count` clients, from `source` where it is given.
///
/// # Errors
///
/// When a client cannot connect; the message names its number.
pub fn open(server: SocketAddr, source: Option<IpAddr>, count: usize) -> io::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for index in 0..count {
        clients.push(connect(server, source, index).map_err(|error| {
            let cure = match error.raw_os_error() {
                Some(libc::EMFILE) => " (raise `ulimit -n`)",
                _ => "",
            };
            io::Error::new(error.kind(), format!("connection {index} of {count}: {error}{cure}"))
        })?);
        if index % CONNECT_BURST == CONNECT_BURST - 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(clients)
}

fn connect(server: SocketAddr, source: Option<IpAddr>, index: usize) -> io::Result<Client> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    let turn = u8::try_from(2 + index % SOURCES).expect("few sources");
    let own = match source {
        None if server.ip().is_loopback() && server.is_ipv4() => {
            Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, turn)))
        }
        source => source,
    };
    if let Some(own) = own {
        socket.bind(&SocketAddr::from((own, 0)).into())?;
    }
    socket.connect(&server.into())?;
    // Each beat is a packet of its own, as with beats that are far apart.
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    let name = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no IP address"))?;
    Ok(Client { socket: Some(socket), name })
}

/// A random order of `count` members, which is independent of the order in which they connected.
#[must_use]
pub fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    order
}

/// The open-loop schedule: beat k is due at `start + k x interval`, however late the earlier ones were, and the
/// connections take turns. So each beats evenly, at its own phase.
#[derive(Debug)]
pub struct Beats {
    order: Vec<usize>,
    start: u64,
    interval: f64,
    sent: u64,
}

impl Beats {
    /// `rate` beats a second over all connections; a rate of 0 never beats.
    #[must_use]
    pub fn new(connections: usize, rate: f64, start: u64) -> Beats {
        let interval = if rate > 0.0 { 1e9 / rate } else { f64::INFINITY };
        Beats { order: shuffled(connections, 1), start, interval, sent: 0 }
    }

    /// The instant at which the next beat is due; `u64::MAX` for never.
    #[must_use]
    pub fn due(&self) -> u64 {
        if self.interval.is_finite() && !self.order.is_empty() {
            self.start.saturating_add((self.sent as f64 * self.interval) as u64)
        } else {
            u64::MAX
        }
    }

    /// The member that beats next, and whether this is its first beat.
    pub fn take(&mut self) -> (usize, bool) {
        let turn = self.sent;
        self.sent += 1;
        let count = self.order.len() as u64;
        let member = usize::try_from(turn % count).expect("an index of the order");
        (self.order[member], turn < count)
    }
}

/// A clock at whose strokes beats are sent. A sleep before each beat would cost the sender, and so the machine, more
/// than the beat does.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The first stroke.
    pub start: u64,
    /// The time between two strokes, in nanoseconds.
    pub period: u64,
}

impl Pace {
    /// The first stroke at or after `due`.
    #[must_use]
    pub fn stroke(self, due: u64) -> u64 {
        if due == u64::MAX {
            return due;
        }
        let past = due.saturating_sub(self.start);
        self.start.saturating_add(past.div_ceil(self.period).saturating_mul(self.period))
    }
}
