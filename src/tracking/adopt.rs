//! New connections: accepted by the loop, or handed over by the program.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use socket2::SockRef;

use super::frames::Frames;
use super::{Driver, Tracking};
use crate::evidence::evidence_of;
use crate::liveness::{PeerId, PollMask, TcpState};
use crate::reactor::{Accepted, Descriptor, EventSink, Inherited, Sockets, plain};
use crate::sys::tcp::{self, TcpInfo};
use crate::time::Instant;

/// Why a socket was not adopted. It is given back.
#[derive(Debug)]
pub struct AdoptError {
    /// The socket that was not adopted.
    pub socket: OwnedFd,
    /// The reason of the refusal.
    pub reason: io::Error,
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot track this socket: {}", crate::sys::describe(&self.reason))
    }
}

impl std::error::Error for AdoptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

impl<K: EventSink> Driver<K> {
    /// Takes a connected socket over, which the program has accepted or made.
    ///
    /// # Errors
    ///
    /// [`AdoptError`] with the socket: it is no TCP socket (ENOPROTOOPT, EOPNOTSUPP, ENOTSOCK), not connected
    /// (ENOTCONN), or there is no room for one more (ENOSPC).
    pub fn adopt(&mut self, socket: OwnedFd) -> Result<PeerId, AdoptError> {
        if self.service.tracker.is_empty() {
            // No peer was kept waiting until now, however long ago the last turn was.
            self.rest_until = self.rest_until.max(Instant::now());
        }
        match self.take_over(&socket) {
            Ok(peer) => {
                self.held += 1;
                self.service.hold(socket, peer);
                // An engine that takes nothing any more says so in the next turn.
                let _ = self.service.poll(&mut self.sockets, peer);
                Ok(peer)
            }
            Err(reason) => Err(AdoptError { socket, reason }),
        }
    }

    fn take_over(&mut self, socket: &OwnedFd) -> io::Result<PeerId> {
        let os = io::Error::from_raw_os_error;
        let info: TcpInfo = tcp::info(socket.as_fd())?;
        if matches!(
            TcpState::from_kernel(info.tcpi_state),
            TcpState::Listen | TcpState::SynSent | TcpState::Close
        ) {
            return Err(os(libc::ENOTCONN));
        }
        let unread = tcp::unread(socket.as_fd())?;
        let address = tcp::peer_address(socket.as_fd())?;
        let local = plain(tcp::local_address(socket.as_fd())?);
        if self.service.tracker.is_full() || !self.shared.take() {
            return Err(os(libc::ENOSPC));
        }
        // From here on it is changed.
        let inherited = Inherited::of(&self.service.config).set(SockRef::from(socket));
        // A close must not wait for a dead peer to take the last bytes.
        let inherited = inherited.and_then(|()| SockRef::from(socket).set_linger(None));
        if let Err(error) = inherited {
            self.shared.give(1);
            return Err(error);
        }
        let local = self.service.locals.intern(local);
        let Some(peer) = self.service.tracker.accept(plain(address), local, Instant::now()) else {
            unreachable!("it was not full");
        };
        // The socket was looked at before its unread bytes were counted: what came in between is still to be taken.
        let received = evidence_of(&info, PollMask(0), self.service.ticks).received;
        self.service.tracker.adopted(peer, received.saturating_sub(u64::from(unread)));
        Ok(peer)
    }
}

impl Tracking {
    /// Takes a connection in that the loop has accepted.
    pub(super) fn admit(&mut self, sockets: &mut Sockets, accepted: Accepted) -> io::Result<()> {
        let Accepted { fd, address, listener, at } = accepted;
        let Some(address) = address.ip() else { unreachable!("its listeners are of TCP") };
        let local = self.local_of[listener].unwrap_or_else(|| {
            let local = tcp::local_address(fd.as_fd()).unwrap_or(self.addresses[listener]);
            self.locals.intern(plain(local))
        });
        let Some(peer) = self.tracker.accept(address, local, at) else {
            unreachable!("it was not full");
        };
        self.hold(fd, peer);
        self.poll(sockets, peer)
    }

    fn hold(&mut self, fd: OwnedFd, peer: PeerId) {
        let index = peer.index() as usize;
        if self.conns.len() <= index {
            self.conns.resize_with(index + 1, || None);
        }
        assert!(self.conns[index].is_none(), "a place is given out again only after its release");
        self.conns[index] = Some(Descriptor::new(fd));
        if self.reads_frames() {
            if self.frames.len() <= index {
                self.frames.resize_with(index + 1, Frames::new);
            }
            self.frames[index] = Frames::new();
        }
    }
}
