//! Clients that leave by a reset, in every phase, and what becomes of their upstreams.

use super::world::{ClientSocket, GET, OK, PART, RULES, UpstreamSocket, World, secs};
use crate::liveness::Cause;
use crate::proxy::event::{Phase, ProxyEvent, UpstreamAction};
use crate::proxy::session::{End, OnGone, Rules};

const POST: &str = "POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\n";

const WAYS: [(OnGone, UpstreamAction, bool); 3] = [
    (OnGone::Reset, UpstreamAction::Reset, true),
    (OnGone::Close, UpstreamAction::Close, true),
    (OnGone::Ignore, UpstreamAction::Ignored, false),
];

/// What is left of the upstream.
fn left(action: UpstreamAction) -> UpstreamSocket {
    match action {
        UpstreamAction::Nothing => UpstreamSocket::Ended(End::Close),
        UpstreamAction::Reset => UpstreamSocket::Ended(End::Abort),
        UpstreamAction::Close => UpstreamSocket::Ended(End::Close),
        UpstreamAction::Ignored => UpstreamSocket::Open,
    }
}

#[test]
fn a_reset_while_idle_interrupts_nothing() {
    let mut world = World::new(RULES);
    world.client_reset().told_nothing().sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::None);
    for (on_gone, ..) in WAYS {
        let mut world = World::answered(Rules { on_gone, ..RULES });
        world.client_reset().told_nothing();
        world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Close));
    }
}

#[test]
fn a_reset_within_a_head_interrupts_and_the_upstream_knows_nothing() {
    for (on_gone, ..) in WAYS {
        let mut world = World::new(Rules { on_gone, ..RULES });
        world.after(secs(1)).client(&GET[..9]).after(secs(2)).client_reset();
        let told = world.told_interrupted();
        assert_eq!((told.phase, told.method, told.target), (Phase::Receiving, None, None));
        assert_eq!((told.request_bytes, told.elapsed), (9, secs(3)));
        assert_eq!((told.action, told.saved, told.cause), (UpstreamAction::Nothing, false, Cause::Aborted));
        world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::None);
        // Nor does one that answered another request before.
        let mut world = World::answered(Rules { on_gone, ..RULES });
        world.client(&GET[..9]).client_reset();
        let told = world.told_interrupted();
        assert_eq!((told.action, told.saved), (UpstreamAction::Nothing, false));
        world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Close));
    }
}

#[test]
fn a_reset_while_a_body_is_gathered_leaves_the_upstream_in_peace() {
    for (on_gone, ..) in WAYS {
        let mut world = World::new(Rules { on_gone, ..RULES });
        world.client(format!("{POST}hel")).after(secs(2)).client_reset();
        let told = world.told_interrupted();
        assert_eq!((told.phase, told.method.as_deref()), (Phase::Receiving, Some("POST")));
        assert_eq!((told.request_bytes, told.elapsed), (POST.len() as u64 + 3, secs(2)));
        assert_eq!((told.action, told.saved), (UpstreamAction::Nothing, false));
        world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::None);
        let mut world = World::answered(Rules { on_gone, ..RULES });
        world.client(format!("{POST}hel")).client_reset();
        assert_eq!(world.told_interrupted().action, UpstreamAction::Nothing);
        world
            .sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Close))
            .upstream_got("");
    }
}

#[test]
fn a_reset_before_the_upstream_is_connected_leaves_nothing_to_be_done() {
    for (on_gone, ..) in WAYS {
        let mut world = World::new(Rules { on_gone, ..RULES });
        world.client(GET).client_reset();
        let told = world.told_interrupted();
        assert_eq!((told.phase, told.action), (Phase::Waiting, UpstreamAction::Nothing));
        world
            .sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Close))
            .upstream_got("");
    }
}

#[test]
fn a_reset_while_a_body_streams_ends_the_upstream_as_on_gone_says() {
    for (on_gone, action, saved) in WAYS {
        let mut world = World::new(Rules { on_gone, request_buffer: 0, ..RULES });
        world.client(POST).connected().client("hel").upstream_got(format!("{POST}hel")).client_reset();
        let told = world.told_interrupted();
        assert_eq!((told.phase, told.request_bytes), (Phase::Receiving, POST.len() as u64 + 3));
        assert_eq!((told.action, told.saved), (action, saved));
        if action == UpstreamAction::Ignored {
            // It can never have all of it, and is told as it would be told without us.
            world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Finned);
            world.upstream_fin().told_nothing();
            assert_eq!(world.sockets.upstream, UpstreamSocket::Ended(End::Close));
        } else {
            world.sockets_are(ClientSocket::Ended(End::Close), left(action));
        }
    }
}

#[test]
fn a_reset_while_the_upstream_works_ends_it_as_on_gone_says() {
    for (on_gone, action, saved) in WAYS {
        // Behind another request, and with a third one behind it.
        let mut world = World::answered(Rules { on_gone, ..RULES });
        world.after(secs(7)).client(format!("{GET}{GET}")).upstream_got(GET);
        world.after(secs(3)).client_reset();
        let told = world.told_interrupted();
        assert_eq!((told.phase, told.method.as_deref()), (Phase::Waiting, Some("GET")));
        assert_eq!((told.target.as_deref(), told.status), (Some("/a"), None));
        assert_eq!((told.request_bytes, told.response_bytes), (GET.len() as u64, 0));
        assert_eq!((told.elapsed, told.after), (secs(3), None));
        assert_eq!((told.asked, told.cause), (None, Cause::Aborted));
        assert_eq!((told.action, told.saved), (action, saved));
        world.sockets_are(ClientSocket::Ended(End::Close), left(action)).client_got("").upstream_got("");
    }
}

#[test]
fn a_reset_within_a_response_ends_the_upstream_as_on_gone_says() {
    for (on_gone, action, saved) in WAYS {
        let mut world = World::asked(Rules { on_gone, ..RULES });
        world.after(secs(2)).upstream(PART).after(secs(3));
        world.client_reset();
        let told = world.told_interrupted();
        assert_eq!((told.phase, told.status), (Phase::Sending, Some(200)));
        assert_eq!(told.response_bytes, OK.len() as u64 - 1);
        assert_eq!((told.elapsed, told.after), (secs(5), Some(secs(3))));
        assert_eq!((told.action, told.saved), (action, saved));
        world.sockets_are(ClientSocket::Ended(End::Close), left(action));
    }
}

#[test]
fn a_reset_in_a_tunnel_ends_the_upstream_as_on_gone_says() {
    for (on_gone, action, saved) in WAYS {
        let mut world = World::new(Rules { on_gone, http: false, ..RULES });
        world.connected().client("hello").upstream("you").client_reset();
        let told = world.told_interrupted();
        assert_eq!((told.phase, told.request_bytes, told.response_bytes), (Phase::Tunnel, 5, 3));
        assert_eq!((told.action, told.saved), (action, saved));
        if action == UpstreamAction::Ignored {
            // Otherwise it would wait for more until the end of days.
            world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Finned);
            world.client_got("you").upstream("and?").client_got("").upstream_fin();
            assert_eq!(world.sockets.upstream, UpstreamSocket::Ended(End::Close));
        } else {
            world.sockets_are(ClientSocket::Ended(End::Close), left(action));
        }
    }
}

#[test]
fn the_upstream_of_an_ignored_client_works_to_the_end() {
    let ignoring = Rules { on_gone: OnGone::Ignore, ..RULES };
    let gone = || {
        let mut world = World::asked(ignoring);
        world.client(GET).client_reset();
        world.told_interrupted();
        assert!(!world.session.wants_client());
        assert_eq!(world.session.holds(), 0, "what was sent ahead is forgotten");
        world
    };
    let mut world = gone();
    world.upstream(&OK[..9]).upstream(&OK[9..]).client_got("").told_nothing().upstream_got("");
    assert_eq!(world.sockets.upstream, UpstreamSocket::Ended(End::Close));
    // A response that ends with its connection, one that is the last, and one that is not followed.
    let mut world = gone();
    world.upstream("HTTP/1.1 200 OK\r\n\r\nsome").upstream_fin().client_got("").told_nothing();
    assert_eq!(world.sockets.upstream, UpstreamSocket::Ended(End::Close));
    let mut world = gone();
    world.upstream(OK.replace("Content", "Connection: close\r\nContent")).client_got("").told_nothing();
    assert_eq!(world.sockets.upstream, UpstreamSocket::Ended(End::Close));
    for strict in [false, true] {
        let mut world = gone();
        world.rules.strict = strict;
        world.upstream("hello?").client_got("");
        assert!(
            matches!(world.told().as_slice(), [ProxyEvent::NotFollowed { refused, .. }] if *refused == strict)
        );
        if !strict {
            world.upstream("more").upstream_fin().client_got("");
        }
        assert!(matches!(world.sockets.upstream, UpstreamSocket::Ended(_)));
    }
    // It has no more time than it has for any client.
    let mut world = gone();
    world.after(secs(60)).client_got("");
    assert_eq!(world.told_upstream_failed().answered, None);
    assert!(matches!(world.sockets.upstream, UpstreamSocket::Ended(_)));
}

#[test]
fn one_exchange_is_interrupted_once_and_the_requests_behind_it_never() {
    for (on_gone, ..) in WAYS {
        let mut world = World::asked(Rules { on_gone, ..RULES });
        world.client(format!("{GET}{GET}{}", &GET[..5])).client_fin().client_reset();
        world.told_interrupted();
        world.after(secs(10));
        if world.sockets.upstream == UpstreamSocket::Open {
            world.upstream(OK);
        }
        world.told_nothing();
    }
}

#[test]
fn a_reset_behind_the_last_response_is_no_interruption() {
    let mut world = World::new(RULES);
    world.client("GET\n").connected().told();
    world.upstream("bye").upstream_fin().client_reset().told_nothing();
    let mut world = World::asked(RULES);
    world.upstream_fin().client_got_our(502).told_upstream_failed();
    world.client_reset().told_nothing();
}

#[test]
fn in_a_tunnel_of_http_the_last_bytes_say_whether_the_client_waits() {
    // HTTP that is not followed: a client that was answered last may leave.
    let mut world = World::new(RULES);
    world.client("GET\n").told();
    world.connected().upstream("answer").client_reset().told_nothing();
    let mut world = World::new(RULES);
    world.client("GET\n").told();
    world.connected().upstream("answer").client("GET\n").client_reset();
    assert_eq!(world.told_interrupted().phase, Phase::Tunnel);
    let mut world = World::asked(RULES);
    world.upstream("what?").told();
    world.client_reset().told_nothing();
    // And a server that closes has finished with its client.
    let mut world = World::new(RULES);
    world.client("GET\n").connected().upstream("answer").upstream_fin();
    world.over();
    // Another protocol has other customs.
    let mut world = World::new(RULES);
    world.client("\x16\x03").told();
    world.connected().upstream("hello").client_reset();
    assert_eq!(world.told_interrupted().phase, Phase::Tunnel);
    let mut world = World::new(RULES);
    world.client("\x16\x03").connected().upstream("hello").upstream_fin();
    world.sockets_are(ClientSocket::Finned, UpstreamSocket::Open);
}

#[test]
fn an_upstream_that_switches_for_a_client_that_is_gone_gets_a_fin() {
    let mut world = World::asked(Rules { on_gone: OnGone::Ignore, ..RULES });
    world.client_reset();
    assert_eq!(world.told_interrupted().action, UpstreamAction::Ignored);
    world.upstream("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n").client_got("");
    // Nothing else would ever end its connection.
    world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Finned);
}
