//! Messages in two writes, from senders with Nagle's algorithm: the second waits for no delayed acknowledgement.

use std::fs;

use crate::namespace::is_alone;
use crate::peer::Peer;
use crate::program::{Proxy, engines};
use crate::upstream::Upstream;

const EXCHANGES: u64 = 100;

/// Acknowledgements for which nothing was sent in 40 ms, in this network.
fn delayed() -> u64 {
    let table = fs::read_to_string("/proc/net/netstat").unwrap();
    let mut lines = table.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "DelayedACKs").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

/// Sends each of these by itself, and with Nagle's algorithm.
fn send_apart(peer: &mut Peer, parts: &[&str]) -> bool {
    peer.stream.set_nodelay(false).unwrap();
    parts.iter().all(|part| peer.try_send(part).is_ok())
}

#[test]
fn a_message_in_two_writes_waits_for_no_delayed_acknowledgement() {
    if !is_alone("acknowledging::a_message_in_two_writes_waits_for_no_delayed_acknowledgement", "true") {
        return;
    }
    let (head, body) = ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "ok");
    let chunked = ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "2\r\nok\r\n", "0\r\n\r\n"];
    let interim = ["HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 200 OK\r\n", "Content-Length: 2\r\n\r\nok"];
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = ["POST / HTTP/1.1\r\nHost: a\r\n", "Content-Length: 2\r\n\r\n", "hi"];
    let by: [(&str, &[&str], &[&str]); 4] = [
        ("head and body", &[get], &[head, body]),
        ("chunks", &[get], &chunked),
        ("an interim response", &[get], &interim),
        ("a request", &post, &[&[head, body].concat()]),
    ];
    for io in engines() {
        for (what, request, response) in by {
            let response: Vec<_> = response.iter().map(|&part| part.to_owned()).collect();
            let with_body = request.len() > 1;
            let upstream = Upstream::forgetful(move |peer| {
                let parts: Vec<_> = response.iter().map(String::as_str).collect();
                while peer.try_head().is_ok()
                    && (!with_body || peer.try_take(2).is_ok())
                    && send_apart(peer, &parts)
                {}
            });
            let proxy = Proxy::start(io, upstream.address, "");
            let mut client = Peer::connect(proxy.address);
            let before = delayed();
            for _ in 0..EXCHANGES {
                assert!(send_apart(&mut client, request));
                let mut answer = client.head();
                if answer.starts_with("HTTP/1.1 103 ") {
                    answer = client.head();
                }
                assert!(answer.starts_with("HTTP/1.1 200 "), "{io}, {what}: {answer}");
                let body = if answer.contains("chunked") { "2\r\nok\r\n0\r\n\r\n" } else { "ok" };
                assert_eq!(client.take(body.len()), body.as_bytes(), "{io}, {what}");
            }
            let delayed = delayed() - before;
            assert!(delayed < EXCHANGES / 2, "{io}, {what}: {delayed} of {EXCHANGES}");
            drop(client);
            proxy.finish_undisturbed(EXCHANGES);
        }
    }
}
