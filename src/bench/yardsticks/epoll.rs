//! The role `epoll`: edge-triggered, one `recv` at each wake, a time of last life for each connection, and a
//! sweep for those that are silent: what a careful programmer writes without io_uring.
//!
//! A read that does not fill the buffer has emptied the socket, so no second one asks. With a low-water
//! mark it takes deadpeer's idea without its ring: beats lie unread until the mark is reached, and whoever
//! could be overdue is looked at by `TCP_INFO`.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use super::{Teller, YardstickPlan, cause, listen};
use crate::bench::now;
use crate::sys::epoll::{Epoll, ReadyList};
use crate::sys::tcp;

/// Large enough to empty a socket in one call nearly always.
const BUFFER: usize = 1 << 16;
/// Taken in one wake.
const EVENTS: usize = 1_024;
const LISTENER: u64 = u64::MAX;

const IN: u32 = libc::EPOLLIN as u32;
const RDHUP: u32 = libc::EPOLLRDHUP as u32;
const ENDED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
const EDGE: u32 = libc::EPOLLET.cast_unsigned();

/// Plays the role until the process is ended.
///
/// # Errors
///
/// Those of its system calls.
pub fn run(plan: &YardstickPlan) -> io::Result<()> {
    let listener = listen(plan.unread)?;
    let mut found = ReadyList::new(EVENTS);
    let mut server = Server::new(plan, listener)?;
    loop {
        server.turn(&mut found)?;
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
    /// Apart from the rest, so that the sweep reads one dense array.
    last_seen: Vec<u64>,
    by_kernel: bool,
    idle: u64,
    sweep_every: u64,
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
        // Once a second at 30 s, as people do: it costs next to nothing beside the beats.
        let sweep_every = (idle / 30).max(5_000_000);
        Ok(Server {
            epoll,
            listener,
            connections: slab::Slab::new(),
            last_seen: Vec::new(),
            by_kernel: plan.unread.is_some(),
            idle,
            sweep_every,
            next_sweep: now() + sweep_every,
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
            self.next_sweep = now + self.sweep_every;
        }
        self.tell.flush()
    }

    fn accept(&mut self, now: u64) -> io::Result<()> {
        loop {
            let (socket, peer) = match tcp::accept(self.listener.as_fd()) {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
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
    }

    fn read(&mut self, key: usize, mask: u32, now: u64) -> io::Result<()> {
        // An end was seen: read until the kernel says which; else until the socket is empty.
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
            // What came since is life: look before judging.
            if self.by_kernel {
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

    /// Asks the kernel when the last byte came: what lies unread has woken nobody.
    fn look(&mut self, key: usize) -> io::Result<()> {
        let Some(connection) = self.connections.get(key) else { return Ok(()) };
        let info = tcp::info(connection.socket.as_fd())?;
        let age = u64::from(info.last_data_recv) * 1_000_000;
        self.last_seen[key] = self.last_seen[key].max(now().saturating_sub(age));
        if self.is_overdue(key, now()) {
            // Only to count what lies there.
            return self.read(key, 0, self.last_seen[key]);
        }
        Ok(())
    }

    fn bury(&mut self, key: usize, cause: &str) -> io::Result<()> {
        let Connection { peer, bytes, .. } = self.connections.remove(key);
        self.last_seen[key] = u64::MAX;
        self.tell.died(peer, cause, bytes)
    }
}
