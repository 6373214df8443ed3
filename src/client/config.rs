//! What a client connects to and how often it beats.

use std::net::SocketAddr;
use std::time::Duration;

use super::error::ClientError;
use super::limits::{MAX_COUNT, MAX_EVERY, MIN_EVERY};
use crate::frame::Identity;

/// What a client connects to, and how often it sends heartbeats.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The address and port of the server, which every connection goes to.
    pub address: SocketAddr,
    /// The number of connections to hold: 1 to [`MAX_COUNT`].
    pub count: usize,
    /// The mean interval between two heartbeats of one connection: [`MIN_EVERY`] to [`MAX_EVERY`]. A third of the
    /// server's detection time is a good choice.
    pub every: Duration,
    /// The name in the HELLO. With more than one connection, each appends `-` and its number, from 0.
    pub identity: Option<String>,
    /// The seed of the jitter of heartbeats and backoff. The same seed gives the same jitter.
    pub seed: u64,
    /// Whether to connect again after a failure or a loss, after a wait that grows.
    pub reconnect: bool,
    /// How long the client runs; `None` is until it is stopped.
    pub lasting: Option<Duration>,
}

impl ClientConfig {
    /// One connection with a heartbeat each second, until it is stopped.
    #[must_use]
    pub fn new(address: SocketAddr) -> ClientConfig {
        let every = Duration::from_secs(1);
        ClientConfig { address, count: 1, every, identity: None, seed: 0, reconnect: false, lasting: None }
    }

    /// The name of connection `index`.
    pub(super) fn identity(&self, index: usize) -> String {
        match &self.identity {
            None => String::new(),
            Some(name) if self.count == 1 => name.clone(),
            Some(name) => format!("{name}-{index}"),
        }
    }

    pub(super) fn check(&self) -> Result<(), ClientError> {
        if self.address.port() == 0 {
            return Err(ClientError::NoPort(self.address));
        }
        if !(1..=MAX_COUNT).contains(&self.count) {
            return Err(ClientError::Count(self.count));
        }
        if !(MIN_EVERY..=MAX_EVERY).contains(&self.every) {
            return Err(ClientError::Every(self.every));
        }
        // The last connection has the longest number in its name.
        let identity = self.identity(self.count - 1);
        Identity::new(&identity).map(|_| ()).map_err(|source| ClientError::Identity(identity, source))
    }
}
