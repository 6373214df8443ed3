//! What is refused, what is only not followed, and for what one is too late.

use super::world::{ClientSocket, GET, OK, PART, RULES, UpstreamSocket, World, millis, secs};
use crate::http::Reason;
use crate::limits::{MAX_HEAD, MAX_HEADERS};
use crate::proxy::event::{Failure, Phase, ProxyEvent, Refusal};
use crate::proxy::session::{End, Rules};

const STRICT: Rules = Rules { strict: true, ..RULES };

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A request for each reason that a request can be one of.
const REQUESTS: [(&str, Reason); 13] = [
    ("\x16\x03\x01", Reason::Tls),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reason::Http2),
    ("\x01\x02\x03", Reason::NotHttp),
    ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Reason::BareCr),
    ("GET / HTTP/1.1\nA: b\n\n", Reason::BareLf),
    ("GET / HTTP/1.1\r\nA: \0\r\n\r\n", Reason::Nul),
    ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Reason::ObsFold),
    ("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", Reason::BothLengths),
    ("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Reason::ManyLengths),
    ("POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc", Reason::BadLength),
    ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Reason::TransferEncoding),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc", Reason::ChunkSize),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd", Reason::ChunkEnd),
];

/// A response for each reason that a response can be one of.
const RESPONSES: [(&str, Reason); 14] = [
    ("hello\r\n", Reason::NotHttp),
    ("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", Reason::BareCr),
    ("HTTP/1.1 200 OK\nA: b\n\n", Reason::BareLf),
    ("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", Reason::Nul),
    ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Reason::ObsFold),
    ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Reason::BothLengths),
    ("HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc", Reason::ManyLengths),
    ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Reason::BadLength),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Reason::TransferEncoding),
    ("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\nabc", Reason::BodyForbidden),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", Reason::ChunkSize),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", Reason::ChunkEnd),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n :\r\n\r\n", Reason::Trailer),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1", Reason::Unsolicited),
];

#[test]
fn every_reason_is_met_here() {
    let met = |reason| {
        REQUESTS.iter().chain(&RESPONSES).any(|&(_, met)| met == reason)
            || matches!(reason, Reason::ResponseHead | Reason::Host)
    };
    assert!(Reason::ALL.into_iter().all(met));
}

#[test]
fn a_request_that_is_not_followed_is_relayed_as_it_came() {
    for (request, reason) in REQUESTS {
        for cut in 0..request.len() {
            let mut world = World::new(RULES);
            world.client(&request[..cut]).client(&request[cut..]).in_phase(Phase::Tunnel);
            world.client("\0more").connected().upstream_got(format!("{request}\0more"));
            world.told_not_followed(reason, false);
            world.upstream("\0an").upstream("swer").client_got("\0answer").told_nothing();
        }
        // Behind another one, it waits for its turn like any request.
        let mut world = World::asked(RULES);
        world.client(request).told_nothing().upstream_got("").upstream(OK).upstream_got(request);
        assert_eq!(world.told(), [ProxyEvent::Completed, ProxyEvent::NotFollowed { reason, refused: false }]);
    }
}

#[test]
fn a_request_that_is_not_followed_is_refused_where_that_is_wanted() {
    for (request, reason) in REQUESTS {
        let mut world = World::new(STRICT);
        if reason.is_another_protocol() {
            // There is nothing ambiguous in it, however it comes.
            for cut in 0..request.len() {
                let mut world = World::new(STRICT);
                world.client(&request[..cut]).client(&request[cut..]).told_not_followed(reason, false);
                world.connected().upstream_got(request);
            }
            // But behind anything else it would be a word behind which all passes unread.
            let mut world = World::answered(STRICT);
            world.client(request).told_not_followed(reason, true).upstream_got("").client_got_our(400);
            continue;
        }
        world.client(request).told_not_followed(reason, true).upstream_got("").client_got_our(400);
        assert!(!matches!(world.sockets.upstream, UpstreamSocket::Open | UpstreamSocket::Connecting));
        // Also where its upstream has some of it, and may think what it likes of it.
        let mut world = World::answered(STRICT);
        world.client(request).told_not_followed(reason, true).client_got_our(400);
        // Chunks stream: of those that go wrong it has the head.
        let streams = request.starts_with(CHUNKED);
        world.upstream_got(if streams { CHUNKED } else { "" });
        world.sockets_are(ClientSocket::Finishing(End::Close), UpstreamSocket::Ended(End::Abort));
    }
}

#[test]
fn a_request_whose_host_is_ambiguous_is_refused_where_that_is_wanted_and_followed_otherwise() {
    let other = "GET / HTTP/1.0\r\n\r\n";
    for good in ["Host: a", "Host:", "host: [::1]:80", "Host: a%20b,c"] {
        let request = format!("GET / HTTP/1.1\r\n{good}\r\n\r\n");
        World::new(STRICT).client(&request).connected().upstream_got(request).told_nothing();
    }
    World::new(STRICT).client(other).connected().upstream_got(other).told_nothing();
    for bad in ["", "Host: a\r\n", "Host: a b\r\n", "Host: a/b\r\n", "Host: a@b\r\n", "Host: \u{e9}\r\n"] {
        let twice = if bad == "Host: a\r\n" { "HOST: a\r\n" } else { "" };
        let request = format!("GET / HTTP/1.1\r\n{bad}{twice}\r\n");
        let mut world = World::new(STRICT);
        world.client(&request).told_not_followed(Reason::Host, true).upstream_got("").client_got_our(400);
        let mut world = World::answered(STRICT);
        world.client(&request).told_not_followed(Reason::Host, true).upstream_got("").client_got_our(400);
        World::new(RULES).client(&request).connected().upstream_got(request).told_nothing();
    }
    let two = "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n";
    World::new(STRICT).client(two).told_not_followed(Reason::Host, true).client_got_our(400);
}

#[test]
fn a_body_that_goes_wrong_while_it_streams_is_relayed_as_it_came_or_refused() {
    for strict in [false, true] {
        let mut world = World::new(Rules { request_buffer: 0, strict, ..RULES });
        world
            .client(CHUNKED)
            .connected()
            .client("3\r\nabc\r\n")
            .upstream_got(format!("{CHUNKED}3\r\nabc\r\n"));
        world.client("1\r\nxyz").told_not_followed(Reason::ChunkEnd, strict);
        if strict {
            world.upstream_got("").client_got_our(400);
            world.sockets_are(ClientSocket::Finishing(End::Close), UpstreamSocket::Ended(End::Abort));
        } else {
            world.upstream_got("1\r\nxyz").client("\0").upstream_got("\0").upstream("\0").client_got("\0");
        }
    }
}

#[test]
fn a_response_that_is_not_followed_is_relayed_as_it_came() {
    for (response, reason) in RESPONSES {
        for cut in 0..response.len() {
            let mut world = World::asked(RULES);
            // Behind a whole response, what answers the next request is no news.
            let ahead = if reason == Reason::Unsolicited { "" } else { GET };
            world.client(ahead).upstream(&response[..cut]);
            world.upstream(&response[cut..]).upstream("\0more").client_got(format!("{response}\0more"));
            world.in_phase(Phase::Tunnel).upstream_got(ahead);
            let told = world.told();
            assert_eq!(
                told.last(),
                Some(&ProxyEvent::NotFollowed { reason, refused: false }),
                "{response:?} {cut}"
            );
            assert_eq!(told.len(), 1 + usize::from(reason == Reason::Unsolicited));
        }
    }
}

#[test]
fn a_response_that_is_not_followed_is_refused_where_that_is_wanted() {
    for (response, reason) in RESPONSES {
        for cut in 0..response.len() {
            let mut world = World::asked(STRICT);
            world.upstream(&response[..cut]);
            if world.sockets.upstream == UpstreamSocket::Open {
                world.upstream(&response[cut..]);
            }
            let told = world.told();
            assert_eq!(
                told.last(),
                Some(&ProxyEvent::NotFollowed { reason, refused: true }),
                "{response:?} {cut}"
            );
            let head = response.find("\r\n\r\n").map_or(0, |end| end + 4);
            let begun = matches!(reason, Reason::ChunkSize | Reason::ChunkEnd | Reason::Trailer);
            if begun {
                // The client has its head: only a reset tells it that this is not all.
                assert!(world.sockets.to_client.starts_with(&response.as_bytes()[..head]));
                world.sockets_are(ClientSocket::Ended(End::Abort), UpstreamSocket::Ended(End::Abort));
            } else if reason == Reason::Unsolicited {
                // The client has its answer, and would take ours for that to its next request.
                world
                    .client_got(&response[..head])
                    .sockets_are(ClientSocket::Finishing(End::Close), UpstreamSocket::Ended(End::Abort));
            } else {
                world.client_got_our(502);
                assert_eq!(world.sockets.upstream, UpstreamSocket::Ended(End::Abort));
            }
        }
    }
}

#[test]
fn a_response_whose_head_is_too_large_is_not_followed() {
    let response = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(MAX_HEAD));
    let mut world = World::asked(RULES);
    world.upstream(&response[..MAX_HEAD - 1]).client_got("").told_nothing();
    world.upstream(&response[MAX_HEAD - 1..]).client_got(&response);
    world.told_not_followed(Reason::ResponseHead, false);
    let mut world = World::asked(STRICT);
    world.upstream(&response).told_not_followed(Reason::ResponseHead, true).client_got_our(502);
    // Behind an interim response in the same piece, and in order.
    let interim = "HTTP/1.1 103 Early\r\n\r\n";
    World::asked(RULES).upstream(format!("{interim}{response}")).client_got(format!("{interim}{response}"));
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let head = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(MAX_HEAD));
    for rules in [RULES, STRICT] {
        let mut world = World::new(rules);
        world.client(&head[..MAX_HEAD - 1]).client_got("").client(&head[MAX_HEAD - 1..]).client_got_our(431);
        world.told_nothing().sockets_are(ClientSocket::Finishing(End::Close), UpstreamSocket::None);
        let mut world = World::answered(rules);
        world.client(&head).client_got_our(431).upstream_got("");
    }
}

#[test]
fn the_answer_to_a_head_that_is_too_large_names_both_limits() {
    let head = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
    let mut world = World::new(RULES);
    world.client(&head);
    let got = String::from_utf8_lossy(&world.sockets.to_client).into_owned();
    let text = format!("a head of more than {} KiB or {MAX_HEADERS} fields\n", MAX_HEAD / 1024);
    assert!(got.ends_with(&text), "{got}");
    world.client_got_our(431);
}

#[test]
fn a_head_has_its_time() {
    let mut world = World::new(RULES);
    world.after(secs(9)).client("GET").after(secs(9)).client(" ");
    world.client_got("").after(millis(999)).client_got("");
    world.after(millis(1)).client_got_our(408).told_nothing();
    // Also on a connection that has been idle for long.
    let mut world = World::answered(RULES);
    world.after(secs(1_000)).client("GET").after(secs(9)).client_got("");
    world.after(secs(1)).client_got_our(408);
    // Also behind another request: it counts from when that was answered.
    let mut world = World::asked(RULES);
    world.client("GET").after(secs(50)).upstream(OK).client_got(OK);
    world.after(secs(9)).client_got("").after(secs(1)).client_got_our(408);
}

#[test]
fn a_body_has_time_for_each_of_its_pieces() {
    let post = "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n";
    for request_buffer in [0, 4_096] {
        let mut world = World::new(Rules { request_buffer, ..RULES });
        world.client(post);
        for _ in 0..5 {
            world.after(secs(19)).client("x").client_got("");
        }
        world.after(secs(20)).client_got_our(408).told_nothing();
        let mut world = World::answered(Rules { request_buffer, ..RULES });
        world.client(post);
        for _ in 0..5 {
            world.after(secs(19)).client("x").client_got("");
        }
        world.after(secs(20)).client_got_our(408);
        world.sockets_are(ClientSocket::Finishing(End::Close), UpstreamSocket::Ended(End::Abort));
    }
    // An interim response is no answer yet.
    let expects = post.replace("Content", "Expect: 100-continue\r\nContent");
    let go = "HTTP/1.1 100 Continue\r\n\r\n";
    let mut world = World::new(RULES);
    world.client(&expects).connected().upstream(go).client_got(go);
    world.after(secs(20)).client_got_our(408);
    // A client that waits for a 100 is not slow: its upstream is, and has its own time.
    let mut world = World::new(Rules { response_timeout: None, ..RULES });
    world.client(&expects).connected().after(secs(600)).client_got("").upstream(go).client_got(go);
    world.after(secs(19)).client_got("").after(secs(1)).client_got_our(408);
    let mut world = World::new(Rules { response_timeout: Some(secs(30)), ..RULES });
    world.client(&expects).connected().after(secs(29)).client_got("");
    world.after(secs(1)).client_got_our(504);
}

#[test]
fn a_client_that_sends_nothing_is_closed_without_an_answer() {
    let mut world = World::new(RULES);
    world.after(millis(9_999)).sockets_are(ClientSocket::Open, UpstreamSocket::None);
    world.after(millis(1)).sockets_are(ClientSocket::Finishing(End::Close), UpstreamSocket::None);
    world.client_got("").told_nothing();
    // One that was answered has its own time.
    let mut world = World::answered(RULES);
    world.after(secs(9_999)).both_open();
    world.after(secs(1)).client_got("").told_nothing();
    world.over();
}

#[test]
fn an_upstream_has_its_time_to_answer() {
    let mut world = World::new(RULES);
    world.client(GET).after(secs(59)).connected();
    world.upstream("HTTP/1.1 103 Early\r\n\r\n").client_got("HTTP/1.1 103 Early\r\n\r\n");
    world.after(millis(59_999)).client_got("").after(millis(1)).client_got_our(504);
    let told = world.told_upstream_failed();
    assert_eq!((told.failure, told.phase, told.answered), (Failure::TimedOut, Phase::Waiting, Some(504)));
    // Once it has begun, it may take as long as it likes.
    World::asked(RULES).upstream(PART).after(secs(100_000)).told_nothing();
    // And where no time is given, before.
    World::asked(Rules { response_timeout: None, ..RULES }).after(secs(100_000)).told_nothing().both_open();
}

#[test]
fn a_client_that_waits_long_for_a_connection_meets_the_same_timeout() {
    let mut world = World::new(RULES);
    world.client(GET).after(secs(60)).client_got_our(504);
    world.sockets_are(ClientSocket::Finishing(End::Close), UpstreamSocket::Ended(End::Abort));
}

#[test]
fn without_room_a_body_streams_and_a_head_is_refused() {
    let post = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
    let mut world = World::new(RULES);
    world.sockets.room = 2;
    world.client(post).sockets_are(ClientSocket::Open, UpstreamSocket::Connecting);
    world.connected().upstream_got(post).client("abc").upstream_got("abc").in_phase(Phase::Waiting);

    // It gets scarce while a body is gathered. (No room at all is said of nothing more, too.)
    let mut world = World::new(RULES);
    world.client(post).sockets_are(ClientSocket::Open, UpstreamSocket::None);
    world.sockets.room = 0;
    world.client("a").sockets_are(ClientSocket::Open, UpstreamSocket::Connecting);
    world.connected().upstream_got(format!("{post}a"));

    let mut world = World::new(RULES);
    world.sockets.room = 0;
    world.client(&GET[..5]).client_got_our(503).told_nothing();
    // A head that needs no waiting for needs no room.
    let mut world = World::new(RULES);
    world.sockets.room = 0;
    world.client(GET).connected().upstream_got(GET).upstream(OK).told_completed(1);
}

#[test]
fn unsolicited_bytes_are_not_answered_while_the_client_does_not_wait() {
    let mut world = World::answered(STRICT);
    world.upstream("what?").client_got("").told_not_followed(Reason::Unsolicited, true);
    world.sockets_are(ClientSocket::Finishing(End::Close), UpstreamSocket::Ended(End::Abort));
}

#[test]
fn a_body_that_stands_still_ends_no_response() {
    let post = "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n";
    let mut world = World::new(Rules { request_buffer: 0, ..RULES });
    world.client(post).connected().upstream(PART).client_got(PART);
    world.in_phase(Phase::Sending).after(secs(1_000)).client_got("").told_nothing();
    world.client("x").upstream_got(format!("{post}x")).after(secs(1_000));
    // When it is whole, the rest of the body has its time, and then the connection is of no use.
    world.upstream("k").client_got("k").told_completed(1).after(secs(20));
    world.over();
}

#[test]
fn a_client_that_is_not_read_is_not_too_slow() {
    let post = "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n";
    let mut world = World::new(Rules { request_buffer: 0, ..RULES });
    world.client(post).connected();
    for _ in 0..5 {
        world.after(secs(19)).client_got("");
        world.session.hold_up(world.now);
    }
    world.after(secs(20)).client_got_our(408);
}

#[test]
fn an_upstreams_time_begins_when_its_request_is_whole() {
    let mut world = World::answered(RULES);
    world.client(&GET[..5]).after(secs(9)).client(&GET[5..]);
    world.after(millis(59_999)).client_got("").after(millis(1)).client_got_our(504);
}

#[test]
fn every_answer_of_ours_is_told_with_its_reason_and_what_was_known_of_its_request() {
    let post = "POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
    let long = "X: ".to_owned() + &"x".repeat(MAX_HEAD);
    let begun = "GET / HTTP/1.1\r\n";
    type Act<'a> = &'a dyn Fn() -> World;
    let acts: [(Act<'_>, Refusal, Phase, Option<&str>, usize); 6] = [
        (
            &|| {
                let mut world = World::new(RULES);
                world.client(begun).after(RULES.head_timeout);
                world
            },
            Refusal::HeadTimeout,
            Phase::Receiving,
            None,
            begun.len(),
        ),
        (
            &|| {
                let mut world = World::new(RULES);
                world.client(post).client("he").after(RULES.body_timeout);
                world
            },
            Refusal::BodyTimeout,
            Phase::Receiving,
            Some("/b"),
            post.len() + 2,
        ),
        (
            &|| {
                let mut world = World::new(RULES);
                world.client(begun).client(&long);
                world
            },
            Refusal::HeadTooLarge,
            Phase::Receiving,
            None,
            begun.len() + long.len(),
        ),
        (
            &|| {
                let mut world = World::new(RULES);
                world.sockets.room = 0;
                world.client(begun);
                world
            },
            Refusal::RequestMemory,
            Phase::Receiving,
            None,
            begun.len(),
        ),
        (
            &|| {
                let mut world = World::new(STRICT);
                world.client(REQUESTS[3].0).told_not_followed(REQUESTS[3].1, true);
                world
            },
            Refusal::AmbiguousRequest,
            Phase::Receiving,
            None,
            REQUESTS[3].0.len(),
        ),
        (
            &|| {
                let mut world = World::asked(STRICT);
                world.upstream(RESPONSES[1].0).told_not_followed(RESPONSES[1].1, true);
                world
            },
            Refusal::AmbiguousResponse,
            Phase::Waiting,
            Some("/a"),
            super::world::GET.len(),
        ),
    ];
    for (act, refusal, phase, target, bytes) in acts {
        let mut world = act();
        world.client_got_our(refusal.status()).told_nothing();
        let told = world.told_answered();
        assert_eq!((told.refusal, told.phase, told.target.as_deref()), (refusal, phase, target));
        assert_eq!(told.request_bytes, bytes as u64, "{refusal:?}");
    }
    assert!(Refusal::ALL.into_iter().all(|one| acts.iter().any(|&(_, refusal, ..)| refusal == one)));
}
