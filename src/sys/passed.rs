//! Descriptors that the service manager has opened for this process (`sd_listen_fds(3)`).

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::SockRef;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The listening sockets among them, and the numbers of the descriptors that are none. The second call finds nothing. The
/// process must not have made a listening socket of its own before. Errors: `LISTEN_PID` or `LISTEN_FDS` is no number, or
/// counts descriptors that are not open.
pub fn take() -> io::Result<(Vec<OwnedFd>, Vec<RawFd>)> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok((Vec::new(), Vec::new()));
    }
    let (listening, others): (Vec<_>, Vec<_>) = sd_notify::listen_fds()?.partition(|&number| listens(number));
    // SAFETY: each is open and listens. This process has made no listening socket, so nothing in it owns them, and no later
    // call gives them out again.
    let owned = listening.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect();
    Ok((owned, others))
}

fn listens(number: RawFd) -> bool {
    // SAFETY: the descriptor is open: its flags have been changed just now. It is not kept beyond this call.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    SockRef::from(&fd).is_listener().unwrap_or(false)
}
