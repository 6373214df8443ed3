//! What an operator is told of the proxy's own answers, of a drain, and of what it cuts off.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::outcome::{nobody, until};
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, on_each};
use crate::upstream::{Upstream, answer};

const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n";

/// An answer: the proxy's options, what the client sends, the event, and what it says.
fn answers() -> [(&'static str, String, &'static str, Value); 8] {
    let get = |method: &str| GET.replace("GET", method);
    let post = "POST /up HTTP/1.1\r\nContent-Length: 500\r\n\r\nhalf";
    [
        (
            "--head-timeout 300ms",
            "GET / HTT".to_owned(),
            "answered",
            json!({ "answered": 408, "reason": "head_timeout", "phase": "receiving", "method": null,
                    "target": null, "request_bytes": 9 }),
        ),
        (
            "--body-timeout 300ms",
            post.to_owned(),
            "answered",
            json!({ "answered": 408, "reason": "body_timeout", "phase": "receiving", "method": "POST",
                    "target": "/up", "request_bytes": post.len() }),
        ),
        (
            "",
            format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(129)),
            "answered",
            json!({ "answered": 431, "reason": "head_too_large", "method": null }),
        ),
        (
            "--request-memory 65536",
            format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(30_000)),
            "answered",
            json!({ "answered": 503, "reason": "request_memory", "method": null }),
        ),
        (
            "--strict",
            "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n".to_owned(),
            "answered",
            json!({ "answered": 400, "reason": "ambiguous_request", "method": null }),
        ),
        (
            "--strict",
            get("PUT"),
            "answered",
            json!({ "answered": 502, "reason": "ambiguous_response", "method": "PUT", "target": "/a?b=c" }),
        ),
        (
            "--response-timeout 300ms",
            get("HEAD"),
            "upstream_failed",
            json!({ "answered": 504, "failure": "timed_out", "method": "HEAD", "target": "/a?b=c" }),
        ),
        (
            "--retries 0",
            get("DELETE"),
            "upstream_failed",
            json!({ "answered": 502, "failure": "refused", "method": "DELETE" }),
        ),
    ]
}

#[test]
fn every_answer_of_ours_is_told_once_and_counted_by_its_status() {
    on_each(|io| {
        for (options, request, event, told) in answers() {
            let upstream = Upstream::start(|peer| {
                if peer.head().starts_with("PUT") {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc");
                }
            });
            let refused = told["failure"] == "refused";
            let address = if refused { nobody() } else { upstream.address };
            let mut proxy = Proxy::start(io, address, options);
            // Three of them fill the room for 64 KiB.
            let full = told["answered"] == 503;
            let held: Vec<_> =
                (0..3).filter(|_| full).map(|_| Peer::asking(proxy.address, &request)).collect();
            if full {
                thread::park_timeout(Duration::from_millis(100)); // until they are held: nothing tells
            }
            let mut client = Peer::asking(proxy.address, &request);
            let (got, end) = client.rest();
            let status = told["answered"].as_u64().unwrap();
            assert!(got.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{io}, {options}");
            assert_eq!(end, End::Fin, "{io}, {options}");
            let event = proxy.told(event, client.address);
            assert_told(&event, &told);
            drop(held);
            let summary = proxy.finish();
            assert_eq!(summary["answered"], json!({ status.to_string(): 1 }), "{io}: {summary:#}");
        }
    });
}

#[test]
fn a_drain_is_told_with_what_is_under_way_and_the_summary_says_what_was_cut() {
    on_each(|io| {
        let upstream = Upstream::start(|peer| {
            let head = peer.head();
            if head.starts_with("CONNECT") {
                peer.send("HTTP/1.1 200 Go\r\n\r\n");
            } else if head.starts_with("GET /idle") {
                peer.send(answer("idle"));
            }
        });
        let mut proxy = Proxy::start(io, upstream.address, "--drain 1h --pool 0");
        let mut idle = Peer::asking(proxy.address, GET.replace("/a", "/idle"));
        assert_eq!(idle.message().1, b"idle", "{io}");
        let mut tunnels: Vec<_> =
            (0..2).map(|_| Peer::asking(proxy.address, "CONNECT a:1 HTTP/1.1\r\n\r\n")).collect();
        for tunnel in &mut tunnels {
            assert!(tunnel.head().starts_with("HTTP/1.1 200"), "{io}");
        }
        let waiting = Peer::asking(proxy.address, GET);
        let receiving = Peer::asking(proxy.address, "POST / HTTP/1.1\r\nContent-Length: 900000\r\n\r\n");
        until("all are asked", || upstream.count() == 5);
        upstream.connection(3).wait_for(1);
        upstream.connection(4).wait_for(1);
        proxy.daemon.child.signal("-TERM");
        let draining = proxy.daemon.wait_for("draining");
        assert_told(&draining, &json!({ "exchanges": 2, "tunnels": 2, "idle": 1, "thread": 0 }));
        proxy.daemon.child.signal("-TERM");
        let summary = proxy.daemon.wait_for("summary");
        assert_told(
            &summary,
            &json!({ "cut": 4, "cut_by_phase": { "receiving": 1, "tunnel": 2, "waiting": 1 } }),
        );
        drop((waiting, receiving));
    });
}
