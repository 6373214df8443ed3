//! The end of the proxy: what is under way comes to its end, or is cut off and told.

use std::net::TcpListener;
use std::ops::ControlFlow;
use std::thread;

use serde_json::{Value, json};

use crate::outcome::{Outcome, until};
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, on_each};
use crate::upstream::{Gate, Upstream, answer};

const GET: &str = "GET /work HTTP/1.1\r\nHost: a\r\n\r\n";
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const ENDLESS: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";

impl Proxy {
    /// Tells it to end, and waits until another program can listen on its port.
    fn drain(&self, signal: &str) -> TcpListener {
        self.daemon.child.signal(signal);
        let mut next = None;
        until("the port is free", || {
            next = TcpListener::bind(self.address).ok();
            next.is_some()
        });
        next.unwrap()
    }

    /// Its summary, once it has ended in order.
    #[track_caller]
    fn drained(mut self) -> Value {
        let summary = self.daemon.wait_for("summary");
        assert_eq!(summary["undelivered"], 0, "{summary:#}");
        Outcome::after(self.daemon.child).assert_quiet_success();
        summary
    }
}

/// An upstream whose answer waits at a gate behind this beginning of it.
fn gated(begin: &'static str, rest: &'static str) -> (Upstream, Gate) {
    let gate = Gate::default();
    let opened = gate.clone();
    let upstream = Upstream::start(move |peer| {
        while peer.try_head().is_ok() {
            peer.send(begin);
            opened.pass();
            peer.send(rest);
        }
    });
    (upstream, gate)
}

#[test]
fn exchanges_come_to_their_end_while_the_port_is_free_for_the_next_process() {
    on_each(|io| {
        for signal in ["-TERM", "-INT"] {
            let (upstream, gate) = gated("", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
            let (streaming, streams) = gated(CHUNKED, "3\r\nabc\r\n0\r\n\r\n");
            let proxy = Proxy::at(io, "127.0.0.1", &[upstream.address, streaming.address], "--drain 1h");
            // The one with fewer connections is taken: one client each.
            let mut first = Peer::asking(proxy.address, GET);
            until("one is asked", || upstream.count() + streaming.count() == 1);
            let mut second = Peer::asking(proxy.address, GET);
            until("each is asked", || upstream.count() == 1 && streaming.count() == 1);
            upstream.connection(0).wait_for(GET.len());
            streaming.connection(0).wait_for(GET.len());
            let next = proxy.drain(signal);
            let newcomer = Peer::connect(proxy.address);
            assert_eq!(next.accept().unwrap().1, newcomer.address, "{io}");
            gate.open();
            streams.open();
            for client in [&mut first, &mut second] {
                let head = client.head();
                if head == CHUNKED {
                    assert_eq!(client.try_chunks().unwrap(), b"abc", "{io}");
                } else {
                    assert_eq!(client.take(4), b"done", "{io}");
                }
                assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}: it is the last on its connection");
            }
            drop((first, second));
            let summary = proxy.drained();
            assert_told(&summary, &json!({ "completed": 2, "interrupted": 0, "cut": 0, "open": 0 }));
        }
    });
}

#[test]
fn idle_clients_are_closed_and_an_idle_proxy_ends() {
    on_each(|io| {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "--drain 1h");
        let mut silent = Peer::connect(proxy.address);
        let mut answered = Peer::asking(proxy.address, GET);
        assert_eq!(answered.message().1, b"/work", "{io}");
        drop(proxy.drain("-TERM"));
        for client in [&mut silent, &mut answered] {
            assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}");
        }
        drop((silent, answered));
        let summary = proxy.drained();
        assert_told(&summary, &json!({ "completed": 1, "interrupted": 0, "cut": 0, "open": 0 }));
    });
}

#[test]
fn a_request_that_is_on_its_way_when_the_drain_begins_is_answered() {
    on_each(|io| {
        // One connection may serve both.
        let upstream = Upstream::start(|peer| {
            while peer.try_head().is_ok() {
                let body = peer.take(4);
                peer.send(answer(std::str::from_utf8(&body).unwrap()));
            }
        });
        let proxy = Proxy::start(io, upstream.address, "--drain 1h");
        let mut client = Peer::asking(proxy.address, "POST / HTTP/1.1\r\nContent-Le");
        // Behind it on the same thread: the proxy has read what came before.
        let mut other = Peer::asking(proxy.address, "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nothe");
        assert_eq!(other.message().1, b"othe", "{io}");
        drop(other);
        drop(proxy.drain("-TERM"));
        client.send("ngth: 4\r\n\r\nbo");
        client.send("dyGET /another");
        assert_eq!(client.message().1, b"body", "{io}");
        assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}: what it sent ahead is not answered");
        drop(client);
        assert_told(&proxy.drained(), &json!({ "completed": 2, "interrupted": 0, "cut": 0 }));
    });
}

#[test]
fn connections_that_the_kernel_has_accepted_before_the_drain_are_served() {
    on_each(|io| {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "--drain 1h");
        // While it is stopped, the kernel accepts for it.
        proxy.daemon.child.signal("-STOP");
        let mut clients: Vec<_> = (0..200).map(|_| Peer::asking(proxy.address, GET)).collect();
        proxy.daemon.child.signal("-TERM");
        proxy.daemon.child.signal("-CONT");
        for client in &mut clients {
            assert_eq!(client.message().1, b"/work", "{io}");
            assert_eq!(client.rest().1, End::Fin, "{io}");
        }
        drop(clients);
        assert_told(&proxy.drained(), &json!({ "completed": 200, "interrupted": 0, "cut": 0 }));
    });
}

/// A way to be cut off: what the client sends, what the upstream answers, what the event says, and how both sides end.
type Cut = (&'static str, &'static str, Value, End, End);

fn cuts() -> [Cut; 5] {
    let waiting = json!({ "phase": "waiting", "status": null, "response_bytes": 0, "done": "reset" });
    let sending = |head: &str| json!({ "phase": "sending", "status": 200, "response_bytes": head.len() + 3, "done": "reset" });
    let receiving = json!({ "phase": "receiving", "method": "POST", "done": "reset" });
    let long = "POST /work HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nab";
    [
        (GET, "", waiting, End::Fin, End::Reset),
        (GET, HEAD, sending(HEAD), End::Fin, End::Reset),
        (GET, CHUNKED, sending(CHUNKED), End::Fin, End::Reset),
        // Nothing else shows that it is not whole.
        (GET, ENDLESS, sending(ENDLESS), End::Reset, End::Reset),
        (long, "", receiving, End::Fin, End::Reset),
    ]
}

#[test]
fn what_is_not_over_in_time_is_cut_off_and_told() {
    // At once, when the time is over, and by a second signal.
    for (drain, again) in [("0s", false), ("200ms", false), ("1h", true)] {
        on_each(|io| {
            for (request, begin, told, client_end, upstream_end) in cuts() {
                let upstream = Upstream::start(move |peer| {
                    peer.head();
                    if !begin.is_empty() {
                        peer.send(begin);
                        peer.send(if begin == CHUNKED { "5\r\n" } else { "abc" });
                    }
                });
                let mut proxy = Proxy::start(io, upstream.address, &format!("--drain {drain}"));
                let mut client = Peer::asking(proxy.address, request);
                let log = upstream.connection(0);
                log.wait_for(request.len());
                if !begin.is_empty() {
                    client.take(begin.len() + 3);
                }
                proxy.daemon.child.signal("-TERM");
                if again {
                    until("the port is free", || TcpListener::bind(proxy.address).is_ok());
                    proxy.daemon.child.signal("-INT");
                }
                let event = proxy.interruption(client.address);
                assert_told(&event, &told);
                assert_told(&event, &json!({ "cause": "local", "detail": "shutdown" }));
                assert_eq!(client.rest(), (Vec::new(), client_end), "{io}, {drain}: {event:#}");
                assert_eq!(log.ended(), upstream_end, "{io}, {drain}: {event:#}");
                let summary = proxy.drained();
                let phase = told["phase"].as_str().unwrap();
                assert_told(
                    &summary,
                    &json!({ "interrupted": 1, "cut": 1, "open": 1, "by_phase": { (phase): { "local": 1 } } }),
                );
            }
        });
    }
}

#[test]
fn tunnels_go_on_to_the_end_of_the_drain_and_end_in_order_where_both_sides_were_open() {
    on_each(|io| {
        let upstream = Upstream::start(|peer| {
            peer.take(5);
            peer.send("world");
            peer.take(5);
            peer.send("still");
        });
        let mut proxy = Proxy::start(io, upstream.address, "--mode tcp --drain 1h");
        let mut client = Peer::asking(proxy.address, "hello");
        assert_eq!(client.take(5), b"world", "{io}");
        drop(proxy.drain("-TERM"));
        client.send("there");
        assert_eq!(client.take(5), b"still", "{io}: a drain leaves a tunnel alone");
        proxy.daemon.child.signal("-TERM");
        let event = proxy.interruption(client.address);
        assert_told(
            &event,
            &json!({ "phase": "tunnel", "cause": "local", "detail": "shutdown", "done": "close",
                     "request_bytes": 10, "response_bytes": 10 }),
        );
        assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}");
        assert_eq!(upstream.connection(0).ended(), End::Fin, "{io}");
        assert_told(&proxy.drained(), &json!({ "interrupted": 1, "cut": 1 }));

        // A client that has sent its FIN waits for the rest.
        let upstream = Upstream::start(|peer| {
            peer.rest();
            peer.send("a part");
            thread::park();
        });
        let mut proxy = Proxy::start(io, upstream.address, "--mode tcp --drain 0s");
        let mut client = Peer::asking(proxy.address, "all?");
        client.half_close();
        assert_eq!(client.take(6), b"a part", "{io}");
        proxy.daemon.child.signal("-TERM");
        assert_told(&proxy.interruption(client.address), &json!({ "phase": "tunnel", "done": "reset" }));
        assert_eq!(client.rest(), (Vec::new(), End::Reset), "{io}");
        assert_told(&proxy.drained(), &json!({ "interrupted": 1, "cut": 1 }));
    });
}

#[test]
fn a_truncated_response_that_waits_for_its_client_ends_in_a_rst() {
    on_each(|io| {
        let upstream = Upstream::ending(|peer| {
            peer.head();
            peer.send(ENDLESS);
            peer.send([b'x'; 60_000]);
            peer.take(1);
            peer.abort_on_close();
            ControlFlow::Break(())
        });
        let mut proxy = Proxy::start(io, upstream.address, "--drain 0s");
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(&proxy.address.into()).unwrap();
        let mut client = Peer::of(socket.into(), None);
        client.send("POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
        client.take(ENDLESS.len());
        // The upstream aborts at this byte, long after it has sent its part.
        client.send("x");
        let told = proxy.told("upstream_failed", client.address);
        assert_told(&told, &json!({ "failure": "truncated", "response_bytes": ENDLESS.len() + 60_000 }));
        proxy.daemon.child.signal("-TERM");
        let summary = proxy.drained();
        assert_told(&summary, &json!({ "interrupted": 0, "upstream_failed": 1, "open": 1 }));
        let (got, end) = client.rest();
        assert!(got.len() < 60_000 && end == End::Reset, "{io}: {} bytes, {end:?}", got.len());
    });
}

#[test]
fn a_thread_that_has_drained_leaves_the_others_their_time() {
    on_each(|io| {
        let (upstream, gate) = gated("", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        let proxy = Proxy::start(io, upstream.address, "--drain 1h --threads 3");
        let mut client = Peer::asking(proxy.address, GET);
        upstream.connection(0).wait_for(GET.len());
        drop(proxy.drain("-TERM"));
        let tasks = format!("/proc/{}/task", proxy.daemon.child.0.id());
        let is_ring = |task: std::io::Result<std::fs::DirEntry>| {
            let name = task.and_then(|task| std::fs::read_to_string(task.path().join("comm")));
            name.is_ok_and(|name| name.starts_with("ring-"))
        };
        until("one thread is left", || {
            std::fs::read_dir(&tasks).unwrap().filter_map(|task| is_ring(task).then_some(())).count() == 1
        });
        gate.open();
        assert_eq!(client.message().1, b"done", "{io}");
        assert_eq!(client.rest().1, End::Fin, "{io}");
        drop(client);
        assert_told(&proxy.drained(), &json!({ "completed": 1, "interrupted": 0, "cut": 0, "open": 0 }));
    });
}
