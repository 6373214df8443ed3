//! `--role floor`: the same system calls and ring operations as the daemon's, and no judgement.
//! What the daemon costs above this is what its own code costs. `hold` is the floor of memory: a
//! process that accepts, keeps the descriptors and does nothing else.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use serde::{Deserialize, Serialize};
use serde_json::json;
use socket2::Socket;

use crate::epoll::listen;
use crate::load::say;
use crate::sys;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wake {
    /// A wide low-water mark; one recv when it is reached; TCP_INFO of each connection now and then.
    Lazy,
    /// Every beat completes the poll; one recv each `drain_every` of them; batched waits.
    Beat,
    /// No ring at all.
    Hold,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct FloorPlan {
    pub wake: Wake,
    /// SO_RCVLOWAT in lazy mode.
    pub unread: i32,
    /// TCP_INFO of each connection is read once in this time, in lazy mode.
    pub inspect_ms: u64,
    /// Readings are done together at this interval, so that each is not a wake-up of its own.
    pub grain_ms: u64,
    pub drain_every: u32,
    /// Batched wait in beat mode: up to `batch` completions, or what came in this time.
    pub window_us: u32,
    pub batch: usize,
}

const SQ_ENTRIES: u32 = 4_096;
const CQ_ENTRIES: u32 = 32_768;
const DISCARD: u32 = 1 << 20;
/// POLLRDHUP and the masks that no poll has to ask for.
const ENDED: i32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as i32;

const KIND_ACCEPT: u64 = 1 << 32;
const KIND_POLL: u64 = 2 << 32;
const KIND_RECV: u64 = 3 << 32;
const KIND_REMOVE: u64 = 4 << 32;

pub fn run(plan: &FloorPlan) -> io::Result<()> {
    sys::raise_descriptors()?;
    let ended = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(libc::SIGTERM, Arc::clone(&ended))?;
    let (listener, address) = listen()?;
    let low_water = if plan.wake == Wake::Lazy { plan.unread } else { 1 };
    // Inherited by every connection that is accepted.
    sys::set_option(listener.as_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, low_water)?;
    say(&json!({"event": "listening", "address": address, "detection_time_ms": 0}))?;
    if plan.wake == Wake::Hold {
        return hold(&listener, &ended);
    }
    let mut floor = Floor::new(plan, listener)?;
    while !ended.load(Ordering::Relaxed) {
        floor.turn()?;
    }
    let Counts { enters, completions, recvs, inspections } = floor.counts;
    say(&json!({
        "event": "summary", "enters": enters, "completions": completions,
        "recvs": recvs, "inspections": inspections,
    }))
}

fn hold(listener: &Socket, ended: &AtomicBool) -> io::Result<()> {
    let mut held = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        match sys::accept(listener.as_fd()) {
            Ok((socket, _)) => held.push(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct Connection {
    socket: OwnedFd,
    wakes: u32,
    /// RDHUP, HUP or ERR was seen: bytes are taken off to the end.
    ending: bool,
    receiving: bool,
    removed: bool,
}

#[derive(Default)]
struct Counts {
    enters: u64,
    completions: u64,
    recvs: u64,
    inspections: u64,
}

struct Floor<'a> {
    plan: &'a FloorPlan,
    ring: IoUring,
    listener: Socket,
    connections: slab::Slab<Connection>,
    reaped: Vec<cqueue::Entry>,
    next_inspection: u64,
    cursor: usize,
    credit: f64,
    counts: Counts,
}

impl Floor<'_> {
    fn new(plan: &FloorPlan, listener: Socket) -> io::Result<Floor<'_>> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_no_sqarray()
            .setup_cqsize(CQ_ENTRIES)
            .build(SQ_ENTRIES)?;
        let mut floor = Floor {
            plan,
            ring,
            listener,
            connections: slab::Slab::new(),
            reaped: Vec::new(),
            next_inspection: sys::now(),
            cursor: 0,
            credit: 0.0,
            counts: Counts::default(),
        };
        floor.await_connections()?;
        Ok(floor)
    }

    fn turn(&mut self) -> io::Result<()> {
        self.wait()?;
        let mut reaped = std::mem::take(&mut self.reaped);
        reaped.extend(self.ring.completion());
        self.counts.completions += reaped.len() as u64;
        for entry in reaped.drain(..) {
            self.complete(&entry)?;
        }
        self.reaped = reaped;
        if self.plan.wake == Wake::Lazy {
            self.inspect()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        self.counts.enters += 1;
        let sleep = match self.plan.wake {
            Wake::Lazy => self.next_inspection.saturating_sub(sys::now()).max(1_000),
            _ => 1_000_000_000,
        };
        let sleep = Timespec::from(Duration::from_nanos(sleep));
        let args = SubmitArgs::new().timespec(&sleep);
        let result = match self.plan.wake {
            Wake::Beat => {
                let args = args.min_wait_usec(self.plan.window_us);
                self.ring.submitter().submit_with_args(self.plan.batch, &args)
            }
            _ => self.ring.submitter().submit_with_args(1, &args),
        };
        match result {
            Err(error) if [Some(libc::ETIME), Some(libc::EINTR)].contains(&error.raw_os_error()) => Ok(()),
            result => result.map(drop),
        }
    }

    fn complete(&mut self, entry: &cqueue::Entry) -> io::Result<()> {
        let data = entry.user_data();
        let key = (data & 0xffff_ffff) as usize;
        let more = cqueue::more(entry.flags());
        match data & !0xffff_ffff {
            KIND_ACCEPT => {
                self.accept()?;
                if !more {
                    self.await_connections()?;
                }
            }
            KIND_POLL => self.woken(key, entry.result(), more)?,
            KIND_RECV => self.received(key, entry.result())?,
            _ => {}
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let socket = match sys::accept(self.listener.as_fd()) {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let key = self.connections.insert(Connection {
                socket,
                wakes: 0,
                ending: false,
                receiving: false,
                removed: false,
            });
            self.watch(key)?;
        }
    }

    fn woken(&mut self, key: usize, result: i32, more: bool) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        if connection.removed {
            if !more {
                // The poll was the last to hold the socket.
                self.connections.remove(key);
            }
            return Ok(());
        }
        connection.ending |= result < 0 || result & ENDED != 0;
        connection.wakes += 1;
        let due = self.plan.wake == Wake::Lazy || connection.wakes.is_multiple_of(self.plan.drain_every);
        let receive = (due || connection.ending) && !connection.receiving;
        if receive {
            self.receive(key)?;
        }
        if more { Ok(()) } else { self.watch(key) }
    }

    fn received(&mut self, key: usize, result: i32) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        connection.receiving = false;
        match result {
            1.. if connection.ending => self.receive(key),
            1.. => Ok(()),
            error if error == -libc::EAGAIN => Ok(()),
            _ => {
                connection.removed = true;
                let remove = opcode::PollRemove::new(KIND_POLL | key as u64).build();
                self.push(&remove.user_data(KIND_REMOVE))
            }
        }
    }

    /// Evenly over time: so many readings as are due since the last time.
    fn inspect(&mut self) -> io::Result<()> {
        let now = sys::now();
        if now < self.next_inspection {
            return Ok(());
        }
        let grain = self.plan.grain_ms * 1_000_000;
        let count = self.connections.len();
        self.credit += (count as u64 * self.plan.grain_ms) as f64 / self.plan.inspect_ms as f64;
        self.next_inspection = (self.next_inspection + grain).max(now);
        while self.credit >= 1.0 && count > 0 {
            self.credit -= 1.0;
            self.cursor = (self.cursor + 1) % self.connections.capacity();
            if let Some(connection) = self.connections.get(self.cursor) {
                std::hint::black_box(sys::last_data_received(connection.socket.as_fd())?);
                self.counts.inspections += 1;
            }
        }
        Ok(())
    }

    fn await_connections(&mut self) -> io::Result<()> {
        let fd = Fd(self.listener.as_raw_fd());
        let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
        self.push(&poll.user_data(KIND_ACCEPT))
    }

    fn watch(&mut self, key: usize) -> io::Result<()> {
        let fd = Fd(self.connections[key].socket.as_raw_fd());
        let mask = (libc::POLLIN | libc::POLLRDHUP) as u32;
        let poll = opcode::PollAdd::new(fd, mask).multi(true).build();
        self.push(&poll.user_data(KIND_POLL | key as u64))
    }

    fn receive(&mut self, key: usize) -> io::Result<()> {
        self.counts.recvs += 1;
        self.connections[key].receiving = true;
        let fd = Fd(self.connections[key].socket.as_raw_fd());
        let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
        let recv = opcode::Recv::new(fd, std::ptr::null_mut(), DISCARD).flags(flags).build();
        self.push(&recv.user_data(KIND_RECV | key as u64))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: no operation pushed here carries a pointer: MSG_TRUNC discards without a
            // buffer. The descriptors are owned by the slab, which keeps them until the poll's
            // final completion.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}
