//! Sockets are served in the order in which they became ready.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use deadpeer::sys::epoll::{Epoll, ReadyList};

use crate::program::{Proxy, engines};

/// More than a turn has time for.
const CLIENTS: usize = 1_500;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";

/// Reads what is there; returns whether it was a whole message.
fn take(mut stream: &TcpStream, expected: &[u8]) -> bool {
    let mut bytes = [0; 256];
    match stream.read(&mut bytes) {
        Ok(count) => {
            assert_eq!(&bytes[..count], expected, "one message at a time");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

fn send(mut stream: &TcpStream, bytes: &[u8]) {
    assert_eq!(stream.write(bytes).unwrap(), bytes.len());
}

/// Clients ask as soon as they have their answers. Each queue on the way keeps its order, so no client is more than a
/// few answers ahead of another, whatever the machine does meanwhile. (Before there was an order, it was 44 to 82.)
#[test]
fn no_client_is_served_many_times_while_another_one_waits() {
    deadpeer::sys::rlimit::raise_nofile().unwrap();
    for io in engines() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        // A connection that does not fit is tried again by the kernel after a second.
        socket2::SockRef::from(&listener).listen(4096).unwrap();
        let proxy = Proxy::start(io, listener.local_addr().unwrap(), "--pool 1500");
        let epoll = Epoll::new().unwrap();
        let watch = |stream: TcpStream, token: usize| {
            stream.set_nonblocking(true).unwrap();
            let mask = (libc::EPOLLIN | libc::EPOLLET).cast_unsigned();
            epoll.add(stream.as_fd(), mask, token as u64).unwrap();
            stream
        };
        let clients: Vec<_> =
            (0..CLIENTS).map(|at| watch(TcpStream::connect(proxy.address).unwrap(), at)).collect();
        let mut servers = Vec::new();
        let mut answered = vec![0; CLIENTS];
        clients.iter().for_each(|client| send(client, REQUEST));
        let (mut ready, mut widest) = (ReadyList::new(CLIENTS), 0);
        while answered.iter().min() < Some(&20) {
            while let Ok((stream, _)) = listener.accept() {
                servers.push(watch(stream, CLIENTS + servers.len()));
            }
            epoll.wait(&mut ready, Some(Duration::from_millis(10))).unwrap();
            for place in ready.iter().map(|ready| ready.token as usize) {
                if let Some(client) = clients.get(place) {
                    if take(client, ANSWER) {
                        answered[place] += 1;
                        send(client, REQUEST);
                    }
                } else if take(&servers[place - CLIENTS], REQUEST) {
                    send(&servers[place - CLIENTS], ANSWER);
                }
            }
            widest = widest.max(answered.iter().max().unwrap() - answered.iter().min().unwrap());
        }
        assert!(widest <= 10, "{io}: {widest} answers ahead of another");
    }
}
