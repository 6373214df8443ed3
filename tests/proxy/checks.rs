//! Active checks: what is down gets no request, before a client has met it.

use std::net::{SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::outcome::{nobody, until};
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, on_each};
use crate::upstream::{Gate, Upstream, answer};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

/// What a server makes of checks.
const WELL: u8 = 0;
const ILL: u8 = 1;
const SILENT: u8 = 2;
const STRANGE: u8 = 3;

/// A server that answers checks as its health says, and everything else with `name`.
fn server(name: &'static str) -> (Upstream, Arc<AtomicU8>) {
    let health = Arc::new(AtomicU8::new(WELL));
    let shown = Arc::clone(&health);
    let upstream = Upstream::forgetful(move |peer| {
        while let Ok(head) = peer.try_head() {
            let Some(rest) = head.strip_prefix("HEAD /healthz?full HTTP/1.1\r\nHost: 127.0.0.1:") else {
                if peer.try_send(answer(name)).is_err() {
                    break;
                }
                continue;
            };
            assert!(rest.ends_with("\r\nUser-Agent: deadpeer\r\nConnection: close\r\n\r\n"), "{head}");
            let answer = match shown.load(Ordering::Relaxed) {
                WELL => "HTTP/1.1 204 No Content\r\n\r\n",
                ILL => "HTTP/1.1 503 Service Unavailable\r\n\r\n",
                STRANGE => "SSH-2.0-OpenSSH_9.6 is no HTTP\r\n",
                _ => return,
            };
            let _ = peer.try_send(answer);
            return;
        }
    });
    (upstream, health)
}

/// Who answers six clients.
fn answering(proxy: &Proxy) -> Vec<String> {
    let mut clients: Vec<_> = (0..6).map(|_| Peer::asking(proxy.address, GET)).collect();
    let mut names: Vec<_> =
        clients.iter_mut().map(|client| String::from_utf8(client.message().1).unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn of(event: &str, address: SocketAddr, failure: Option<&str>) -> impl Fn(&Value) -> bool {
    let (event, address, failure) = (event.to_owned(), address.to_string(), failure.map(str::to_owned));
    move |value| {
        value["event"] == event.as_str()
            && value["upstream"] == address.as_str()
            && value["failure"].as_str() == failure.as_deref()
            && value["reason"] == "check"
    }
}

#[test]
fn one_whose_checks_fail_gets_no_request_until_they_pass() {
    on_each(|io| {
        let ((one, health), (two, other)) = (server("one"), server("two"));
        let options = "--check HEAD:/healthz?full:1s";
        let mut proxy = Proxy::at(io, "127.0.0.1", &[one.address, two.address], options);
        assert_eq!(answering(&proxy), ["one", "two"], "{io}");
        for (state, failure) in [(ILL, "status"), (SILENT, "timed_out"), (STRANGE, "status")] {
            proxy.daemon.seen.clear();
            health.store(state, Ordering::Relaxed);
            proxy.daemon.wait(of("upstream_down", one.address, Some(failure)));
            assert_eq!(answering(&proxy), ["two"], "{io} {failure}");
            health.store(WELL, Ordering::Relaxed);
            proxy.daemon.wait(of("upstream_up", one.address, None));
            assert_eq!(answering(&proxy), ["one", "two"], "{io} {failure}");
        }
        // Where no other is left, one that is down is better than none.
        proxy.daemon.seen.clear();
        for (health, address) in [(&health, one.address), (&other, two.address)] {
            health.store(ILL, Ordering::Relaxed);
            proxy.daemon.wait(of("upstream_down", address, Some("status")));
        }
        assert_eq!(answering(&proxy), ["one", "two"], "{io}");
        let summary = proxy.finish_undisturbed(8 * 6);
        assert_told(&summary, &json!({ "upstream_down": 5 }));
    });
}

#[test]
fn a_connection_is_enough_for_a_check_that_asks_for_no_more() {
    on_each(|io| {
        let (away, silent) = (nobody(), Upstream::silent());
        let mut proxy = Proxy::at(io, "127.0.0.1", &[away, silent.address], "--check connect:200ms");
        proxy.daemon.wait(of("upstream_down", away, Some("refused")));
        let listener = TcpListener::bind(away).unwrap();
        thread::spawn(move || listener.incoming().for_each(drop));
        proxy.daemon.wait(of("upstream_up", away, None));
        let downs = proxy.daemon.seen.iter().filter(|value| value["event"] == "upstream_down").count();
        assert_eq!(downs, 1, "{io}: {:#?}", proxy.daemon.seen);
        assert_told(&proxy.finish(), &json!({ "completed": 0, "upstream_down": 1, "upstream_failed": 0 }));
    });
}

#[test]
fn a_check_reads_the_final_response_to_its_end() {
    on_each(|io| {
        let upstream = Upstream::ending(|peer| {
            let head = peer.head();
            // What a client that leaves would reset.
            peer.send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n");
            for _ in 0..30 {
                thread::sleep(Duration::from_millis(2));
                peer.send([b'x'; 1_000]);
            }
            assert!(head.starts_with("GET "), "{head}");
            ControlFlow::Continue(())
        });
        let interim = Upstream::forgetful(|peer| {
            let _ = peer.try_head();
            let _ = peer.try_send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n");
            let _ = peer.try_send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        });
        let upstreams = [upstream.address, interim.address];
        let mut proxy = Proxy::at(io, "127.0.0.1", &upstreams, "--check GET:/healthz:2s");
        proxy.daemon.wait(of("upstream_down", interim.address, Some("status")));
        for number in 0..2 {
            let connection = upstream.connection(number);
            assert_eq!(connection.ended(), End::Fin, "{io}");
        }
        let summary = proxy.finish();
        assert_told(&summary, &json!({ "upstream_down": 1 }));
    });
}

#[test]
fn a_check_holds_no_request_up_and_speaks_the_proxy_protocol_where_its_upstream_does() {
    on_each(|io| {
        let gate = Gate::default();
        let opened = gate.clone();
        let upstream = Upstream::start(move |peer| {
            let head = peer.head();
            if head.contains("/check") {
                assert!(head.starts_with("PROXY UNKNOWN\r\nGET /check HTTP/1.1\r\n"), "{head}");
                return gate.pass();
            }
            peer.send(answer("x"));
        });
        let proxy = Proxy::start(io, upstream.address, "--check GET:/check:20s --send-proxy v1");
        until("it checks", || upstream.count() > 0);
        assert_eq!(Peer::asking(proxy.address, GET).message().1, b"x", "{io}");
        opened.open();
        proxy.finish_undisturbed(1);
    });
}
