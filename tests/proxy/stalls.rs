//! The proxy itself is stopped for a while, and no client suffers for it.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, on_each};
use crate::upstream::{Gate, Upstream, answer};

const GET: &str = "GET /work HTTP/1.1\r\nHost: a\r\n\r\n";

/// Longer than every patience of these tests.
const STOPPED: Duration = Duration::from_secs(4);

/// Nothing runs meanwhile but what is done here.
fn stopped(proxy: &Proxy, meanwhile: impl FnOnce()) {
    // What came before is worked off.
    thread::park_timeout(Duration::from_millis(150));
    proxy.daemon.child.signal("-STOP");
    thread::park_timeout(Duration::from_millis(100));
    meanwhile();
    thread::park_timeout(STOPPED);
    proxy.daemon.child.signal("-CONT");
}

/// One stall was told, about as long as it was: how much of its rest a loop would have slept anyway, it does not know.
#[track_caller]
fn assert_stalled(proxy: &mut Proxy) {
    let stall = proxy.daemon.wait_for("stall");
    let held = stall["held_ms"].as_u64().unwrap();
    assert!((1_900..20_000).contains(&held), "{stall:#}");
}

#[test]
fn a_slow_client_is_served_although_the_proxy_was_stopped() {
    on_each(|io| {
        let gate = Gate::default();
        let work = gate.clone();
        let upstream = Upstream::forgetful(move |peer| {
            let head = peer.head();
            if head.starts_with("GET /wait") || head.starts_with("GET /old") {
                work.pass();
            }
            peer.send(answer("served"));
        });
        let options = "--head-timeout 3s --body-timeout 3s --response-timeout 3s";
        let mut proxy = Proxy::start(io, upstream.address, options);
        let mut silent = Peer::connect(proxy.address);
        let mut half_a_head = Peer::asking(proxy.address, &GET[..20]);
        let body = "POST /up HTTP/1.1\r\nContent-Length: 4\r\n\r\n";
        let mut half_a_body = Peer::asking(proxy.address, format!("{body}bo"));
        let mut waits = Peer::asking(proxy.address, GET.replace("/work", "/wait"));
        // It cannot be asked whether it is here, and has a second.
        let mut old = Peer::asking(proxy.address, "GET /old HTTP/1.0\r\n\r\n");
        old.half_close();
        stopped(&proxy, || {});
        // A client that had most of its time left still has it.
        thread::park_timeout(Duration::from_millis(50));
        silent.send(GET);
        half_a_head.send(&GET[20..]);
        half_a_body.send("dy");
        gate.open();
        for client in [&mut silent, &mut half_a_head, &mut half_a_body, &mut waits, &mut old] {
            assert_eq!(client.message().1, b"served", "{io}");
        }
        assert_stalled(&mut proxy);
        let summary = proxy.finish();
        let expected = json!({ "completed": 5, "interrupted": 0, "upstream_failed": 0, "stalls": 1 });
        assert_told(&summary, &expected);
    });
}

#[test]
fn a_client_that_stays_silent_after_a_stall_is_judged_after_all() {
    on_each(|io| {
        let upstream = Upstream::silent();
        let mut proxy = Proxy::start(io, upstream.address, "--head-timeout 1s --response-timeout 1s");
        let mut half_a_head = Peer::asking(proxy.address, &GET[..20]);
        let mut waits = Peer::asking(proxy.address, GET);
        stopped(&proxy, || {});
        assert!(half_a_head.message().0.starts_with("HTTP/1.1 408 "), "{io}");
        assert!(waits.message().0.starts_with("HTTP/1.1 504 "), "{io}");
        assert_stalled(&mut proxy);
        proxy.finish();
    });
}

#[test]
fn a_client_that_leaves_while_the_proxy_is_stopped_is_reported_once() {
    on_each(|io| {
        let upstream = Upstream::silent();
        let mut proxy = Proxy::start(io, upstream.address, "--head-timeout 1s");
        let mut clients: Vec<_> = (0..4).map(|_| Peer::asking(proxy.address, GET)).collect();
        (0..4).for_each(|number| upstream.connection(number).wait_for(GET.len()));
        clients.push(Peer::asking(proxy.address, "GET /half"));
        let addresses: Vec<_> = clients.iter().map(|client| client.address).collect();
        stopped(&proxy, || {
            for (number, mut client) in clients.into_iter().enumerate() {
                match number {
                    1 => client.reset(),
                    2 => {
                        client.send(GET);
                        client.reset();
                    }
                    _ => drop(client),
                }
            }
        });
        for (number, &address) in addresses.iter().enumerate() {
            let (phase, cause) = if number < 4 { ("waiting", "aborted") } else { ("receiving", "closed") };
            assert_told(&proxy.interruption(address), &json!({ "phase": phase, "cause": cause }));
        }
        (0..4).for_each(|number| assert_eq!(upstream.connection(number).ended(), End::Reset, "{io}"));
        assert_stalled(&mut proxy);
        proxy.daemon.listen_for(Duration::from_millis(300));
        assert_eq!(proxy.daemon.count("interrupted"), 5, "{io}: {:#?}", proxy.daemon.seen);
        let summary = proxy.finish();
        assert_told(&summary, &json!({ "interrupted": 5, "saved": 4, "open": 0, "stalls": 1 }));
    });
}
