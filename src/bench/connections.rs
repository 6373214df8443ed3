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

/// One client. Dropping the socket ends the connection: by RST, unless its linger time was reset.
#[derive(Debug)]
pub struct Client {
    /// `None` after it was closed.
    pub socket: Option<Socket>,
    /// The peer's address, as the server sees it.
    pub name: SocketAddr,
}

impl Client {
    /// Sends without waiting. Returns false when the socket did not take all bytes, or the peer is gone.
    pub fn send(&self, bytes: &[u8]) -> bool {
        let Some(socket) = &self.socket else { return false };
        let sent = socket.send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
        sent.is_ok_and(|sent| sent == bytes.len())
    }
}

/// Connects `count` clients, from `source` where it is given.
pub fn open(server: SocketAddr, source: Option<IpAddr>, count: usize) -> io::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for index in 0..count {
        clients.push(connect(server, source, index).map_err(|error| {
            let full = error.raw_os_error() == Some(libc::EMFILE);
            let cure = if full { " (raise `ulimit -n`)" } else { "" };
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
    let on_loopback = server.ip().is_loopback() && server.is_ipv4();
    if let Some(own) = source.or(on_loopback.then_some(Ipv4Addr::new(127, 0, 0, turn).into())) {
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
    pub fn new(connections: usize, rate: f64, start: u64) -> Beats {
        let interval = if rate > 0.0 { 1e9 / rate } else { f64::INFINITY };
        Beats { order: shuffled(connections, 1), start, interval, sent: 0 }
    }

    /// The instant at which the next beat is due; `u64::MAX` for never.
    pub fn due(&self) -> u64 {
        if self.interval.is_finite() && !self.order.is_empty() {
            self.start.saturating_add((self.sent as f64 * self.interval) as u64)
        } else {
            u64::MAX
        }
    }

    /// The member that beats next.
    pub fn take(&mut self) -> usize {
        let turn = self.sent % self.order.len() as u64;
        self.sent += 1;
        self.order[usize::try_from(turn).expect("an index of the order")]
    }
}

/// The first stroke at or after `due`, of a clock that began at `start` and at whose strokes beats are sent. A sleep
/// before each beat would cost the sender, and so the machine, more than the beat does.
pub fn stroke(start: u64, period: u64, due: u64) -> u64 {
    if due == u64::MAX {
        return due;
    }
    start.saturating_add(due.saturating_sub(start).div_ceil(period).saturating_mul(period))
}
