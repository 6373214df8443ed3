//! The role `hold`: accepts connections, keeps them, and does nothing else. Its kernel memory is that of a connection under
//! any server.

use std::io;
use std::os::fd::AsFd;

use super::{Teller, YardstickPlan, listen};
use crate::sys::epoll::{Epoll, ReadyList};
use crate::sys::tcp;

/// Runs the role until the process is ended.
///
/// # Errors
///
/// Those of its system calls.
pub fn run(_: &YardstickPlan) -> io::Result<()> {
    let listener = listen(None)?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_fd(), libc::EPOLLIN.cast_unsigned(), 0)?;
    let mut found = ReadyList::new(1);
    let mut held = Vec::new();
    let _told = Teller::new(listener.local_addr()?, 0)?;
    loop {
        match tcp::accept(listener.as_fd()) {
            Ok((socket, _)) => held.push(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => epoll.wait(&mut found, None)?,
            Err(error) => return Err(error),
        }
    }
}
