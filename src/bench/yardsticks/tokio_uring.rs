//! The role `tokio-uring`: a task for each connection, with one read under way and `timeout` around it.
//!
//! A read owns its buffer while it waits, so each connection has one. Dropping a read does not
//! cancel it (tokio-uring 0.5 has no cancel), and it keeps the socket open: so a connection that
//! was silent for too long is shut down first, which ends its read.
//!
//! The ring has room for the completions of many connections at once, and handles them at its
//! own system calls (COOP_TASKRUN) instead of interrupting itself, which looked cheaper in a few noisy runs.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;
use tokio_uring::net::{TcpListener, TcpStream};

use super::{SharedTeller, Teller, YardstickPlan, cause, listen};

/// The size of a buffer, as in tokio's README: 64 beats.
const BUFFER: usize = 1_024;
const SQ_ENTRIES: u32 = 4_096;
const CQ_ENTRIES: u32 = 32_768;

/// Runs the role until the process is ended.
///
/// # Errors
///
/// Those of its system calls; that there is no io_uring.
pub fn run(plan: &YardstickPlan) -> io::Result<()> {
    let listener = listen(None)?;
    // A ring does not wait for a non-blocking socket.
    listener.set_nonblocking(false)?;
    let idle = Duration::from_millis(plan.idle_ms);
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(CQ_ENTRIES).setup_coop_taskrun();
    tokio_uring::builder().entries(SQ_ENTRIES).uring_builder(&ring).start(async {
        let tell = SharedTeller::new(Teller::new(listener.local_addr()?, plan.idle_ms)?);
        let listener = TcpListener::from_std(listener);
        loop {
            let (stream, peer) = listener.accept().await?;
            tell.say(|teller| teller.up(peer));
            tokio_uring::spawn(watch(stream, peer, idle, tell.clone()));
        }
    })
}

async fn watch(stream: TcpStream, peer: SocketAddr, idle: Duration, tell: SharedTeller) {
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut bytes = 0;
    let cause = loop {
        let Ok((read, back)) = timeout(idle, stream.read(buffer)).await else {
            // It fails only when the connection ends in this moment.
            let _ = stream.shutdown(Shutdown::Both);
            break cause::EXPIRED;
        };
        buffer = back;
        match read {
            Ok(0) => break cause::CLOSED,
            Ok(taken) => bytes += taken as u64,
            Err(_) => break cause::ABORTED,
        }
    };
    tell.say(|teller| teller.died(peer, cause, bytes));
}
