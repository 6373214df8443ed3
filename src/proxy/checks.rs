//! Active checks: upstreams are asked whether they work, whether clients ask anything or not.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::event::Failure;
use super::proxy_protocol::SendProxy;
use super::upstreams::Upstreams;
use crate::limits::CHECKS_AT_ONCE;
use crate::reactor::Address;
use crate::time::Instant;

/// Bytes of an answer that are read: `HTTP/1.1 200 ` has 13.
const STATUS_LINE: usize = 13;

/// What a check asks of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A connection.
    Connect,
    /// A response with a status below 400 to a request.
    Http {
        /// The method, such as `GET`.
        method: Box<str>,
        /// The target, such as `/healthz`.
        target: Box<str>,
    },
}

/// Checks all upstreams. It waits for their answers, so it has a thread of its own.
#[derive(Debug)]
pub struct Checker {
    /// The upstreams that are checked.
    pub upstreams: Arc<Upstreams>,
    /// What is asked.
    pub question: Question,
    /// How long an answer may take.
    pub patience: Duration,
    /// Whether upstreams expect a header of the PROXY protocol.
    pub send_proxy: Option<SendProxy>,
}

impl Checker {
    /// Checks every upstream once, [`CHECKS_AT_ONCE`] at the same time, so that a silent one delays few others.
    pub fn check_all(&self) {
        let all: Vec<_> = self.upstreams.active().collect();
        for some in all.chunks(CHECKS_AT_ONCE) {
            thread::scope(|scope| {
                for upstream in some {
                    let check = || {
                        let outcome = self.check(upstream.address()).map_err(failure);
                        self.upstreams.checked(upstream, outcome, Instant::now());
                    };
                    // Without another thread the next round comes to it.
                    let _ = thread::Builder::new().name("check".to_owned()).spawn_scoped(scope, check);
                }
            });
        }
    }

    fn check(&self, address: &Address) -> io::Result<()> {
        let end = Instant::now() + self.patience;
        let (domain, to, host) = match address {
            Address::Ip(ip) => (Domain::for_address(*ip), SockAddr::from(*ip), ip.to_string()),
            Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?, "localhost".to_owned()),
            Address::Process { .. } => unreachable!("no upstream is a process"),
        };
        let mut socket = Socket::new(domain, Type::STREAM.cloexec(), None)?;
        socket.connect_timeout(&to, self.patience)?;
        let Question::Http { method, target } = &self.question else { return Ok(()) };
        let mut request = self.send_proxy.map_or_else(Vec::new, |version| version.header(None, None));
        write!(
            request,
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: deadpeer\r\nConnection: close\r\n\r\n"
        )?;
        socket.set_write_timeout(Some(self.patience))?;
        socket.write_all(&request)?;
        let (mut answer, mut length) = ([0; STATUS_LINE], 0);
        while length < STATUS_LINE {
            let left = end.since(Instant::now()).max(Duration::from_millis(1));
            socket.set_read_timeout(Some(left))?;
            match socket.read(&mut answer[length..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => length += count,
            }
        }
        match answer {
            [
                b'H',
                b'T',
                b'T',
                b'P',
                b'/',
                b'1',
                b'.',
                _,
                b' ',
                b'1'..=b'3',
                b'0'..=b'9',
                b'0'..=b'9',
                b' ' | b'\r',
            ] => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Failure::TimedOut,
        io::ErrorKind::UnexpectedEof => Failure::Closed,
        io::ErrorKind::InvalidData => Failure::Status,
        _ => Failure::of_errno(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}
