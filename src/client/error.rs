//! What the client cannot do, on what, and what helps.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::limits::{MAX_COUNT, MAX_EVERY, MIN_EVERY};
use crate::frame::FrameError;
use crate::sys::describe;

/// Why a client could not begin or go on. What the server does is counted in
/// [`Totals`](super::Totals) and is never one of these.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// Port 0 is not an address to connect to.
    NoPort {
        /// The address as given.
        address: SocketAddr,
    },
    /// The number of connections is out of bounds.
    Count {
        /// The number as given.
        count: usize,
    },
    /// The interval is out of bounds.
    Every {
        /// The interval as given.
        every: Duration,
    },
    /// The identity cannot be sent.
    Identity {
        /// The longest name that a connection would have had.
        identity: String,
        /// What is wrong with it.
        source: FrameError,
    },
    /// The limit on open descriptors could not be read or raised.
    Descriptors {
        /// What the kernel said.
        source: io::Error,
    },
    /// The hard limit on open descriptors is too low.
    TooFewDescriptors {
        /// Connections and what the program needs besides.
        wanted: u64,
        /// The limit.
        limit: u64,
    },
    /// The poll could not be made or used.
    Poll {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel gave no socket.
    Socket {
        /// Connections that were open or opening.
        open: usize,
        /// The server.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// No local port was free for a further connection.
    LocalPorts {
        /// Connections that were open or opening.
        open: usize,
        /// The server.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A socket could not be watched.
    Watch {
        /// The server.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ClientError {
    /// Whether the configuration is at fault, as against the machine.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            ClientError::NoPort { .. }
            | ClientError::Count { .. }
            | ClientError::Every { .. }
            | ClientError::Identity { .. } => true,
            ClientError::Descriptors { .. }
            | ClientError::TooFewDescriptors { .. }
            | ClientError::Poll { .. }
            | ClientError::Socket { .. }
            | ClientError::LocalPorts { .. }
            | ClientError::Watch { .. } => false,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NoPort { address } => {
                write!(
                    f,
                    "cannot connect to {address}: port 0 is none; give the port that the server printed"
                )
            }
            ClientError::Count { count } => write!(
                f,
                "cannot hold {count} connections: one client holds 1 to {MAX_COUNT}; for more, start several, \
                 from different local addresses"
            ),
            ClientError::Every { every } => {
                write!(f, "cannot beat every {every:?}: choose from {MIN_EVERY:?} to {MAX_EVERY:?}")
            }
            ClientError::Identity { identity, source } => {
                write!(f, "cannot say HELLO as {identity:?}: {source}; choose a shorter or plainer name")
            }
            ClientError::Descriptors { source } => write!(
                f,
                "cannot raise the limit on open descriptors: {}; raise it before the start with `ulimit -n`",
                describe(source)
            ),
            ClientError::TooFewDescriptors { wanted, limit } => write!(
                f,
                "cannot open {wanted} descriptors: the hard limit is {limit}; raise it with `ulimit -Hn \
                 {wanted}` as root (or LimitNOFILE= in the unit), or lower the count"
            ),
            ClientError::Poll { source } => write!(
                f,
                "cannot wait for sockets with epoll: {}; raise `ulimit -n` if descriptors ran out",
                describe(source)
            ),
            ClientError::Socket { open, address, source } => write!(
                f,
                "cannot open another socket for {address} beside {open}: {}; raise `ulimit -n` (this process) \
                 or sysctl fs.file-max (the machine), or lower the count",
                describe(source)
            ),
            ClientError::LocalPorts { open, address, source } => write!(
                f,
                "cannot connect to {address} beside {open} connections: {}; no local port is free: widen sysctl \
                 net.ipv4.ip_local_port_range, or wait a minute for those in TIME_WAIT",
                describe(source)
            ),
            ClientError::Watch { address, source } => write!(
                f,
                "cannot watch a connection to {address}: {}; raise sysctl fs.epoll.max_user_watches",
                describe(source)
            ),
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ClientError::NoPort { .. }
            | ClientError::Count { .. }
            | ClientError::Every { .. }
            | ClientError::TooFewDescriptors { .. } => None,
            ClientError::Identity { source, .. } => Some(source),
            ClientError::Descriptors { source }
            | ClientError::Poll { source }
            | ClientError::Socket { source, .. }
            | ClientError::LocalPorts { source, .. }
            | ClientError::Watch { source, .. } => Some(source),
        }
    }
}
