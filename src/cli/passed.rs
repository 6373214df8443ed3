//! Sockets that the service manager has opened and passes on: socket activation of systemd and of what does the same.
//!
//! Such a socket outlives the process. A restart therefore refuses no connection: what comes meanwhile waits in the queue
//! of the socket. A socket is taken for the `--listen` address that it is bound to. One that no `--listen` names is an
//! error, since nobody would ever accept what waits there.

use std::os::fd::{AsFd, OwnedFd};

use super::exit::ExitError;
use crate::reactor::{Address, address_of};
use crate::sys::{describe, passed};

/// The sockets that are left.
pub(super) struct Passed(Vec<(Address, OwnedFd)>);

impl Passed {
    /// Takes what was passed to this process. Called before it makes a socket of its own.
    pub(super) fn take() -> Result<Passed, ExitError> {
        let (sockets, others) = passed::take().map_err(|error| {
            ExitError::failed(format!(
                "cannot take the sockets of the service manager: {}; LISTEN_PID and LISTEN_FDS are its part \
                 (sd_listen_fds(3)): unset them if there is none",
                describe(&error)
            ))
        })?;
        if let Some(number) = others.first() {
            return Err(refused(&format!("descriptor {number}")));
        }
        let addressed = |socket: OwnedFd| match address_of(socket.as_fd()) {
            Some(address) => Ok((address, socket)),
            None => Err(refused("a socket")),
        };
        sockets.into_iter().map(addressed).collect::<Result<_, _>>().map(Passed)
    }

    /// The socket that is bound to `address`.
    pub(super) fn at(&mut self, address: &Address) -> Option<OwnedFd> {
        let position = self.0.iter().position(|(bound, _)| bound == address)?;
        Some(self.0.swap_remove(position).1)
    }

    /// Fails where a socket is left.
    pub(super) fn finish(self) -> Result<(), ExitError> {
        match self.0.first() {
            None => Ok(()),
            Some((address, _)) => Err(ExitError::usage(format!(
                "the service manager passes a socket at {address}, which no --listen names: add --listen {address}, or \
                 take its ListenStream= out of the socket unit"
            ))),
        }
    }
}

fn refused(what: &str) -> ExitError {
    ExitError::usage(format!(
        "the service manager passes {what} that does not listen for TCP or at a path: a socket unit for deadpeer has \
         ListenStream= with a port or a path, and Accept=no"
    ))
}
