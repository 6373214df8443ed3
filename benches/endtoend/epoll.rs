//! `--role epoll`: the yardstick. Edge-triggered epoll, `recv` at each wake, a last-seen time per
//! connection and a sweep for idle ones: what a careful programmer writes without io_uring.

use std::io::{self, BufWriter, Stdout, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;

#[derive(Debug, Serialize, Deserialize)]
pub struct EpollPlan {
    /// A connection that was quiet for so long is dead.
    pub idle_ms: u64,
}

/// Large enough to empty a socket in one call nearly always; a shorter read means it is empty.
const BUFFER: usize = 1 << 16;
/// Events taken in one wake.
const EVENTS: usize = 1024;
const LISTENER: u64 = u64::MAX;

/// A listener on a free port of 127.0.0.1, with the longest backlog the system grants.
pub fn listen() -> io::Result<(Socket, SocketAddrV4)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&std::net::SocketAddr::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?.as_socket_ipv4().ok_or_else(|| io::Error::other("not IPv4"))?;
    Ok((socket, address))
}

pub fn run(plan: &EpollPlan) -> io::Result<()> {
    sys::raise_descriptors()?;
    let (listener, address) = listen()?;
    let mut server = Server::new(plan, listener)?;
    writeln!(
        server.out,
        r#"{{"event":"listening","address":"{address}","detection_time_ms":{}}}"#,
        plan.idle_ms
    )?;
    server.out.flush()?;
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    loop {
        server.turn(&mut events)?;
    }
}

struct Connection {
    socket: OwnedFd,
    peer: SocketAddrV4,
    bytes: u64,
}

struct Server {
    epoll: OwnedFd,
    listener: Socket,
    connections: slab::Slab<Connection>,
    /// Apart from the rest, so that the sweep reads one dense array.
    last_seen: Vec<u64>,
    idle: u64,
    sweep_every: u64,
    next_sweep: u64,
    buffer: Vec<u8>,
    out: BufWriter<Stdout>,
}

impl Server {
    fn new(plan: &EpollPlan, listener: Socket) -> io::Result<Server> {
        // SAFETY: takes a flag, returns a new descriptor that is nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(sys::check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        add(&epoll, listener.as_fd(), libc::EPOLLIN, LISTENER)?;
        let idle = plan.idle_ms * 1_000_000;
        // A verdict may be late by a thousandth of the limit, but the sweep costs next to nothing
        // compared with the beats: once a second at 30 s as people do, more often for short limits.
        let sweep_every = (idle / 30).max(5_000_000);
        Ok(Server {
            epoll,
            listener,
            connections: slab::Slab::new(),
            last_seen: Vec::new(),
            idle,
            sweep_every,
            next_sweep: sys::now() + sweep_every,
            buffer: vec![0; BUFFER],
            out: BufWriter::with_capacity(1 << 16, io::stdout()),
        })
    }

    fn turn(&mut self, events: &mut [libc::epoll_event]) -> io::Result<()> {
        let wait = Duration::from_nanos(self.next_sweep.saturating_sub(sys::now()));
        let millis = i32::try_from(wait.as_millis() + 1).unwrap_or(i32::MAX);
        // SAFETY: `events` is a live, exclusive slice of the given length, written in this call only.
        let ready = sys::check(unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                i32::try_from(events.len()).expect("a small array"),
                millis,
            )
        });
        let ready = match ready {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            ready => usize::try_from(ready?).expect("not negative"),
        };
        let now = sys::now();
        for event in &events[..ready] {
            let (mask, token) = (event.events.cast_signed(), event.u64);
            if token == LISTENER {
                self.accept(now)?;
            } else {
                self.read(usize::try_from(token).expect("an index"), mask, now)?;
            }
        }
        if now >= self.next_sweep {
            self.sweep(now)?;
            self.next_sweep = now + self.sweep_every;
        }
        self.out.flush()
    }

    fn accept(&mut self, now: u64) -> io::Result<()> {
        loop {
            let (socket, peer) = match sys::accept(self.listener.as_fd()) {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let entry = self.connections.vacant_entry();
            let key = entry.key();
            let mask = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET;
            add(&self.epoll, socket.as_fd(), mask, key as u64)?;
            entry.insert(Connection { socket, peer, bytes: 0 });
            if self.last_seen.len() <= key {
                self.last_seen.resize(key + 1, 0);
            }
            self.last_seen[key] = now;
            writeln!(self.out, r#"{{"event":"up","peer":"{peer}","mono_ns":{now}}}"#)?;
        }
    }

    fn read(&mut self, key: usize, mask: i32, now: u64) -> io::Result<()> {
        // An end was seen: read until the kernel says which; else until the socket is empty.
        let to_the_end = mask & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0;
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        loop {
            match sys::receive(connection.socket.as_fd(), &mut self.buffer) {
                Ok(0) => return self.bury(key, "closed"),
                Ok(taken) => {
                    connection.bytes += taken as u64;
                    self.last_seen[key] = now;
                    if taken < self.buffer.len() && !to_the_end {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return self.bury(key, "aborted"),
            }
        }
    }

    fn sweep(&mut self, now: u64) -> io::Result<()> {
        for key in 0..self.last_seen.len() {
            let overdue = |server: &Server| now >= server.last_seen[key] + server.idle;
            if overdue(self) && self.connections.contains(key) {
                // What arrived since this turn began is life: look before judging.
                self.read(key, 0, now)?;
                if overdue(self) && self.connections.contains(key) {
                    self.bury(key, "heartbeat_expired")?;
                }
            }
        }
        Ok(())
    }

    fn bury(&mut self, key: usize, cause: &str) -> io::Result<()> {
        let Connection { peer, bytes, .. } = self.connections.remove(key);
        self.last_seen[key] = u64::MAX / 2;
        let now = sys::now();
        writeln!(
            self.out,
            r#"{{"event":"died","peer":"{peer}","cause":"{cause}","mono_ns":{now},"bytes":{bytes}}}"#
        )
    }
}

fn add(epoll: &OwnedFd, fd: BorrowedFd<'_>, mask: i32, token: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: mask.cast_unsigned(), u64: token };
    // SAFETY: `event` is ours and only read during the call.
    sys::check(unsafe {
        libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &mut event)
    })?;
    Ok(())
}
