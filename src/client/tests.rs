//! The client against listeners of the standard library. A test ends when it has seen what it expects, and fails when
//! the client's own time is over.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream as StdStream};
use std::sync::atomic::AtomicUsize;
use std::thread;

use mio::net::TcpStream;

use super::connecting::answer;
use super::*;
use crate::frame::{Decoded, Decoder, Kind};

const BOUND: Duration = Duration::from_secs(20);

fn config(address: SocketAddr, count: usize) -> ClientConfig {
    ClientConfig {
        count,
        every: Duration::from_millis(10),
        lasting: Some(BOUND),
        identity: Some("t".to_owned()),
        ..ClientConfig::new(address)
    }
}

/// A listener, a client of it with `count` connections, and what stops the client.
fn client(count: usize) -> (TcpListener, Client, Stop) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = Client::new(config(address, count)).unwrap();
    let stop = client.stop_handle();
    (listener, client, stop)
}

fn accept(listener: &TcpListener) -> StdStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
}

/// Reads frames and passes each to `seen`, until that returns true or the stream ends.
fn read_until(stream: &mut StdStream, decoder: &mut Decoder, mut seen: impl FnMut(Decoded) -> bool) {
    let mut buffer = [0; 1_000];
    loop {
        let length = stream.read(&mut buffer).unwrap();
        if length == 0 {
            return;
        }
        let mut bytes = &buffer[..length];
        let mut enough = false;
        while let Some(decoded) = decoder.next(&mut bytes).unwrap() {
            enough |= seen(decoded);
        }
        if enough {
            return;
        }
    }
}

#[test]
fn every_connection_says_hello_beats_and_leaves_with_a_bye() {
    const COUNT: usize = 40;
    let (listener, client, stop) = client(COUNT);
    let ready = Arc::new(AtomicUsize::new(0));
    let server = thread::spawn(move || {
        let mut readers = Vec::new();
        for _ in 0..COUNT {
            let (mut stream, stop, ready) = (accept(&listener), stop.clone(), ready.clone());
            readers.push(thread::spawn(move || {
                let mut seen = Vec::new();
                read_until(&mut stream, &mut Decoder::new(), |decoded| {
                    seen.push(decoded);
                    if seen.len() == 4 && ready.fetch_add(1, Ordering::AcqRel) + 1 == COUNT {
                        stop.stop();
                    }
                    false
                });
                seen
            }));
        }
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    let mut most = Progress::default();
    let totals = client.run(|progress| {
        assert!(progress.connecting <= MAX_IN_FLIGHT);
        most.connected = most.connected.max(progress.connected);
    });
    let (totals, streams) = (totals.unwrap(), server.join().unwrap());

    let mut names = Vec::new();
    let mut beats = 0;
    for stream in &streams {
        let [Decoded::Hello { identity, .. }, middle @ .., Decoded::Frame(last)] = stream.as_slice() else {
            panic!("no HELLO first or no frame last: {stream:?}")
        };
        names.push(identity.as_str().to_owned());
        beats += middle.len() as u64;
        let mut sequence = None;
        for beat in middle {
            let Decoded::Frame(Frame { kind: Kind::Pong, sequence: next, timestamp: 0 }) = *beat else {
                panic!("{beat:?} is no heartbeat")
            };
            assert!(sequence < Some(next), "sequences grow");
            sequence = Some(next);
        }
        assert_eq!(last.kind, Kind::Bye);
    }
    names.sort();
    let mut expected: Vec<String> = (0..COUNT).map(|index| format!("t-{index}")).collect();
    expected.sort();
    assert_eq!(names, expected);
    assert_eq!(most.connected, COUNT);
    assert_eq!((totals.established, totals.byes, totals.beats), (COUNT as u64, COUNT as u64, beats));
    assert_eq!((totals.lost(), totals.refused, totals.failed), (0, 0, 0));
}

#[test]
fn a_ping_is_answered_with_its_own_count_and_time() {
    let (listener, client, stop) = client(1);
    let server = thread::spawn(move || {
        let mut stream = accept(&listener);
        let ping = Frame { kind: Kind::Ping, sequence: 77, timestamp: 123_456_789 };
        let (first, second) = (&ping.encode()[..3], &ping.encode()[3..]);
        stream.write_all(first).unwrap();
        stream.write_all(second).unwrap();
        let mut answered = false;
        read_until(&mut stream, &mut Decoder::new(), |decoded| {
            answered |= decoded == Decoded::Frame(ping.answer().unwrap());
            answered
        });
        stop.stop();
        answered
    });
    let totals = client.run(|_| ()).unwrap();
    assert!(server.join().unwrap());
    assert_eq!(totals.pongs_answered, 1);
}

#[test]
fn a_server_that_ends_connections_is_counted_by_how_it_did() {
    let (listener, client, stop) = client(4);
    let server = thread::spawn(move || {
        let mut streams: Vec<StdStream> = (0..4).map(|_| accept(&listener)).collect();
        for stream in &mut streams {
            // Before its HELLO the client might not know that the connect succeeded.
            read_until(stream, &mut Decoder::new(), |_| true);
        }
        streams[0].shutdown(Shutdown::Write).unwrap();
        let reset = streams.remove(1);
        socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
        drop(reset);
        streams[1].write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
        streams
    });
    let totals = client.run(|progress| {
        if progress.totals.lost() == 3 && progress.connected == 1 {
            stop.stop();
        }
    });
    let totals = totals.unwrap();
    drop(server.join().unwrap());
    assert_eq!((totals.lost_closed, totals.lost_reset, totals.lost_protocol), (1, 1, 1));
    assert_eq!((totals.lost_path, totals.byes, totals.established), (0, 1, 4));
}

#[test]
fn a_client_without_reconnect_ends_when_no_connection_is_left() {
    let (listener, client, _) = client(2);
    let server = thread::spawn(move || (0..2).map(|_| accept(&listener)).for_each(drop));
    let totals = client.run(|_| ()).unwrap();
    server.join().unwrap();
    assert_eq!((totals.established, totals.lost(), totals.byes), (2, 2, 0));
}

#[test]
fn a_refused_connect_is_reported_and_not_an_error() {
    // Bound but not listening: no other program gets the port, and every connect is refused.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let totals = Client::new(config(address, 600)).unwrap().run(|_| ()).unwrap();
    assert_eq!((totals.refused, totals.established), (600, 0));
    assert_eq!(totals.last_errno, Some(libc::ECONNREFUSED));
}

#[test]
fn a_lost_connection_comes_back_when_asked_to() {
    let (listener, mut client, stop) = client(1);
    client.config.reconnect = true;
    let server = thread::spawn(move || {
        drop(accept(&listener));
        let mut stream = accept(&listener);
        let mut first = None;
        read_until(&mut stream, &mut Decoder::new(), |decoded| {
            first.get_or_insert(decoded);
            true
        });
        stop.stop();
        (first, stream) // held open, so that the client ends the connection
    });
    let totals = client.run(|_| ()).unwrap();
    let (first, _stream) = server.join().unwrap();
    assert!(matches!(first, Some(Decoded::Hello { .. })), "a new connection begins anew");
    assert_eq!((totals.established, totals.lost()), (2, 1));
}

#[test]
fn a_flood_from_the_server_does_not_end_the_beats() {
    let (listener, client, stop) = client(2);
    let flooded = Arc::new(AtomicBool::new(false));
    let over = flooded.clone();
    let server = thread::spawn(move || {
        let (mut flood, mut quiet) = (accept(&listener), accept(&listener));
        let writer = thread::spawn(move || {
            let pongs = Frame::beat(1).encode().repeat(4_096);
            while !over.load(Ordering::Acquire) {
                if flood.write_all(&pongs).is_err() {
                    break;
                }
            }
        });
        let mut beats = 0;
        read_until(&mut quiet, &mut Decoder::new(), |_| {
            beats += 1;
            beats == 20
        });
        flooded.store(true, Ordering::Release);
        stop.stop();
        writer.join().unwrap();
        beats
    });
    client.run(|_| ()).unwrap();
    assert!(server.join().unwrap() >= 20);
}

#[test]
fn what_cannot_work_is_refused_with_its_cure() {
    let address: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let refused = |config: ClientConfig| Client::new(config).unwrap_err().to_string();
    for (config, cure) in [
        (ClientConfig::new("127.0.0.1:0".parse().unwrap()), "give the port"),
        (config(address, 0), "holds 1 to"),
        (config(address, MAX_COUNT + 1), "start several"),
        (ClientConfig { every: Duration::ZERO, ..config(address, 1) }, "choose from 1ms"),
        (ClientConfig { identity: Some("x".repeat(62)), ..config(address, 11) }, "shorter"),
        (ClientConfig { identity: Some("\n".to_owned()), ..config(address, 1) }, "plainer"),
    ] {
        let message = refused(config);
        assert!(message.contains(cure), "{message}");
    }
    let limit = raise_nofile().unwrap();
    if limit < MAX_COUNT as u64 {
        assert!(refused(config(address, MAX_COUNT)).contains("ulimit -Hn"));
    }
}

#[test]
fn a_socket_that_is_connected_to_itself_is_a_refused_connect() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.connect(&socket.local_addr().unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let stream = TcpStream::from_std(socket.into());
    assert_eq!(answer(&stream).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
