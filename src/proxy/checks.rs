//! Active checks: upstreams are asked whether they work, whether clients ask anything or not.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::event::Failure;
use super::proxy_protocol::SendProxy;
use super::upstreams::Upstreams;
use crate::http::{Body, Head, ResponseHead, Scan};
use crate::limits::{CHECKS_AT_ONCE, MAX_CHECK_BODY};
use crate::reactor::Address;
use crate::time::Instant;

/// What a check asks of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A connection.
    Connect,
    /// A final response with a status below 400 to a request.
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
        match self.response(&mut socket, method, end)?.status() {
            ..400 => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Reads the final response to its end: a close before would be a RST, by which servers know that a client has left.
    /// A body that is too long or comes too late is left alone, and its status holds.
    fn response(&self, socket: &mut Socket, method: &str, end: Instant) -> io::Result<ResponseHead> {
        let mut more = |into: &mut Vec<u8>| {
            let mut part = [0; 4_096];
            let left = end.since(Instant::now()).clamp(Duration::from_millis(1), self.patience);
            socket.set_read_timeout(Some(left))?;
            let count = socket.read(&mut part)?;
            into.extend_from_slice(&part[..count]);
            if count == 0 { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) } else { Ok(()) }
        };
        let (mut bytes, mut scan) = (Vec::new(), Scan::default());
        let head = loop {
            match ResponseHead::read(&bytes, &mut scan) {
                Head::Partial if Instant::now() > end => return Err(io::ErrorKind::TimedOut.into()),
                Head::Partial => more(&mut bytes)?,
                Head::TooLarge | Head::Not(_) => return Err(io::ErrorKind::InvalidData.into()),
                Head::Whole { head, length } => {
                    bytes.drain(..length);
                    if !head.is_interim() {
                        break head;
                    }
                    scan = Scan::default();
                }
            }
        };
        let (mut body, mut length) = (Body::new(head.framing(method)), 0);
        while body.feed(&bytes).is_ok() && !body.is_over() && length < MAX_CHECK_BODY && Instant::now() < end
        {
            bytes.clear();
            if more(&mut bytes).is_err() {
                break;
            }
            length += bytes.len();
        }
        Ok(head)
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
