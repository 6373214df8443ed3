//! Clients that want no answer, but our memory, descriptors and time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::outcome::until;
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, engines, on_each};
use crate::upstream::{Upstream, answer};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

/// Everybody else is served meanwhile.
#[track_caller]
fn assert_serves(proxy: &Proxy) {
    assert_eq!(Peer::asking(proxy.address, GET).message().1, b"/x");
}

/// Reads to the end without waiting for it; whether it was met.
fn is_over(stream: &mut TcpStream, got: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 1_024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error} after {}", String::from_utf8_lossy(got)),
        }
    }
}

#[test]
fn heads_that_drip_are_answered_408_in_their_time_and_no_other_client_waits_for_them() {
    on_each(|io| {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "--head-timeout 1s");
        let mut slow: Vec<_> = (0..400)
            .map(|_| {
                let stream = TcpStream::connect(proxy.address).unwrap();
                stream.set_nonblocking(true).unwrap();
                Some((stream, Vec::new()))
            })
            .collect();
        let mut round = 0;
        until("all were sent away", || {
            let byte = *GET.as_bytes().get(round).unwrap_or(&b'x');
            for place in &mut slow {
                let Some((stream, got)) = place else { continue };
                if is_over(stream, got) {
                    let got = String::from_utf8_lossy(got);
                    assert!(got.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{io}: {got}");
                    assert!(got.ends_with("\r\n\r\nrequest too slow\n"), "{io}: {got}");
                    *place = None;
                } else if round < 20 {
                    let _ = stream.write(&[byte]); // it may have ended a moment ago
                }
            }
            assert_serves(&proxy);
            round += 1;
            thread::park_timeout(Duration::from_millis(50));
            slow.iter().all(Option::is_none)
        });
        // A client that has said nothing gets no answer.
        assert_eq!(Peer::connect(proxy.address).rest(), (Vec::new(), End::Fin), "{io}");
        let summary = proxy.finish();
        // None of the slow ones has reached the upstream.
        assert_told(&summary, &json!({ "interrupted": 0, "opened": 401 + round, "completed": round }));
        assert_eq!(upstream.count(), 1, "{io}");
    });
}

#[test]
fn a_body_that_stands_still_is_answered_408_and_an_idle_connection_may_stay() {
    on_each(|io| {
        let upstream = Upstream::start(|peer| {
            while peer.try_head().is_ok_and(|head| head.starts_with("GET /x")) {
                peer.send(answer("/x"));
            }
        });
        let options = "--head-timeout 500ms --body-timeout 500ms --request-buffer 100";
        let proxy = Proxy::start(io, upstream.address, options);
        let mut idle = Peer::asking(proxy.address, GET);
        assert_eq!(idle.message().1, b"/x");
        for length in [50, 5_000] {
            let request = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\nnot all");
            let mut client = Peer::asking(proxy.address, request);
            assert!(client.message().0.starts_with("HTTP/1.1 408 "), "{io}");
            assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}");
        }
        // The longer one had reached the upstream.
        assert_eq!((upstream.count(), upstream.connection(1).ended()), (2, End::Reset), "{io}");
        idle.send(GET);
        assert_eq!(idle.message().1, b"/x", "{io}");
        // Its next head has begun.
        idle.send("GET");
        assert!(idle.message().0.starts_with("HTTP/1.1 408 "), "{io}");
        let summary = proxy.finish();
        assert_told(&summary, &json!({ "interrupted": 0, "upstream_failed": 0, "completed": 2 }));
    });
}

#[test]
fn a_head_without_an_end_is_answered_431_and_costs_little() {
    for io in engines() {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "");
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(70_000));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(129));
        for request in [&endless, &many] {
            for _ in 0..200 {
                let mut client = Peer::connect(proxy.address);
                client.send(request);
                let (head, _) = client.message();
                assert!(head.starts_with("HTTP/1.1 431 "), "{io}: {head}");
                assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}");
            }
        }
        assert_serves(&proxy);
        let most = proxy.memory("VmHWM");
        assert!(most < 64 * 1_024, "{io}: {most} KiB");
        proxy.finish();
        assert_eq!(upstream.count(), 1, "{io}");
    }
}

#[test]
fn a_client_that_never_reads_costs_what_its_buffers_take_and_no_other_client_waits() {
    // Each takes some 10 MB of the kernel's, on all sides together: more would make the whole machine short of it.
    const CLIENTS: usize = 40;
    for io in engines() {
        let upstream = Upstream::forgetful(|peer| {
            while let Ok(head) = peer.try_head() {
                if head.starts_with("GET /x ") {
                    peer.send(answer("/x"));
                    continue;
                }
                peer.send("HTTP/1.1 200 OK\r\n\r\n");
                while peer.try_send(vec![0; 1 << 20]).is_ok() {}
            }
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let endless = |_| Peer::asking(proxy.address, "GET /endless HTTP/1.1\r\n\r\n");
        let clients: Vec<_> = (0..CLIENTS).map(endless).collect();
        for _ in 0..20 {
            assert_serves(&proxy);
            thread::park_timeout(Duration::from_millis(25));
        }
        let most = proxy.memory("VmHWM");
        assert!(most < 64 * 1_024, "{io}: {most} KiB");
        drop(clients);
        let summary = proxy.finish();
        assert_eq!(summary["upstream_failed"], 0, "{io}: {summary:#}");
    }
}

#[test]
fn a_client_that_sends_requests_without_end_and_reads_no_answer_costs_little() {
    on_each(|io| {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut floods = Vec::new();
            for _ in 0..20 {
                let client = Peer::connect(proxy.address);
                client.stream.set_nonblocking(true).unwrap();
                floods.push(client);
            }
            let stop = &stop;
            scope.spawn(move || {
                let requests = GET.repeat(1_000);
                while !stop.load(Ordering::Relaxed) {
                    for flood in &floods {
                        let _ = (&flood.stream).write(requests.as_bytes());
                    }
                    thread::park_timeout(Duration::from_millis(1));
                }
            });
            for _ in 0..20 {
                assert_serves(&proxy);
                thread::park_timeout(Duration::from_millis(25));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let most = proxy.memory("VmHWM");
        assert!(most < 64 * 1_024, "{io}: {most} KiB");
        proxy.finish();
    });
}

#[test]
fn twice_ten_thousand_connections_leave_neither_descriptors_nor_memory_behind() {
    const LANES: usize = 4;
    for io in engines() {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "--pool 8");
        let (address, before) = (proxy.address, proxy.descriptors());
        let rush = |count: usize| {
            thread::scope(|scope| {
                for lane in 0..LANES {
                    scope.spawn(move || {
                        for number in (lane..count).step_by(LANES) {
                            let mut client = Peer::connect(address);
                            match number % 8 {
                                0 => {
                                    client.send(GET);
                                    assert_eq!(client.message().1, b"/x");
                                }
                                1 => client.send(GET),
                                2 => client.send("GET /partial"),
                                3 => client.send("\x16\x03 not HTTP at all"),
                                4 => client.half_close(),
                                _ => {}
                            }
                            client.reset();
                        }
                    });
                }
            });
            until("all are over", || proxy.descriptors() <= before + 8);
        };
        rush(5_000);
        let half = proxy.memory("VmRSS");
        rush(5_000);
        let all = proxy.memory("VmRSS");
        assert!(all < half + 4 * 1_024, "{io}: {half} KiB, then {all} KiB");
        let summary = proxy.finish();
        assert_told(&summary, &json!({ "opened": 10_000, "open": 0, "upstream_failed": 0 }));
    }
}

#[test]
fn what_gathered_requests_hold_is_given_back() {
    // Far less than goes through one after the other.
    for io in engines() {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "--request-memory 65536");
        let long = format!("GET /x HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        for _ in 0..20 {
            let mut client = Peer::connect(proxy.address);
            for request in [&long, &long] {
                client.send(request);
                assert_eq!(client.message().1, b"/x", "{io}");
            }
            // And what is left of a request when its client leaves.
            client.send(&long[..10_000]);
            drop(client);
        }
        for _ in 0..20 {
            let mut client = Peer::connect(proxy.address);
            client.send(&long[..100]);
            thread::park_timeout(Duration::from_millis(1));
            client.send(&long[100..]);
            assert_eq!(client.message().1, b"/x", "{io}");
        }
        let summary = proxy.finish();
        assert_told(&summary, &json!({ "completed": 60, "upstream_failed": 0 }));
    }
}

#[test]
fn what_more_would_be_held_than_may_be_is_refused_or_streams() {
    for io in engines() {
        let upstream = Upstream::silent();
        let proxy = Proxy::start(io, upstream.address, "--request-memory 65536");
        let begun = format!("GET /x HTTP/1.1\r\nX: {}", "x".repeat(30_000));
        let mut kept: Vec<_> = (0..3).map(|_| Peer::asking(proxy.address, &begun)).collect();
        thread::park_timeout(Duration::from_millis(100)); // until they are held: nothing tells
        let mut client = Peer::asking(proxy.address, &begun);
        let (head, body) = client.message();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{io}: {head}");
        assert_eq!((body, client.rest()), (b"too busy\n".to_vec(), (Vec::new(), End::Fin)));
        // A body that would have been gathered goes on at once.
        let post = format!("POST / HTTP/1.1\r\nContent-Length: 50000\r\n\r\n{}", "b".repeat(1_000));
        let posting = Peer::asking(proxy.address, &post);
        upstream.connection(0).wait_for(post.len());
        kept.push(posting);
        proxy.finish();
    }
}

#[test]
fn a_full_proxy_says_so_and_takes_the_next_client_when_one_leaves() {
    for io in engines() {
        let upstream = Upstream::answering();
        let mut proxy = Proxy::start(io, upstream.address, "--max-connections 5");
        let mut inside: Vec<_> = (0..5).map(|_| Peer::asking(proxy.address, GET)).collect();
        inside.iter_mut().for_each(|client| assert_eq!(client.message().1, b"/x"));
        let mut outside = Peer::asking(proxy.address, GET);
        let told = proxy.daemon.wait_for("saturated");
        assert_told(&told, &json!({ "limit": "max_connections" }));
        assert!(upstream.count() <= 5, "{io}");
        inside.pop();
        assert_eq!(outside.message().1, b"/x", "{io}");
        drop(inside);
        proxy.daemon.wait_for("resumed");
        proxy.finish_undisturbed(6);
    }
}

#[test]
fn whatever_stands_still_costs_no_time() {
    on_each(|io| {
        let upstream = Upstream::forgetful(|peer| {
            let head = peer.head();
            match head.split(' ').nth(1).unwrap() {
                "/endless" => {
                    peer.send("HTTP/1.1 200 OK\r\n\r\n");
                    while peer.try_send(vec![0; 1 << 20]).is_ok() {}
                }
                "/deaf" => thread::park(), // it reads nothing, for ever
                "/switch" => {
                    peer.send("HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\n\r\n");
                    peer.half_close();
                }
                _ => {}
            }
        });
        let proxy = Proxy::start(io, upstream.address, "--half-close forward --max-connections 7");
        let ask = |target: &str| Peer::asking(proxy.address, format!("GET {target} HTTP/1.1\r\n\r\n"));
        let endless = ask("/endless"); // and is not read
        let ended = ask("/wait");
        ended.half_close();
        let mut ahead = ask("/wait"); // more than is taken off, and a FIN behind it
        ahead.send(GET.repeat(2_000));
        ahead.half_close();
        let deaf = Peer::asking(proxy.address, "POST /deaf HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n");
        deaf.stream.set_nonblocking(true).unwrap();
        until("nothing more is taken", || {
            let full = (&deaf.stream).write(&[0; 1 << 20]).is_err();
            if full {
                thread::park_timeout(Duration::from_millis(50));
            }
            full && (&deaf.stream).write(&[0; 1 << 20]).is_err()
        });
        let mut switched = ask("/switch");
        assert!(switched.rest().0.starts_with(b"HTTP/1.1 101 "), "{io}");
        let idle = Peer::connect(proxy.address);
        let begun = Peer::asking(proxy.address, "GET /");
        let outside = ask("/wait"); // and the house is full
        thread::park_timeout(Duration::from_millis(300));
        proxy.assert_rests();
        drop((endless, ended, ahead, deaf, switched, idle, begun, outside));
        proxy.finish();
    });
}

#[test]
fn thousands_that_leave_in_one_instant_are_each_reported_once() {
    const CLIENTS: usize = 3_000;
    deadpeer::sys::rlimit::raise_nofile().unwrap();
    for io in engines() {
        // Only its accepts are served: thousands of threads would be.
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        listener.listen(4_096).unwrap();
        let listener = std::net::TcpListener::from(listener);
        let address = listener.local_addr().unwrap();
        let accepting = thread::spawn(move || {
            let mut streams: Vec<_> = listener.incoming().take(CLIENTS).map(Result::unwrap).collect();
            streams.iter_mut().for_each(|stream| stream.read_exact(&mut [0; GET.len()]).unwrap());
            streams
        });
        let mut proxy = Proxy::start(io, address, "--threads 2");
        let clients: Vec<_> = (0..CLIENTS).map(|_| Peer::asking(proxy.address, GET)).collect();
        let mut streams = accepting.join().unwrap();
        let mut left: Vec<_> = clients.iter().map(|client| client.address.to_string()).collect();
        for (number, client) in clients.into_iter().enumerate() {
            if number % 2 == 0 { client.reset() } else { drop(client) }
        }
        for stream in &mut streams {
            let end = stream.read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(end, Err(ErrorKind::ConnectionReset), "{io}");
        }
        proxy.daemon.wait_for_many("interrupted", CLIENTS);
        let interrupted = proxy.daemon.seen.iter().filter(|event| event["event"] == "interrupted");
        let mut told: Vec<_> =
            interrupted.map(|event| event["client"].as_str().unwrap().to_owned()).collect();
        told.sort_unstable();
        left.sort_unstable();
        assert_eq!(told, left, "{io}");
        let expected = json!({ "interrupted": CLIENTS, "saved": CLIENTS, "open": 0, "upstream_failed": 0 });
        assert_told(&proxy.finish(), &expected);
    }
}
