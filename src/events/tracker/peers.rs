//! What the lines name a peer by: its id, its address and the local address.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::liveness::{PeerId, Subject};
use crate::tracking::LocalAddresses;

/// The longest IPv4 address with its port; a longer one widens the column for what follows.
const ADDRESS: usize = 21;

/// The addresses of the peers.
#[derive(Debug)]
pub(super) struct Peers {
    locals: Arc<LocalAddresses>,
    /// A copy of the local addresses seen so far, so that a line takes no lock.
    known: Vec<SocketAddr>,
    address_width: usize,
}

impl Peers {
    pub(super) fn new(locals: Arc<LocalAddresses>) -> Peers {
        Peers { locals, known: Vec::new(), address_width: ADDRESS }
    }

    /// The local address of a peer, if it has a number.
    pub(super) fn local(&mut self, subject: &Subject) -> Option<SocketAddr> {
        if usize::from(subject.local) >= self.known.len() {
            self.locals.copy_to(&mut self.known);
        }
        self.known.get(usize::from(subject.local)).copied()
    }

    /// A peer's address, padded to the width of the longest one so far.
    pub(super) fn column(&mut self, address: SocketAddr) -> String {
        let address = address.to_string();
        self.address_width = self.address_width.max(address.len());
        format!("{address:<width$}", width = self.address_width)
    }
}

/// A peer's name, unique in a process: thread, place in its slab, which life in that place.
pub(super) struct Id {
    pub(super) thread: usize,
    pub(super) peer: PeerId,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.thread, self.peer.index(), self.peer.generation())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
