//! What a FIN means, in every phase, to every rule.

use std::time::Duration;

use super::world::{ClientSocket, GET, OK, OLD_GET, PART, RULES, UpstreamSocket, World, millis, secs};
use crate::limits::FIRST_QUESTION;
use crate::liveness::Cause;
use crate::proxy::event::{Asked, Failure, Phase, ProxyEvent, UpstreamAction};
use crate::proxy::session::{End, HalfClose, OnGone, Rules, SessionFact};

const RULINGS: [HalfClose; 4] =
    [HalfClose::Probe, HalfClose::Gone, HalfClose::Wait(secs(3)), HalfClose::Forward];

const POST: &str = "POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\n";

fn ruled(half_close: HalfClose) -> Rules {
    Rules { half_close, ..RULES }
}

#[test]
fn a_fin_while_idle_is_an_orderly_end() {
    for half_close in RULINGS {
        let mut world = World::new(ruled(half_close));
        world.client_fin().told_nothing().client_got("");
        world.sockets_are(ClientSocket::Finishing(End::Close), UpstreamSocket::None);
        let mut world = World::answered(ruled(half_close));
        world.client_fin().told_nothing().over();
    }
}

#[test]
fn a_fin_while_receiving_is_an_interruption() {
    for half_close in RULINGS {
        for (sent, request_buffer) in [(&GET[..9], 4_096), (POST, 4_096), (POST, 0)] {
            let mut world = World::new(Rules { request_buffer, ..ruled(half_close) });
            world.client(sent).client_fin().client_got("");
            let told = world.told_interrupted();
            assert_eq!((told.phase, told.cause, told.asked), (Phase::Receiving, Cause::Closed, None));
            assert_eq!(world.sockets.client, ClientSocket::Ended(End::Close));
            assert_ne!(world.sockets.upstream, UpstreamSocket::Connecting);
        }
        let mut world = World::new(Rules { request_buffer: 0, ..ruled(half_close) });
        world.client(POST).connected().client("hel").client_fin();
        assert_eq!(world.told_interrupted().action, UpstreamAction::Reset);
    }
}

#[test]
fn a_client_that_sends_a_fin_while_it_waits_is_probed() {
    let mut world = World::asked(RULES);
    world.after(secs(1)).client_fin().first_question().told_nothing();
    world.both_open().in_phase(Phase::Waiting);
    assert!(!world.session.wants_client());
    // No: it has left.
    world.sockets.acknowledges = false;
    world.after(Duration::from_micros(300)).client_reset();
    let told = world.told_interrupted();
    assert_eq!(
        (told.phase, told.cause, told.action),
        (Phase::Waiting, Cause::Aborted, UpstreamAction::Reset)
    );
    assert_eq!(told.asked, Some(Asked { ago: Duration::from_micros(300), acknowledged: false }));
    assert_eq!(world.sockets.questions, [1, 1, 0]);
    assert_eq!(told.response_bytes, 0, "the question is no response");
    world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Abort));
    // No, and a forwarder in between had answered for it.
    let mut world = World::asked(RULES);
    world.client_fin().first_question().after(millis(3)).client_reset();
    assert_eq!(world.told_interrupted().asked, Some(Asked { ago: millis(3), acknowledged: true }));
    assert_eq!(world.sockets.questions, [1, 0, 1]);
    // Yes: it gets what it waits for, and then the end.
    let mut world = World::asked(RULES);
    world.client_fin().first_question().after(millis(100)).client_got("");
    world.upstream(OK).client_got(OK).told_completed(1).over();
}

#[test]
fn a_client_is_asked_when_its_response_does_not_come_at_once() {
    let just_before = FIRST_QUESTION - Duration::from_nanos(1);
    for whole in [true, false] {
        let mut world = World::asked(RULES);
        world.client_fin().after(just_before).client_got("");
        if whole {
            world.upstream(OK).client_got(OK).told_completed(1).over();
        } else {
            world.upstream(PART).client_got(PART).after(secs(10)).client_got("").told_nothing();
        }
        assert_eq!(world.sockets.questions, [0, 0, 0]);
    }
    // Nor is it an answer that it ends by itself, and it is an end as every other.
    let mut world = World::asked(RULES);
    world.client_fin().after(just_before).client_reset();
    let told = world.told_interrupted();
    assert_eq!((told.phase, told.cause, told.asked), (Phase::Waiting, Cause::Aborted, None));
    assert_eq!(world.sockets.questions, [0, 0, 0]);
}

#[test]
fn a_client_that_is_there_is_probed_again_three_times_and_then_left_alone() {
    let mut world = World::asked(Rules { response_timeout: None, ..RULES });
    let start = world.now;
    world.client_fin();
    let mut asked = Vec::new();
    while let Some(deadline) = world.session.deadline(&world.rules) {
        if !world.sockets.to_client.is_empty() {
            world.client_got_a_probe();
            asked.push(world.now.since(start).as_millis());
        }
        let time = deadline.since(world.now);
        world.after(time);
    }
    assert_eq!(asked, [2, 103, 1_104, 9_105], "each a time after the answer, which is looked for after 1 ms");
    world.after(secs(10_000)).client_got("").told_nothing();
    world.client_reset();
    assert_eq!(world.told_interrupted().asked, None, "nothing was asked lately");
    assert_eq!(world.sockets.questions, [4, 0, 4]);
}

#[test]
fn a_probe_without_an_answer_is_looked_at_again_and_not_sent_again() {
    let mut world = World::asked(Rules { response_timeout: None, ..RULES });
    world.sockets.acknowledges = false;
    world.client_fin().first_question();
    world.after(secs(20)).client_got("").told_nothing();
    world.feed(SessionFact::ClientGone(Cause::UserTimeout));
    let told = world.told_interrupted();
    assert_eq!(
        (told.cause, told.asked),
        (Cause::UserTimeout, Some(Asked { ago: secs(20), acknowledged: false }))
    );
    assert_eq!(world.sockets.questions, [1, 0, 0], "silence is no answer");
    // Or it answers late.
    let mut world = World::asked(Rules { response_timeout: None, ..RULES });
    world.sockets.acknowledges = false;
    world.client_fin().first_question().after(secs(10));
    world.sockets.acknowledges = true;
    world.after(millis(700)).client_got_a_probe().told_nothing();
    world.upstream(OK).client_got(OK).told_completed(1);
}

#[test]
fn an_answer_is_looked_for_ever_more_rarely() {
    let mut world = World::asked(Rules { response_timeout: None, ..RULES });
    world.sockets.acknowledges = false;
    world.client_fin().first_question();
    let start = world.now;
    let looks = [(); 8].map(|()| {
        let deadline = world.session.deadline(&world.rules).expect("an answer is awaited");
        let time = deadline.since(world.now);
        world.after(time);
        deadline.since(start).as_millis()
    });
    assert_eq!(looks, [1, 3, 8, 28, 128, 628, 1_128, 1_628]);
}

#[test]
fn each_exchange_has_its_own_questions() {
    let mut world = World::asked(RULES);
    world.client(format!("{GET}{GET}")).client_fin();
    for _ in 0..3 {
        world.first_question().after(millis(101)).client_got_a_probe();
        world.upstream_got(if world.sockets.to_upstream.is_empty() { "" } else { GET });
        world.upstream(OK).told_completed(1);
        let got = std::mem::take(&mut world.sockets.to_client);
        assert!(got.starts_with(OK.as_bytes()));
        world.sockets.to_client = got[OK.len()..].to_vec();
    }
    world.client_got("").over();
}

#[test]
fn a_response_that_begins_ends_the_questions() {
    let interim = "HTTP/1.1 103 Early\r\n\r\n";
    let mut world = World::asked(RULES);
    world.client_fin().first_question().upstream(interim).client_got(interim);
    world.after(millis(150)).client_got_a_probe();
    world.upstream(PART).client_got(PART);
    world.after(millis(100));
    assert_eq!(world.session.deadline(&world.rules), None, "its next bytes are the question");
    world.after(secs(100)).client_got("").told_nothing();
    world.client_reset();
    let told = world.told_interrupted();
    assert_eq!((told.phase, told.asked), (Phase::Sending, None));
    // The beginning of a head is not passed on, and proves nothing.
    let mut world = World::asked(RULES);
    world.client_fin().first_question().upstream(&OK[..9]).after(millis(150));
    world.client_got_a_probe().upstream(&OK[9..]).client_got(OK).told_completed(1);
}

#[test]
fn a_client_of_http_1_0_is_not_probed_but_waited_for() {
    let mut world = World::asked_with(RULES, OLD_GET);
    world.client_fin().client_got("").after(millis(999)).told_nothing();
    world.after(millis(1)).client_got("");
    let told = world.told_interrupted();
    assert_eq!((told.phase, told.cause, told.asked), (Phase::Waiting, Cause::Closed, None));
    world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Abort));
    let mut world = World::asked_with(RULES, OLD_GET);
    world.client_fin().after(millis(999)).upstream(PART);
    world.after(secs(100)).told_nothing().upstream("k").told_completed(1).client_got(OK);
}

#[test]
fn a_fin_means_that_the_client_is_gone_with_half_close_gone() {
    for request in [GET, OLD_GET] {
        let mut world = World::asked_with(ruled(HalfClose::Gone), request);
        world.client_fin().client_got("");
        let told = world.told_interrupted();
        assert_eq!((told.phase, told.cause, told.asked), (Phase::Waiting, Cause::Closed, None));
        world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Abort));
    }
    let mut world = World::new(Rules { http: false, ..ruled(HalfClose::Gone) });
    world.connected().client_fin();
    assert_eq!(world.told_interrupted().phase, Phase::Tunnel);
    // Also behind a request that came with it, and in the middle of a response.
    let mut world = World::asked(ruled(HalfClose::Gone));
    world.upstream(PART).client(GET).client_fin();
    assert_eq!(world.told_interrupted().phase, Phase::Sending);
    world.sockets_are(ClientSocket::Ended(End::Abort), UpstreamSocket::Ended(End::Abort));
}

#[test]
fn a_fin_is_waited_out_with_half_close_wait() {
    for request in [GET, OLD_GET] {
        let rules = ruled(HalfClose::Wait(secs(3)));
        let mut world = World::asked_with(rules, request);
        world.client_fin().after(millis(2_999)).told_nothing().client_got("");
        world.after(millis(1));
        assert_eq!(world.told_interrupted().elapsed, secs(3));
        let mut world = World::asked_with(rules, request);
        world.client_fin().after(millis(2_999)).upstream(PART);
        world.after(secs(100)).told_nothing();
        world.upstream("k").told_completed(1).client_got(OK).over();
    }
}

#[test]
fn a_fin_is_passed_on_with_half_close_forward() {
    let forward = ruled(HalfClose::Forward);
    for request in [GET, OLD_GET] {
        let mut world = World::asked_with(forward, request);
        world.client_fin().client_got("").finned().told_nothing();
        world.after(secs(50)).upstream(OK).client_got(OK).told_completed(1).over();
    }
    // Before it is connected, behind the request.
    World::new(forward).client(GET).client_fin().connected().upstream_got(GET).finned();
    // In the middle of a response.
    let mut world = World::asked(forward);
    world.upstream(PART).client_fin().finned();
    world.upstream("k").client_got(OK).told_completed(1).over();
    // In a tunnel, connected or not.
    let mut world = World::new(Rules { http: false, ..forward });
    world.client("all").client_fin().connected().upstream_got("all").finned();
    world.upstream("of").upstream("it").client_got("ofit").upstream_fin().over().told_nothing();
    // Once, also where the response is not followed then.
    let mut world = World::asked(forward);
    world.client_fin().upstream("what").upstream("ever").client_got("whatever");
    world.finned().upstream_fin().over();
}

#[test]
fn a_fin_behind_requests_that_wait_is_passed_on_behind_them() {
    let forward = ruled(HalfClose::Forward);
    let mut world = World::asked(forward);
    world.client(format!("{GET}{GET}")).client_fin().both_open();
    world.upstream(OK).upstream_got(GET).both_open();
    world.upstream(OK).upstream_got(GET).finned();
    world.upstream(OK).told_completed(3).over();
    // In the middle of a response.
    let mut world = World::asked(forward);
    world.upstream(PART).client(GET).client_fin().both_open().upstream("k").upstream_got(GET).finned();
    // Before the upstream is connected.
    let mut world = World::new(forward);
    world.client(format!("{GET}{GET}")).client_fin().connected().upstream_got(GET);
    world.both_open().upstream(OK).upstream_got(GET).finned();
    // One that lies in the socket behind bytes that are not taken off yet is not passed on before them.
    let mut world = World::asked(forward);
    world.client_fin_ahead().both_open();
    world.upstream(OK).client(GET).upstream_got(GET).client_fin().finned();
}

#[test]
fn the_upstream_does_not_hear_of_a_fin_that_is_judged_here() {
    for half_close in [HalfClose::Probe, HalfClose::Wait(secs(3))] {
        let mut world = World::asked(ruled(half_close));
        world.client_fin().after(secs(2)).upstream(PART).both_open().after(secs(100));
        world.both_open().upstream("k").over();
    }
}

/// A head, and a chunk at whose end the client may be asked.
const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

#[test]
fn a_fin_in_a_silent_stream_is_asked_about_by_a_zero_of_the_next_size() {
    let head = STREAM.find("5\r\n").unwrap();
    for boundary in [head, STREAM.len()] {
        // No: it has left.
        let mut world = World::asked(RULES);
        world.upstream(&STREAM[..boundary]).client_got(&STREAM[..boundary]);
        world.after(secs(50)).client_got("").client_fin().client_got_a_zero().told_nothing();
        world.sockets.acknowledges = false;
        world.after(Duration::from_micros(300)).client_reset();
        let told = world.told_interrupted();
        assert_eq!(
            (told.phase, told.cause, told.asked),
            (
                Phase::Sending,
                Cause::Aborted,
                Some(Asked { ago: Duration::from_micros(300), acknowledged: false })
            )
        );
        assert_eq!(told.response_bytes, boundary as u64, "the question is no response");
        assert_eq!(world.sockets.upstream, UpstreamSocket::Ended(End::Abort));
        // Yes: it gets the rest, with the size that it was sent, and is asked again in each pause, but not for ever.
        let mut world = World::asked(RULES);
        world.upstream(&STREAM[..boundary]).client_fin().after(secs(100));
        world.client_got(format!("{}0000", &STREAM[..boundary])).upstream("1a");
        // Not within a size, and not within a chunk.
        world.after(secs(100)).client_got("1a").upstream("\r\nabcdefghijklmnopqrstuvwxy");
        world.after(secs(100)).client_got("\r\nabcdefghijklmnopqrstuvwxy").upstream("z\r\n");
        world.client_got("z\r\n").after(millis(99)).client_got("");
        world.after(millis(1)).client_got_a_zero().after(secs(100));
        world.client_got("00").upstream("0\r\n\r\n").client_got("0\r\n\r\n").told_completed(1);
        world.over();
    }
}

#[test]
fn a_stream_that_breaks_off_behind_a_question_does_not_look_as_if_a_zero_ended_it() {
    // Python's http.client takes a `0` and an end for the last chunk. "0" and then what an upstream may send in its
    // confusion must not become one either.
    for last in ["", "\r\n\r\n", ";\r\n\r\n"] {
        let mut world = World::asked(RULES);
        world.upstream(STREAM).client_fin().client_got(format!("{STREAM}0"));
        if last.is_empty() {
            world.upstream_fin();
        } else {
            world.upstream(last);
        }
        assert_eq!(world.told_upstream_failed().failure, Failure::Truncated);
        world.client_got("");
        world.sockets_are(ClientSocket::Finishing(End::Abort), UpstreamSocket::Ended(End::Close));
    }
    // Nor when the proxy itself cuts it off.
    let mut world = World::asked(RULES);
    world.upstream(STREAM).client_fin().client_got(format!("{STREAM}0"));
    world.feed(SessionFact::Drain).feed(SessionFact::Cut).told_interrupted();
    world.sockets_are(ClientSocket::Ended(End::Abort), UpstreamSocket::Ended(End::Abort));
    // Nor a part of a size. One that is not zero announces bytes that are missing, and no size at all is no end, also
    // behind bytes that were a question.
    for (begun, end) in
        [("", End::Close), ("0", End::Abort), ("00", End::Abort), ("1", End::Close), ("01", End::Close)]
    {
        for half_closed in [false, true] {
            let mut world = World::asked(RULES);
            if half_closed {
                world.client_fin().first_question();
            }
            world.upstream(STREAM).upstream(begun).client_got(format!("{STREAM}{begun}")).upstream_fin();
            assert_eq!(world.told_upstream_failed().failure, Failure::Truncated);
            world.sockets_are(ClientSocket::Finishing(end), UpstreamSocket::Ended(End::Close));
        }
    }
}

#[test]
fn a_size_never_gets_more_digits_than_clients_count() {
    for (digits, zeros) in [(8, 4), (12, 4), (13, 3), (15, 1), (16, 0)] {
        let mut world = World::asked(RULES);
        let size = format!("{:0>digits$}\r\nabc\r\n", "3");
        let begun = format!("{}{size}", &STREAM[..STREAM.find("5\r\n").unwrap()]);
        world.upstream(&begun).client_got(&begun).client_fin().after(millis(900));
        world.after(secs(100));
        if zeros > 0 {
            world.client_got("0".repeat(zeros)).told_nothing();
        } else {
            assert_eq!(world.told_interrupted().cause, Cause::Closed, "it cannot be asked");
        }
    }
}

#[test]
fn the_servers_interim_responses_and_the_questions_are_together_no_more_than_clients_take() {
    let interim = "HTTP/1.1 103 Early\r\n\r\n";
    let mut world = World::asked(Rules { response_timeout: None, ..RULES });
    world.upstream(interim.repeat(3)).client_got(interim.repeat(3)).client_fin();
    world.after(secs(100)).told_nothing();
    assert_eq!(world.sockets.probes, 2);
    // Nor does a server that tells its progress without end make room for another question.
    let mut world = World::asked(Rules { response_timeout: None, ..RULES });
    world.client_fin().first_question().upstream(interim.repeat(300)).client_got(interim.repeat(300));
    world.after(secs(100)).told_nothing();
    assert_eq!(world.sockets.probes, 1);
}

#[test]
fn a_fin_in_a_response_that_has_no_place_for_a_question_is_judged_by_its_next_bytes_or_by_time() {
    let whole = OK.len() - 1;
    let until_close = "HTTP/1.1 200 OK\r\n\r\nhel";
    for begun in [&OK[..whole], until_close, &STREAM[..STREAM.len() - 4]] {
        for (half_close, wait) in [(HalfClose::Probe, 1), (HalfClose::Wait(secs(3)), 3)] {
            let mut world = World::asked(ruled(half_close));
            world.upstream(begun).client_got(begun).client_fin();
            world.after(secs(wait) - millis(1)).client_got("").told_nothing();
            world.after(millis(1));
            let told = world.told_interrupted();
            assert_eq!((told.phase, told.cause), (Phase::Sending, Cause::Closed));
            // A client that is there after all sees that a part is missing.
            world.sockets_are(ClientSocket::Ended(End::Abort), UpstreamSocket::Ended(End::Abort));
            // What it has not acknowledged yet is a question, and time is no answer to it.
            let mut world = World::asked(ruled(half_close));
            world.sockets.acknowledges = false;
            world.upstream(begun).client_fin().after(secs(100)).told_nothing();
            world.sockets.acknowledges = true;
            world.after(millis(20));
            assert_eq!(world.told_interrupted().cause, Cause::Closed);
            // Bytes that are passed on are a question, too.
            let mut world = World::asked(ruled(half_close));
            world.upstream(begun).client_fin().upstream("l").after(secs(100));
            world.client_got(format!("{begun}l"));
            if begun == until_close {
                world.told_nothing().upstream_fin().told_completed(1).over();
            }
        }
    }
    // They find out whether the client is there.
    let mut world = World::asked(RULES);
    world.upstream(&OK[..whole]).client_fin().client_reset();
    assert_eq!(world.told_interrupted().phase, Phase::Sending);
}

#[test]
fn a_fin_behind_requests_that_wait_is_judged_for_each() {
    let mut world = World::asked(RULES);
    world.client(format!("{GET}{}", &GET[..9])).client_fin().first_question();
    world.upstream(OK).upstream_got(GET).told_completed(1);
    world.client_got(OK).first_question();
    world.upstream(OK).upstream_got("");
    let told = world.told();
    let [ProxyEvent::Completed, ProxyEvent::Interrupted(interrupted)] = told.as_slice() else {
        panic!("{told:?}")
    };
    // What is behind them can never become whole.
    assert_eq!((interrupted.phase, interrupted.action), (Phase::Receiving, UpstreamAction::Nothing));
    assert_eq!(interrupted.request_bytes, 9);
}

#[test]
fn a_fin_that_lies_behind_unread_bytes_is_judged_all_the_same() {
    let mut world = World::asked(RULES);
    world.client(vec![b'x'; 16 * 1024]).client_fin_ahead().first_question();
    // It is seen again and again; one question is enough.
    world.client_fin_ahead().client_fin_ahead().client_got("");
    world.client_reset();
    assert!(world.told_interrupted().asked.is_some());
    // No probe is sent where no upstream works, or where the bytes of the response find out.
    World::answered(RULES).client_fin_ahead().client_got("").told_nothing();
    let mut world = World::asked(RULES);
    world.upstream(&OK[..9]).upstream(&OK[9..OK.len() - 1]).client_fin_ahead().client_got(PART);
    world.upstream("k").client_got("k").told_completed(1);
    // All probes are sent to a client whose FIN is seen twice.
    let mut world = World::asked(Rules { response_timeout: None, ..RULES });
    world.client_fin_ahead().first_question().client_fin().client_got("");
    world.after(millis(101)).client_got_a_probe().after(secs(2));
    world.client_got_a_probe().client_fin().client_fin_ahead().client_got("");
    let mut world = World::asked(Rules { response_timeout: None, ..RULES });
    world.client_fin_ahead().after(secs(100));
    assert_eq!(world.sockets.to_client.len(), 4 * 25);
    world.client_fin().after(secs(100));
    assert_eq!(world.sockets.to_client.len(), 4 * 25, "at most four");
    // The wait for a client that cannot be probed does not start again.
    let mut world = World::asked(ruled(HalfClose::Wait(secs(3))));
    world.client_fin_ahead().after(secs(2)).client_fin().after(secs(1));
    world.told_interrupted();
    let mut world = World::asked(ruled(HalfClose::Gone));
    world.client_fin_ahead();
    assert_eq!(world.told_interrupted().cause, Cause::Closed);
}

#[test]
fn a_fin_in_a_tunnel_is_passed_on_behind_all_bytes() {
    for half_close in [HalfClose::Probe, HalfClose::Forward] {
        let mut world = World::new(Rules { http: false, ..ruled(half_close) });
        world.client("hello").client_fin().connected().upstream_got("hello").client_got("");
        world.finned().after(secs(1_000));
        world.upstream("bye").client_got("bye").upstream_fin().told_nothing().over();
    }
}

#[test]
fn a_fin_in_a_tunnel_that_means_that_the_client_is_gone_waits_until_its_upstream_has_everything() {
    for (half_close, wait) in [(HalfClose::Gone, 0), (HalfClose::Wait(secs(3)), 3)] {
        for late in [false, true] {
            let mut world = World::new(Rules { http: false, ..ruled(half_close) });
            world.sockets.delivered = !late;
            world.connected().client("hello").client_fin().client_got("");
            world.after(secs(wait));
            if late {
                world.told_nothing().after(secs(100)).told_nothing();
                world.sockets.delivered = true;
                world.after(millis(20));
            }
            let told = world.told_interrupted();
            assert_eq!((told.phase, told.cause), (Phase::Tunnel, Cause::Closed));
            assert_eq!(told.action, UpstreamAction::Reset);
        }
    }
    // An answer within the time shows that the client is there.
    let mut world = World::new(Rules { http: false, ..ruled(HalfClose::Wait(secs(3))) });
    world.connected().client("hello").client_fin().after(secs(2)).upstream("bye");
    world.finned().after(secs(100)).told_nothing();
}

#[test]
fn a_websocket_that_ends_without_a_closing_frame_is_gone_at_once() {
    let get = "GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let (hello, close) = (b"\x81\x85\0\0\0\0hello", b"\x88\x80\0\0\0\0");
    let rules = |half_close| Rules { response_timeout: None, ..ruled(half_close) };
    for half_close in RULINGS {
        let forwards = half_close == HalfClose::Forward;
        for early in [false, true] {
            let mut world = World::asked_with(rules(half_close), get);
            if early {
                world.client(hello).upstream(switch);
            } else {
                world.upstream(switch).client(hello);
            }
            world.upstream_got(hello).client_got(switch).told_completed(1).client_fin();
            if forwards {
                world.told_nothing().finned();
            } else {
                assert_eq!(world.told_interrupted().cause, Cause::Closed);
                assert_eq!(world.sockets.upstream, UpstreamSocket::Ended(End::Abort));
            }
        }
        // A closing frame makes the end an orderly one.
        let mut world = World::asked_with(rules(half_close), get);
        world.upstream(switch).client(hello).client(close).told_completed(1).client_fin();
        if half_close == HalfClose::Probe || forwards {
            world.told_nothing().finned();
        }
    }
}

#[test]
fn a_websocket_is_over_when_either_side_has_sent_its_closing_frame() {
    let get = "GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let (hello, close, closes) = (b"\x81\x05hello", b"\x88\x80\0\0\0\0", b"\x88\x02\x03\xe8");
    // A server that closes first waits for a client's closing frame, or for its end.
    for together in [false, true] {
        let mut world = World::asked_with(Rules { response_timeout: None, ..RULES }, get);
        if together {
            world.upstream([switch.as_bytes(), hello, closes].concat());
        } else {
            world.upstream(switch).upstream(hello).upstream(closes);
        }
        world.told_completed(1).client_fin().told_nothing().finned();
    }
    // A browser that leaves a page says so, and its kernel answers the frames that are still under way with a RST.
    for by_client in [false, true] {
        let mut world = World::asked_with(Rules { response_timeout: None, ..RULES }, get);
        world.upstream(switch).upstream(hello).told_completed(1);
        if by_client {
            world.client(close).upstream_got(close);
        } else {
            world.upstream(closes);
        }
        world.client_reset().told_nothing();
        world.sockets_are(ClientSocket::Ended(End::Close), UpstreamSocket::Ended(End::Close));
    }
    // A frame that only looks like one is none.
    let mut world = World::asked_with(Rules { response_timeout: None, ..RULES }, get);
    world.upstream(switch).upstream(b"\x82\x04\x88\x02\x03\xe8").told_completed(1).client_reset();
    assert_eq!(world.told_interrupted().cause, Cause::Aborted);
}

#[test]
fn a_half_closed_client_whose_response_is_not_followed_is_in_a_tunnel() {
    let mut world = World::asked(RULES);
    world.client_fin().first_question().upstream("what").client_got("what").in_phase(Phase::Tunnel);
    world.finned().after(secs(100));
    world.upstream("ever").client_got("ever").told();
    world.upstream_fin().over().told_nothing();
    // What it sent ahead and was not followed goes before its FIN.
    let mut world = World::asked(RULES);
    world.client("\0").client_fin().first_question().upstream(OK).client_got(OK).upstream_got("\0");
    world.finned();
}

#[test]
fn a_client_that_sent_a_fin_and_is_gone_is_treated_as_the_rules_say() {
    for (on_gone, action) in [
        (OnGone::Reset, UpstreamAction::Reset),
        (OnGone::Close, UpstreamAction::Close),
        (OnGone::Ignore, UpstreamAction::Ignored),
    ] {
        let mut world = World::asked(Rules { on_gone, ..RULES });
        world.client_fin().first_question().client_reset();
        assert_eq!(world.told_interrupted().action, action);
        if action == UpstreamAction::Ignored {
            world.upstream(OK).client_got("").told_nothing();
        }
        let mut world = World::asked(Rules { on_gone, ..ruled(HalfClose::Gone) });
        world.client_fin();
        assert_eq!(world.told_interrupted().action, action);
    }
}

#[test]
fn a_timeout_comes_also_to_a_client_that_is_there() {
    let mut world = World::asked(RULES);
    world.client_fin().after(secs(60));
    world.sockets.to_client.drain(..4 * 25);
    world.client_got_our(504).told_upstream_failed();
}

#[test]
fn half_a_response_ends_with_a_reset_also_for_one_that_is_thought_to_be_gone() {
    let mut world = World::new(Rules { http: false, ..ruled(HalfClose::Gone) });
    world.connected().upstream("hel").client_fin();
    world.told_interrupted();
    assert_eq!(world.sockets.client, ClientSocket::Ended(End::Abort));
}

#[test]
fn the_proxys_own_absence_is_held_against_no_client() {
    type Say = fn(&mut World);
    let says: [(HalfClose, Say); 5] = [
        (HalfClose::Probe, |world| _ = world.client(&GET[..9])),
        (HalfClose::Probe, |world| _ = world.client(POST)),
        (HalfClose::Probe, |world| _ = world.client(GET).connected()),
        (HalfClose::Probe, |world| _ = world.client(OLD_GET).connected().client_fin()),
        (HalfClose::Wait(secs(3)), |world| _ = world.client(GET).connected().client_fin()),
    ];
    for (half_close, say) in says {
        let mut world = World::new(ruled(half_close));
        say(&mut world);
        let left = |world: &World| world.session.deadline(&world.rules).unwrap().since(world.now);
        let before = left(&world);
        let held = secs(100);
        world.now = world.now + held;
        world.session.put_off(held);
        assert_eq!(left(&world), before);
        world.after(before - millis(1)).told_nothing();
        world.after(millis(1));
        assert_eq!(world.session.deadline(&world.rules), None, "and then it is judged");
    }
}
