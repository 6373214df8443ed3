//! What one side sends is what the other gets, whatever it is and however it is cut up.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;

use serde_json::json;

use crate::dice::Dice;
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, engines};
use crate::upstream::Upstream;

const EXCHANGES: usize = 30;

/// Headers without a use.
fn headers(dice: &mut Dice, into: &mut Vec<u8>) {
    for _ in 0..dice.below(6) {
        let value: Vec<u8> =
            (0..dice.size(300)).map(|_| *dice.of(&[&b'a', &b' ', &b'"', &0x80, &0xFF])).collect();
        let name = dice.of(&["Host", "X-Forwarded-For", "x-content-length", "Cookie", "!#$%&'*+-.^_`|~"]);
        into.extend_from_slice(name.as_bytes());
        into.extend_from_slice(dice.of(&[":", ": ", ":\t "]).as_bytes());
        into.extend_from_slice(&value);
        into.extend_from_slice(b"\r\n");
    }
}

/// The end of a head and a body behind it.
fn body(dice: &mut Dice, into: &mut Vec<u8>) {
    match dice.below(3) {
        0 => {
            let size = dice.size(300_000);
            into.extend_from_slice(format!("content-LENGTH:{size}\r\n\r\n").as_bytes());
            into.extend_from_slice(&dice.bytes(size));
        }
        1 => {
            into.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for _ in 0..dice.below(20) {
                let size = 1 + dice.size(30_000);
                let extension = dice.of(&["", ";a=b", ";\"\""]);
                into.extend_from_slice(format!("{size:x}{extension}\r\n").as_bytes());
                into.extend_from_slice(&dice.bytes(size));
                into.extend_from_slice(b"\r\n");
            }
            into.extend_from_slice(dice.of(&["0\r\n\r\n", "000;end\r\nX-Sum: 1\r\nY: 2\r\n\r\n"]).as_bytes());
        }
        _ => into.extend_from_slice(b"\r\n"),
    }
}

/// A request whose target names the exchange: any connection of an upstream may get it.
fn request(dice: &mut Dice, name: &str) -> (Vec<u8>, bool) {
    let method = *dice.of(&[&"GET", &"HEAD", &"POST", &"PUT", &"DELETE", &"OPTIONS", &"M-SEARCH"]);
    let mut bytes = Vec::new();
    if dice.one_in(10) {
        bytes.extend_from_slice(b"\r\n");
    }
    let target: String = (0..dice.size(2_000)).map(|_| *dice.of(&[&'a', &'?', &'%', &'/', &'~'])).collect();
    bytes.extend_from_slice(format!("{method} /{name}/{target} HTTP/1.1\r\n").as_bytes());
    headers(dice, &mut bytes);
    body(dice, &mut bytes);
    (bytes, method == "HEAD")
}

fn response(dice: &mut Dice, to_head: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..dice.below(3) {
        bytes.extend_from_slice(dice.of(&["HTTP/1.1 103 Early Hints\r\n", "HTTP/1.1 102 \r\n"]).as_bytes());
        headers(dice, &mut bytes);
        bytes.extend_from_slice(b"\r\n");
    }
    let without = *dice.of(&[&"204 No Content", &"304 Not Modified"]);
    if to_head || dice.one_in(6) {
        let line = if to_head { "200 OK" } else { without };
        bytes.extend_from_slice(format!("HTTP/1.1 {line}\r\n").as_bytes());
        headers(dice, &mut bytes);
        if line != "204 No Content" {
            bytes.extend_from_slice(b"Content-Length: 12345\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        return bytes;
    }
    let line = *dice.of(&[&"200 OK", &"404 ", &"500 Etwas ist schiefgegangen", &"299 x"]);
    bytes.extend_from_slice(format!("HTTP/1.1 {line}\r\n").as_bytes());
    headers(dice, &mut bytes);
    let head = bytes.len();
    body(dice, &mut bytes);
    if bytes[head..] == *b"\r\n" {
        // Without a length it would end with the connection.
        bytes.truncate(head);
        bytes.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    }
    bytes
}

/// The exchanges of one connection: both ends know them by their seed.
fn exchanges(seed: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut dice = Dice::new(seed);
    let exchange = |number| {
        let (request, to_head) = request(&mut dice, &format!("{seed:08}-{number:02}"));
        (request, response(&mut dice, to_head))
    };
    (0..EXCHANGES).map(exchange).collect()
}

/// Says where two differ, without printing megabytes.
#[track_caller]
fn assert_same(what: &str, got: &[u8], expected: &[u8]) {
    let differs = got.iter().zip(expected).position(|(a, b)| a != b);
    assert!(
        differs.is_none() && got.len() == expected.len(),
        "{what}: {} bytes instead of {}, differing at {differs:?}",
        got.len(),
        expected.len()
    );
}

/// The next request as far as its target names the exchange, and that name; nothing at the end.
fn next_name(peer: &mut Peer) -> Option<(Vec<u8>, u64, usize)> {
    let mut got = Vec::new();
    while !got.ends_with(b" /") {
        got.extend(peer.try_take(1).ok()?);
    }
    let name = peer.take("00000000-00".len());
    got.extend(&name);
    let name = String::from_utf8(name).unwrap();
    let (seed, number) = name.split_once('-').unwrap();
    Some((got, seed.parse().unwrap(), number.parse().unwrap()))
}

#[test]
fn random_exchanges_in_random_pieces_pass_byte_for_byte() {
    const CONNECTIONS: u64 = 24;
    let upstream = Upstream::forgetful(|peer| {
        let mut made = (u64::MAX, Vec::new());
        while let Some((mut got, seed, number)) = next_name(peer) {
            if made.0 != seed {
                made = (seed, exchanges(seed));
            }
            let (request, response) = &made.1[number];
            let rest = peer.try_take(request.len() - got.len());
            got.extend(rest.unwrap_or_else(|end| panic!("{end:?}, seed {seed}")));
            assert_same(&format!("request {number} of seed {seed}"), &got, request);
            Dice::new(seed + 1_000 + number as u64).send(peer, response);
        }
    });
    for (io, pool) in engines().into_iter().flat_map(|io| [(io, ""), (io, "--pool 0"), (io, "--pool 2")]) {
        let options = format!("--threads 2 --request-buffer 100000 {pool}");
        let proxy = Proxy::start(io, upstream.address, &options);
        let address = proxy.address;
        thread::scope(|scope| {
            for lane in 0..4 {
                scope.spawn(move || {
                    for seed in (lane..CONNECTIONS).step_by(4) {
                        let ahead = seed % 2 == 1;
                        let mut client = Peer::connect(address);
                        let mut dice = Dice::new(seed + 2_000);
                        let all = exchanges(seed);
                        let what = |number| format!("{io} {pool}: response {number} of seed {seed}");
                        if ahead {
                            let mut writer = Peer::of(client.stream.try_clone().unwrap(), None);
                            let requests: Vec<u8> = all.iter().flat_map(|(one, _)| one.clone()).collect();
                            let writing = thread::spawn(move || dice.send(&mut writer, &requests));
                            for (number, (_, response)) in all.iter().enumerate() {
                                assert_same(&what(number), &client.take(response.len()), response);
                            }
                            writing.join().unwrap();
                        } else {
                            for (number, (request, response)) in all.iter().enumerate() {
                                dice.send(&mut client, request);
                                assert_same(&what(number), &client.take(response.len()), response);
                            }
                        }
                        client.half_close();
                        assert_eq!(client.rest(), (Vec::new(), End::Fin), "{}", what(EXCHANGES));
                    }
                });
            }
        });
        let summary = proxy.finish_undisturbed(CONNECTIONS * EXCHANGES as u64);
        let upstream = &summary["upstream_connections"];
        assert_eq!(upstream["repeated"], 0);
        assert_eq!(upstream["reused"] == 0, pool == "--pool 0", "{io} {pool}: {upstream}");
    }
}

/// What no two programs read alike, by the name of the reason.
const REQUESTS: [(&str, &[u8]); 15] = [
    (
        "both_lengths",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
    ),
    ("many_lengths", b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    ("bad_length", b"POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n"),
    ("transfer_encoding", b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    ("transfer_encoding", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunk_size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n"),
    ("chunk_size", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff5\r\n"),
    ("chunk_end", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n"),
    ("trailer", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n folded\r\n\r\n"),
    ("obs_fold", b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n"),
    ("bare_lf", b"GET / HTTP/1.1\nHost: a\n\n"),
    ("bare_cr", b"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n"),
    ("nul", b"GET / HTTP/1.1\r\nX: \0\r\n\r\n"),
    ("not_http", b"\x80\x81 is this a protocol?\r\n\r\n"),
    ("not_http", b"GET / HTTP/9.9\r\n\r\n"),
];

const PROTOCOLS: [(&str, &[u8]); 2] = [
    ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n\n\r\0"),
    ("http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0"),
];

const RESPONSES: [(&str, &[u8]); 9] = [
    ("both_lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("many_lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello"),
    ("bad_length", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    ("obs_fold", b"HTTP/1.1 200 OK\r\nX: a\r\n\tb\r\n\r\n"),
    ("bare_lf", b"HTTP/1.1 200 OK\nX: a\n\n"),
    ("body_forbidden", b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("not_http", b"ICY 200 OK\r\n\r\n"),
    ("chunk_size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n-3\r\n"),
    ("unsolicited", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n"),
];

#[test]
fn what_cannot_be_followed_passes_byte_for_byte_in_both_directions() {
    for io in engines() {
        let upstream = Upstream::start(|peer| {
            let request = peer.rest();
            // What came goes back: the client knows what that must be.
            peer.send(request.0);
        });
        let mut proxy = Proxy::start(io, upstream.address, "--half-close forward");
        let mut dice = Dice::new(7);
        for (number, (reason, hostile)) in REQUESTS.iter().chain(&PROTOCOLS).enumerate() {
            let sent = [hostile, &dice.bytes(5_000)[..]].concat();
            let mut client = Peer::connect(proxy.address);
            dice.send(&mut client, &sent);
            client.half_close();
            let (got, end) = client.rest();
            assert_same(&format!("{io}, {reason}: what comes back"), &got, &sent);
            assert_eq!(end, End::Fin, "{io}, {reason}");
            let log = upstream.connection(number);
            assert_same(&format!("{io}, {reason}: what goes out"), &log.bytes(), &sent);
            assert_eq!(log.ended(), End::Fin, "{io}, {reason}");
            let told = proxy.told("not_followed", client.address);
            assert_told(&told, &json!({ "reason": reason, "refused": false }));
        }
        let summary = proxy.finish();
        let expected = json!({ "not_followed": 17, "interrupted": 0, "upstream_failed": 0, "open": 0 });
        assert_told(&summary, &expected);
    }
}

#[test]
fn strict_refuses_requests_that_cannot_be_followed_and_no_upstream_gets_them_whole() {
    for io in engines() {
        let upstream = Upstream::start(|peer| {
            let request = peer.rest();
            peer.send(request.0);
        });
        let mut proxy = Proxy::start(io, upstream.address, "--half-close forward --strict");
        let mut dice = Dice::new(8);
        for (reason, hostile) in &REQUESTS {
            let mut client = Peer::connect(proxy.address);
            dice.send(&mut client, hostile);
            let (head, body) = client.message();
            assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{io}, {reason}: {head}");
            assert_eq!(body, b"ambiguous request\n");
            assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}, {reason}");
            let told = proxy.told("not_followed", client.address);
            assert_told(&told, &json!({ "reason": reason, "refused": true }));
        }
        // Chunks stream, so the upstream has what came before the fault, and then a RST.
        let chunked = |hostile: &[u8]| hostile.to_ascii_lowercase().windows(7).any(|some| some == b"chunked");
        let streamed = upstream.count();
        assert!(streamed <= REQUESTS.iter().filter(|(_, hostile)| chunked(hostile)).count(), "{io}");
        for number in 0..streamed {
            assert_eq!(upstream.connection(number).ended(), End::Reset, "{io}");
        }
        // Another protocol is not ambiguous.
        for (reason, hello) in &PROTOCOLS {
            let mut client = Peer::asking(proxy.address, hello);
            client.half_close();
            assert_eq!(client.rest(), (hello.to_vec(), End::Fin), "{io}, {reason}");
        }
        proxy.finish();
    }
}

#[test]
fn urgent_bytes_pass_where_they_stand() {
    fn send_urgently(peer: &mut Peer, dice: &mut Dice) {
        for _ in 0..500 {
            peer.send([b'.'; 64]);
            socket2::SockRef::from(&peer.stream).send_out_of_band(b"!").unwrap();
            if dice.one_in(4) {
                thread::yield_now();
            }
        }
        peer.send("the end");
    }
    let expected = [b".".repeat(64), b"!".to_vec()].concat().repeat(500);
    let expected = [&expected, &b"the end"[..]].concat();
    for io in engines() {
        let wanted = expected.clone();
        let upstream = Upstream::start(move |peer| {
            socket2::SockRef::from(&peer.stream).set_out_of_band_inline(true).unwrap();
            assert_same("to the upstream", &peer.take(wanted.len()), &wanted);
            send_urgently(peer, &mut Dice::new(1));
        });
        let proxy = Proxy::start(io, upstream.address, "--mode tcp");
        let mut client = Peer::connect(proxy.address);
        socket2::SockRef::from(&client.stream).set_out_of_band_inline(true).unwrap();
        send_urgently(&mut client, &mut Dice::new(2));
        assert_same(&format!("{io}: to the client"), &client.take(expected.len()), &expected);
        drop(client);
        proxy.finish();
    }
}

/// An upstream that answers `GET /N` with the Nth hostile response and chance behind it.
fn hostile() -> (Upstream, Arc<Vec<Vec<u8>>>) {
    let mut dice = Dice::new(9);
    let all: Vec<_> = RESPONSES.iter().map(|(_, bytes)| [bytes, &dice.bytes(5_000)[..]].concat()).collect();
    let all = Arc::new(all);
    let served = Arc::clone(&all);
    let upstream = Upstream::ending(move |peer| {
        let head = peer.head();
        let number: usize = head[5..6].parse().unwrap();
        Dice::new(number as u64).send(peer, &served[number]);
        peer.half_close();
        ControlFlow::Continue(())
    });
    (upstream, all)
}

#[test]
fn responses_that_cannot_be_followed_pass_byte_for_byte() {
    for io in engines() {
        let (upstream, all) = hostile();
        let mut proxy = Proxy::start(io, upstream.address, "--pool 0");
        for (number, (reason, _)) in RESPONSES.iter().enumerate() {
            let mut client = Peer::asking(proxy.address, format!("GET /{number} HTTP/1.1\r\n\r\n"));
            let (got, end) = client.rest();
            assert_same(&format!("{io}, {reason}"), &got, &all[number]);
            assert_eq!(end, End::Fin, "{io}, {reason}");
            let told = proxy.told("not_followed", client.address);
            assert_told(&told, &json!({ "reason": reason, "refused": false }));
        }
        assert_told(&proxy.finish(), &json!({ "not_followed": 9, "interrupted": 0 }));
    }
}

#[test]
fn strict_keeps_responses_that_cannot_be_followed_from_the_client() {
    for io in engines() {
        let (upstream, all) = hostile();
        let mut proxy = Proxy::start(io, upstream.address, "--strict --pool 0");
        for (number, (reason, _)) in RESPONSES.iter().enumerate() {
            let mut client =
                Peer::asking(proxy.address, format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let (got, end) = client.rest();
            match *reason {
                // It had begun: no clean end.
                "chunk_size" => {
                    assert!(all[number].starts_with(&got), "{io}");
                    assert_eq!(end, End::Reset, "{io}");
                }
                // The one that was asked for is whole.
                "unsolicited" => {
                    assert!(got.starts_with(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "{io}");
                    assert!(!got.ends_with(&all[number][100..]), "{io}");
                }
                _ => {
                    let got = String::from_utf8_lossy(&got);
                    assert!(got.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{io}, {reason}: {got}");
                    assert_eq!(end, End::Fin, "{io}, {reason}");
                }
            }
            let told = proxy.told("not_followed", client.address);
            assert_told(&told, &json!({ "reason": reason, "refused": true }));
        }
        proxy.finish();
    }
}
