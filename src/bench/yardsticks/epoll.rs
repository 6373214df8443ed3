//! The role `epoll`: an edge-triggered loop as a careful programmer writes it without io_uring. It has one `recv` for each
//! wake, the instant of each connection's last byte, and a sweep for silent connections.
//!
//! A read that does not fill the buffer has emptied the socket, so there is no second one. With a low-water
//! mark the loop has deadpeer's idea without its ring: beats lie unread until the mark is reached, and the sweep reads
//! `TCP_INFO` of connections that could be overdue. With proofs it reads `TCP_INFO` of each dead connection and writes it,
//! as deadpeer does.
//!
//! The role `hold` accepts connections, keeps them, and does nothing else. Its kernel memory is that of a connection under
//! any server.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use super::{Teller, YardstickPlan, accept, cause, listen};
use crate::bench::now;
use crate::sys::epoll::{Epoll, ReadyList};
use crate::sys::tcp;

/// The size of the buffer: nearly always enough to empty a socket in one call.
const BUFFER: usize = 1 << 16;
const EVENTS: usize = 1_024;
const LISTENER: u64 = u64::MAX;

const IN: u32 = libc::EPOLLIN as u32;
const RDHUP: u32 = libc::EPOLLRDHUP as u32;
const ENDED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
const EDGE: u32 = libc::EPOLLET.cast_unsigned();

/// Runs the role `epoll` until the process is ended.
pub fn run(plan: &YardstickPlan) -> io::Result<()> {
    let listener = listen(plan.unread)?;
    let mut found = ReadyList::new(EVENTS);
    let mut server = Server::new(plan, listener)?;
    loop {
        server.turn(&mut found)?;
    }
}

/// Runs the role `hold` until the process is ended.
pub fn hold() -> io::Result<()> {
    let listener = listen(None)?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_fd(), IN, LISTENER)?;
    let (mut found, mut held) = (ReadyList::new(1), Vec::new());
    let _told = Teller::new(listener.local_addr()?, 0)?;
    loop {
        while let Some(accepted) = accept(&listener)? {
            held.push(accepted.0);
        }
        epoll.wait(&mut found, None)?;
    }
}

struct Connection {
    socket: TcpStream,
    peer: SocketAddr,
    bytes: u64,
}

struct Server {
    epoll: Epoll,
    listener: TcpListener,
    connections: slab::Slab<Connection>,
    /// The instant of each connection's last byte: a dense array, for the sweep.
    last_seen: Vec<u64>,
    plan: YardstickPlan,
    idle: u64,
    next_sweep: u64,
    buffer: Vec<u8>,
    tell: Teller,
}

impl Server {
    fn new(plan: &YardstickPlan, listener: TcpListener) -> io::Result<Server> {
        let epoll = Epoll::new()?;
        epoll.add(listener.as_fd(), IN, LISTENER)?;
        let tell = Teller::new(listener.local_addr()?, plan.idle_ms)?;
        let idle = plan.idle_ms * 1_000_000;
        Ok(Server {
            epoll,
            listener,
            connections: slab::Slab::new(),
            last_seen: Vec::new(),
            plan: *plan,
            idle,
            next_sweep: now(),
            buffer: vec![0; BUFFER],
            tell,
        })
    }

    fn turn(&mut self, found: &mut ReadyList) -> io::Result<()> {
        let rest = Duration::from_nanos(self.next_sweep.saturating_sub(now()));
        self.epoll.wait(found, Some(rest))?;
        let now = now();
        for ready in found.iter() {
            if ready.token == LISTENER {
                self.accept(now)?;
            } else {
                self.read(usize::try_from(ready.token).expect("an index"), ready.mask, now)?;
            }
        }
        if now >= self.next_sweep {
            self.sweep(now)?;
            // Once a second at 30 s, as is usual: it costs next to nothing beside the beats.
            self.next_sweep = now + (self.idle / 30).max(5_000_000);
        }
        self.tell.flush()
    }

    fn accept(&mut self, now: u64) -> io::Result<()> {
        while let Some((socket, peer)) = accept(&self.listener)? {
            let entry = self.connections.vacant_entry();
            let key = entry.key();
            self.epoll.add(socket.as_fd(), IN | RDHUP | EDGE, key as u64)?;
            entry.insert(Connection { socket: socket.into(), peer, bytes: 0 });
            if self.last_seen.len() <= key {
                self.last_seen.resize(key + 1, 0);
            }
            self.last_seen[key] = now;
            self.tell.up(peer)?;
        }
        Ok(())
    }

    fn read(&mut self, key: usize, mask: u32, now: u64) -> io::Result<()> {
        // After an end, read until the kernel names it; else until the socket is empty.
        let to_the_end = mask & ENDED != 0;
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        loop {
            match connection.socket.read(&mut self.buffer) {
                Ok(0) => return self.bury(key, cause::CLOSED),
                Ok(taken) => {
                    connection.bytes += taken as u64;
                    self.last_seen[key] = now;
                    if taken < self.buffer.len() && !to_the_end {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.bury(key, cause::ABORTED),
            }
        }
    }

    fn sweep(&mut self, now: u64) -> io::Result<()> {
        for key in 0..self.last_seen.len() {
            if !self.is_overdue(key, now) {
                continue;
            }
            // Bytes may have come since: look before judging.
            if self.plan.unread.is_some() {
                self.look(key)?;
            } else {
                self.read(key, 0, now)?;
            }
            if self.is_overdue(key, now) {
                self.bury(key, cause::EXPIRED)?;
            }
        }
        Ok(())
    }

    fn is_overdue(&self, key: usize, now: u64) -> bool {
        now >= self.last_seen[key].saturating_add(self.idle)
    }

    /// Reads the instant of the last byte from the kernel: unread bytes below the mark cause no wake.
    fn look(&mut self, key: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get(key) else { return Ok(()) };
        let info = tcp::info(connection.socket.as_fd())?;
        let age = u64::from(info.tcpi_last_data_recv) * 1_000_000;
        self.last_seen[key] = self.last_seen[key].max(now().saturating_sub(age));
        if self.is_overdue(key, now()) {
            // This only counts the unread bytes.
            return self.read(key, 0, self.last_seen[key]);
        }
        Ok(())
    }

    fn bury(&mut self, key: usize, cause: &str) -> io::Result<()> {
        self.last_seen[key] = u64::MAX;
        let Connection { socket, peer, bytes } = self.connections.remove(key);
        if self.plan.proofs {
            return self.tell.proved(peer, cause, bytes, &tcp::info(socket.as_fd())?);
        }
        drop(socket);
        self.tell.died(peer, cause, bytes)
    }
}
