//! Upstreams that fail, and what their clients get.

use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::outcome::{nobody, until};
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, engines, on_each};
use crate::upstream::{Gate, Upstream, answer};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

/// A listener that answers no SYN any more: its backlog is full.
struct BlackHole {
    address: SocketAddr,
    _listener: socket2::Socket,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    fn new() -> BlackHole {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            waiting.push(stream);
        }
        BlackHole { address, _listener: listener, _waiting: waiting }
    }
}

/// What a client gets if its upstream does not answer: the proxy's own answer, and a clean end.
#[track_caller]
fn assert_answered(client: &mut Peer, line: &str) {
    let (head, _) = client.message();
    assert!(head.starts_with(&format!("HTTP/1.1 {line}\r\n")), "{head}");
    assert!(head.contains("Connection: close\r\n"), "{head}");
    assert_eq!(client.rest(), (Vec::new(), End::Fin));
}

#[test]
fn an_upstream_that_cannot_be_connected_to_is_answered_for() {
    on_each(|io| {
        let mut proxy = Proxy::start(io, nobody(), "");
        for _ in 0..3 {
            let mut client = Peer::asking(proxy.address, GET);
            assert_answered(&mut client, "502 Bad Gateway");
            assert_told(
                &proxy.told("upstream_failed", client.address),
                &json!({
                    "failure": "refused", "phase": "waiting", "method": "GET", "target": "/x", "status": null,
                    "response_bytes": 0, "answered": 502,
                }),
            );
        }
        assert_told(&proxy.finish(), &json!({ "upstream_failed": 3, "interrupted": 0, "completed": 0 }));

        let hole = BlackHole::new();
        let mut proxy = Proxy::start(io, hole.address, "--connect-timeout 300ms");
        let mut client = Peer::asking(proxy.address, GET);
        assert_answered(&mut client, "504 Gateway Timeout");
        let told = proxy.told("upstream_failed", client.address);
        assert_told(&told, &json!({ "failure": "timed_out", "answered": 504 }));
        proxy.finish();
    });
}

#[test]
fn a_client_that_leaves_while_its_upstream_is_being_connected_to_is_reported() {
    on_each(|io| {
        let hole = BlackHole::new();
        let mut proxy = Proxy::start(io, hole.address, "--connect-timeout 60s");
        for with_reset in [true, false] {
            let client = Peer::asking(proxy.address, GET);
            let address = client.address;
            thread::park_timeout(Duration::from_millis(100)); // a RST takes unread bytes with it
            if with_reset {
                client.reset()
            } else {
                drop(client)
            }
            let told = proxy.interruption(address);
            assert_told(&told, &json!({ "phase": "waiting", "cause": "aborted", "method": "GET" }));
        }
        assert_told(&proxy.finish(), &json!({ "interrupted": 2, "open": 0, "upstream_failed": 0 }));
    });
}

#[test]
fn an_upstream_that_ends_without_a_word_is_answered_for() {
    for io in engines() {
        for with_reset in [false, true] {
            let upstream = Upstream::ending(move |peer| {
                peer.head();
                if with_reset {
                    peer.abort_on_close();
                }
                ControlFlow::Break(())
            });
            let mut proxy = Proxy::start(io, upstream.address, "");
            let mut client = Peer::asking(proxy.address, GET);
            assert_answered(&mut client, "502 Bad Gateway");
            let failure = if with_reset { "reset" } else { "closed" };
            let told = proxy.told("upstream_failed", client.address);
            assert_told(&told, &json!({ "failure": failure, "phase": "waiting", "answered": 502 }));
            proxy.finish();
        }
    }
}

#[test]
fn a_response_that_breaks_off_ends_where_it_breaks_off() {
    // Each shows by itself that a part is missing.
    let begun = [
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nnot all",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ];
    for io in engines() {
        for (response, with_reset) in begun.iter().flat_map(|one| [(one, false), (one, true)]) {
            let gate = Gate::default();
            let (seen, response) = (gate.clone(), *response);
            let upstream = Upstream::ending(move |peer| {
                peer.head();
                peer.send(response);
                seen.pass();
                if with_reset {
                    peer.abort_on_close();
                }
                ControlFlow::Break(())
            });
            let mut proxy = Proxy::start(io, upstream.address, "");
            let mut client = Peer::asking(proxy.address, GET);
            assert_eq!(client.take(response.len()), response.as_bytes(), "{io}");
            gate.open();
            assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}");
            assert_told(
                &proxy.told("upstream_failed", client.address),
                &json!({
                    "failure": "truncated", "phase": "sending", "status": 200, "answered": null,
                    "response_bytes": response.len(),
                }),
            );
            proxy.finish();
        }
    }
}

#[test]
fn a_response_that_ends_with_its_connection_ends_as_that_does() {
    let response = "HTTP/1.1 200 OK\r\n\r\nas much as there is";
    for io in engines() {
        for (with_reset, expected) in [(false, End::Fin), (true, End::Reset)] {
            let gate = Gate::default();
            let seen = gate.clone();
            let upstream = Upstream::ending(move |peer| {
                peer.head();
                peer.send(response);
                seen.pass();
                if with_reset {
                    peer.abort_on_close();
                }
                ControlFlow::Break(())
            });
            let proxy = Proxy::start(io, upstream.address, "");
            let mut client = Peer::asking(proxy.address, GET);
            assert_eq!(client.take(response.len()), response.as_bytes(), "{io}");
            gate.open();
            assert_eq!(client.rest(), (Vec::new(), expected), "{io}");
            let summary = proxy.finish();
            let (completed, failed) = if with_reset { (0, 1) } else { (1, 0) };
            assert_told(&summary, &json!({ "completed": completed, "upstream_failed": failed }));
        }
    }
}

#[test]
fn a_slow_upstream_is_waited_for_as_long_as_was_said() {
    for io in engines() {
        let upstream = Upstream::silent();
        let mut proxy = Proxy::start(io, upstream.address, "--response-timeout 300ms");
        let mut client = Peer::asking(proxy.address, GET);
        assert_answered(&mut client, "504 Gateway Timeout");
        let told = proxy.told("upstream_failed", client.address);
        assert_told(&told, &json!({ "failure": "timed_out", "phase": "waiting", "answered": 504 }));
        assert_eq!(upstream.connection(0).ended(), End::Reset, "{io}");
        proxy.finish();
    }
}

#[test]
fn an_early_answer_reaches_its_client_though_the_upstream_takes_no_more() {
    const BODY: usize = 20_000_000;
    let refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 6\r\nConnection: close\r\n\r\nenough";
    for io in engines() {
        for _ in 0..5 {
            let upstream = Upstream::ending(move |peer| {
                peer.head();
                peer.take(100_000);
                peer.send(refusal);
                ControlFlow::Break(()) // with unread bytes: a RST follows
            });
            let proxy = Proxy::start(io, upstream.address, "");
            let head = format!("POST / HTTP/1.1\r\nContent-Length: {BODY}\r\n\r\n");
            let mut client = Peer::asking(proxy.address, head);
            let mut writer = Peer::of(client.stream.try_clone().unwrap(), None);
            let sending = thread::spawn(move || writer.try_send(vec![1; BODY]));
            let got = client.try_take(refusal.len()).map(|got| String::from_utf8(got).unwrap());
            assert_eq!(got.as_deref(), Ok(refusal), "{io}");
            drop(client);
            let _ = sending.join().unwrap();
            proxy.finish();
        }
    }
}

#[test]
fn with_one_of_two_upstreams_dead_no_client_is_refused() {
    on_each(|io| {
        let (upstream, hole) = (Upstream::answering(), BlackHole::new());
        for (dead, options) in [(nobody(), ""), (hole.address, "--connect-timeout 200ms")] {
            let proxy = Proxy::at(io, "127.0.0.1", &[dead, upstream.address], options);
            for _ in 0..100 {
                assert_eq!(Peer::asking(proxy.address, GET).message().1, b"/x", "{io}");
            }
            proxy.finish_undisturbed(100);
        }
        // Both are dead: each was tried.
        let mut proxy = Proxy::at(io, "127.0.0.1", &[nobody(), nobody()], "");
        let mut client = Peer::asking(proxy.address, GET);
        assert_answered(&mut client, "502 Bad Gateway");
        proxy.told("upstream_failed", client.address);
        assert_told(&proxy.finish(), &json!({ "upstream_failed": 1 }));
    });
}

#[test]
fn an_upstream_that_comes_back_is_taken_again() {
    for io in engines() {
        let address = nobody();
        let proxy = Proxy::start(io, address, "");
        assert_answered(&mut Peer::asking(proxy.address, GET), "502 Bad Gateway");
        let listener = std::net::TcpListener::bind(address).unwrap();
        let serving = thread::spawn(move || {
            let mut peer = Peer::of(listener.accept().unwrap().0, None);
            peer.head();
            peer.send(answer("again"));
            peer.rest()
        });
        let mut client = Peer::asking(proxy.address, GET);
        assert_eq!(client.message().1, b"again", "{io}");
        drop(client);
        proxy.finish();
        assert_eq!(serving.join().unwrap(), (Vec::new(), End::Fin));
    }
}

#[test]
fn the_upstream_with_the_fewest_connections_is_taken() {
    for io in engines() {
        let (left, right) = (Upstream::silent(), Upstream::silent());
        let proxy = Proxy::at(io, "127.0.0.1", &[left.address, right.address], "");
        let ask = |numbers: std::ops::Range<usize>| {
            let asking = |n| Peer::asking(proxy.address, format!("GET /{n} HTTP/1.1\r\n\r\n"));
            let clients: Vec<_> = numbers.clone().map(asking).collect();
            until("all are connected", || left.count() + right.count() == numbers.end);
            clients
        };
        let mut clients: Vec<_> = ask(0..10).into_iter().map(Some).collect();
        assert_eq!((left.count(), right.count()), (5, 5), "{io}");
        // Those of one side leave: the next go there.
        for log in (0..5).map(|number| left.connection(number)) {
            log.wait_for("GET /1 HTTP/1.1\r\n\r\n".len());
            let asked = usize::from(log.bytes()[5] - b'0');
            clients[asked] = None;
            assert_eq!(log.ended(), End::Reset, "{io}");
        }
        let _more = ask(10..15);
        assert_eq!((left.count(), right.count()), (10, 5), "{io}");
        proxy.finish();
    }
}

#[test]
fn a_server_that_ends_an_idle_connection_is_asked_on_another_one() {
    for io in engines() {
        let upstream = Upstream::ending(|peer| {
            peer.head();
            peer.send(answer("once"));
            ControlFlow::Break(())
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let idle = proxy.descriptors();
        let mut client = Peer::asking(proxy.address, GET);
        assert_eq!(client.message().1, b"once");
        until("only the client is left", || proxy.descriptors() == idle + 1);
        client.send(GET);
        assert_eq!(client.message().1, b"once", "{io}");
        proxy.finish_undisturbed(2);
    }
}

#[test]
fn a_reused_connection_that_ends_under_a_request_ends_the_clients_without_an_answer() {
    for io in engines() {
        let upstream = Upstream::ending(|peer| {
            peer.head();
            peer.send(answer("once"));
            peer.head();
            ControlFlow::Break(())
        });
        let mut proxy = Proxy::start(io, upstream.address, "");
        let mut client = Peer::asking(proxy.address, GET);
        assert_eq!(client.message().1, b"once");
        client.send("POST /x HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}: it may try again");
        let told = proxy.told("upstream_failed", client.address);
        assert_told(&told, &json!({ "failure": "closed", "phase": "waiting", "answered": null }));
        proxy.finish();
    }
}

#[test]
fn the_upstream_is_told_its_clients_address_before_anything_else() {
    for io in engines() {
        for (version, mode) in [("v1", "http"), ("v2", "http"), ("v1", "tcp"), ("v2", "tcp")] {
            let upstream = Upstream::start(|_| {});
            let options = format!("--send-proxy {version} --mode {mode}");
            let proxy = Proxy::start(io, upstream.address, &options);
            let client = Peer::asking(proxy.address, GET);
            let (from, to) = (client.address.port(), proxy.address.port());
            let mut expected = match version {
                "v1" => format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n").into_bytes(),
                _ => {
                    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
                    header.extend(from.to_be_bytes());
                    header.extend(to.to_be_bytes());
                    header
                }
            };
            expected.extend_from_slice(GET.as_bytes());
            let log = upstream.connection(0);
            log.wait_for(expected.len());
            assert_eq!(log.bytes(), expected, "{io}, {options}");
            drop(client);
            proxy.finish();
        }
    }
}
