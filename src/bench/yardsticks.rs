//! The yardsticks: servers that do a deadpeer's work on epoll, tokio and tokio-uring.
//!
//! # Intuition
//!
//! A comparison is worth as much as its yardsticks. So each one is written as an experienced user of its
//! library would write it. Where there are several usual ways, it takes the one that was measured to be the best, and its
//! file says so.
//!
//! # Model
//!
//! Each is a role: a server on one thread that listens on a free port of 127.0.0.1, detects each connection's
//! end, and ends connections that are silent for too long. It reports `listening`, `up` and `died` as deadpeer does.
//! [`floor`] makes deadpeer's system calls and judges nothing, and [`hold`](epoll::hold) only accepts.

pub mod epoll;
pub mod floor;
pub mod tokio;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::now;
use crate::sys::rlimit;
use crate::sys::tcp::{self, TcpInfo};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct YardstickPlan {
    /// The silence after which a connection is dead, in milliseconds.
    pub idle_ms: u64,
    /// The low-water mark in bytes; `None` for none.
    pub unread: Option<u32>,
    /// Each death has a proof: `TCP_INFO` is read before the socket is closed, and written.
    #[serde(default)]
    pub proofs: bool,
}

/// The same backlog as deadpeer's: the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 65_535;

/// Listens on a free port of 127.0.0.1, and reserves room for all descriptors that this process may have. Accepted
/// sockets inherit the low-water mark.
fn listen(unread: Option<u32>) -> io::Result<TcpListener> {
    let descriptors = rlimit::raise_nofile()?;
    // Before there are threads, as deadpeer does: the table would grow in the middle of a measurement.
    rlimit::reserve_descriptors(descriptors.min(1 << 20));
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    if let Some(unread) = unread {
        tcp::set_low_water_mark(socket.as_fd(), unread)?;
    }
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The next connection that waits; `None` when none does.
fn accept(listener: &TcpListener) -> io::Result<Option<(OwnedFd, SocketAddr)>> {
    match tcp::accept(listener.as_fd()) {
        Ok(accepted) => Ok(Some(accepted)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reports events of connections, one JSON line each; [`Teller::flush`] writes them.
struct Teller {
    out: BufWriter<File>,
}

impl Teller {
    /// Reports to standard output, with `listening` as the first line. The server must be ready by now: the memory and
    /// descriptors that it has at this line are not counted as those of its connections.
    fn new(address: SocketAddr, idle_ms: u64) -> io::Result<Teller> {
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let mut teller = Teller { out: BufWriter::with_capacity(1 << 16, out) };
        writeln!(
            teller.out,
            r#"{{"event":"listening","address":"{address}","detection_time_ms":{idle_ms}}}"#
        )?;
        teller.flush()?;
        Ok(teller)
    }

    fn up(&mut self, peer: SocketAddr) -> io::Result<()> {
        writeln!(self.out, r#"{{"event":"up","peer":"{peer}","mono_ns":{}}}"#, now())
    }

    fn died(&mut self, peer: SocketAddr, cause: &str, bytes: u64) -> io::Result<()> {
        let now = now();
        writeln!(
            self.out,
            r#"{{"event":"died","peer":"{peer}","cause":"{cause}","mono_ns":{now},"bytes":{bytes}}}"#
        )
    }

    /// The line of a death with a proof: as long as a deadpeer's, with the same figures.
    fn proved(&mut self, peer: SocketAddr, cause: &str, bytes: u64, proof: &TcpInfo) -> io::Result<()> {
        let (now, id) = (now(), peer.port());
        writeln!(
            self.out,
            r#"{{"event":"died","seq":{now},"id":"0-{id}-0","peer":"{peer}","local":"127.0.0.1:{id}","mono_ns":{now},"time":"0000-00-00T00:00:00.000000Z","cause":"{cause}","silent_ms":0,"lived_ms":0,"bytes":{bytes},"proof":{{"errno":"ECONNRESET","poll_mask":"0x2019","tcp":{{"state":"{}","unacked":{},"retransmits":{},"backoff":{},"probes":{},"last_ack_recv_ms":{},"last_data_recv_ms":{},"notsent_bytes":{},"rtt_us":{}}},"transport":"unasked","last_life_ns":{now},"verdict_ns":{now}}},"history":[]}}"#,
            proof.tcpi_state,
            proof.tcpi_unacked,
            proof.tcpi_retransmits,
            proof.tcpi_backoff,
            proof.tcpi_probes,
            proof.tcpi_last_ack_recv,
            proof.tcpi_last_data_recv,
            proof.tcpi_notsent_bytes,
            proof.tcpi_rtt
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A teller of many tasks on one thread: their lines are written together after the tasks that are ready have run.
#[derive(Clone)]
struct SharedTeller(Arc<Mutex<Pending>>);

struct Pending {
    teller: Teller,
    flush_is_due: bool,
}

impl SharedTeller {
    fn new(teller: Teller) -> SharedTeller {
        SharedTeller(Arc::new(Mutex::new(Pending { teller, flush_is_due: false })))
    }

    fn say(&self, line: impl FnOnce(&mut Teller) -> io::Result<()>) {
        let mut pending = self.0.lock().expect("no task panics while it holds the lock");
        line(&mut pending.teller).expect("standard output takes every line");
        if !std::mem::replace(&mut pending.flush_is_due, true) {
            let shared = self.clone();
            ::tokio::spawn(async move {
                let mut pending = shared.0.lock().expect("no task panics while it holds the lock");
                pending.flush_is_due = false;
                pending.teller.flush().expect("standard output takes every line");
            });
        }
    }
}

/// The causes of deaths, as deadpeer names them.
mod cause {
    /// The peer sent FIN.
    pub const CLOSED: &str = "closed";
    /// RST, or another error of the connection.
    pub const ABORTED: &str = "aborted";
    /// The peer was silent for too long.
    pub const EXPIRED: &str = "heartbeat_expired";
}
