//! Which upstream gets a request, and what becomes of one that fails.

use std::net::TcpListener;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use crate::outcome::nobody;
use crate::peer::Peer;
use crate::program::{Proxy, assert_told, engines, on_each};
use crate::upstream::{Upstream, answer};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn an_upstream_that_is_away_for_a_moment_costs_its_clients_time_and_no_answer() {
    on_each(|io| {
        let address = nobody();
        let mut proxy = Proxy::start(io, address, "");
        let clients: Vec<_> = (0..20)
            .map(|_| {
                let address = proxy.address;
                thread::spawn(move || Peer::asking(address, GET).message().0)
            })
            .collect();
        proxy.daemon.wait_for("upstream_down");
        // It comes back while they wait.
        let listener = TcpListener::bind(address).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || {
                    let mut peer = Peer::of(stream.unwrap(), None);
                    peer.head();
                    peer.send(answer("back"));
                });
            }
        });
        for client in clients {
            assert!(client.join().unwrap().starts_with("HTTP/1.1 200 "), "{io}");
        }
        let told = proxy.daemon.wait_for("upstream_up");
        assert_told(&told, &json!({ "upstream": address.to_string(), "failure": null }));
        let summary = proxy.finish();
        assert_told(&summary, &json!({ "completed": 20, "upstream_failed": 0, "upstream_down": 1 }));
    });
}

#[test]
fn without_retries_a_refused_connect_is_answered_at_once() {
    for io in engines() {
        let mut proxy = Proxy::start(io, nobody(), "--retries 0");
        let mut client = Peer::asking(proxy.address, GET);
        assert!(client.message().0.starts_with("HTTP/1.1 502 "), "{io}");
        assert_told(
            &proxy.told("upstream_failed", client.address),
            &json!({ "failure": "refused", "answered": 502 }),
        );
        proxy.finish();
    }
}

#[test]
fn an_upstream_that_accepts_and_resets_is_left_out() {
    on_each(|io| {
        let good = Upstream::answering();
        let bad = Upstream::ending(|peer| {
            peer.head();
            peer.abort_on_close();
            ControlFlow::Break(())
        });
        let proxy = Proxy::at(io, "127.0.0.1", &[bad.address, good.address], "");
        let failed = (0..200).filter(|_| {
            !Peer::asking(proxy.address, "GET /x HTTP/1.1\r\nConnection: close\r\n\r\n")
                .message()
                .0
                .contains(" 200 ")
        });
        let failed = failed.count();
        // Each try of it takes one request, and the pauses between tries double: 0.1 s, 0.2 s, 0.4 s, ...
        assert!(failed <= 20, "{io}: {failed} of 200");
        assert_eq!(bad.count(), failed, "{io}: only tries went there");
        let summary = proxy.finish();
        assert_told(
            &summary,
            &json!({ "completed": 200 - failed, "upstream_failed": failed, "upstream_down": 1 }),
        );
    });
}

#[test]
fn an_upstream_that_answers_again_is_used_again() {
    on_each(|io| {
        let fails = Arc::new(AtomicUsize::new(1));
        let left = Arc::clone(&fails);
        let one = Upstream::ending(move |peer| {
            while let Ok(_head) = peer.try_head() {
                if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
                {
                    peer.abort_on_close();
                    return ControlFlow::Break(());
                }
                if peer.try_send(answer("well")).is_err() {
                    break;
                }
            }
            ControlFlow::Continue(())
        });
        let mut proxy = Proxy::start(io, one.address, "");
        assert!(Peer::asking(proxy.address, GET).message().0.contains(" 502 "), "{io}");
        assert_told(
            &proxy.daemon.wait_for("upstream_down"),
            &json!({ "upstream": one.address.to_string(), "failure": "reset" }),
        );
        assert!(Peer::asking(proxy.address, GET).message().0.contains(" 200 "), "{io}: there is no other");
        proxy.daemon.wait_for("upstream_up");
        proxy.finish();
    });
}

#[test]
fn requests_one_after_the_other_go_to_each_upstream_in_turn() {
    on_each(|io| {
        let upstreams = ["one", "two"].map(|name| {
            Upstream::forgetful(
                move |peer| {
                    while peer.try_head().is_ok() && peer.try_send(answer(name)).is_ok() {}
                },
            )
        });
        let proxy = Proxy::at(io, "127.0.0.1", &upstreams.each_ref().map(|upstream| upstream.address), "");
        let mut one_client = Peer::connect(proxy.address);
        for many in [false, true] {
            for name in ["one", "two"].repeat(4) {
                let mut another = Peer::connect(proxy.address);
                let client = if many { &mut another } else { &mut one_client };
                client.send(GET);
                assert_eq!(client.message().1, name.as_bytes(), "{io}, many clients: {many}");
            }
        }
        drop(one_client);
        proxy.finish_undisturbed(16);
    });
}
