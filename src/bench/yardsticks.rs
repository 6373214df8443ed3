//! What users would take instead of a deadpeer: servers that do its work on epoll, tokio, tokio-uring.
//!
//! # Intuition
//!
//! A comparison is worth what the other side is worth. So each yardstick is written as somebody who
//! lives on that library would write it, and who knows it well; where there are several usual ways, the one
//! that was measured to serve its users best is taken, and its file says so.
//!
//! # Model
//!
//! Each is a role: a server on one thread that listens on a free port of 127.0.0.1, knows every connection's
//! end, and ends those that are silent for too long. It says `listening`, `up` and `died` as deadpeer does.
//! [`floor`] makes deadpeer's system calls and judges nothing, and [`hold`] only accepts.

pub mod epoll;
pub mod floor;
pub mod hold;
pub mod tokio;
pub mod tokio_uring;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::now;
use crate::sys::{rlimit, tcp};

/// What a yardstick is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct YardstickPlan {
    /// A connection that was quiet for so long is dead.
    pub idle_ms: u64,
    /// The low-water mark, for those that use one.
    pub unread: Option<u32>,
}

/// As long as deadpeer's: the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 65_535;

/// Listens on a free port of 127.0.0.1, with room for as many descriptors as this process may have. A
/// low-water mark is inherited by what is accepted.
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

/// Tells what became of the connections: one JSON line each, written when [`Teller::flush`] is called.
struct Teller {
    out: BufWriter<File>,
}

impl Teller {
    /// On standard output, with `listening` as the first line: all must be ready by now, as what a server holds
    /// then is not counted as what it takes for its connections.
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
        let now = now();
        writeln!(self.out, r#"{{"event":"up","peer":"{peer}","mono_ns":{now}}}"#)
    }

    fn died(&mut self, peer: SocketAddr, cause: &str, bytes: u64) -> io::Result<()> {
        let now = now();
        writeln!(
            self.out,
            r#"{{"event":"died","peer":"{peer}","cause":"{cause}","mono_ns":{now},"bytes":{bytes}}}"#
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A teller of many tasks on one thread: their lines are written together, once those that are ready have run.
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
        let mut pending = self.0.lock().expect("nobody panics while he holds it");
        line(&mut pending.teller).expect("standard output takes every line");
        if !std::mem::replace(&mut pending.flush_is_due, true) {
            let shared = self.clone();
            ::tokio::spawn(async move {
                let mut pending = shared.0.lock().expect("nobody panics while he holds it");
                pending.flush_is_due = false;
                pending.teller.flush().expect("standard output takes every line");
            });
        }
    }
}

/// The causes, in deadpeer's words.
mod cause {
    /// FIN.
    pub const CLOSED: &str = "closed";
    /// RST, and every other error of the connection.
    pub const ABORTED: &str = "aborted";
    /// Silence.
    pub const EXPIRED: &str = "heartbeat_expired";
}
