//! Clients that send a FIN in the middle of a response, which may pause for as long as it likes.

use serde_json::json;

use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, engines, on_each};
use crate::upstream::{Gate, Upstream};

const GET: &str = "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const HELLO: &str = "5\r\nhello\r\n";

/// A client that has got the beginning of a response which then pauses.
fn streaming(proxy: &Proxy, begun: &str) -> Peer {
    let mut client = Peer::asking(proxy.address, GET);
    assert_eq!(String::from_utf8(client.take(begun.len())).unwrap(), begun);
    client
}

/// An upstream that begins like this and pauses for ever.
fn pausing(begun: String) -> Upstream {
    Upstream::start(move |peer| {
        peer.head();
        peer.send(&begun);
    })
}

#[test]
fn a_client_that_leaves_a_silent_stream_by_a_fin_is_asked_and_found_gone() {
    for io in engines() {
        // Before the first chunk, and behind one.
        for begun in [CHUNKED.to_owned(), format!("{CHUNKED}{HELLO}")] {
            let upstream = pausing(begun.clone());
            let mut proxy = Proxy::start(io, upstream.address, "");
            let client = streaming(&proxy, &begun);
            let address = client.address;
            drop(client);
            let told = proxy.interruption(address);
            assert_told(
                &told,
                &json!({
                    "phase": "sending", "status": 200, "response_bytes": begun.len(), "cause": "aborted",
                    "done": "reset", "saved": true,
                }),
            );
            assert!(told["proof"]["asked_us"].is_u64(), "{io}: {told:#}");
            assert_eq!(upstream.connection(0).ended(), End::Reset, "{io}");
            proxy.finish();
        }
    }
}

#[test]
fn a_client_that_half_closes_in_a_silent_stream_gets_exactly_the_rest_however_often_it_is_asked() {
    // The pause takes all questions: at once, after 0.1 s, 1 s and 8 s.
    on_each(|io| {
        let gate = Gate::default();
        let seen = gate.clone();
        let upstream = Upstream::start(move |peer| {
            peer.head();
            peer.send(format!("{CHUNKED}{HELLO}"));
            seen.pass();
            peer.send("1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n");
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let mut client = Peer::asking(proxy.address, GET);
        assert_eq!(client.head(), CHUNKED);
        assert_eq!(client.take(HELLO.len()), HELLO.as_bytes());
        client.half_close();
        assert_eq!(client.take(4), b"0000", "{io}");
        gate.open();
        assert_eq!(client.try_chunks().unwrap(), b"abcdefghijklmnopqrstuvwxyz", "{io}");
        assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}");
        let summary = proxy.finish_undisturbed(1);
        assert_told(&summary["half_closed"], &json!({ "asked": 4, "gone": 0 }));
    });
}

#[test]
fn a_silence_of_a_stream_is_never_asked_about_while_its_client_has_sent_no_fin() {
    on_each(|io| {
        let gate = Gate::default();
        let seen = gate.clone();
        let upstream = Upstream::start(move |peer| {
            peer.head();
            peer.send(format!("{CHUNKED}{HELLO}"));
            seen.pass();
            peer.send("0\r\n\r\n");
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let mut client = streaming(&proxy, &format!("{CHUNKED}{HELLO}"));
        std::thread::park_timeout(std::time::Duration::from_secs(2));
        gate.open();
        assert_eq!(client.take(5), b"0\r\n\r\n", "{io}");
        let summary = proxy.finish_undisturbed(1);
        assert_told(&summary["half_closed"], &json!({ "asked": 0 }));
    });
}

#[test]
fn where_nothing_can_be_asked_the_rule_counts_from_the_fin() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all";
    let until_close = "HTTP/1.1 200 OK\r\n\r\nnot all";
    let in_a_chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe";
    on_each(|io| {
        for rule in ["probe", "gone", "wait:200ms"] {
            for begun in [length, until_close, in_a_chunk] {
                let upstream = pausing(begun.to_owned());
                let mut proxy = Proxy::start(io, upstream.address, &format!("--half-close {rule}"));
                let mut client = streaming(&proxy, begun);
                client.half_close();
                let told = proxy.interruption(client.address);
                assert_told(&told, &json!({ "phase": "sending", "cause": "closed", "done": "reset" }));
                assert_eq!(client.rest(), (Vec::new(), End::Reset), "{io}, {rule}: a part is missing");
                assert_eq!(upstream.connection(0).ended(), End::Reset, "{io}, {rule}");
                proxy.finish();
            }
        }
    });
}

#[test]
fn a_websocket_that_is_reset_behind_a_closing_frame_of_either_side_has_ended_in_order() {
    let upgrade = "GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (hello, close) = (b"\x81\x05hello", b"\x88\x80\0\0\0\0");
    for io in engines() {
        for by_client in [false, true] {
            let upstream = Upstream::start(move |peer| {
                peer.head();
                peer.send(switch);
                peer.send(if by_client { hello.as_slice() } else { b"\x88\0" });
            });
            let proxy = Proxy::start(io, upstream.address, "");
            let mut client = Peer::asking(proxy.address, upgrade);
            assert_eq!(client.head(), switch);
            let log = upstream.connection(0);
            if by_client {
                client.send(close);
                log.wait_for(upgrade.len() + close.len());
            } else {
                client.take(2);
            }
            client.reset();
            assert_eq!(log.ended(), End::Fin, "{io}, {by_client}");
            proxy.finish_undisturbed(1);
        }
    }
}

#[test]
fn a_websocket_ends_at_once_without_a_closing_frame_and_in_order_behind_one() {
    let upgrade = "GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (hello, close) = (b"\x81\x85\0\0\0\0hello", b"\x88\x80\0\0\0\0");
    for io in engines() {
        for closes in [false, true] {
            let upstream = Upstream::start(move |peer| {
                peer.head();
                peer.send(switch);
            });
            let mut proxy = Proxy::start(io, upstream.address, "");
            let mut client = Peer::asking(proxy.address, upgrade);
            assert_eq!(client.head(), switch);
            client.send(hello);
            if closes {
                client.send(close);
            }
            client.half_close();
            let log = upstream.connection(0);
            if closes {
                assert_eq!(log.ended(), End::Fin, "{io}");
                assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}");
                proxy.finish_undisturbed(1);
            } else {
                assert_told(
                    &proxy.interruption(client.address),
                    &json!({ "phase": "tunnel", "cause": "closed" }),
                );
                assert_eq!(log.ended(), End::Reset, "{io}");
                assert!(log.bytes().ends_with(hello), "{io}: what it had sent was delivered");
                proxy.finish();
            }
        }
    }
}
