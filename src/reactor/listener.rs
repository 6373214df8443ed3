//! Listening sockets: one for each loop and address, so that no loop waits for another.
//!
//! Everything that an accepted connection needs is set on the listener and inherited: the low-water mark, keepalive, the
//! user timeout. An accept is therefore one system call.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::address::Address;
use crate::liveness::{KeepalivePlan, TrackerConfig};
use crate::sys::tcp;
use crate::sys::unix::{self, SocketFile};
use crate::time::Instant;

/// Connections that may wait to be accepted. The kernel takes at most net.core.somaxconn of them.
const BACKLOG: i32 = 65_535;

/// How long a port that is in use is tried for. A ring that was killed gives its port back some time after its process
/// has ended, which takes milliseconds.
const BIND_PATIENCE: Duration = Duration::from_millis(500);
/// The pause between two tries.
const BIND_PAUSE: Duration = Duration::from_millis(10);

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
    /// Of a port.
    options: Option<Options>,
    /// Of a Unix socket that this process has made: the loops share it, and its file goes with the last of them.
    _file: Option<Arc<SocketFile>>,
}

/// What a listening socket is made with, so that another can be made like it.
#[derive(Clone, Copy, Debug)]
struct Options {
    only_v6: bool,
    inherited: Inherited,
    /// `TCP_NOTSENT_LOWAT`, in bytes.
    unsent: Option<u32>,
}

/// The options that accepted connections inherit from their listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inherited {
    /// `SO_RCVLOWAT`, in bytes.
    low_water: u32,
    keepalive: KeepalivePlan,
}

impl Inherited {
    pub(crate) fn of(config: &TrackerConfig) -> Inherited {
        Inherited { low_water: config.first_low_water(), keepalive: config.policy.keepalive() }
    }

    /// Sets the options on a socket.
    pub(crate) fn set(&self, socket: SockRef<'_>) -> io::Result<()> {
        tcp::set_low_water_mark(socket.as_fd(), self.low_water)?;
        let KeepalivePlan { idle, interval, count, user_timeout } = self.keepalive;
        tcp::set_keepalive(socket.as_fd(), idle, interval, count)?;
        if let Some(timeout) = user_timeout {
            tcp::set_user_timeout(socket.as_fd(), timeout)?;
        }
        // recv would skip an urgent byte and not count it: the count of unread bytes would never return to 0, and a
        // silent peer with unread bytes is not judged.
        socket.set_out_of_band_inline(true)?;
        socket.set_tcp_nodelay(true)
    }
}

impl Listener {
    /// The address that it listens on. Its port is never 0.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection that waits, close-on-exec and non-blocking.
    ///
    /// # Errors
    ///
    /// Why there is none, as far as it matters for what to do next.
    pub(crate) fn accept(&self) -> Result<(OwnedFd, Address), NotAccepted> {
        let accepted = match self.address {
            Address::Ip(_) => tcp::accept(self.as_fd()).map(|(fd, address)| (fd, plain(address).into())),
            _ => unix::accept(self.as_fd()).map(|fd| {
                let (pid, uid) = unix::peer(fd.as_fd()).unwrap_or_default();
                (fd, Address::Process { pid, uid })
            }),
        };
        accepted.map_err(|error| NotAccepted::from_errno(error.raw_os_error()))
    }

    /// How many connections wait to be accepted. At least one, if the socket has an error that an accept will show.
    pub(crate) fn waiting(&self) -> usize {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        match rustix::event::poll(&mut polled, Some(&Timespec::default())) {
            Ok(0) => 0,
            // Of a listener, this field has the length of its backlog.
            _ => tcp::info(&self.socket).map_or(1, |info| (info.tcpi_unacked as usize).max(1)),
        }
    }

    /// Limits the bytes that the kernel keeps unsent for each connection that is accepted from now on.
    #[cfg(feature = "proxy")]
    pub(crate) fn limit_unsent(&mut self, bytes: u32) -> io::Result<()> {
        let Some(options) = &mut self.options else { return Ok(()) }; // a Unix socket's buffer does not grow
        options.unsent = Some(bytes);
        tcp::set_unsent_limit(self.as_fd(), bytes)
    }

    /// Another listening socket on the same address with the same options.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`: EADDRNOTAVAIL while the machine does not have the address.
    pub(crate) fn reopen(&self) -> Result<Listener, ListenError> {
        match (&self.address, self.options) {
            (&Address::Ip(address), Some(options)) => Listener::open(address, options),
            _ => self.share(),
        }
    }

    /// Another descriptor of this socket.
    fn share(&self) -> Result<Listener, ListenError> {
        let socket = attempt(&self.address, "listen on", self.socket.try_clone())?;
        Ok(Listener {
            socket,
            address: self.address.clone(),
            options: self.options,
            _file: self._file.clone(),
        })
    }

    fn open(address: SocketAddr, options: Options) -> Result<Listener, ListenError> {
        let at = &address.into();
        let socket = open(address, options.only_v6)?;
        attempt(at, "share the port of", socket.set_reuse_port(true))?;
        attempt(at, "listen on", socket.bind(&address.into()))?;
        let address = local(address, &socket)?;
        let at = &address.into();
        attempt(at, "set socket options for", options.inherited.set(SockRef::from(&socket)))?;
        if let Some(bytes) = options.unsent {
            attempt(at, "set socket options for", tcp::set_unsent_limit(socket.as_fd(), bytes))?;
        }
        attempt(at, "listen on", socket.listen(BACKLOG))?;
        Ok(Listener { socket, address: address.into(), options: Some(options), _file: None })
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> OwnedFd {
        listener.socket.into()
    }
}

/// Why no connection was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAccepted {
    /// No connection waits. The next one completes the listener's poll.
    NoneWaits,
    /// The connection ended before it was accepted; another may wait.
    Ended,
    /// No descriptors or no memory are left.
    NoRoom,
    /// A security policy forbids it.
    Forbidden,
    /// The socket listens no more: it was destroyed from outside (`ss -K`). What such a socket accepts after another
    /// listen(2) is shut down at once, so it has to be replaced.
    Destroyed,
}

impl NotAccepted {
    fn from_errno(errno: Option<i32>) -> NotAccepted {
        match errno {
            Some(libc::EAGAIN) => NotAccepted::NoneWaits,
            Some(libc::ECONNABORTED | libc::EINTR) => NotAccepted::Ended,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => NotAccepted::NoRoom,
            Some(libc::EINVAL) => NotAccepted::Destroyed,
            _ => NotAccepted::Forbidden,
        }
    }
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
    address: Address,
    attempted: &'static str,
    source: io::Error,
}

impl ListenError {
    fn cure(&self) -> &'static str {
        match self.source.raw_os_error() {
            Some(libc::EADDRINUSE) if self.address.ip().is_none() => {
                "another program listens there (`ss -lxp` names it), or the path is no socket: stop it, or choose \
                 another path with --listen"
            }
            Some(libc::EACCES | libc::ENOENT | libc::EROFS) if self.address.ip().is_none() => {
                "its directory must exist, and this user must be allowed to write to it"
            }
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

/// Listens on `address` once for each of `rings`. Port 0 becomes the same free port for all. `[::]` takes IPv4 connections
/// as well, unless the kernel is told otherwise (`net.ipv6.bindv6only`).
///
/// # Errors
///
/// [`ListenError`], also when another program of the same user would share the port: the kernel would divide the
/// connections between the two at random.
pub fn bind(address: SocketAddr, rings: usize, config: &TrackerConfig) -> Result<Vec<Listener>, ListenError> {
    bind_among(address, &[], rings, config)
}

/// As [`bind`], for one of several addresses: where an IPv4 address of `all` has the same port, an IPv6 address takes
/// IPv6 connections only, and leaves the others to it.
///
/// # Errors
///
/// As [`bind`].
pub fn bind_among(
    address: SocketAddr,
    all: &[SocketAddr],
    rings: usize,
    config: &TrackerConfig,
) -> Result<Vec<Listener>, ListenError> {
    let shares =
        |other: &SocketAddr| other.is_ipv4() && other.port() == address.port() && address.port() != 0;
    let only_v6 = address.is_ipv6() && all.iter().any(shares);
    let options = Options { only_v6, inherited: Inherited::of(config), unsent: None };
    // SO_REUSEPORT would share the port with a second daemon; a socket without it does not.
    let probe = open(address, only_v6)?;
    let end = Instant::now() + BIND_PATIENCE;
    loop {
        match probe.bind(&address.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) && Instant::now() < end => {
                std::thread::sleep(BIND_PAUSE);
            }
            result => break attempt(&address.into(), "listen on", result)?,
        }
    }
    let address = local(address, &probe)?;
    drop(probe);
    (0..rings).map(|_| Listener::open(address, options)).collect()
}

/// Listens on a Unix socket at `path`, with the permissions `mode`, for `rings` loops, which share it. The socket of a process
/// that has ended is replaced.
///
/// # Errors
///
/// [`ListenError`], also when a process listens there.
pub fn bind_unix(path: &Path, mode: u32, rings: usize) -> Result<Vec<Listener>, ListenError> {
    let address = Address::Unix(path.into());
    let end = Instant::now() + BIND_PATIENCE;
    let (fd, file) = loop {
        match unix::listen(path, mode, BACKLOG) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) && Instant::now() < end => {
                std::thread::sleep(BIND_PAUSE * 10); // each look is a connection for a program that listens
            }
            result => break attempt(&address, "listen on", result)?,
        }
    };
    shared(Listener { socket: fd.into(), address, options: None, _file: Some(Arc::new(file)) }, rings)
}

/// Listens on a socket that another program has opened, the service manager for example, for `rings` loops, which share it.
/// It stays open, and connections wait in its queue, for as long as that program holds it.
///
/// # Errors
///
/// [`ListenError`], where an option that connections inherit cannot be set, or [`address_of`] knows no address.
pub fn adopt(fd: OwnedFd, rings: usize, config: &TrackerConfig) -> Result<Vec<Listener>, ListenError> {
    let socket = Socket::from(fd);
    let Some(address) = address_of(socket.as_fd()) else {
        let nowhere = Address::Unix(Path::new("").into());
        return attempt(&nowhere, "listen on", Err(io::ErrorKind::InvalidInput.into()));
    };
    attempt(&address, "set socket options for", socket.set_nonblocking(true))?;
    let options = address.ip().map(|ip| Options {
        only_v6: ip.is_ipv6() && socket.only_v6().unwrap_or(true),
        inherited: Inherited::of(config),
        unsent: None,
    });
    if let Some(Options { inherited, .. }) = options {
        attempt(&address, "set socket options for", inherited.set(SockRef::from(&socket)))?;
    }
    shared(Listener { socket, address, options, _file: None }, rings)
}

/// The address that a listening stream socket is bound to. `None`: it is not one, or has an address of another kind.
#[must_use]
pub fn address_of(socket: BorrowedFd<'_>) -> Option<Address> {
    let socket = SockRef::from(&socket);
    if !socket.is_listener().ok()? || socket.r#type().ok()? != Type::STREAM {
        return None;
    }
    let address = socket.local_addr().ok()?;
    let path = || Some(Address::Unix(address.as_pathname()?.into()));
    address.as_socket().map(Address::Ip).or_else(path)
}

fn shared(first: Listener, rings: usize) -> Result<Vec<Listener>, ListenError> {
    let mut listeners: Vec<_> = (1..rings).map(|_| first.share()).collect::<Result<_, _>>()?;
    listeners.push(first);
    Ok(listeners)
}

fn open(address: SocketAddr, only_v6: bool) -> Result<Socket, ListenError> {
    let (kind, at) = (Type::STREAM.nonblocking().cloexec(), &address.into());
    let socket =
        attempt(at, "listen on", Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP)))?;
    attempt(at, "listen on", socket.set_reuse_address(true))?;
    if only_v6 {
        attempt(at, "listen on", socket.set_only_v6(true))?;
    }
    Ok(socket)
}

fn local(address: SocketAddr, socket: &Socket) -> Result<SocketAddr, ListenError> {
    let local = attempt(&address.into(), "read the address of", socket.local_addr())?;
    Ok(local.as_socket().unwrap_or(address))
}

fn attempt<T>(address: &Address, attempted: &'static str, result: io::Result<T>) -> Result<T, ListenError> {
    result.map_err(|source| ListenError { address: address.clone(), attempted, source })
}

/// An IPv4 address that came through an IPv6 socket as IPv4; any other as it is.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;
    use crate::liveness::Policy;

    fn config() -> TrackerConfig {
        TrackerConfig::new(Policy::STANDARD, 1)
    }

    #[test]
    fn the_ipv6_wildcard_takes_ipv4_connections_too_unless_an_ipv4_address_has_the_port() {
        if std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "0") {
            let both = bind("[::]:0".parse().unwrap(), 1, &config()).unwrap();
            let port = both[0].address().ip().unwrap().port();
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            drop(both);
            let all = [format!("[::]:{port}"), format!("0.0.0.0:{port}")].map(|text| text.parse().unwrap());
            let listeners = all.map(|address| bind_among(address, &all, 2, &config()).unwrap());
            assert_eq!(listeners.map(|listeners| listeners[0].address().ip().unwrap()), all);
        }
    }

    #[test]
    fn a_port_that_is_given_back_late_is_waited_for() {
        let address = "127.0.0.1:0".parse().unwrap();
        let before = bind(address, 1, &config()).unwrap().remove(0);
        let address = before.address().ip().unwrap();
        let late = std::thread::spawn(move || {
            std::thread::park_timeout(BIND_PAUSE * 3);
            drop(before);
        });
        assert_eq!(bind(address, 1, &config()).unwrap()[0].address().ip(), Some(address));
        late.join().unwrap();
        let _taken = bind(address, 1, &config()).unwrap();
        assert!(
            bind(address, 1, &config()).unwrap_err().to_string().contains("another program listens there")
        );
    }
}
