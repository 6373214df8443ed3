//! Conversations that were tampered with, and floods: whatever comes, it is passed on as it came, the same
//! however it is cut, and not more of it is held than was said.

use proptest::prelude::*;

use super::conversation::{Exchange, exchange};
use super::scripts::rules;
use super::world::{ClientSocket, RULES, UpstreamSocket, World};
use crate::http::Reason;
use crate::limits::{MAX_HEAD, MAX_HELD, MAX_PIPELINED};
use crate::proxy::event::{Phase, ProxyEvent};
use crate::proxy::session::Rules;

/// Something done to bytes, somewhere.
#[derive(Clone, Debug)]
enum Tampering {
    Put(u16, &'static [u8]),
    Change(u16, u8),
    Lose(u16, usize),
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let pieces: Vec<&'static [u8]> = vec![
        b"\n",
        b"\r",
        b" ",
        b"\0",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ];
    prop_oneof![
        (any::<u16>(), prop::sample::select(pieces)).prop_map(|(at, piece)| Tampering::Put(at, piece)),
        (any::<u16>(), any::<u8>()).prop_map(|(at, byte)| Tampering::Change(at, byte)),
        (any::<u16>(), 1_usize..9).prop_map(|(at, bytes)| Tampering::Lose(at, bytes)),
    ]
}

fn tamper(mut bytes: Vec<u8>, tamperings: &[Tampering]) -> Vec<u8> {
    for tampering in tamperings {
        let place = |at: u16| usize::from(at) * bytes.len() / 65_536;
        match *tampering {
            Tampering::Put(at, piece) => {
                // Most of what is interesting begins a line.
                let at = bytes[place(at)..]
                    .iter()
                    .position(|&byte| byte == b'\n')
                    .map_or(0, |to| place(at) + to + 1);
                bytes.splice(at..at, piece.iter().copied());
            }
            Tampering::Change(at, byte) => {
                let at = place(at);
                bytes[at] = byte;
            }
            Tampering::Lose(at, count) => {
                let at = place(at);
                bytes.drain(at..bytes.len().min(at + count).max(at + usize::from(bytes.len() > 1)));
            }
        }
        if bytes.is_empty() {
            bytes.push(b'x');
        }
    }
    bytes
}

fn check_held(world: &World) {
    // A read may make a request whole that had come to its limit; then as much of the next is wanted as is pipelined.
    let most = MAX_HEAD.max(world.rules.request_buffer) + MAX_HELD + MAX_PIPELINED;
    assert!(world.session.holds() <= most, "{} are held", world.session.holds());
}

/// Neither side is in a hurry: the client sends all that is wanted of it, then the server gives the answer for which it has
/// read enough. Returns how much was read of the client.
fn converse(world: &mut World, sends: &[u8], answers: &[(usize, Vec<u8>)], pieces: &[usize]) -> usize {
    let mut pieces = pieces.iter().copied().cycle();
    let mut piece = move || pieces.next().unwrap_or(MAX_HELD);
    let (mut read, mut answered) = (0, 0);
    loop {
        let before = (read, answered, world.sockets.upstream);
        while read < sends.len() && world.session.wants_client() && world.sockets.client == ClientSocket::Open
        {
            let until = sends.len().min(read + piece().min(world.session.client_room()));
            world.client(&sends[read..until]);
            read = until;
            check_held(world);
        }
        if world.sockets.upstream == UpstreamSocket::Connecting {
            world.connected();
        }
        let answer = answers.get(answered).filter(|(after, _)| *after <= world.sockets.to_upstream.len());
        if let Some((_, answer)) = answer.filter(|_| world.sockets.upstream == UpstreamSocket::Open) {
            answered += 1;
            let mut at = 0;
            while at < answer.len() && world.sockets.upstream == UpstreamSocket::Open {
                let until = answer.len().min(at + piece());
                world.upstream(&answer[at..until]);
                at = until;
                check_held(world);
            }
        }
        if before == (read, answered, world.sockets.upstream) {
            return read;
        }
    }
}

/// What came of it, cut like this.
fn outcome(rules: Rules, sends: &[u8], answers: &[(usize, Vec<u8>)], pieces: &[usize]) -> World {
    let mut world = World::new(rules);
    let read = converse(&mut world, sends, answers, pieces);
    let served: Vec<u8> = answers.iter().flat_map(|(_, answer)| answer.clone()).collect();
    assert!(sends.starts_with(&world.sockets.to_upstream));
    let finished = matches!(world.sockets.client, ClientSocket::Finishing(_));
    // What comes behind an answer goes nowhere if the connection is given back.
    let strays = rules.pool && answers.len() > 1;
    assert!(served.starts_with(&world.sockets.relayed) || finished || strays, "bytes that were not sent");
    if world.phase() == Phase::Tunnel && world.sockets.upstream == UpstreamSocket::Open {
        assert_eq!(world.sockets.to_upstream.len(), read, "a tunnel holds nothing back");
    }
    assert!(
        !world.sockets.told.iter().any(|told| matches!(told, ProxyEvent::Interrupted(_))),
        "no client has left"
    );
    world
}

/// The same is told, and the same bytes go, however they are cut; with one unavoidable exception. What an
/// upstream says behind the end of its answer is unsolicited when it comes with that end. When it comes later and another
/// request has followed, it cannot be told from the beginning of the next answer: then only what went before is the same.
fn compare(rules: Rules, sends: &[u8], answers: &[(usize, Vec<u8>)], pieces: &[usize]) {
    let whole = outcome(rules, sends, answers, &[MAX_HELD]);
    let unsolicited = |told: &ProxyEvent| {
        matches!(told, ProxyEvent::NotFollowed { reason: Reason::Unsolicited, refused: _ })
    };
    for pieces in [&[1], pieces] {
        let mut cut = outcome(rules, sends, answers, pieces);
        match whole.sockets.told.iter().position(unsolicited) {
            Some(at) if answers.len() > 1 && whole.sockets.told != cut.sockets.told => {
                assert_eq!(whole.sockets.told[..at], cut.sockets.told[..at]);
            }
            _ => same(&whole, &cut),
        }
        if !matches!(cut.sockets.client, ClientSocket::Ended(_)) {
            cut.client_reset();
        }
        let interrupted = cut.told().iter().filter(|told| matches!(told, ProxyEvent::Interrupted(_))).count();
        assert!(interrupted <= 1);
    }
}

fn same(whole: &World, cut: &World) {
    let (one, other) = (&whole.sockets, &cut.sockets);
    assert_eq!(one.told, other.told);
    assert_eq!(whole.phase(), cut.phase());
    assert_eq!(one.client, other.client);
    assert_eq!(one.upstream == UpstreamSocket::Open, other.upstream == UpstreamSocket::Open);
    for (one, other) in [(&one.to_upstream, &other.to_upstream), (&one.relayed, &other.relayed)] {
        // How much of what is refused in the end was on its way already depends on how it came.
        assert!(one == other || (whole.rules.strict && (one.starts_with(other) || other.starts_with(one))));
    }
}

fn answers(exchanges: &[Exchange], most: usize) -> Vec<(usize, Vec<u8>)> {
    let ends = exchanges.iter().scan(0, |end, exchange| {
        *end += exchange.request.len();
        Some((*end).min(most))
    });
    ends.zip(exchanges).map(|(end, exchange)| (end, exchange.response.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_client_that_tampers_gets_the_same_however_it_is_cut(
        exchanges in prop::collection::vec(exchange(), 1..6),
        tamperings in prop::collection::vec(tampering(), 0..4),
        rules in rules(),
        pieces in prop::collection::vec(1_usize..300, 1..6),
    ) {
        let sends = tamper(exchanges.iter().flat_map(|exchange| exchange.request.clone()).collect(), &tamperings);
        compare(rules, &sends, &answers(&exchanges, sends.len()), &pieces);
    }

    #[test]
    fn a_server_that_tampers_is_passed_on_the_same_however_it_is_cut(
        exchange in exchange(),
        tamperings in prop::collection::vec(tampering(), 0..4),
        rules in rules(),
        pieces in prop::collection::vec(1_usize..300, 1..6),
    ) {
        let answers = [(exchange.request.len(), tamper(exchange.response, &tamperings))];
        compare(rules, &exchange.request, &answers, &pieces);
    }

    #[test]
    fn where_both_sides_tamper_their_bytes_are_still_passed_on_as_they_came(
        exchanges in prop::collection::vec(exchange(), 1..6),
        tamperings in prop::collection::vec(tampering(), 0..4),
        others in prop::collection::vec(tampering(), 0..4),
        rules in rules(),
        pieces in prop::collection::vec(1_usize..300, 1..6),
    ) {
        let sends = tamper(exchanges.iter().flat_map(|exchange| exchange.request.clone()).collect(), &tamperings);
        let mut answers = answers(&exchanges, sends.len());
        for (_, answer) in &mut answers {
            *answer = tamper(std::mem::take(answer), &others);
        }
        outcome(rules, &sends, &answers, &pieces);
    }
}

#[test]
fn a_byte_behind_an_answer_is_unsolicited_or_the_beginning_of_the_next_one() {
    // A HEAD that the upstream answers with a body.
    let sends = b"HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n";
    let answers = [
        (19, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nH".to_vec()),
        (37, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
    ];
    for (pieces, expected) in [(MAX_HELD, Reason::Unsolicited), (1, Reason::NotHttp)] {
        let world = outcome(RULES, sends, &answers, &[pieces]);
        let reasons = world.sockets.told.iter().filter_map(|told| match told {
            ProxyEvent::NotFollowed { reason, .. } => Some(*reason),
            _ => None,
        });
        assert_eq!(reasons.collect::<Vec<_>>(), [expected]);
        assert_eq!(world.sockets.relayed, [&answers[0].1[..], &answers[1].1[..]].concat(), "as they came");
    }
    compare(RULES, sends, &answers, &[1]);
}

#[test]
fn a_flood_is_held_up_to_its_limit_and_not_further() {
    let floods: [(&[u8], &[u8]); 8] = [
        (b"", b"\r\n"),
        (b"", b"x"),
        (b"GET / HTTP/1.1\r\n", b"A: b\r\n"),
        (b"", b"GET / HTTP/1.1\r\n\r\n"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"x"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n"),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ),
        (b"\0", b"x"),
    ];
    for (start, pattern) in floods {
        for size in [7, 4_093, MAX_HELD] {
            for request_buffer in [0, 4_096, 100_000] {
                for answered in [None, Some(&b""[..]), Some(&b"HTTP/1.1 200 OK\r\nA: "[..])] {
                    let mut world = World::new(Rules { request_buffer, ..RULES });
                    let mut flood = start.iter().chain(pattern.iter().cycle()).copied();
                    let mut sent = 0;
                    while sent < 400_000 && world.session.wants_client() {
                        let read = size.min(world.session.client_room());
                        assert!(read > 0, "wanted, and no room for it");
                        world.client(flood.by_ref().take(read).collect::<Vec<u8>>());
                        sent += read;
                        check_held(&world);
                        if let Some(begun) = answered
                            && world.sockets.upstream == UpstreamSocket::Connecting
                        {
                            world.connected();
                            // An upstream may hold its head back as long as it likes.
                            for _ in 0..MAX_HEAD / 100 {
                                if !begun.is_empty() && world.sockets.upstream == UpstreamSocket::Open {
                                    world.upstream(begun).upstream([b'x'; 99]);
                                    check_held(&world);
                                }
                            }
                        }
                    }
                    let streams = world.phase() == Phase::Receiving || world.phase() == Phase::Tunnel;
                    let over = world.sockets.client != ClientSocket::Open;
                    assert!(sent < 400_000 || streams || over, "{:?} has no end", world.phase());
                }
            }
        }
    }
}
