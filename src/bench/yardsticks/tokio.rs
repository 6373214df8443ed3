//! The role `tokio`: a task for each connection on a current-thread runtime, with `timeout` around its read.
//!
//! The tasks share one buffer, as only one of them runs at a time: a KiB in each, as in tokio's
//! README, would nearly double their memory. A read that does not fill the buffer tells tokio that the socket is
//! empty, which saves a second read.
//!
//! For the deadline, `timeout` around each read was compared with one `Sleep` that each beat resets, and
//! with one `DelayQueue` for all connections: they differed less than rounds do, since most of a beat is its
//! wake-up and its `recv`. So the role has the usual `timeout`.
//!
//! The role `tokio-uring` is the same on that runtime, with one read under way. A read owns its buffer while it waits, so
//! each connection has one. Dropping a read does not cancel it (tokio-uring 0.5 has no cancel), and it keeps the socket
//! open: so a connection that was silent for too long is shut down first, which ends its read. The ring has room for the
//! completions of many connections at once, and handles them at its own system calls (COOP_TASKRUN) instead of
//! interrupting itself, which looked cheaper in a few noisy runs.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_uring::net as uring;

use super::{SharedTeller, Teller, YardstickPlan, cause, listen};

/// The size of the buffer: nearly always enough to empty a socket in one call.
const BUFFER: usize = 1 << 16;

/// Runs the role `tokio` until the process is ended.
pub fn run(plan: &YardstickPlan) -> io::Result<()> {
    let listener = listen(None)?;
    let idle = Duration::from_millis(plan.idle_ms);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let tell = SharedTeller::new(Teller::new(listener.local_addr()?, plan.idle_ms)?);
        loop {
            let (stream, peer) = listener.accept().await?;
            tell.say(|teller| teller.up(peer));
            tokio::spawn(watch(stream, peer, idle, tell.clone()));
        }
    })
}

async fn watch(mut stream: TcpStream, peer: SocketAddr, idle: Duration, tell: SharedTeller) {
    let mut bytes = 0;
    let cause = loop {
        match timeout(idle, read(&mut stream)).await {
            Ok(Ok(0)) => break cause::CLOSED,
            Ok(Ok(taken)) => bytes += taken as u64,
            Ok(Err(_)) => break cause::ABORTED,
            Err(_) => break cause::EXPIRED,
        }
    };
    tell.say(|teller| teller.died(peer, cause, bytes));
}

thread_local! {
    static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

/// Reads into the shared buffer, which is borrowed during the read and not during the wait.
async fn read(stream: &mut TcpStream) -> io::Result<usize> {
    poll_fn(|context| {
        SHARED.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            Poll::Ready(Ok(buffer.filled().len()))
        })
    })
    .await
}

/// The size of a buffer, as in tokio's README: 64 beats.
const OWN_BUFFER: usize = 1_024;
const SQ_ENTRIES: u32 = 4_096;
const CQ_ENTRIES: u32 = 32_768;

/// Runs the role `tokio-uring` until the process is ended.
pub fn run_on_uring(plan: &YardstickPlan) -> io::Result<()> {
    let listener = listen(None)?;
    // A ring does not wait for a non-blocking socket.
    listener.set_nonblocking(false)?;
    let idle = Duration::from_millis(plan.idle_ms);
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(CQ_ENTRIES).setup_coop_taskrun();
    tokio_uring::builder().entries(SQ_ENTRIES).uring_builder(&ring).start(async {
        let tell = SharedTeller::new(Teller::new(listener.local_addr()?, plan.idle_ms)?);
        let listener = uring::TcpListener::from_std(listener);
        loop {
            let (stream, peer) = listener.accept().await?;
            tell.say(|teller| teller.up(peer));
            tokio_uring::spawn(watch_on_uring(stream, peer, idle, tell.clone()));
        }
    })
}

async fn watch_on_uring(stream: uring::TcpStream, peer: SocketAddr, idle: Duration, tell: SharedTeller) {
    let mut buffer = Vec::with_capacity(OWN_BUFFER);
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
