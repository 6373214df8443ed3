//! Heads that are rewritten on their way to the upstream, however they come.

use super::world::{OK, RULES, World};
use crate::http::{Forwarded, Reason};
use crate::proxy::event::{Phase, ProxyEvent};
use crate::proxy::session::Rules;

const REPLACE: Rules = Rules { forwarded: Forwarded::Replace, ..RULES };

const SPOOFED: &str = "X-Forwarded-For: 10.0.0.1\r\n";
const OWN: &str =
    "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nForwarded: for=192.0.2.7;proto=http\r\n";

/// A request, and the same as its upstream gets it.
fn request(line: &str, fields: &str, body: &str) -> (String, String) {
    let given = format!("{line}\r\n{SPOOFED}{fields}\r\n{body}");
    (given, format!("{line}\r\n{fields}{OWN}\r\n{body}"))
}

#[test]
fn every_request_of_a_connection_is_rewritten_and_nothing_behind_its_head() {
    let requests = [
        request("GET /a HTTP/1.1", "", ""),
        request("POST /b HTTP/1.1", "Content-Length: 5\r\n", "hello"),
        request("POST /c HTTP/1.1", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
        request("POST /d HTTP/1.1", "Content-Length: 5000\r\n", &"X-Forwarded-For: b\r\n".repeat(250)),
        request("HEAD /e HTTP/1.1", "Cookie: a\r\nHost: h\r\n", ""),
    ];
    let given: String = requests.iter().map(|(given, _)| given.as_str()).collect();
    // All at once; one after the other, byte by byte; and in two pieces cut anywhere.
    for cut in [0, 1, 60, 61, 200, 500] {
        let mut world = World::new(REPLACE);
        let (first, rest) = given.split_at(cut);
        world.client(first);
        if cut == 1 {
            rest.bytes().for_each(|byte| {
                world.client([byte]);
            });
        } else {
            world.client(rest);
        }
        world.connected();
        for (_, sent) in &requests {
            world.upstream_got(sent).upstream(if sent.starts_with("HEAD") {
                &OK[..OK.len() - 2]
            } else {
                OK
            });
        }
        world.told_completed(requests.len()).in_phase(Phase::Idle);
        assert_eq!(world.session.memory(), 0, "{cut}");
    }
    let mut world = World::new(REPLACE);
    for (number, (given, sent)) in requests[..4].iter().enumerate() {
        world.client(given);
        if number == 0 {
            world.connected();
        }
        world.upstream_got(sent).upstream(OK).client_got(OK);
    }
}

#[test]
fn a_request_is_counted_and_logged_as_it_came() {
    let (given, _) = request("POST /b HTTP/1.1", "Content-Length: 5\r\n", "hello");
    let mut world = World::new(REPLACE);
    world.client(&given).connected().upstream(OK);
    assert_eq!(world.sockets.logged[0].request_bytes, given.len() as u64);
    let mut world = World::new(REPLACE);
    world.client(&given[..given.len() - 2]).client_reset();
    assert_eq!(world.told_interrupted().request_bytes, given.len() as u64 - 2);
}

#[test]
fn a_tunnel_that_is_granted_passes_bytes_as_they_are() {
    let (given, sent) = request("GET /chat HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "");
    let mut world = World::new(REPLACE);
    world.client(&given).connected().upstream_got(&sent);
    world.upstream("HTTP/1.1 101 Switching Protocols\r\n\r\n").in_phase(Phase::Tunnel);
    let inner = request("GET / HTTP/1.1", "", "").0;
    world.client(&inner).upstream_got(&inner);
}

#[test]
fn what_is_not_followed_is_refused_because_it_could_name_any_client() {
    let spoofed = format!("{SPOOFED}\r\n");
    for (bytes, reason) in [
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Reason::Http2),
        ("\x16\x03\x01".to_owned(), Reason::Tls),
        (format!("GET / HTTP/1.1\nA: b\r\n{spoofed}"), Reason::BareLf),
        (format!("GET / HTTP/1.1\r\nA: b\r\n c\r\n{spoofed}"), Reason::ObsFold),
        (
            format!("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n{spoofed}a"),
            Reason::ManyLengths,
        ),
    ] {
        for forwarded in [Forwarded::Append, Forwarded::Replace] {
            let mut world = World::new(Rules { forwarded, ..RULES });
            world.client(&bytes).told_not_followed(reason, true).upstream_got("").client_got_our(400);
        }
    }
    // Also behind a response that cannot be followed.
    let mut world = World::new(REPLACE);
    world.client(request("GET / HTTP/1.1", "", "").0).connected().upstream("HTTP/1.1 200 OK\n\n");
    assert_eq!(world.told(), [ProxyEvent::NotFollowed { reason: Reason::BareLf, refused: true }]);
    world.client_got_our(502);
}
