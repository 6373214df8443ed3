//! Where messages end, and what goes on in between.

use super::world::{ClientSocket, GET, OK, PART, RULES, UpstreamSocket, World, secs};
use crate::http::Reason;
use crate::limits::{MAX_HELD, MAX_PIPELINED};
use crate::proxy::event::{Phase, ProxyEvent};
use crate::proxy::session::{Effect, End, Rules};

const POST: &str = "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";

#[test]
fn a_request_goes_out_and_its_response_comes_back() {
    let mut world = World::new(RULES);
    world.in_phase(Phase::Idle).sockets_are(ClientSocket::Open, UpstreamSocket::None);
    world.client(&GET[..9]).in_phase(Phase::Receiving).sockets_are(ClientSocket::Open, UpstreamSocket::None);
    world.client(&GET[9..]).in_phase(Phase::Waiting);
    world.sockets_are(ClientSocket::Open, UpstreamSocket::Connecting).upstream_got("");
    world.connected().upstream_got(GET).in_phase(Phase::Waiting);
    world.upstream(&OK[..20]).client_got("").in_phase(Phase::Waiting);
    world.upstream(&OK[20..OK.len() - 1]).client_got(PART).in_phase(Phase::Sending).told_nothing();
    world.upstream("k").client_got("k").in_phase(Phase::Idle).told_completed(1);
    assert_eq!(world.session.holds(), 0);
}

#[test]
fn the_next_request_goes_to_the_same_upstream() {
    let mut world = World::answered(RULES);
    for _ in 0..3 {
        world.client(GET).upstream_got(GET).in_phase(Phase::Waiting);
        world.upstream(OK).client_got(OK).told_completed(1).in_phase(Phase::Idle);
    }
    world.both_open();
    world.client_fin().over().told_nothing();
}

#[test]
fn a_client_that_asked_to_close_gets_a_fin_from_a_server_that_does_not_close() {
    for request in [
        "GET /a HTTP/1.0\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n\r\n",
        "GET /a HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
    ] {
        for pool in [false, true] {
            let mut world = World::new(Rules { pool, ..RULES });
            world.client(format!("{request}{GET}")).connected().upstream_got(request);
            world.upstream(OK).client_got(OK).upstream_got("");
            let upstream =
                if pool { UpstreamSocket::Released(false) } else { UpstreamSocket::Ended(End::Close) };
            world.sockets_are(ClientSocket::Finishing(End::Close), upstream);
        }
    }
    let mut world = World::new(RULES);
    let kept = "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    world.client(kept).connected().upstream_got(kept).upstream(OK).client_got(OK).in_phase(Phase::Idle);
}

#[test]
fn a_request_that_is_sent_ahead_waits_for_the_response_before_it() {
    let mut world = World::new(RULES);
    let [first, second, third] = ["/1", "/2", "/3"].map(|target| GET.replace("/a", target));
    world.client(format!("{first}{second}{}", &third[..7])).connected().upstream_got(&first);
    world.client(&third[7..]).upstream_got("");
    world.upstream(PART).upstream_got("");
    world.upstream("k").upstream_got(&second).client_got(OK).told_completed(1).in_phase(Phase::Waiting);
    world.upstream(OK).upstream_got(&third).told_completed(1);
    world.upstream(OK).upstream_got("").told_completed(1).in_phase(Phase::Idle);
}

#[test]
fn a_client_that_sends_far_ahead_is_not_read() {
    let mut world = World::asked(RULES);
    assert!(world.session.wants_client());
    world.client(vec![b'x'; MAX_PIPELINED - 1]);
    assert!(world.session.wants_client());
    world.client("x");
    assert!(!world.session.wants_client());
    assert_eq!(world.session.holds(), MAX_PIPELINED);
}

#[test]
fn a_body_is_gathered_before_the_upstream_sees_the_request() {
    let mut world = World::new(RULES);
    world.client(format!("{POST}hel")).in_phase(Phase::Receiving);
    world.sockets_are(ClientSocket::Open, UpstreamSocket::None);
    world.client("lo").in_phase(Phase::Waiting).sockets_are(ClientSocket::Open, UpstreamSocket::Connecting);
    world.connected().upstream_got(format!("{POST}hello"));
    world.upstream(OK).told_completed(1);
    world.client(format!("{POST}hel")).upstream_got("").client("lo").upstream_got(format!("{POST}hello"));
}

#[test]
fn a_body_that_is_larger_than_is_gathered_streams() {
    let mut world = World::new(Rules { request_buffer: POST.len() + 4, ..RULES });
    world.client(POST).in_phase(Phase::Receiving);
    world.sockets_are(ClientSocket::Open, UpstreamSocket::Connecting);
    world.client("he").connected().upstream_got(format!("{POST}he")).in_phase(Phase::Receiving);
    world.client("ll").upstream_got("ll").client(format!("o{GET}")).upstream_got("o");
    world.in_phase(Phase::Waiting).upstream(OK).client_got(OK).told_completed(1).upstream_got(GET);
    let mut fits = World::new(Rules { request_buffer: POST.len() + 5, ..RULES });
    fits.client(POST).sockets_are(ClientSocket::Open, UpstreamSocket::None);
}

#[test]
fn chunks_stream_because_their_end_may_be_far_away() {
    let head = "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut world = World::new(RULES);
    world.client(head).client("5\r\nhello\r\n").sockets_are(ClientSocket::Open, UpstreamSocket::Connecting);
    world.connected().upstream_got(format!("{head}5\r\nhello\r\n")).in_phase(Phase::Receiving);
    world.client("a\r\n0123").upstream_got("a\r\n0123");
    world.client("456789\r\n0\r\nT: v\r\n\r\n").upstream_got("456789\r\n0\r\nT: v\r\n\r\n");
    world.in_phase(Phase::Waiting).upstream(OK).told_completed(1);
}

#[test]
fn chunks_are_followed_both_ways_to_behind_their_trailers() {
    let request = "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n";
    let response =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\nC: d\r\n\r\n";
    let mut world = World::new(RULES);
    for at in 0..request.len() {
        world.client(&request[at..=at]);
    }
    world.connected().upstream_got(request).in_phase(Phase::Waiting);
    for at in 0..response.len() {
        world.told_nothing().upstream(&response[at..=at]);
    }
    world.client_got(response).told_completed(1).in_phase(Phase::Idle);
}

#[test]
fn a_body_that_is_whole_before_the_upstream_is_connected_waits() {
    let mut world = World::new(Rules { request_buffer: 0, ..RULES });
    world.client(POST).client("hel").client(format!("lo{GET}"));
    world.in_phase(Phase::Waiting).upstream_got("");
    world.connected().upstream_got(format!("{POST}hello")).in_phase(Phase::Waiting);
    world.upstream(OK).client_got(OK).upstream_got(GET).told_completed(1);
}

#[test]
fn a_client_is_not_read_beyond_what_is_held_while_its_upstream_is_not_connected() {
    let mut world = World::new(Rules { request_buffer: 0, ..RULES });
    let head = "POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n";
    world.client(head).client(vec![b'x'; MAX_HELD - head.len()]);
    assert!(!world.session.wants_client());
    world.connected();
    assert!(world.session.wants_client());
    assert_eq!((world.session.holds(), world.sockets.to_upstream.len()), (0, MAX_HELD));
}

#[test]
fn a_response_without_a_body_ends_with_its_head() {
    let head = "HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n";
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (request, response) in [
        (head, long),
        (head, chunked),
        (head, "HTTP/1.1 200 OK\r\n\r\n"),
        (GET, "HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5000\r\n\r\n"),
        (GET, "HTTP/1.1 304 Not Modified\r\n\r\n"),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let mut world = World::asked_with(RULES, request);
        world.upstream(response).client_got(response).told_completed(1).in_phase(Phase::Idle);
        world.client(GET).upstream_got(GET).upstream(OK).client_got(OK).told_completed(1);
    }
}

#[test]
fn interim_responses_pass_and_answer_nothing() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let mut world = World::asked(RULES);
    world.upstream(interim).client_got(interim).in_phase(Phase::Waiting).told_nothing();
    world.upstream(format!("{interim}{}", &interim[..30])).client_got(interim).in_phase(Phase::Waiting);
    world.upstream(format!("{}{OK}", &interim[30..])).client_got(format!("{interim}{OK}")).told_completed(1);
}

#[test]
fn an_upgrade_becomes_a_tunnel_both_ways() {
    let request = "GET /chat HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let mut world = World::asked_with(RULES, request);
    world.client("ahead").upstream_got("");
    world.upstream(format!("{switch}\x01\x02")).client_got(format!("{switch}\x01\x02"));
    world.upstream_got("ahead").in_phase(Phase::Tunnel).told_completed(1);
    world.client("\0GET").upstream_got("\0GET").upstream("\0HTTP").client_got("\0HTTP").told_nothing();
    world.client_reset();
    let told = world.told_interrupted();
    assert_eq!((told.phase, told.method, told.status), (Phase::Tunnel, None, None));
    assert_eq!(told.request_bytes, (request.len() + 5 + 4) as u64);
    assert_eq!(told.response_bytes, (switch.len() + 2 + 5) as u64);
}

#[test]
fn a_granted_connect_is_a_tunnel_and_a_refused_one_is_not() {
    let request = "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n";
    let granted = "HTTP/1.1 200 Yes\r\nContent-Length: 5\r\n\r\n";
    let mut world = World::asked_with(RULES, request);
    world.upstream(granted).client_got(granted).told_completed(1).in_phase(Phase::Tunnel);
    world.client("\x16\x03").upstream_got("\x16\x03").upstream("\x16").client_got("\x16");

    let refused = "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno";
    let mut world = World::asked_with(RULES, request);
    world.upstream(refused).client_got(refused).told_completed(1).in_phase(Phase::Idle);
    world.client(GET).upstream_got(GET).in_phase(Phase::Waiting);
}

#[test]
fn a_response_may_end_with_its_connection() {
    let mut world = World::asked(RULES);
    world.client(GET);
    world.upstream("HTTP/1.1 200 OK\r\n\r\nsome").upstream(" more").in_phase(Phase::Sending).told_nothing();
    world.upstream_fin().client_got("HTTP/1.1 200 OK\r\n\r\nsome more").told_completed(1).upstream_got("");
    world.over();
}

#[test]
fn behind_a_response_that_is_the_last_nothing_is_asked() {
    for last in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let mut world = World::asked(RULES);
        world.client(GET).upstream(last).client_got(last).told_completed(1).upstream_got("");
        world.over();
        // What it still sends is taken, so that our close is no reset, and thrown away.
        assert!(world.session.wants_client());
        world.client(GET).client_fin().client_reset().told_nothing();
    }
}

#[test]
fn a_client_that_expects_a_100_gets_the_upstreams() {
    let request = POST.replace("Host", "Expect: 100-continue\r\nHost");
    let mut world = World::new(RULES);
    world.client(&request).in_phase(Phase::Receiving).connected().upstream_got(&request);
    let go = "HTTP/1.1 100 Continue\r\n\r\n";
    world.upstream(go).client_got(go).in_phase(Phase::Receiving).told_nothing();
    world.client("hello").upstream_got("hello").in_phase(Phase::Waiting);
    world.upstream(OK).client_got(OK).told_completed(1);
}

#[test]
fn a_response_may_come_while_the_body_still_streams() {
    let rules = Rules { request_buffer: 0, ..RULES };
    // It ends before the body.
    let mut world = World::new(rules);
    world.client(format!("{POST}h")).connected().upstream_got(format!("{POST}h"));
    world.upstream(PART).in_phase(Phase::Sending).client("e").upstream_got("e");
    world.upstream("k").client_got(OK).in_phase(Phase::Receiving).told_completed(1);
    world
        .client(format!("llo{GET}"))
        .upstream_got(format!("llo{GET}"))
        .in_phase(Phase::Waiting)
        .told_nothing();
    world.upstream(OK).told_completed(1).in_phase(Phase::Idle);
    // It ends behind the body.
    let mut world = World::new(rules);
    world.client(format!("{POST}h")).connected().upstream(PART);
    world.client(format!("ello{GET}")).upstream_got(format!("{POST}hello")).in_phase(Phase::Sending);
    world.upstream("k").client_got(OK).upstream_got(GET).told_completed(1);
    // It is the last: nothing reads the rest of the body.
    let mut world = World::new(rules);
    let last = "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    world.client(format!("{POST}h")).connected().upstream(last).client_got(last).told_completed(1);
    world.over().client("ello").told_nothing();
}

#[test]
fn a_client_that_was_answered_early_is_free_to_leave() {
    let rules = Rules { request_buffer: 0, ..RULES };
    let early = || {
        let mut world = World::new(rules);
        world.client(format!("{POST}h")).connected().upstream(OK).client_got(OK).told_completed(1);
        world
    };
    early().client_fin().told_nothing().over();
    early().upstream_fin().told_nothing().over();
    early().client_reset().told_nothing();
    early().after(secs(30)).told_nothing().client_got("").over();
    // It stops in the middle of its body while the response flows.
    let mut world = World::new(rules);
    world.client(format!("{POST}h")).connected().upstream(PART).client_fin().told_nothing();
    // Its server must not wait for the rest.
    world.finned();
    world.upstream("k").client_got(OK).told_completed(1).over();
}

#[test]
fn a_response_without_a_request_is_passed_on_and_not_followed() {
    let mut world = World::answered(RULES);
    world.upstream(OK).client_got(OK).told_not_followed(Reason::Unsolicited, false).in_phase(Phase::Tunnel);
    // Right behind a response.
    let mut world = World::asked(RULES);
    world.client(GET).upstream(format!("{OK}more")).client_got(format!("{OK}more")).upstream_got(GET);
    assert_eq!(world.told().len(), 2);
    world.in_phase(Phase::Tunnel);
    // While the next request comes.
    let mut world = World::answered(RULES);
    world.client(&GET[..5]).upstream("x").client_got("x").upstream_got(&GET[..5]).in_phase(Phase::Tunnel);
    world.client(&GET[5..]).upstream_got(&GET[5..]);
    // Behind the last one there is no client to pass it on to.
    let mut world = World::asked(RULES);
    let last = "HTTP/1.1 204 No\r\nConnection: close\r\n\r\n";
    world.upstream(format!("{last}more")).client_got(last).told_completed(1);
}

#[test]
fn empty_lines_between_requests_are_no_request() {
    let mut world = World::answered(RULES);
    world.client("\r\n").in_phase(Phase::Idle).after(secs(1_000)).told_nothing();
    world.client_got("").client(GET).upstream_got(format!("\r\n{GET}")).upstream(OK).told_completed(1);
    world.client("\r\n\r").in_phase(Phase::Idle);
    world.client_fin().told_nothing();
    world.over();
    // And behind the last one, with the FIN on their heels.
    let mut world = World::asked(RULES);
    world.client("\r\n").client_fin().first_question().upstream(OK).told_completed(1);
    world.over();
}

#[test]
fn without_http_all_is_a_tunnel_from_the_beginning() {
    let mut world = World::new(Rules { http: false, ..RULES });
    world.in_phase(Phase::Tunnel).sockets_are(ClientSocket::Open, UpstreamSocket::Connecting);
    world.client("any").client("thing").upstream_got("").connected().upstream_got("anything");
    world.upstream("at all").client_got("at all").client("more").upstream_got("more").told_nothing();
    world.client_reset();
    let told = world.told_interrupted();
    assert_eq!((told.phase, told.request_bytes, told.response_bytes), (Phase::Tunnel, 12, 6));
}

#[test]
fn a_tunnel_ends_side_by_side() {
    let tunnel = || {
        let mut world = World::new(Rules { http: false, ..RULES });
        world.connected();
        world
    };
    // The upstream first: what the client still says goes its way.
    let mut world = tunnel();
    world.upstream("bye").upstream_fin().client_got("bye");
    world.sockets_are(ClientSocket::Finned, UpstreamSocket::Open);
    world.client("and this").upstream_got("and this");
    world.client_fin().over().told_nothing();
    // The client first: its FIN is passed on.
    let mut world = tunnel();
    world.client("question").client_fin().upstream_got("question");
    world.finned();
    world.upstream("answer").client_got("answer").finned();
    world.after(secs(100)).upstream("more").client_got("more").told_nothing();
    world.upstream_fin().over().told_nothing();
}

#[test]
fn bytes_that_only_pass_through_are_not_copied_and_an_idle_session_keeps_no_memory() {
    let mut world = World::answered(Rules { log: false, ..RULES });
    world.client(GET).upstream(OK);
    assert_eq!(world.effects, [Effect::PassToClient(0..OK.len()), Effect::Report(ProxyEvent::Completed)]);
    world.client(GET).upstream(&OK[..9]);
    assert_eq!(world.effects, []);
    world.upstream(&OK[9..]);
    let begun = Effect::SendToClient(OK.as_bytes()[..9].to_vec());
    let passed = Effect::PassToClient(0..OK.len() - 9);
    assert_eq!(world.effects, [begun, passed, Effect::Report(ProxyEvent::Completed)]);
    assert_eq!((world.session.held.capacity(), world.session.partial_head.capacity()), (0, 0));

    let mut world = World::new(Rules { request_buffer: 0, ..RULES });
    world.client("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n").connected().client("four");
    assert_eq!(world.effects, [Effect::PassToUpstream(0..4)]);
}
