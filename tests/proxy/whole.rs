//! What one side has sent reaches the other side before the end does.

use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::outcome::until;
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, engines, on_each};
use crate::upstream::{Gate, Upstream, answer};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn everything_before_a_fin_reaches_a_slow_server_of_a_tunnel() {
    const BYTES: usize = 8 * 1024 * 1024;
    on_each(|io| {
        for (rule, end) in
            [("", End::Fin), ("--half-close gone", End::Reset), ("--half-close wait:100ms", End::Reset)]
        {
            let gate = Gate::default();
            let seen = gate.clone();
            let upstream = Upstream::start(move |peer| {
                seen.pass();
                // Slowly: longer than any wait for it.
                for _ in 0..20 {
                    peer.take(BYTES / 64);
                    thread::park_timeout(Duration::from_millis(20));
                }
            });
            let proxy = Proxy::start(io, upstream.address, &format!("--mode tcp {rule}"));
            let mut client = Peer::connect(proxy.address);
            let mut writer = Peer::of(client.stream.try_clone().unwrap(), None);
            let sending = thread::spawn(move || {
                writer.send(vec![7; BYTES]);
                writer.half_close();
            });
            thread::park_timeout(Duration::from_millis(300));
            gate.open();
            sending.join().unwrap();
            let log = upstream.connection(0);
            assert_eq!(log.ended(), end, "{io} {rule}");
            assert_eq!(log.bytes().len(), BYTES, "{io} {rule}");
            if end == End::Fin {
                assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}");
            }
            let summary = proxy.finish();
            assert_told(
                &summary,
                &json!({ "interrupted": u8::from(end == End::Reset), "upstream_failed": 0 }),
            );
        }
    });
}

#[test]
fn a_line_and_a_close_is_a_line_and_a_fin() {
    for io in engines() {
        let upstream = Upstream::start(|_| {});
        let proxy = Proxy::start(io, upstream.address, "--mode tcp");
        for number in 0..20 {
            drop(Peer::asking(proxy.address, "<13>a line of a log\n"));
            let log = upstream.connection(number);
            assert_eq!(log.ended(), End::Fin, "{io}");
            assert_eq!(log.bytes(), b"<13>a line of a log\n", "{io}");
        }
        until("all are over", || proxy.descriptors() < 30);
        assert_told(&proxy.finish(), &json!({ "interrupted": 0, "upstream_failed": 0, "open": 0 }));
    }
}

#[test]
fn a_slow_client_gets_all_that_came_before_its_upstream_died() {
    const ALL: usize = 3_000_000;
    const SENT: usize = 2_000_000;
    let length = format!("HTTP/1.1 200 OK\r\nContent-Length: {ALL}\r\n\r\n");
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{ALL:x}\r\n");
    let until_close = "HTTP/1.1 200 OK\r\n\r\n".to_owned();
    // A RST takes what its own kernel has not sent yet, so it waits until the client has most of it.
    let ways = [
        (&length, false, End::Fin),
        (&chunked, false, End::Fin),
        (&length, true, End::Fin),
        (&chunked, true, End::Fin),
        (&until_close, true, End::Reset),
    ];
    on_each(|io| {
        for (head, with_reset, end) in ways {
            let gate = Gate::default();
            let (seen, begun) = (gate.clone(), head.clone());
            let upstream = Upstream::ending(move |peer| {
                peer.head();
                peer.send(&begun);
                peer.send(vec![b'x'; SENT]);
                if with_reset {
                    seen.pass();
                    peer.abort_on_close();
                }
                ControlFlow::Break(())
            });
            let proxy = Proxy::start(io, upstream.address, "");
            let mut client = Peer::asking(proxy.address, GET);
            assert_eq!(client.take(head.len()), head.as_bytes());
            for got in (0..SENT).step_by(50_000) {
                if got + 100_000 >= SENT {
                    gate.open();
                }
                thread::park_timeout(Duration::from_millis(2));
                client.take(50_000);
            }
            assert_eq!(client.rest(), (Vec::new(), end), "{io} {head}");
            assert_told(&proxy.finish(), &json!({ "upstream_failed": 1, "interrupted": 0 }));
        }
    });
}

#[test]
fn a_response_that_is_cut_by_a_timeout_never_looks_whole() {
    const BODY: usize = 50_000_000;
    on_each(|io| {
        let upstream = Upstream::forgetful(|peer| {
            peer.head();
            // Without a length: only the end of the connection says that it is whole.
            let _ = peer.try_send("HTTP/1.1 200 OK\r\n\r\n");
            let _ = peer.try_send(vec![b'x'; BODY]);
        });
        let mut proxy = Proxy::start(io, upstream.address, "--send-timeout 300ms --policy strict");
        let mut client = Peer::asking(proxy.address, GET);
        let told = proxy.interruption(client.address);
        assert_told(&told, &json!({ "cause": "local", "detail": "send_timeout", "phase": "sending" }));
        let (got, end) = client.rest();
        assert!(got.len() < BODY, "{io}");
        assert_eq!(end, End::Reset, "{io}: a part is missing");
        proxy.finish();
    });
}

#[test]
fn a_request_that_is_gathered_while_its_upstream_leaves_goes_to_another_connection() {
    for io in engines() {
        // It keeps an idle connection for a moment only, as servers do.
        let upstream = Upstream::ending(|peer| {
            let head = peer.head();
            if head.starts_with("POST") {
                assert_eq!(peer.take(10), b"0123456789");
            }
            peer.send(answer("taken"));
            ControlFlow::Break(())
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let idle = proxy.descriptors();
        let mut client = Peer::asking(proxy.address, GET);
        assert_eq!(client.message().1, b"taken");
        client.send("POST /slow HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123");
        until("only the client is left", || proxy.descriptors() == idle + 1);
        client.send("456789");
        assert_eq!(client.message().1, b"taken", "{io}");
        proxy.finish_undisturbed(2);
    }
}

#[test]
fn the_lines_of_a_log_in_chunks_reach_their_server_as_they_are_sent() {
    for io in engines() {
        let upstream = Upstream::start(|peer| {
            peer.head();
            assert_eq!(peer.take(9), b"4\r\none\n\r\n");
            peer.send("HTTP/1.1 100 Continue\r\n\r\n"); // it has come
            peer.try_chunks().unwrap();
            peer.send(answer("all"));
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let mut client = Peer::asking(
            proxy.address,
            "POST /log HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n",
        );
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n", "{io}");
        client.send("4\r\ntwo\n\r\n0\r\n\r\n");
        assert_eq!(client.message().1, b"all", "{io}");
        proxy.finish_undisturbed(1);
    }
}

#[test]
fn a_body_that_stops_does_not_end_a_response_that_streams() {
    on_each(|io| {
        let gate = Gate::default();
        let seen = gate.clone();
        let upstream = Upstream::start(move |peer| {
            peer.head();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234");
            seen.pass();
            peer.send("56789");
        });
        let proxy = Proxy::start(io, upstream.address, "--body-timeout 200ms --request-buffer 0");
        let mut client = Peer::asking(proxy.address, "POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nsome");
        client.head();
        assert_eq!(client.take(5), b"01234");
        thread::park_timeout(Duration::from_secs(1));
        gate.open();
        assert_eq!(client.take(5), b"56789", "{io}");
        drop(client);
        proxy.finish();
    });
}

#[test]
fn an_idle_client_has_its_time_and_a_busy_one_has_more() {
    on_each(|io| {
        let upstream = Upstream::start(|peer| {
            while let Ok(head) = peer.try_head() {
                if head.starts_with("GET /slow") {
                    thread::park_timeout(Duration::from_millis(700));
                }
                peer.send(answer("ok"));
            }
        });
        let proxy = Proxy::start(io, upstream.address, "--keepalive-timeout 300ms");
        let mut client = Peer::asking(proxy.address, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.message().1, b"ok", "{io}");
        assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}");
        proxy.finish_undisturbed(1);
    });
}
