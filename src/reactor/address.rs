//! Where a socket listens, where it connects to, and where a connection comes from.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// The address of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A Unix socket's path.
    Unix(Arc<Path>),
    /// The process that has connected to a Unix socket.
    Process {
        /// Its id; 0 where it is in another PID namespace.
        pid: u32,
        /// The user that it runs as.
        uid: u32,
    },
}

impl Address {
    /// The IP address and the port, unless it is a Unix socket.
    #[must_use]
    pub const fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) | Address::Process { .. } => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Process { pid, uid } => write!(f, "unix:pid={pid},uid={uid}"),
        }
    }
}
