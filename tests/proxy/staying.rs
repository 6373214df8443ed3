//! Clients that only seem to leave, and clients that stay for long: none is reported as gone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::dice::Dice;
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, engines, on_each};
use crate::upstream::{Upstream, answer};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_client_that_half_closes_and_waits_gets_its_whole_response() {
    on_each(|io| {
        let upstream = Upstream::start(|peer| {
            peer.head();
            thread::park_timeout(Duration::from_millis(1_500));
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n");
            peer.send(vec![b'z'; 3_000_000]);
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let mut client = Peer::asking(proxy.address, GET);
        client.half_close();
        let mut asked = 0;
        let head = loop {
            let head = client.head();
            if head != "HTTP/1.1 100 Continue\r\n\r\n" {
                break head;
            }
            asked += 1;
        };
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!((1..=3).contains(&asked), "{io}: asked {asked} times");
        let (body, end) = client.rest();
        assert_eq!((body.len(), end), (3_000_000, End::Fin), "{io}");
        let summary = proxy.finish();
        assert_told(&summary, &json!({ "completed": 1, "interrupted": 0, "upstream_failed": 0 }));
        assert_eq!(summary["half_closed"], json!({ "asked": asked, "gone": 0, "here": asked }), "{io}");
    });
}

#[test]
fn a_client_that_half_closes_behind_pipelined_requests_gets_all_responses() {
    for io in engines() {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "");
        let requests: String = (0..2_000).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        let mut client = Peer::connect(proxy.address);
        let mut writer = client.stream.try_clone().unwrap();
        let writing = thread::spawn(move || {
            writer.write_all(requests.as_bytes()).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        for n in 0..2_000 {
            assert_eq!(client.message().1, format!("/{n}").as_bytes(), "{io}");
        }
        assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}");
        writing.join().unwrap();
        proxy.finish_undisturbed(2_000);
    }
}

#[test]
fn a_client_that_reads_slowly_gets_every_byte() {
    const BYTES: usize = 20_000_000;
    on_each(|io| {
        let upstream = Upstream::start(|peer| {
            peer.head();
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n"));
            peer.send(Dice::new(5).bytes(BYTES));
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let mut client = Peer::asking(proxy.address, GET);
        thread::park_timeout(Duration::from_millis(1_500));
        client.head();
        let mut body = Vec::with_capacity(BYTES);
        while body.len() < BYTES {
            let piece = client.take((BYTES - body.len()).min(200_000));
            body.extend_from_slice(&piece);
            thread::park_timeout(Duration::from_millis(5));
        }
        assert!(body == Dice::new(5).bytes(BYTES), "{io}: other bytes");
        proxy.finish_undisturbed(1);
    });
}

#[test]
fn a_client_that_reads_slowly_and_goes_on_sending_gets_every_byte_of_a_last_response() {
    const BYTES: usize = 4_000_000;
    on_each(|io| {
        let upstream = Upstream::start(|peer| {
            peer.head();
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            peer.send(Dice::new(6).bytes(BYTES));
            peer.half_close();
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let mut client = Peer::asking(proxy.address, GET);
        client.head();
        // Longer than the connection of a client that takes nothing lingers; each next request would be its RST.
        let mut body = Vec::with_capacity(BYTES);
        for _ in 0..20 {
            body.extend_from_slice(&client.take(BYTES / 40));
            thread::park_timeout(Duration::from_millis(200));
            client.send(GET);
        }
        let (rest, end) = client.rest();
        body.extend_from_slice(&rest);
        assert!(body == Dice::new(6).bytes(BYTES), "{io}: {} bytes, {end:?}", body.len());
        proxy.finish_undisturbed(1);
    });
}

#[test]
fn a_client_that_expects_a_100_gets_the_upstreams_before_it_sends_its_body() {
    let head = "POST / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    for io in engines() {
        let upstream = Upstream::start(move |peer| {
            for _ in 0..3 {
                assert_eq!(peer.head(), head);
                peer.send("HTTP/1.1 100 Continue\r\n\r\n");
                assert_eq!(peer.take(4), b"body");
                peer.send(answer("taken"));
                // The next is refused without its body being seen.
                assert_eq!(peer.head(), head);
                peer.send("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
                assert_eq!(peer.take(4), b"body");
            }
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let mut client = Peer::connect(proxy.address);
        for _ in 0..3 {
            client.send(head);
            assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n", "{io}");
            client.send("body");
            assert_eq!(client.message().1, b"taken", "{io}");
            client.send(head);
            assert!(client.message().0.starts_with("HTTP/1.1 417"), "{io}");
            client.send("body"); // a client may send it all the same
        }
        client.half_close();
        assert_eq!(client.rest(), (Vec::new(), End::Fin));
        proxy.finish_undisturbed(6);
    }
}

/// So many exchanges on one connection, one after the other.
fn exchanges(address: SocketAddr, count: usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut body) = (String::new(), Vec::new());
    for n in 0..count {
        let target = format!("/{n}");
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        for _ in 0..3 {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        assert_eq!(line, "\r\n");
        body.resize(target.len(), 0);
        reader.read_exact(&mut body).unwrap();
        assert_eq!(body, target.as_bytes());
    }
}

#[test]
fn ten_thousand_exchanges_on_one_connection_are_all_whole() {
    for io in engines() {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "");
        exchanges(proxy.address, 10_000);
        assert_eq!(upstream.count(), 1, "{io}: one connection is enough");
        proxy.finish_undisturbed(10_000);
    }
}

#[test]
fn ten_thousand_requests_sent_at_once_are_answered_in_order_byte_for_byte() {
    const COUNT: usize = 10_000;
    for io in engines() {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "");
        let target = |n: usize| format!("/{n}/{}", "q".repeat(n % 97));
        let requests: String = (0..COUNT).map(|n| format!("GET {} HTTP/1.1\r\n\r\n", target(n))).collect();
        let expected: String = (0..COUNT).map(|n| answer(&target(n))).collect();
        let mut client = Peer::connect(proxy.address);
        let mut writer = client.stream.try_clone().unwrap();
        let writing = thread::spawn(move || writer.write_all(requests.as_bytes()).unwrap());
        assert!(client.take(expected.len()) == expected.as_bytes(), "{io}: other bytes");
        writing.join().unwrap();
        drop(client);
        proxy.finish_undisturbed(COUNT as u64);
    }
}

#[test]
fn thousands_of_connections_that_come_and_go_interrupt_nothing() {
    const EACH: usize = 400;
    for io in engines() {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "--threads 2");
        let address = proxy.address;
        thread::scope(|scope| {
            for seed in 0..8 {
                scope.spawn(move || {
                    let mut dice = Dice::new(seed);
                    for _ in 0..EACH {
                        let mut client = Peer::asking(address, GET);
                        assert_eq!(client.message().1, b"/");
                        match dice.below(4) {
                            0 => client.reset(),
                            1 => client.half_close(),
                            2 => {
                                client.send(GET);
                                assert_eq!(client.message().1, b"/");
                                client.half_close();
                                assert_eq!(client.rest(), (Vec::new(), End::Fin));
                                continue;
                            }
                            _ => drop(client),
                        }
                    }
                });
            }
        });
        let summary = proxy.finish();
        assert_eq!(summary["interrupted"], 0, "{io}: {summary:#}");
        assert_eq!(summary["opened"], 8 * EACH, "{io}: {summary:#}");
        assert_eq!(summary["upstream_failed"], 0, "{io}: {summary:#}");
    }
}
