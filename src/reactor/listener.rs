//! Listening sockets: one for each ring and address, so that no ring waits for another.
//!
//! Everything that an accepted connection needs is set on the listener and inherited: the low-water
//! mark, keepalive, the user timeout. So accepting is one system call a connection.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::liveness::TrackerConfig;
use crate::sys::tcp;

/// Connections that may wait to be accepted; the kernel takes at most net.core.somaxconn of them.
const BACKLOG: i32 = 65_535;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: SocketAddr,
}

impl Listener {
    /// The address it listens on, its port as it was given out.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection that waits, close-on-exec and non-blocking.
    ///
    /// # Errors
    ///
    /// Why there is none, as far as it matters for what to do next.
    pub(crate) fn accept(&self) -> Result<(OwnedFd, SocketAddr), NotAccepted> {
        tcp::accept(self.as_fd()).map_err(|error| match error.raw_os_error() {
            Some(libc::EAGAIN) => NotAccepted::NobodyWaits,
            Some(libc::ECONNABORTED | libc::EINTR) => NotAccepted::Over,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => NotAccepted::NoRoom,
            _ => {
                // A listener that listens is not changed by it; at worst the next accept fails as this one did.
                let _ = self.socket.listen(BACKLOG);
                NotAccepted::Broken
            }
        })
    }
}

/// Why no connection was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAccepted {
    /// The next one completes the listener's poll.
    NobodyWaits,
    /// It was over before it was accepted; there may be another.
    Over,
    /// There are no descriptors left, or no memory.
    NoRoom,
    /// A security policy forbids it, or the listener was killed from outside (`ss -aK`): it listens again.
    Broken,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    attempted: &'static str,
    source: io::Error,
}

impl ListenError {
    fn cure(&self) -> &'static str {
        match self.source.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                "another program listens there (`ss -ltnp` names it): stop it, or choose another port with \
                 --listen"
            }
            Some(libc::EADDRNOTAVAIL) => {
                "this machine has no such address (`ip address` lists them): choose one that it has"
            }
            Some(libc::EACCES) => {
                "ports below net.ipv4.ip_unprivileged_port_start (1024) need CAP_NET_BIND_SERVICE: choose a \
                 higher port, or grant it"
            }
            Some(libc::EMFILE | libc::ENFILE) => "out of descriptors: raise `ulimit -n` (LimitNOFILE=)",
            Some(libc::EAFNOSUPPORT) => "this machine has no such address family: is IPv6 switched off?",
            _ => "see bind(2)",
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot {} {}: {}; {}",
            self.attempted,
            self.address,
            crate::sys::describe(&self.source),
            self.cure()
        )
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Listens on `address` once for each of `rings`. Port 0 becomes the same free port for all.
///
/// # Errors
///
/// [`ListenError`], also when another program of the same user shares the port willingly: two
/// daemons that split their connections by chance are nobody's wish.
pub fn bind(address: SocketAddr, rings: usize, config: &TrackerConfig) -> Result<Vec<Listener>, ListenError> {
    // SO_REUSEPORT would share the port with a second daemon; a socket without it does not.
    let probe = open(address)?;
    attempt(address, "listen on", probe.bind(&address.into()))?;
    let mut address = local(address, &probe)?;
    drop(probe);
    let mut listeners = Vec::with_capacity(rings);
    for _ in 0..rings {
        let socket = open(address)?;
        attempt(address, "share the port of", socket.set_reuse_port(true))?;
        attempt(address, "listen on", socket.bind(&address.into()))?;
        address = local(address, &socket)?;
        attempt(address, "set socket options for", inherit(SockRef::from(&socket), config))?;
        attempt(address, "listen on", socket.listen(BACKLOG))?;
        listeners.push(Listener { socket, address });
    }
    Ok(listeners)
}

fn open(address: SocketAddr) -> Result<Socket, ListenError> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket =
        attempt(address, "listen on", Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP)))?;
    attempt(address, "listen on", socket.set_reuse_address(true))?;
    if address.is_ipv6() {
        attempt(address, "listen on", socket.set_only_v6(true))?;
    }
    Ok(socket)
}

fn local(address: SocketAddr, socket: &Socket) -> Result<SocketAddr, ListenError> {
    let local = attempt(address, "read the address of", socket.local_addr())?;
    Ok(local.as_socket().unwrap_or(address))
}

/// Sets what accepted connections inherit.
pub(crate) fn inherit(socket: SockRef<'_>, config: &TrackerConfig) -> io::Result<()> {
    tcp::set_low_water_mark(socket.as_fd(), config.first_low_water())?;
    let plan = config.policy.keepalive();
    tcp::set_keepalive(socket.as_fd(), plan.idle, plan.interval, plan.count)?;
    if let Some(timeout) = plan.user_timeout {
        tcp::set_user_timeout(socket.as_fd(), timeout)?;
    }
    // An urgent byte would be skipped by recv and missing in its count for ever: what is unread would
    // never come to nothing, and a silent peer with unread bytes is not judged.
    socket.set_out_of_band_inline(true)?;
    socket.set_tcp_nodelay(true)
}

fn attempt<T>(address: SocketAddr, attempted: &'static str, result: io::Result<T>) -> Result<T, ListenError> {
    result.map_err(|source| ListenError { address, attempted, source })
}
