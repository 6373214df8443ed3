//! Upstream connections that are given back after each exchange, and requests that are sent again.

use super::world::{ClientSocket, GET, OK, PART, RULES, UpstreamSocket, World};
use crate::proxy::event::{Failure, Phase};
use crate::proxy::session::{Effect, End, HalfClose, Reuse, Rules, SessionFact};

const POOL: Rules = Rules { pool: true, ..RULES };
const POST: &str = "POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi";
const RELEASED: UpstreamSocket = UpstreamSocket::Released(true);

/// A session that finds an idle connection at every connect.
fn pooled(rules: Rules) -> World {
    let mut world = World::new(rules);
    world.sockets.idle = 0xFF;
    world
}

#[test]
fn a_connection_is_given_back_when_its_exchange_is_over() {
    let mut world = World::answered(POOL);
    world.sockets_are(ClientSocket::Open, RELEASED);
    // The next request takes any, and one that comes ahead too.
    world.sockets.idle = 0xFF;
    world.client([GET, GET].concat()).upstream_got(GET).upstream(OK).upstream_got(GET).client_got(OK);
    world.upstream(OK).client_got(OK).told_completed(2).sockets_are(ClientSocket::Open, RELEASED);
    assert_eq!(world.sockets.reused, 2);
    // So the client's end is no end for the upstream.
    world.client_fin().sockets_are(ClientSocket::Finishing(End::Close), RELEASED);
}

#[test]
fn an_upstream_that_takes_nothing_more_is_to_close() {
    let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let mut world = World::asked(POOL);
    world.upstream(last).client_got(last).told_completed(1);
    world.sockets_are(ClientSocket::Finishing(End::Close), UpstreamSocket::Released(false));
}

#[test]
fn a_half_closed_client_gives_the_connection_back_unless_its_fin_was_passed_on() {
    let mut world = World::asked(POOL);
    world.client_fin().first_question().upstream(OK).client_got(OK).told_completed(1);
    world.sockets_are(ClientSocket::Finishing(End::Close), RELEASED);
    let mut world = World::asked(Rules { half_close: HalfClose::Forward, ..POOL });
    world.client_fin().upstream(OK).client_got(OK).told_completed(1).over();
}

#[test]
fn bytes_behind_a_response_reach_nobody() {
    for rules in [POOL, Rules { strict: true, ..POOL }] {
        let mut world = World::asked(rules);
        world.upstream([OK, "HTTP/1.1 200 Other"].concat()).client_got(OK).told_completed(1);
        world.sockets_are(ClientSocket::Open, UpstreamSocket::Released(false)).in_phase(Phase::Idle);
    }
}

#[test]
fn a_tunnel_has_a_connection_of_its_own() {
    let upgrade = "GET /a HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    let mut world = pooled(POOL);
    world.client(upgrade).upstream("HTTP/1.1 101 Go\r\n\r\n").in_phase(Phase::Tunnel);
    world.client("a").upstream("b").both_open().upstream_fin().client_fin().over();
    // Another protocol never goes over a connection that has carried HTTP.
    let mut world = pooled(POOL);
    world.client("\0").sockets_are(ClientSocket::Open, UpstreamSocket::Connecting);
}

#[test]
fn a_client_keeps_a_connection_on_which_it_logs_in() {
    for (scheme, kept) in [("Negotiate", true), ("NTLM TlRM", true), ("Basic realm=\"x\"", false)] {
        let asks = format!("HTTP/1.1 401 No\r\nWWW-Authenticate: {scheme}\r\nContent-Length: 0\r\n\r\n");
        let mut world = World::asked(POOL);
        world.upstream(&asks).client_got(&asks).told_completed(1);
        let expected = if kept { UpstreamSocket::Open } else { RELEASED };
        world.sockets_are(ClientSocket::Open, expected);
        if kept {
            world.client(GET).upstream_got(GET).upstream(OK).both_open().client_fin().over();
        }
    }
}

/// Requests that can be sent again go over an idle connection at once; others only if their client has seen that its own
/// connection can end between two requests.
#[test]
fn a_request_that_streams_begins_on_a_new_connection() {
    let stream = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut world = pooled(POOL);
    world.client(stream).sockets_are(ClientSocket::Open, UpstreamSocket::Connecting).connected();
    world.client("0\r\n\r\n").upstream(OK).client(stream).both_open();
    assert_eq!(world.sockets.reused, 1);
}

#[test]
fn the_first_request_of_a_client_takes_an_old_connection_only_if_it_may_be_sent_twice() {
    for (request, expected) in [(GET, Reuse::Idle), (POST, Reuse::Young)] {
        let mut world = World::new(POOL);
        world.client(request);
        assert_eq!(world.effects, [Effect::Connect(expected)]);
        // One that has had a response knows what may happen.
        let mut world = World::answered(POOL);
        world.client(request);
        assert_eq!(world.effects, [Effect::Connect(Reuse::Idle)]);
    }
}

#[test]
fn a_request_that_meets_the_end_of_an_idle_connection_is_sent_again() {
    let fin = SessionFact::UpstreamFin;
    let reset = SessionFact::UpstreamGone(Failure::Reset);
    for fact in [fin, reset] {
        // The request, and whether the upstream had received it: a POST is sent again only if it had not.
        for (request, received) in [(GET, true), (GET, false), (POST, false)] {
            let mut world = pooled(POOL);
            world.sockets.received = received;
            world.client(request).upstream_got(request).feed(fact).told_nothing();
            world.sockets_are(ClientSocket::Open, UpstreamSocket::Connecting);
            world.connected().upstream_got(request).upstream(OK).client_got(OK).told_completed(1);
            // What a new connection does is the upstream's answer.
            let mut world = pooled(POOL);
            world.sockets.received = received;
            world.client(request).feed(fact).connected().feed(fact).client_got_our(502);
            assert_eq!(world.sockets.judged.len(), 1, "only the new one counts against it");
        }
        // One that was received is not: its client is told, if it does not know such ends.
        let mut world = pooled(POOL);
        world.client(POST).feed(fact).client_got_our(502);
        let mut world = World::answered(POOL);
        world.sockets.idle = 0xFF;
        world.client(POST).feed(fact).client_got("").over();
        // Nor is one whose response has begun.
        let mut world = pooled(POOL);
        world.client(GET).upstream(PART).feed(fact).client_got(PART).told_upstream_failed();
        let mut world = pooled(POOL);
        world.client(GET).upstream("HTTP/1.1").feed(fact).client_got_our(502);
    }
}

#[test]
fn a_request_for_whose_copy_there_is_no_memory_is_not_sent_again() {
    let mut world = pooled(POOL);
    world.sockets.room = GET.len() - 1;
    world.client(GET).upstream_got(GET).upstream_fin().client_got_our(502);
}

#[test]
fn what_a_client_has_sent_ahead_stays_behind_a_request_that_is_sent_again() {
    let mut world = pooled(POOL);
    world.client(GET).client(POST).upstream_got(GET).upstream_fin().connected().upstream_got(GET);
    world.upstream(OK).upstream_got(POST).client_got(OK);
}

#[test]
fn a_client_that_has_left_is_not_served_again() {
    let mut world = pooled(POOL);
    world.client(GET).client_fin().first_question().upstream_fin().connected().client_reset();
    world.told_interrupted();
}
