//! How a client leaves, in the middle of what, and what comes of it.

use std::sync::Arc;

use serde_json::json;

use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, engines, on_each};
use crate::upstream::{Gate, Log, Upstream, answer};

const GET: &str = "GET /work?n=1 HTTP/1.1\r\nHost: a\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// A client with a request that has reached the upstream.
fn waiting(proxy: &Proxy, upstream: &Upstream, request: &str) -> (Peer, Arc<Log>) {
    let number = upstream.count();
    let client = Peer::asking(proxy.address, request);
    let log = upstream.connection(number);
    log.wait_for(request.len());
    (client, log)
}

#[test]
fn a_client_that_leaves_while_the_upstream_works_is_reported_however_it_leaves_and_the_upstream_is_reset() {
    type Leave = fn(Peer);
    // Whether it takes a question to find out; one that was answered may not have been looked at yet.
    let ways: [(&str, Option<bool>, Leave); 6] = [
        ("a FIN", Some(true), drop),
        ("a RST", Some(false), Peer::reset),
        ("a half-close, an answered question, a RST", None, |mut client| {
            client.half_close();
            assert_eq!(client.head(), CONTINUE);
            client.reset();
        }),
        ("a byte ahead, then a FIN", Some(true), |mut client| {
            client.send("G");
            drop(client);
        }),
        ("a request ahead, then a FIN", Some(true), |mut client| {
            client.send(GET);
            drop(client);
        }),
        ("a request ahead, then a RST", Some(false), |mut client| {
            client.send(GET);
            client.reset();
        }),
    ];
    for io in engines() {
        let upstream = Upstream::silent();
        let mut proxy = Proxy::start(io, upstream.address, "");
        for (way, asked, leave) in ways {
            let (client, log) = waiting(&proxy, &upstream, GET);
            let address = client.address;
            leave(client);
            let told = proxy.interruption(address);
            assert_told(
                &told,
                &json!({
                    "phase": "waiting", "method": "GET", "target": "/work?n=1", "status": null,
                    "request_bytes": GET.len(), "response_bytes": 0, "after_ms": null,
                    "cause": "aborted", "done": "reset", "saved": true,
                    "upstream": upstream.address.to_string(),
                }),
            );
            let was_asked = told["proof"].get("asked_us").is_some();
            assert!(asked.is_none_or(|asked| asked == was_asked), "{io}, {way}: {told:#}");
            assert_eq!(log.ended(), End::Reset, "{io}, {way}");
            assert_eq!(log.bytes(), GET.as_bytes(), "{io}, {way}: no more than the one request");
        }
        let summary = proxy.finish();
        assert_told(
            &summary,
            &json!({
                "interrupted": 6, "saved": 6, "open": 0, "opened": 6, "completed": 0,
                "by_phase": { "waiting": { "aborted": 6 } },
            }),
        );
        let count = |name: &str| summary["half_closed"][name].as_u64().unwrap();
        assert_eq!((count("asked"), count("gone") + count("here")), (4, 4), "{io}: {summary:#}");
        assert!(count("gone") >= 3, "{io}: {summary:#}");
    }
}

#[test]
fn the_proof_of_a_probed_client_is_what_its_poll_showed_of_the_answer() {
    // RDHUP alone is the FIN, behind which one may be here; ERR and HUP come with the RST.
    const OVER: u16 = 0x2018;
    for io in engines() {
        let upstream = Upstream::silent();
        let mut proxy = Proxy::start(io, upstream.address, "");
        for _ in 0..20 {
            let (client, _) = waiting(&proxy, &upstream, GET);
            let address = client.address;
            drop(client);
            let told = proxy.interruption(address);
            let proof = &told["proof"];
            assert!(proof["asked_us"].is_u64(), "{io}: {told:#}");
            let mask = proof["poll_mask"].as_str().and_then(|mask| mask.strip_prefix("0x"));
            let mask = mask.and_then(|mask| u16::from_str_radix(mask, 16).ok());
            assert!(mask.is_some_and(|mask| mask & OVER == OVER), "{io}: {told:#}");
        }
        let summary = proxy.finish();
        assert_eq!(summary["half_closed"], json!({ "asked": 20, "gone": 20, "here": 0 }), "{io}");
    }
}

#[test]
fn a_client_that_pipelines_more_than_is_held_and_leaves_is_reported_behind_its_unread_bytes() {
    for io in engines() {
        let upstream = Upstream::silent();
        let mut proxy = Proxy::start(io, upstream.address, "");
        let (mut client, log) = waiting(&proxy, &upstream, GET);
        client.send(GET.repeat(60_000 / GET.len()));
        let address = client.address;
        drop(client);
        assert_told(&proxy.interruption(address), &json!({ "phase": "waiting", "request_bytes": GET.len() }));
        assert_eq!((log.ended(), log.bytes()), (End::Reset, GET.into()));
        proxy.finish();
    }
}

#[test]
fn a_fin_is_treated_as_half_close_says() {
    let old = GET.replace("1.1", "1.0");
    on_each(|io| {
        for (options, request, at_least) in [
            ("--half-close gone", GET, 0),
            ("--half-close wait:300ms", GET, 300),
            ("--half-close probe", old.as_str(), 1_000), // a client of HTTP/1.0 cannot be asked
        ] {
            let upstream = Upstream::silent();
            let mut proxy = Proxy::start(io, upstream.address, options);
            let (mut client, log) = waiting(&proxy, &upstream, request);
            client.half_close();
            let told = proxy.interruption(client.address);
            assert_told(&told, &json!({ "phase": "waiting", "cause": "closed", "done": "reset" }));
            assert!(told["elapsed_ms"].as_u64().unwrap() >= at_least, "{io}, {options}: {told:#}");
            assert_eq!(log.ended(), End::Reset, "{io}, {options}");
            assert_eq!(client.rest().0, b"", "{io}, {options}: no client is answered");
            proxy.finish();
        }
        // Passed on, it means what the upstream makes of it.
        let upstream = Upstream::start(|peer| {
            peer.head();
            assert_eq!(peer.rest(), (Vec::new(), End::Fin));
            peer.send(answer("after all"));
        });
        let proxy = Proxy::start(io, upstream.address, "--half-close forward");
        let mut client = Peer::asking(proxy.address, GET);
        client.half_close();
        assert_eq!(client.rest(), (answer("after all").into(), End::Fin), "{io}");
        proxy.finish_undisturbed(1);
    });
}

#[test]
fn a_client_that_leaves_before_its_request_is_whole_starts_no_work() {
    let partial = "GET /half HTTP/1.1\r\nHo";
    let length = "POST /up HTTP/1.1\r\nContent-Length: 100\r\n\r\nnot all of it";
    for io in engines() {
        let upstream = Upstream::silent();
        let mut proxy = Proxy::start(io, upstream.address, "");
        for (request, method) in [(partial, None), (length, Some("POST"))] {
            for with_reset in [false, true] {
                let client = Peer::asking(proxy.address, request);
                let address = client.address;
                if with_reset {
                    // A RST takes unread bytes with it: they must have been read.
                    std::thread::park_timeout(std::time::Duration::from_millis(100));
                    client.reset();
                } else {
                    drop(client);
                }
                assert_told(
                    &proxy.interruption(address),
                    &json!({
                        "phase": "receiving", "method": method, "target": method.map(|_| "/up"),
                        "status": null, "request_bytes": request.len(), "response_bytes": 0,
                        "cause": if with_reset { "aborted" } else { "closed" }, "done": "nothing",
                        "saved": false, "upstream": null,
                    }),
                );
            }
        }
        assert_told(&proxy.finish(), &json!({ "interrupted": 4, "saved": 0, "open": 0 }));
        assert_eq!(upstream.count(), 0, "{io}");
    }
}

#[test]
fn a_request_with_a_reset_right_behind_it_is_read_before_the_reset_is_judged() {
    const CLIENTS: usize = 300;
    for io in engines() {
        let upstream = Upstream::silent();
        let mut proxy = Proxy::start(io, upstream.address, "");
        for _ in 0..CLIENTS {
            let client = Peer::asking(proxy.address, GET);
            let address = client.address;
            client.reset();
            assert_told(
                &proxy.interruption(address),
                &json!({ "phase": "waiting", "method": "GET", "request_bytes": GET.len(), "cause": "aborted" }),
            );
        }
        assert_told(&proxy.finish(), &json!({ "interrupted": CLIENTS, "open": 0 }));
    }
}

#[test]
fn a_client_that_leaves_in_a_body_that_streams_takes_its_upstream_along() {
    let head = "POST /long HTTP/1.1\r\nContent-Length: 100000\r\n\r\n";
    let long = format!("{head}{}", "x".repeat(5_000));
    let chunked = "POST /long HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_owned();
    for (io, request) in engines().into_iter().flat_map(|io| [(io, &long), (io, &chunked)]) {
        for (with_reset, cause) in [(false, "closed"), (true, "aborted")] {
            let upstream = Upstream::silent();
            let mut proxy = Proxy::start(io, upstream.address, "--request-buffer 1000");
            let (client, log) = waiting(&proxy, &upstream, request);
            let address = client.address;
            if with_reset {
                client.reset()
            } else {
                drop(client)
            }
            assert_told(
                &proxy.interruption(address),
                &json!({
                    "phase": "receiving", "method": "POST", "target": "/long", "cause": cause,
                    "request_bytes": request.len(), "done": "reset", "saved": true,
                }),
            );
            assert_eq!((log.ended(), log.bytes()), (End::Reset, request.clone().into()), "{io}");
            proxy.finish();
        }
    }
}

#[test]
fn a_client_that_leaves_during_the_response_is_reported_with_what_it_got() {
    let begun = format!("HTTP/1.1 206 Partial\r\nContent-Length: 1000000000\r\n\r\n{}", "y".repeat(1_000));
    for io in engines() {
        // Nothing more comes: the RST is seen all the same.
        let response = begun.clone();
        let upstream = Upstream::start(move |peer| {
            peer.head();
            peer.send(&response);
        });
        let mut proxy = Proxy::start(io, upstream.address, "");
        let (mut client, log) = waiting(&proxy, &upstream, GET);
        client.take(begun.len());
        let address = client.address;
        client.reset();
        let told = proxy.interruption(address);
        assert_told(
            &told,
            &json!({
                "phase": "sending", "method": "GET", "status": 206, "request_bytes": GET.len(),
                "response_bytes": begun.len(), "cause": "aborted", "done": "reset", "saved": true,
            }),
        );
        assert!(told["after_ms"].is_u64(), "{told:#}");
        assert_eq!(log.ended(), End::Reset, "{io}");
        proxy.finish();

        // It goes on and on: its own bytes find out that the client is gone.
        let response = begun.clone();
        let upstream = Upstream::start(move |peer| {
            peer.head();
            peer.send(&response);
            while peer.try_send([7; 10_000]).is_ok() {}
        });
        let mut proxy = Proxy::start(io, upstream.address, "");
        let (mut client, log) = waiting(&proxy, &upstream, GET);
        client.take(begun.len());
        let address = client.address;
        drop(client);
        let told = proxy.interruption(address);
        assert_told(
            &told,
            &json!({ "phase": "sending", "status": 206, "cause": "aborted", "done": "reset" }),
        );
        assert!(told["response_bytes"].as_u64().unwrap() >= begun.len() as u64, "{told:#}");
        assert_eq!(log.ended(), End::Reset, "{io}");
        proxy.finish();
    }
}

#[test]
fn a_client_that_leaves_a_tunnel_is_reported_with_what_went_through() {
    let upgrade = "GET /socket HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    on_each(|io| {
        for (with_reset, cause) in [(true, "aborted"), (false, "closed")] {
            let upstream = Upstream::start(move |peer| {
                peer.head();
                peer.send(switch);
                let frame = peer.take(5);
                peer.send(frame);
            });
            let mut proxy = Proxy::start(io, upstream.address, "");
            let (mut client, log) = waiting(&proxy, &upstream, upgrade);
            assert_eq!(client.head(), switch);
            client.send("frame");
            assert_eq!(client.take(5), b"frame");
            let address = client.address;
            if with_reset {
                client.reset()
            } else {
                drop(client)
            }
            assert_told(
                &proxy.interruption(address),
                &json!({
                    "phase": "tunnel", "method": null, "request_bytes": upgrade.len() + 5,
                    "response_bytes": switch.len() + 5, "cause": cause, "done": "reset", "saved": true,
                }),
            );
            assert_eq!(log.ended(), End::Reset, "{io}");
            proxy.finish();
        }
    });
}

#[test]
fn what_is_done_to_the_upstream_is_what_was_asked_for() {
    for io in engines() {
        for with_reset in [false, true] {
            let upstream = Upstream::silent();
            let mut proxy = Proxy::start(io, upstream.address, "--on-gone close");
            let (client, log) = waiting(&proxy, &upstream, GET);
            let address = client.address;
            if with_reset {
                client.reset()
            } else {
                drop(client)
            }
            assert_told(&proxy.interruption(address), &json!({ "done": "close", "saved": true }));
            assert_eq!(log.ended(), End::Fin, "{io}");
            proxy.finish();

            let gate = Gate::default();
            let work = gate.clone();
            let upstream = Upstream::start(move |peer| {
                peer.head();
                work.pass();
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
                for _ in 0..100 {
                    peer.send([1; 10_000]);
                }
            });
            let mut proxy = Proxy::start(io, upstream.address, "--on-gone ignore --pool 0");
            let (client, log) = waiting(&proxy, &upstream, GET);
            let address = client.address;
            if with_reset {
                client.reset()
            } else {
                drop(client)
            }
            assert_told(&proxy.interruption(address), &json!({ "done": "ignored", "saved": false }));
            gate.open();
            assert_eq!(log.ended(), End::Fin, "{io}: it works to its end, undisturbed");
            assert_told(&proxy.finish(), &json!({ "interrupted": 1, "saved": 0, "completed": 0, "open": 0 }));
        }
    }
}

#[test]
fn an_upstream_that_may_work_on_is_not_kept_for_a_body_that_never_comes() {
    let request = "POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\nnot all";
    for io in engines() {
        let upstream = Upstream::silent();
        let options = "--on-gone ignore --request-buffer 10 --body-timeout 300ms";
        let mut proxy = Proxy::start(io, upstream.address, options);
        let (client, log) = waiting(&proxy, &upstream, request);
        let address = client.address;
        client.reset();
        let told = proxy.interruption(address);
        assert_told(&told, &json!({ "phase": "receiving", "done": "ignored", "saved": false }));
        assert_eq!(log.ended(), End::Fin, "{io}: it hears that no more comes");
        assert_told(&proxy.finish(), &json!({ "interrupted": 1, "open": 0, "upstream_failed": 0 }));
    }
}

#[test]
fn a_client_that_leaves_after_the_answer_interrupts_nothing() {
    for io in engines() {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "");
        for number in 0..20 {
            let mut client = Peer::asking(proxy.address, GET);
            assert_eq!(client.message().1, b"/work?n=1");
            match number % 4 {
                0 => client.reset(),
                1 => client.half_close(),
                2 => {
                    client.half_close();
                    assert_eq!(client.rest(), (Vec::new(), End::Fin));
                }
                _ => drop(client),
            }
        }
        drop(Peer::connect(proxy.address));
        Peer::connect(proxy.address).reset();
        // The client that comes last is served after all of these.
        assert_eq!(Peer::asking(proxy.address, GET).message().1, b"/work?n=1");
        proxy.finish_undisturbed(21);
    }
}
