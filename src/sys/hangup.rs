//! Whether anybody still reads.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Waits until nobody can read what is written to `fd`: the readers of a pipe have gone, a terminal
/// was hung up. A file never hangs up.
///
/// # Errors
///
/// Those of `poll(2)`.
pub fn wait_for_hangup(fd: BorrowedFd<'_>) -> io::Result<()> {
    // No events asked for: POLLERR and POLLHUP come by themselves.
    let mut watched = libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 };
    loop {
        // SAFETY: `watched` is ours and outlives the call, which writes it and keeps nothing.
        if unsafe { libc::poll(&mut watched, 1, -1) } > 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_last_reader_of_a_pipe_is_missed() {
        let (reader, writer) = io::pipe().unwrap();
        let another = reader.try_clone().unwrap();
        let waits = std::thread::spawn(move || wait_for_hangup(writer.as_fd()));
        drop(reader);
        assert!(!waits.is_finished());
        drop(another);
        waits.join().unwrap().unwrap();
    }
}
