//! Holds the kernel against what the program relies on, on a pair of TCP sockets.
//!
//! Every step is one of the facts that the judgement is built on. It takes well under a millisecond
//! and is done once, before the first connection is taken.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::{Completion, Engine, Token, Wait};
use crate::limits::MAX_DISCARD;
use crate::sys::tcp;
use crate::time::Instant;

/// What a kernel did otherwise than it should.
#[derive(Debug)]
pub enum SelfTestError {
    /// The test could not be made.
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// What came of it.
        source: io::Error,
    },
    /// The kernel answered otherwise.
    Mismatch {
        /// What was tested.
        step: &'static str,
        /// What was expected.
        expected: &'static str,
        /// The answer of the kernel.
        got: String,
    },
}

impl fmt::Display for SelfTestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SelfTestError::Io { attempted, source } => {
                write!(f, "self-test: cannot {attempted}: {}", crate::sys::describe(source))
            }
            SelfTestError::Mismatch { step, expected, got } => write!(
                f,
                "self-test: this kernel is not to be trusted with it: {step}: expected {expected}, got {got}; \
                 run on Linux 6.1 or newer without a sandbox that imitates a kernel"
            ),
        }
    }
}

impl std::error::Error for SelfTestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SelfTestError::Io { source, .. } => Some(source),
            SelfTestError::Mismatch { .. } => None,
        }
    }
}

const IN: u16 = libc::POLLIN as u16;
const RDHUP: u16 = libc::POLLRDHUP as u16;
const END: u16 = (libc::POLLERR | libc::POLLHUP) as u16;

const WATCH: Token = Token::new(1, 1, 0);
const RECV: Token = Token::new(2, 1, 0);
const CANCEL: Token = Token::new(3, 1, 0);
const PATIENCE: Duration = Duration::from_secs(2);

/// Tests `engine`, which must have nothing else under way. Errors: [`SelfTestError::Mismatch`] names the step at
/// which the kernel differs.
pub fn self_test(engine: &mut dyn Engine) -> Result<(), SelfTestError> {
    let (server, client) = pair().map_err(io("make a TCP connection over loopback"))?;
    let fd = server.as_fd();
    let mut bench = Bench { engine, reaped: Vec::new() };

    bench.engine.watch(fd, IN | RDHUP, WATCH).map_err(io("queue a poll"))?;
    tcp::set_low_water_mark(server.as_fd(), 4).map_err(io("set SO_RCVLOWAT"))?;
    bench.engine.submit_and_wait(Wait::NOT).map_err(io("submit"))?;

    (&client).write_all(b"abc").map_err(io("write"))?;
    let unread = tcp::info(server.as_fd()).map_err(io("read TCP_INFO"))?.tcpi_bytes_received;
    check(unread == 3, "TCP_INFO counts unread bytes", "3", || unread.to_string())?;
    bench.none("a low-water mark of 4 keeps 3 bytes from waking the poll")?;
    (&client).write_all(b"d").map_err(io("write"))?;
    bench.mask("the fourth byte wakes a multishot poll, which goes on", "IN", |mask| mask & IN != 0)?;

    bench.recv(fd, "a discarding recv takes all four without a buffer", "4", |result| result == 4)?;
    bench.recv(fd, "a recv of nothing does not wait", "-EAGAIN", |result| result == -libc::EAGAIN)?;

    client.shutdown(Shutdown::Write).map_err(io("shut down"))?;
    bench.mask("a half-close wakes the same poll", "RDHUP without HUP", |mask| {
        mask & RDHUP != 0 && mask & END == 0
    })?;
    bench.recv(fd, "recv after a FIN", "0", |result| result == 0)?;
    tcp::abort_on_close(client.as_fd()).map_err(io("set SO_LINGER"))?;
    drop(client);
    bench.mask("a reset after a FIN wakes it again", "HUP and ERR", |mask| mask & END == END)?;

    bench.cancel(fd)?;
    bench.engine.watch(fd, IN | RDHUP, WATCH).map_err(io("queue a poll"))?;
    bench.mask("a poll that is armed again tells at once what is so", "HUP and ERR", |mask| {
        mask & END == END
    })?;
    bench.cancel(fd)
}

struct Bench<'a> {
    engine: &'a mut dyn Engine,
    reaped: Vec<Completion>,
}

impl Bench<'_> {
    fn next(&mut self, step: &'static str) -> Result<Completion, SelfTestError> {
        let end = Instant::now() + PATIENCE;
        let mut rest = PATIENCE;
        // A signal may end a wait.
        while self.reaped.is_empty() && !rest.is_zero() {
            let wait = Wait { completions: 1, window: Duration::ZERO, timeout: rest };
            self.engine.submit_and_wait(wait).map_err(io("wait"))?;
            self.engine.reap(&mut self.reaped, 16);
            rest = end.since(Instant::now());
        }
        if self.reaped.is_empty() {
            return Err(SelfTestError::Mismatch {
                step,
                expected: "a completion",
                got: format!("none within {PATIENCE:?}"),
            });
        }
        Ok(self.reaped.remove(0))
    }

    fn cancel(&mut self, fd: BorrowedFd<'_>) -> Result<(), SelfTestError> {
        let step = "a cancelled poll completes a last time";
        self.engine.cancel(fd, WATCH, CANCEL).map_err(io("queue a cancel"))?;
        let last = self.next(step)?;
        check(
            last.token == WATCH && !last.more && last.result == -libc::ECANCELED,
            step,
            "-ECANCELED without F_MORE",
            || format!("{last:?}"),
        )
    }

    fn none(&mut self, step: &'static str) -> Result<(), SelfTestError> {
        self.engine.submit_and_wait(Wait::NOT).map_err(io("submit"))?;
        self.engine.reap(&mut self.reaped, 16);
        let none = self.reaped.is_empty() || memory_is_short();
        check(none, step, "no completion", || format!("{:?}", self.reaped))?;
        self.reaped.clear();
        Ok(())
    }

    /// Waits for a poll completion that fits. A wake may come early with a mask that says less, so
    /// others of the same poll are passed over.
    fn mask(
        &mut self,
        step: &'static str,
        expected: &'static str,
        fits: impl Fn(u16) -> bool,
    ) -> Result<(), SelfTestError> {
        for _ in 0..4 {
            let completion = self.next(step)?;
            check(completion.token == WATCH && completion.more, step, expected, || {
                format!("{completion:?}")
            })?;
            if fits(completion.result as u16) {
                return Ok(());
            }
        }
        Err(SelfTestError::Mismatch { step, expected, got: "other masks".to_owned() })
    }

    fn recv(
        &mut self,
        fd: BorrowedFd<'_>,
        step: &'static str,
        expected: &'static str,
        fits: impl Fn(i32) -> bool,
    ) -> Result<(), SelfTestError> {
        self.engine.discard(fd, MAX_DISCARD, RECV).map_err(io("queue a recv"))?;
        for _ in 0..4 {
            let completion = self.next(step)?;
            if completion.token == RECV {
                return check(fits(completion.result), step, expected, || completion.result.to_string());
            }
        }
        Err(SelfTestError::Mismatch { step, expected, got: "no completion of the recv".to_owned() })
    }
}

/// Whether sockets use more memory than the kernel likes. It then wakes the reader of every socket with unread bytes, whatever
/// the mark is (`tcp_epollin_ready`), so that they are taken off. Such a kernel is trusted all the same.
fn memory_is_short() -> bool {
    let protocols = std::fs::read_to_string("/proc/net/protocols").unwrap_or_default();
    protocols.lines().any(|line| line.starts_with("TCP") && line.split_whitespace().nth(4) == Some("yes"))
}

fn check(
    holds: bool,
    step: &'static str,
    expected: &'static str,
    got: impl FnOnce() -> String,
) -> Result<(), SelfTestError> {
    if holds { Ok(()) } else { Err(SelfTestError::Mismatch { step, expected, got: got() }) }
}

fn io(attempted: &'static str) -> impl FnOnce(io::Error) -> SelfTestError {
    move |source| SelfTestError::Io { attempted, source }
}

/// Two ends of one connection over loopback, of whichever family there is.
pub(super) fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .or_else(|_| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    client.set_nodelay(true)?;
    let (server, _) = listener.accept()?;
    Ok((server, client))
}
