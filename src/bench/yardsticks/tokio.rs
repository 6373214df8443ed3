//! The role `tokio`: a task for each connection on a current-thread runtime, with `timeout` around its read.
//!
//! The tasks share one buffer, as only one of them runs at a time: a KiB in each, as in tokio's
//! README, would nearly double their memory. A read that does not fill the buffer tells tokio that the socket is
//! empty, which saves a second read.
//!
//! For the deadline, `timeout` around each read was compared with one `Sleep` that each beat resets, and
//! with one `DelayQueue` for all connections: they differed less than rounds do, since most of a beat is its
//! wake-up and its `recv`. So the role has the usual `timeout`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{SharedTeller, Teller, YardstickPlan, cause, listen};

/// The size of the buffer: nearly always enough to empty a socket in one call.
const BUFFER: usize = 1 << 16;

/// Runs the role until the process is ended.
///
/// # Errors
///
/// Those of its system calls.
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
