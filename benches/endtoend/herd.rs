//! Many client connections on loopback, and the schedule of their beats.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;

/// The clients call from 127.0.0.2 up to here, in turn: 28,000 ports each.
const SOURCES: usize = 16;

/// So many connections are opened without a rest: how a rush of connects is taken is nothing that is measured here,
/// and would be the longest turn of every server on a core of its own.
const CONNECT_BURST: usize = 16;

/// One client. Dropping the socket ends the connection, by FIN or by RST as set at the start.
pub struct Client {
    pub socket: Option<Socket>,
    /// What the server sees as the peer's address.
    pub name: SocketAddr,
}

/// Connects `count` clients. Those that `reset` names end by RST, the others by FIN.
pub fn gather(server: SocketAddrV4, count: usize, reset: impl Fn(usize) -> bool) -> io::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for index in 0..count {
        clients.push(connect(server, index, reset(index)).map_err(|error| {
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

fn connect(server: SocketAddrV4, index: usize, reset: bool) -> io::Result<Client> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    let source = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + index % SOURCES).expect("few sources"));
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&SocketAddr::from(server).into())?;
    // Every beat is a packet of its own, as it is when beats are far apart.
    socket.set_tcp_nodelay(true)?;
    if reset {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    let name = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no IP address"))?;
    Ok(Client { socket: Some(socket), name })
}

/// An order of `count` members that has nothing to do with the order of their connecting.
pub fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    order
}

/// The open-loop schedule: beat number k is due at `start + k x interval`, whatever became of the
/// ones before, and the connections take turns. So each beats evenly, at a phase of its own.
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

    /// When the next beat is due; `u64::MAX` for never.
    pub fn due(&self) -> u64 {
        if self.interval.is_finite() {
            self.start + (self.sent as f64 * self.interval) as u64
        } else {
            u64::MAX
        }
    }

    /// The member whose turn it is, and whether it is its first.
    pub fn take(&mut self) -> (usize, bool) {
        let turn = self.sent;
        self.sent += 1;
        let count = self.order.len() as u64;
        let member = usize::try_from(turn % count).expect("an index of the order");
        (self.order[member], turn < count)
    }
}

/// Beats go out at every stroke of this clock: sleeping for each one alone would cost the sender,
/// and so the machine's figure, more than the beat does.
#[derive(Clone, Copy)]
pub struct Pace {
    pub start: u64,
    pub period: u64,
}

impl Pace {
    /// The first stroke at or after `due`.
    pub fn stroke(self, due: u64) -> u64 {
        match due.saturating_sub(self.start) {
            u64::MAX => u64::MAX,
            past => self.start.saturating_add(past.div_ceil(self.period).saturating_mul(self.period)),
        }
    }
}

/// Sends one beat. False when the socket would not take it whole or the peer is gone.
pub fn beat(client: &Client, bytes: &[u8]) -> bool {
    client
        .socket
        .as_ref()
        .is_some_and(|socket| sys::send(socket.as_fd(), bytes, false).is_ok_and(|sent| sent == bytes.len()))
}
