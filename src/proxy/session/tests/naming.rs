//! Connections that begin with a PROXY header.

use super::world::{ClientSocket, GET, OK, RULES, UpstreamSocket, World, millis};
use crate::http::Forwarded;
use crate::proxy::event::{Phase, ProxyEvent};
use crate::proxy::proxy_protocol::{Named, ProxyFault};
use crate::proxy::session::{End, Rules, SessionFact};

const HTTP: Rules = Rules { accept_proxy: true, ..RULES };
const TCP: Rules = Rules { http: false, ..HTTP };

const LINE: &str = "PROXY TCP4 198.51.100.9 192.0.2.1 50000 443\r\n";
const LOCAL: &str = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn named() -> Named {
    Named { client: "198.51.100.9:50000".parse().unwrap(), local: "192.0.2.1:443".parse().unwrap() }
}

#[test]
fn what_follows_the_header_is_the_clients_however_it_is_cut() {
    let bytes = format!("{LINE}{GET}{GET}");
    for cut in 0..bytes.len() {
        let mut world = World::new(HTTP);
        world.client(&bytes[..cut]).client(&bytes[cut..]).connected().upstream_got(GET).upstream(OK);
        world.upstream_got(GET).upstream(OK).client_got([OK, OK].concat()).told_completed(2);
        assert_eq!(world.sockets.named, [named()], "{cut}");
        // Nothing is connected to before the client is known.
        let bytes = format!("{LINE}bytes");
        let mut world = World::new(TCP);
        let (first, rest) = bytes.split_at(cut.min(bytes.len()));
        world.client(first);
        let begun = first.len() >= LINE.len();
        assert_eq!(world.sockets.upstream == UpstreamSocket::Connecting, begun, "{cut}");
        world.client(rest).connected().upstream_got("bytes").in_phase(Phase::Tunnel);
        world.upstream("more").client_got("more").client("again").upstream_got("again").told_nothing();
        assert_eq!(world.sockets.named, [named()], "{cut}");
    }
}

#[test]
fn a_server_that_speaks_first_is_connected_to_behind_the_header() {
    let mut world = World::new(TCP);
    world.client(LINE).connected().upstream("220 hello").client_got("220 hello").upstream_got("");
}

#[test]
fn the_client_that_was_named_is_the_one_that_is_forwarded() {
    for (header, client) in [(LINE, "198.51.100.9"), (LOCAL, "192.0.2.7"), ("PROXY UNKNOWN\r\n", "192.0.2.7")]
    {
        let mut world = World::new(Rules { forwarded: Forwarded::Replace, ..HTTP });
        world.client(format!("{header}{GET}")).connected();
        let sent = String::from_utf8(world.sockets.to_upstream.clone()).unwrap();
        assert!(sent.contains(&format!("\r\nX-Forwarded-For: {client}\r\n")), "{sent}");
    }
}

#[test]
fn a_connection_that_begins_otherwise_is_reset_and_told() {
    let long = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff";
    for rules in [HTTP, TCP] {
        for (bytes, fault) in [
            (GET.as_bytes(), ProxyFault::Missing),
            (b"PROXY TCP4 a b c d\r\n", ProxyFault::Malformed),
            (long, ProxyFault::TooLong),
        ] {
            let mut world = World::new(rules);
            world.client(bytes).client_got("").upstream_got("");
            assert_eq!(world.told(), [ProxyEvent::HeaderRefused(fault)]);
            world.sockets_are(ClientSocket::Finishing(End::Abort), UpstreamSocket::None);
        }
        let mut world = World::new(rules);
        world.client(&LINE[..9]).after(rules.head_timeout - millis(1)).told_nothing();
        world.client(&LINE[9..12]).after(millis(1)).client_got("");
        assert_eq!(world.told(), [ProxyEvent::HeaderRefused(ProxyFault::Timeout)]);
        let mut world = World::new(rules);
        world.sockets.room = 0;
        world.client(&LINE[..9]);
        assert_eq!(world.told(), [ProxyEvent::HeaderRefused(ProxyFault::RequestMemory)]);
    }
}

#[test]
fn a_check_of_a_load_balancer_is_no_exchange() {
    for rules in [HTTP, TCP] {
        // It connects and closes, or resets, or says nothing.
        World::new(rules).client_fin().told_nothing();
        World::new(rules).client_reset().told_nothing();
        World::new(rules).after(rules.head_timeout).told_nothing();
        World::new(rules).feed(SessionFact::Cut).told_nothing();
    }
    // It says that it speaks for itself.
    let mut world = World::new(HTTP);
    world.client(LOCAL).client_fin().told_nothing();
    assert_eq!(world.sockets.logged, []);
    // It leaves in the middle of its header.
    let mut world = World::new(HTTP);
    world.client(&LINE[..9]).client_fin();
    assert_eq!(world.told_interrupted().phase, Phase::Receiving);
}
