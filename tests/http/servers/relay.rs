//! The least that a relay of bytes can do, for `tests/http/speed.py`: one epoll, one recv and one send for each message,
//! nothing parsed, nothing timed, nothing kept. What another front costs more than this, it costs for what it does more.
//!
//! `relay PORT UPSTREAM_PORT`, both of 127.0.0.1. A side that does not take its bytes at once loses its connection.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use deadpeer::sys::epoll::{Epoll, ReadyList};

const EVENTS: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET).cast_unsigned();
/// As much as deadpeer reads at once, and as many events.
const ROOM: usize = 64 * 1024;
const EVENTS_AT_ONCE: usize = 512;

/// A socket, and the descriptor of the one that its bytes go to.
struct Side {
    stream: TcpStream,
    other: usize,
}

struct Relay {
    epoll: Epoll,
    upstream: u16,
    /// By descriptor.
    sides: Vec<Option<Side>>,
    scratch: Vec<u8>,
}

fn main() -> io::Result<()> {
    let ports: Vec<u16> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let &[port, upstream] = ports.as_slice() else {
        return Err(io::Error::other("relay PORT UPSTREAM_PORT"));
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let mut relay = Relay { epoll: Epoll::new()?, upstream, sides: Vec::new(), scratch: vec![0; ROOM] };
    let accepts = listener.as_raw_fd() as u64;
    relay.epoll.add(listener.as_fd(), libc::EPOLLIN.cast_unsigned(), accepts)?;
    let mut ready = ReadyList::new(EVENTS_AT_ONCE);
    loop {
        relay.epoll.wait(&mut ready, None)?;
        for one in ready.iter() {
            if one.token != accepts {
                relay.pass_on(one.token as usize);
                continue;
            }
            while let Ok((client, _)) = listener.accept() {
                relay.begin(client)?;
            }
        }
    }
}

impl Relay {
    fn begin(&mut self, client: TcpStream) -> io::Result<()> {
        let upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream))?;
        let places = [client.as_raw_fd() as usize, upstream.as_raw_fd() as usize];
        for (stream, [place, other]) in [(client, places), (upstream, [places[1], places[0]])] {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            if self.sides.len() <= place {
                self.sides.resize_with(place + 1, || None);
            }
            self.epoll.add(stream.as_fd(), EVENTS, place as u64)?;
            self.sides[place] = Some(Side { stream, other });
        }
        Ok(())
    }

    /// Passes on what one side has sent, in one piece as a rule.
    fn pass_on(&mut self, place: usize) {
        loop {
            let Some(Side { stream, other }) = &mut self.sides[place] else { return };
            let other = *other;
            let read = match stream.read(&mut self.scratch) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                read => read.unwrap_or(0),
            };
            let passed = match &mut self.sides[other] {
                Some(side) if read > 0 => side.stream.write(&self.scratch[..read]).unwrap_or(0),
                _ => 0,
            };
            if read == 0 || passed < read {
                (self.sides[place], self.sides[other]) = (None, None);
                return;
            }
            // A read that did not fill its room has emptied the socket, and what comes then is another event.
            if read < ROOM {
                return;
            }
        }
    }
}
