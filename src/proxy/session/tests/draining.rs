//! The end of the proxy, in every phase.

use super::world::{ClientSocket, GET, OK, PART, RULES, UpstreamSocket, World, millis, secs};
use crate::limits::{FIRST_BYTE, LINGER};
use crate::liveness::{Cause, LocalCause};
use crate::proxy::event::{Phase, UpstreamAction};
use crate::proxy::session::{End, OnGone, Rules, SessionFact};

const POST: &str = "POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
const ENDLESS: &str = "HTTP/1.1 200 OK\r\n\r\nabc";
const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\n\r\n";

fn tcp() -> World {
    let mut world = World::new(Rules { http: false, ..RULES });
    world.connected();
    world
}

#[test]
fn an_idle_client_is_closed_at_once_when_nothing_of_it_or_for_it_can_be_under_way() {
    let mut world = World::new(RULES);
    world.after(FIRST_BYTE).feed(SessionFact::Drain).told_nothing();
    world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::None);
    let mut world = World::answered(RULES);
    world.after(LINGER).feed(SessionFact::Drain).told_nothing();
    world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Close));
    // Its last response may be on its way, and a close could take it away.
    let mut world = World::answered(RULES);
    world.after(LINGER - millis(1)).feed(SessionFact::Drain).told_nothing().over();
}

#[test]
fn a_new_client_may_send_its_first_byte_for_a_moment() {
    let mut world = World::new(RULES);
    world.feed(SessionFact::Drain).after(FIRST_BYTE - millis(1));
    world.sockets_are(ClientSocket::Open, UpstreamSocket::None);
    world.client(GET).connected().upstream(OK).client_got(OK).told_completed(1).over();
    let mut world = World::new(RULES);
    world.after(millis(100)).feed(SessionFact::Drain).after(FIRST_BYTE - millis(100)).told_nothing();
    world.sockets_are(ClientSocket::Finishing(End::Close), UpstreamSocket::None);
}

#[test]
fn an_exchange_comes_to_its_end_and_is_the_last() {
    // In each phase, and with another request behind it.
    let mut world = World::new(RULES);
    world.client(&GET[..9]).feed(SessionFact::Drain).client(&GET[9..]).connected();
    world.client(GET).upstream(OK).client_got(OK).told_completed(1).over().upstream_got(GET);
    let mut world = World::new(RULES);
    world.client(format!("{POST}hel")).feed(SessionFact::Drain).client("lo").connected();
    world.upstream(OK).client_got(OK).told_completed(1).over();
    let mut world = World::asked(RULES);
    world.client(GET).feed(SessionFact::Drain).after(secs(30)).both_open();
    world.upstream(PART).upstream(&OK[PART.len()..]).client_got(OK).told_completed(1).over().upstream_got("");
    let mut world = World::asked(RULES);
    world.upstream(PART).feed(SessionFact::Drain).both_open();
    world.upstream(&OK[PART.len()..]).client_got(OK).told_completed(1).over();
}

#[test]
fn an_answer_before_the_rest_of_its_request_is_the_last() {
    let mut world = World::new(Rules { request_buffer: 0, ..RULES });
    world.client(format!("{POST}hel")).connected().upstream(OK).told_completed(1).feed(SessionFact::Drain);
    world.both_open().client("lo").told_nothing().over();
}

#[test]
fn a_tunnel_goes_on_through_the_drain() {
    let mut world = tcp();
    world.feed(SessionFact::Drain).after(secs(3_600)).client("a").upstream("b").both_open();
    world.client_got("b").upstream_got("a").told_nothing();
    // One that a request opens while the proxy drains, too.
    let mut world = World::asked(RULES);
    world.feed(SessionFact::Drain).upstream(SWITCH).both_open().in_phase(Phase::Tunnel).told_completed(1);
}

#[test]
fn a_client_that_leaves_during_the_drain_is_judged_as_ever() {
    let mut world = World::asked(RULES);
    world.feed(SessionFact::Drain).client_fin().first_question().client_reset();
    assert_eq!(world.told_interrupted().cause, Cause::Aborted);
    world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Abort));
}

#[test]
fn what_is_cut_off_is_told_and_never_looks_whole() {
    let after = |begin: &str| {
        let mut world = World::asked(RULES);
        if !begin.is_empty() {
            world.upstream(begin);
        }
        world
    };
    let gathering = {
        let mut world = World::new(RULES);
        world.client(format!("{POST}hel"));
        world
    };
    let connecting = {
        let mut world = World::new(RULES);
        world.client(GET);
        world
    };
    use {Phase as P, UpstreamAction as A};
    let cases = [
        (gathering, P::Receiving, A::Nothing, ClientSocket::Ended(End::Close), UpstreamSocket::None),
        (
            connecting,
            P::Waiting,
            A::Nothing,
            ClientSocket::Ended(End::Close),
            UpstreamSocket::Ended(End::Close),
        ),
        (after(""), P::Waiting, A::Reset, ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Abort)),
        (
            after(PART),
            P::Sending,
            A::Reset,
            ClientSocket::Ended(End::Close),
            UpstreamSocket::Ended(End::Abort),
        ),
        (
            after(CHUNKS),
            P::Sending,
            A::Reset,
            ClientSocket::Ended(End::Close),
            UpstreamSocket::Ended(End::Abort),
        ),
        (
            after(ENDLESS),
            P::Sending,
            A::Reset,
            ClientSocket::Ended(End::Abort),
            UpstreamSocket::Ended(End::Abort),
        ),
    ];
    for (mut world, phase, action, client, upstream) in cases {
        world.feed(SessionFact::Drain).told_nothing().feed(SessionFact::Cut);
        let told = world.told_interrupted();
        assert_eq!(
            (told.phase, told.action, told.cause),
            (phase, action, Cause::Local(LocalCause::Shutdown))
        );
        world.sockets_are(client, upstream);
        world.feed(SessionFact::Cut).told_nothing();
    }
}

#[test]
fn an_upstream_that_may_work_to_its_end_is_closed_at_the_cut() {
    for (on_gone, action, end) in [
        (OnGone::Reset, UpstreamAction::Reset, End::Abort),
        (OnGone::Close, UpstreamAction::Close, End::Close),
        (OnGone::Ignore, UpstreamAction::Close, End::Close),
    ] {
        let mut world = World::asked(Rules { on_gone, ..RULES });
        world.feed(SessionFact::Cut);
        assert_eq!(world.told_interrupted().action, action);
        world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(end));
    }
    // Its client has left before, and that was told.
    let mut world = World::asked(Rules { on_gone: OnGone::Ignore, ..RULES });
    world.client_reset().told();
    world.feed(SessionFact::Drain);
    world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Open);
    world.feed(SessionFact::Cut).told_nothing();
    world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Close));
}

#[test]
fn a_tunnel_is_cut_in_order_unless_one_side_waits_for_the_rest() {
    let mut world = tcp();
    world.client("a").upstream("b").feed(SessionFact::Cut);
    assert_eq!(world.told_interrupted().action, UpstreamAction::Close);
    world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Close));
    let mut world = tcp();
    world.client("a").client_fin().upstream("b").feed(SessionFact::Cut);
    assert_eq!(world.told_interrupted().action, UpstreamAction::Reset);
    world.sockets_are(ClientSocket::Ended(End::Abort), UpstreamSocket::Ended(End::Abort));
    let mut world = tcp();
    world.client("a").upstream("b").upstream_fin().feed(SessionFact::Cut);
    assert_eq!(world.told_interrupted().action, UpstreamAction::Reset);
    world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Abort));
}

#[test]
fn a_client_that_has_everything_is_not_cut_off() {
    let mut world = World::answered(RULES);
    world.feed(SessionFact::Cut).told_nothing();
    world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Close));
    let mut world = World::new(Rules { request_buffer: 0, ..RULES });
    world.client(format!("{POST}hel")).connected().upstream(OK).told_completed(1).feed(SessionFact::Cut);
    world.told_nothing();
}
