//! Upstreams that fail, and what their clients make of it.

use super::world::{ClientSocket, GET, OK, PART, RULES, UpstreamSocket, World, secs};
use crate::proxy::event::{Failure, Phase};
use crate::proxy::session::{End, HalfClose, Rules, SessionFact};

#[test]
fn an_upstream_that_cannot_be_had_is_a_bad_gateway() {
    for (failure, status) in [
        (Failure::Refused, 502),
        (Failure::Unreachable, 502),
        (Failure::Local, 502),
        (Failure::TimedOut, 504),
    ] {
        let mut world = World::new(RULES);
        world.client(GET).refused(failure).client_got_our(status);
        let told = world.told_upstream_failed();
        assert_eq!((told.failure, told.phase, told.answered), (failure, Phase::Waiting, Some(status)));
        assert_eq!((told.method.as_deref(), told.target.as_deref()), (Some("GET"), Some("/a")));
        // While the body still streams.
        let mut world = World::new(Rules { request_buffer: 0, ..RULES });
        world.client("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n").refused(failure).client_got_our(status);
        assert_eq!(world.told_upstream_failed().phase, Phase::Receiving);
        // In a tunnel there is nothing that could be answered.
        let mut world = World::new(Rules { http: false, ..RULES });
        world.client("hello").refused(failure).client_got("");
        assert_eq!(world.told_upstream_failed().answered, None);
        assert_eq!(world.sockets.client, ClientSocket::Finishing(End::Abort));
    }
}

#[test]
fn a_refused_connect_without_a_client_is_nothing() {
    let mut world = World::new(Rules { http: false, half_close: HalfClose::Gone, ..RULES });
    world.client_fin();
    world.told_interrupted();
    world.feed(SessionFact::NotConnected(Failure::Refused));
    world.told_nothing().sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Close));
}

#[test]
fn an_upstream_that_ends_before_its_response_is_a_bad_gateway() {
    for failure in [Failure::Closed, Failure::Reset, Failure::TimedOut, Failure::Unreachable] {
        // Also behind an interim response, and within the head of one that was not passed on.
        for before in ["", "HTTP/1.1 103 Early\r\n\r\n", "HTTP/1.1 20"] {
            let mut world = World::asked(RULES);
            if !before.is_empty() {
                world.upstream(before);
            }
            world.sockets.to_client.clear();
            if failure == Failure::Closed {
                world.upstream_fin()
            } else {
                world.upstream_gone(failure)
            };
            let status = if failure == Failure::TimedOut { 504 } else { 502 };
            world.client_got_our(status);
            let told = world.told_upstream_failed();
            assert_eq!((told.failure, told.phase, told.status), (failure, Phase::Waiting, None));
            assert_eq!(told.answered, Some(status));
            assert!(matches!(world.sockets.upstream, UpstreamSocket::Ended(_)));
        }
    }
}

/// A word of the upstream before its response.
const POST: &str = "POST /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\n";

#[test]
fn an_upstream_that_ends_a_used_connection_gives_the_client_the_same_end() {
    for failure in [Failure::Closed, Failure::Reset] {
        let mut world = World::answered(RULES);
        world.client(POST);
        if failure == Failure::Closed {
            world.upstream_fin()
        } else {
            world.upstream_gone(failure)
        };
        let told = world.told_upstream_failed();
        assert_eq!((told.failure, told.answered), (failure, None));
        world.client_got("").over();
        // One that had begun to answer has read the request, and it is not known what became of it.
        for (begun, passed) in [(INTERIM, INTERIM), (&OK[..9], "")] {
            let mut world = World::answered(RULES);
            world.client(GET).upstream(begun).client_got(passed);
            if failure == Failure::Closed {
                world.upstream_fin()
            } else {
                world.upstream_gone(failure)
            };
            world.client_got_our(502);
            assert_eq!(world.told_upstream_failed().answered, Some(502));
        }
    }
    // But a timeout is an answer at any time.
    let mut world = World::answered(RULES);
    world.client(GET).upstream_gone(Failure::TimedOut).client_got_our(504).told_upstream_failed();
    World::answered(RULES).client(GET).after(secs(60)).client_got_our(504).told_upstream_failed();
}

#[test]
fn a_response_that_breaks_off_is_passed_on_and_then_its_truncation_shows() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
    let until_close = "HTTP/1.1 200 OK\r\n\r\nhel";
    // A length and chunks show it by themselves; nothing else does.
    for (begun, by_fin, end) in [
        (PART, true, End::Close),
        (chunked, true, End::Close),
        (chunked, false, End::Close),
        (until_close, false, End::Abort),
    ] {
        for half_closed in [false, true] {
            let mut world = World::asked(RULES);
            if half_closed {
                world.client_fin().first_question();
            }
            world.upstream(begun).client_got(begun);
            if by_fin {
                world.upstream_fin()
            } else {
                world.upstream_gone(Failure::Reset)
            };
            let told = world.told_upstream_failed();
            assert_eq!((told.failure, told.phase), (Failure::Truncated, Phase::Sending));
            assert_eq!((told.status, told.answered), (Some(200), None));
            assert_eq!(told.response_bytes, begun.len() as u64);
            world.client_got("");
            world.sockets_are(ClientSocket::Finishing(end), UpstreamSocket::Ended(End::Close));
        }
    }
}

#[test]
fn an_upstream_may_close_while_nothing_is_asked_of_it() {
    for reset in [false, true] {
        for begun in ["", "GET"] {
            let mut world = World::answered(RULES);
            if !begun.is_empty() {
                world.client(begun);
            }
            if reset {
                world.upstream_gone(Failure::Reset)
            } else {
                world.upstream_fin()
            };
            world.told_nothing().client_got("");
            world.sockets_are(ClientSocket::Open, UpstreamSocket::Ended(End::Close));
            // The client's next request goes to another connection, on which nothing was answered yet.
            world
                .client(&GET[begun.len()..])
                .connected()
                .upstream_got(GET)
                .upstream_fin()
                .client_got_our(502);
            world.told_upstream_failed();
        }
    }
}

#[test]
fn a_tunnel_whose_upstream_breaks_is_broken_off() {
    let mut world = World::new(Rules { http: false, ..RULES });
    world.connected().upstream("hel").client_got("hel").upstream_gone(Failure::Reset);
    let told = world.told_upstream_failed();
    assert_eq!((told.failure, told.phase, told.response_bytes), (Failure::Truncated, Phase::Tunnel, 3));
    world.sockets_are(ClientSocket::Finishing(End::Abort), UpstreamSocket::Ended(End::Close));
    // Before a byte, too: nothing says that this is the end.
    let mut world = World::new(Rules { http: false, ..RULES });
    world.connected().upstream_gone(Failure::Reset);
    assert_eq!(world.told_upstream_failed().failure, Failure::Reset);
    assert_eq!(world.sockets.client, ClientSocket::Finishing(End::Abort));
}

#[test]
fn an_upstream_that_fails_while_the_client_still_sends_is_told_at_once() {
    let mut world = World::new(Rules { request_buffer: 0, ..RULES });
    world.client("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n").connected().upstream_fin();
    world.client_got_our(502);
    assert_eq!(world.told_upstream_failed().phase, Phase::Receiving);
    // The rest is taken, or our close would be a reset that takes the answer with it.
    assert!(world.session.wants_client());
    world.client("rest").client_fin().told_nothing();
}

#[test]
fn a_fin_of_the_upstream_behind_its_early_response_ends_both() {
    let mut world = World::new(Rules { request_buffer: 0, ..RULES });
    world.client("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n").connected().upstream(OK).client_got(OK);
    world.told_completed(1).upstream_gone(Failure::Reset).told_nothing();
    world.over();
}

#[test]
fn the_answer_to_a_head_has_no_body() {
    let mut world = World::new(RULES);
    world.client("HEAD / HTTP/1.1\r\n\r\n").refused(Failure::Refused);
    let got = std::mem::take(&mut world.sockets.to_client);
    assert!(got.starts_with(b"HTTP/1.1 502 ") && got.ends_with(b"\r\n\r\n"), "{}", got.escape_ascii());
    assert_eq!(world.sockets.client, ClientSocket::Finishing(End::Close));
}

#[test]
fn an_upstream_that_is_lost_after_its_fin_has_not_failed() {
    let mut world = World::new(Rules { http: false, ..RULES });
    world.connected().client("hello").upstream("bye").upstream_fin();
    world.sockets_are(ClientSocket::Finned, UpstreamSocket::Open);
    // What the client still sends is lost, so it gets a RST.
    world.upstream_gone(Failure::TimedOut).told_nothing();
    world.sockets_are(ClientSocket::Finishing(End::Abort), UpstreamSocket::Ended(End::Close));
}

#[test]
fn an_upstream_is_judged_by_its_answers_once_for_each_connection() {
    let mut world = World::asked(RULES);
    assert_eq!(world.sockets.judged, [], "a handshake is no answer");
    world
        .upstream("HTTP/1.1 103 Early\r\n\r\n")
        .upstream(OK)
        .client(GET)
        .upstream(OK)
        .client(GET)
        .upstream_fin();
    assert_eq!(world.sockets.judged, [None], "a used connection that ends has not failed");
    for failure in [Failure::Closed, Failure::Reset] {
        let mut world = World::asked(RULES);
        if failure == Failure::Closed {
            world.upstream_fin()
        } else {
            world.upstream_gone(failure)
        };
        assert_eq!(world.sockets.judged, [Some(failure)]);
        let mut world = World::asked(RULES);
        world.upstream(PART);
        if failure == Failure::Closed {
            world.upstream_fin()
        } else {
            world.upstream_gone(failure)
        };
        assert_eq!(world.sockets.judged, [None], "it answered");
    }
    // Time is the handler's.
    let mut world = World::asked(RULES);
    world.after(secs(60)).client_got_our(504);
    assert_eq!(world.sockets.judged, []);
    let tunnel = || World::new(Rules { http: false, ..RULES });
    let mut world = tunnel();
    world.connected().upstream("220").upstream("more");
    assert_eq!(world.sockets.judged, [None]);
    let mut world = tunnel();
    world.connected().client("line").client_fin().upstream_fin();
    assert_eq!(world.sockets.judged, [None], "it had nothing to say");
    let mut world = tunnel();
    world.connected().upstream_gone(Failure::Reset);
    assert_eq!(world.sockets.judged, [Some(Failure::Reset)]);
}
