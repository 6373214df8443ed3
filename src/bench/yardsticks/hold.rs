//! The role `hold`: accepts, keeps what it accepted, and does nothing else. The kernel's memory for it is what
//! a connection costs whoever watches it.

use std::io;
use std::os::fd::AsFd;

use super::{Teller, YardstickPlan, listen};
use crate::sys::epoll::{Epoll, ReadyList};
use crate::sys::tcp;

/// Plays the role until the process is ended.
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
