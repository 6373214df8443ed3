//! The role `floor`: deadpeer's system calls and ring operations without its judgement. The CPU of a deadpeer above it is
//! that of deadpeer's own code.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Teller, accept, cause, listen};
use crate::bench::now;
use crate::limits;
use crate::sys::tcp;
use crate::sys::uring::{Completion, Engine, Ring, Token, Wait};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloorPlan {
    pub wake: FloorWake,
    /// Connections are reported, and each death has a line with its proof.
    #[serde(default)]
    pub proofs: bool,
}

/// The modes of deadpeer's `--wake`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FloorWake {
    /// A wide low-water mark; bytes are taken off in rounds; `TCP_INFO` of each connection now and then.
    Lazy {
        /// The low-water mark, in bytes.
        unread: u32,
        /// Each connection is drained once in this time; `None` for never, where no peer sends.
        drain_ms: Option<u64>,
        /// Each connection is inspected once in this time; `None` for never, where it is drained more often.
        inspect_ms: Option<u64>,
    },
    /// Every beat completes the poll; one recv for some of them; batched waits.
    Beat {
        /// The number of beats for one recv.
        drain_every: u32,
        /// The batch window, in microseconds.
        window_us: u64,
    },
}

const IN_AND_RDHUP: u16 = (libc::POLLIN | libc::POLLRDHUP) as u16;
const ENDED: i32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as i32;
/// The interval at which due work is done together: 16 times a second, as on deadpeer's grid.
const GRAIN: Duration = Duration::from_micros(62_500);

mod kind {
    pub(super) const LISTENER: u8 = 1;
    pub(super) const WATCH: u8 = 2;
    pub(super) const RECV: u8 = 3;
    pub(super) const CANCEL: u8 = 4;
}

/// Runs the role until the process is ended.
pub fn run(plan: &FloorPlan) -> io::Result<()> {
    let listener = listen(match plan.wake {
        FloorWake::Lazy { unread, .. } => Some(unread),
        FloorWake::Beat { .. } => None,
    })?;
    let address = listener.local_addr()?;
    let mut floor = Floor::new(plan, listener)?;
    let tell = Teller::new(address, 0)?;
    floor.tell = plan.proofs.then_some(tell);
    loop {
        floor.turn()?;
    }
}

struct Connection {
    socket: OwnedFd,
    peer: SocketAddr,
    bytes: u64,
    wakes: u32,
    /// RDHUP, HUP or ERR was seen: bytes are taken off to the end.
    ending: bool,
    watched: bool,
    receiving: bool,
    closing: bool,
}

/// The time after the start in which all connections are drained each second: first beats have random sizes, and a
/// connection near its mark would reach it before its turn.
const FIRST_ROUNDS: Duration = Duration::from_secs(3);
const FIRST_PERIOD_MS: u64 = 1_000;

/// Visits all places in a set period, some at each stroke.
struct Round {
    period_ms: u64,
    quick_until: u64,
    cursor: usize,
    credit: f64,
}

impl Round {
    fn new(period_ms: u64) -> Round {
        let quick_until = now() + FIRST_ROUNDS.as_nanos() as u64;
        Round { period_ms, quick_until, cursor: 0, credit: 0.0 }
    }

    /// The places of the next stroke.
    fn stroke(&mut self, places: usize) -> impl Iterator<Item = usize> + use<> {
        let quick = now() < self.quick_until;
        let period_ms = if quick { self.period_ms.min(FIRST_PERIOD_MS) } else { self.period_ms };
        self.credit += places as f64 * GRAIN.as_secs_f64() * 1e3 / period_ms as f64;
        let take = (self.credit as usize).min(places);
        self.credit -= take as f64;
        let from = self.cursor;
        self.cursor = if places > 0 { (from + take) % places } else { 0 };
        (0..take).map(move |turn| (from + turn) % places)
    }
}

struct Floor {
    wake: FloorWake,
    ring: Ring,
    listener: TcpListener,
    connections: slab::Slab<Connection>,
    /// One more than the greatest key so far.
    places: usize,
    reaped: Vec<Completion>,
    drains: Option<Round>,
    inspections: Option<Round>,
    next_stroke: u64,
    /// A recv was submitted, and the next wait must not block.
    urgent: bool,
    /// The number of ends that this turn may still read without the ring, as deadpeer does.
    ends_at_once: u32,
    /// Where deaths are reported.
    tell: Option<Teller>,
}

impl Floor {
    fn new(plan: &FloorPlan, listener: TcpListener) -> io::Result<Floor> {
        let ring = Ring::new(limits::SQ_ENTRIES, limits::CQ_ENTRIES).map_err(io::Error::other)?;
        let (drains, inspections) = match plan.wake {
            FloorWake::Lazy { drain_ms, inspect_ms, .. } => {
                (drain_ms.map(Round::new), inspect_ms.map(Round::new))
            }
            FloorWake::Beat { .. } => (None, None),
        };
        let mut floor = Floor {
            wake: plan.wake,
            ring,
            listener,
            connections: slab::Slab::new(),
            places: 0,
            reaped: Vec::new(),
            drains,
            inspections,
            next_stroke: now() + GRAIN.as_nanos() as u64,
            urgent: false,
            ends_at_once: 0,
            tell: None,
        };
        floor.await_connections()?;
        Ok(floor)
    }

    fn turn(&mut self) -> io::Result<()> {
        self.ring.submit_and_wait(self.wait())?;
        self.urgent = false;
        self.ends_at_once = limits::ENDS_AT_ONCE;
        let mut reaped = std::mem::take(&mut self.reaped);
        while self.ring.reap(&mut reaped, limits::MAX_COMPLETIONS_PER_TURN) {}
        for completion in reaped.drain(..) {
            self.complete(completion)?;
        }
        self.reaped = reaped;
        if self.has_rounds() && now() >= self.next_stroke {
            self.stroke()?;
        }
        self.tell.as_mut().map_or(Ok(()), Teller::flush)
    }

    fn has_rounds(&self) -> bool {
        self.drains.is_some() || self.inspections.is_some()
    }

    fn wait(&self) -> Wait {
        match self.wake {
            _ if self.urgent => Wait::NOT,
            FloorWake::Lazy { .. } => {
                let stroke = Duration::from_nanos(self.next_stroke.saturating_sub(now()));
                let timeout = if self.has_rounds() { stroke } else { limits::MAX_WAIT };
                Wait { completions: 1, window: Duration::ZERO, timeout }
            }
            FloorWake::Beat { window_us, .. } => Wait {
                completions: limits::WAIT_BATCH,
                window: Duration::from_micros(window_us),
                timeout: limits::MAX_WAIT,
            },
        }
    }

    fn complete(&mut self, completion: Completion) -> io::Result<()> {
        let key = completion.token.index() as usize;
        match completion.token.kind() {
            kind::LISTENER => {
                self.accept()?;
                if completion.more { Ok(()) } else { self.await_connections() }
            }
            kind::WATCH => self.woken(key, completion),
            kind::RECV => self.received(key, completion.result),
            _ => Ok(()),
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Some((socket, peer)) = accept(&self.listener)? {
            if let Some(tell) = &mut self.tell {
                tell.up(peer)?;
            }
            let connection = Connection {
                socket,
                peer,
                bytes: 0,
                wakes: 0,
                ending: false,
                watched: false,
                receiving: false,
                closing: false,
            };
            let key = self.connections.insert(connection);
            self.places = self.places.max(key + 1);
            self.watch(key)?;
        }
        Ok(())
    }

    fn woken(&mut self, key: usize, completion: Completion) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        connection.watched = completion.more;
        if connection.closing {
            return self.close_if_quiet(key);
        }
        connection.ending |= completion.result < 0 || completion.result & ENDED != 0;
        connection.wakes += 1;
        let due = match self.wake {
            FloorWake::Lazy { .. } => true,
            FloorWake::Beat { drain_every, .. } => connection.wakes.is_multiple_of(drain_every),
        };
        let (ending, receiving) = (connection.ending, connection.receiving);
        if ending && !receiving && self.ends_at_once > 0 {
            self.ends_at_once -= 1;
            let result = tcp::discard(self.connections[key].socket.as_raw_fd(), limits::MAX_DISCARD);
            return self.received(key, result);
        }
        self.urgent |= ending;
        if (due || ending) && !receiving { self.receive(key) } else { Ok(()) }
    }

    fn received(&mut self, key: usize, result: i32) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        connection.receiving = false;
        connection.bytes += u64::try_from(result).unwrap_or(0);
        match result {
            1.. if connection.ending => {
                self.urgent = true;
                self.receive(key)
            }
            1.. => self.watch(key),
            error if error == -libc::EAGAIN => self.watch(key),
            _ => {
                let proof = std::hint::black_box(tcp::info(connection.socket.as_fd())?);
                if let Some(tell) = &mut self.tell {
                    let cause = if result == 0 { cause::CLOSED } else { cause::ABORTED };
                    tell.proved(connection.peer, cause, connection.bytes, &proof)?;
                }
                connection.closing = true;
                if connection.watched {
                    self.ring.cancel(
                        connection.socket.as_fd(),
                        token(kind::WATCH, key),
                        token(kind::CANCEL, key),
                    )?;
                }
                self.close_if_quiet(key)
            }
        }
    }

    /// Closes the socket, unless a request is under way: an armed poll would keep it open.
    fn close_if_quiet(&mut self, key: usize) -> io::Result<()> {
        if !self.connections[key].watched && !self.connections[key].receiving {
            self.connections.remove(key);
        }
        Ok(())
    }

    /// Drains and inspects the connections that are due.
    fn stroke(&mut self) -> io::Result<()> {
        let grain = GRAIN.as_nanos() as u64;
        self.next_stroke = (self.next_stroke + grain).max(now());
        let places = self.places;
        for key in self.drains.as_mut().map(|round| round.stroke(places)).into_iter().flatten() {
            let connection = self.connections.get(key);
            if connection.is_some_and(|connection| !connection.receiving && !connection.closing) {
                self.receive(key)?;
            }
        }
        for key in self.inspections.as_mut().map(|round| round.stroke(places)).into_iter().flatten() {
            if let Some(connection) = self.connections.get(key) {
                std::hint::black_box(tcp::info(connection.socket.as_fd())?);
            }
        }
        Ok(())
    }

    fn await_connections(&mut self) -> io::Result<()> {
        self.ring.watch(self.listener.as_fd(), libc::POLLIN as u16, token(kind::LISTENER, 0))
    }

    /// Arms the poll if it is not armed: in lazy mode one-shot, as deadpeer does.
    fn watch(&mut self, key: usize) -> io::Result<()> {
        let connection = &mut self.connections[key];
        if std::mem::replace(&mut connection.watched, true) {
            return Ok(());
        }
        let (fd, token) = (connection.socket.as_fd(), token(kind::WATCH, key));
        match self.wake {
            FloorWake::Lazy { .. } => self.ring.watch_once(fd, IN_AND_RDHUP, token),
            FloorWake::Beat { .. } => self.ring.watch(fd, IN_AND_RDHUP, token),
        }
    }

    fn receive(&mut self, key: usize) -> io::Result<()> {
        self.connections[key].receiving = true;
        self.ring.discard(self.connections[key].socket.as_fd(), limits::MAX_DISCARD, token(kind::RECV, key))
    }
}

fn token(kind: u8, key: usize) -> Token {
    Token::new(kind, 0, u32::try_from(key).expect("fewer connections than descriptors"))
}
