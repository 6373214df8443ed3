//! Whether what is written to a descriptor still has a reader.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, poll};

/// Waits until what is written to `fd` has no reader: the readers of a pipe have closed it, a terminal was hung up. A
/// file never hangs up. Errors: those of `poll(2)`.
pub fn wait_for_hangup(fd: BorrowedFd<'_>) -> io::Result<()> {
    // No events are asked for: POLLERR and POLLHUP come by themselves.
    let mut watched = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
    loop {
        match poll(&mut watched, None) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_hangup_comes_when_the_last_reader_of_a_pipe_is_gone() {
        let (reader, writer) = io::pipe().unwrap();
        let another = reader.try_clone().unwrap();
        let waits = std::thread::spawn(move || wait_for_hangup(writer.as_fd()));
        drop(reader);
        assert!(!waits.is_finished());
        drop(another);
        waits.join().unwrap().unwrap();
    }
}
