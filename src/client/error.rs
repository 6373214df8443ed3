//! Why a client cannot start or go on, with the cure.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::limits::{MAX_COUNT, MAX_EVERY, MIN_EVERY};
use crate::frame::FrameError;
use crate::sys::describe;

/// Why a client cannot start or go on. What the server does is counted in [`Totals`](super::Totals) and is no error.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The address has port 0, which no server listens on.
    NoPort(SocketAddr),
    /// The number of connections is out of range.
    Count(usize),
    /// The interval is out of range.
    Every(Duration),
    /// The longest name that a connection would have had cannot be sent.
    Identity(String, FrameError),
    /// The limit on open descriptors could not be read or raised.
    Descriptors(io::Error),
    /// The hard limit on open descriptors is too low.
    TooFewDescriptors {
        /// Descriptors for the connections and for the program itself.
        wanted: u64,
        /// The hard limit.
        limit: u64,
    },
    /// The epoll instance could not be created or used.
    Poll(io::Error),
    /// The kernel refused a socket for the server of this address, beside so many connections.
    Socket(SocketAddr, usize, io::Error),
    /// No local port was free for a connection to this address, beside so many others.
    LocalPorts(SocketAddr, usize, io::Error),
    /// A socket for the server of this address could not be added to the epoll instance.
    Watch(SocketAddr, io::Error),
}

impl ClientError {
    /// Whether the configuration is at fault, and not the machine.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        use ClientError::{Count, Every, Identity, NoPort};
        matches!(self, NoPort(_) | Count(_) | Every(_) | Identity(..))
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NoPort(address) => write!(
                f,
                "cannot connect to {address}: port 0 is no port; give the port that the server printed"
            ),
            ClientError::Count(count) => write!(
                f,
                "cannot hold {count} connections: one client holds 1 to {MAX_COUNT}; for more, start several, \
                 from different local addresses"
            ),
            ClientError::Every(every) => {
                write!(f, "cannot beat every {every:?}: choose from {MIN_EVERY:?} to {MAX_EVERY:?}")
            }
            ClientError::Identity(identity, source) => {
                write!(f, "cannot say HELLO as {identity:?}: {source}; choose a shorter or plainer name")
            }
            ClientError::Descriptors(source) => write!(
                f,
                "cannot raise the limit on open descriptors: {}; raise it before the start with `ulimit -n`",
                describe(source)
            ),
            ClientError::TooFewDescriptors { wanted, limit } => write!(
                f,
                "cannot open {wanted} descriptors: the hard limit is {limit}; raise it with `ulimit -Hn \
                 {wanted}` as root (or LimitNOFILE= in the unit), or lower the count"
            ),
            ClientError::Poll(source) => write!(
                f,
                "cannot wait for sockets with epoll: {}; raise `ulimit -n` if descriptors ran out",
                describe(source)
            ),
            ClientError::Socket(address, open, source) => write!(
                f,
                "cannot open another socket for {address} beside {open}: {}; raise `ulimit -n` (this process) \
                 or sysctl fs.file-max (the machine), or lower the count",
                describe(source)
            ),
            ClientError::LocalPorts(address, open, source) => write!(
                f,
                "cannot connect to {address} beside {open} connections: {}; no local port is free: widen sysctl \
                 net.ipv4.ip_local_port_range, or wait a minute for those in TIME_WAIT",
                describe(source)
            ),
            ClientError::Watch(address, source) => write!(
                f,
                "cannot watch a connection to {address}: {}; raise sysctl fs.epoll.max_user_watches",
                describe(source)
            ),
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        use ClientError::{Descriptors, Identity, LocalPorts, Poll, Socket, Watch};
        match self {
            Identity(_, source) => Some(source),
            Descriptors(source) | Poll(source) | Watch(_, source) => Some(source),
            Socket(_, _, source) | LocalPorts(_, _, source) => Some(source),
            _ => None,
        }
    }
}
