//! Heartbeat frames: probes, answers, partial thoughts, garbage.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use deadpeer::frame::{Frame, FrameError, Kind, encode_hello};
use deadpeer::liveness::{Cause, EventKind, Step, Transport};
use deadpeer::time::Instant;
use socket2::{Domain, Socket, Type};

use crate::watch::{QUICK, Setup, Watch, is};

fn beat(sequence: u32) -> [u8; 16] {
    Frame { kind: Kind::Pong, sequence, timestamp: 0 }.encode()
}

fn read_frame(peer: &mut TcpStream) -> [u8; 16] {
    let mut frame = [0; 16];
    peer.read_exact(&mut frame).unwrap();
    frame
}

#[test]
fn a_suspect_is_sent_a_ping_and_its_pong_recovers_it_and_tells_the_round_trip() {
    let mut watch = Watch::start(Setup::FRAMES);
    let mut peer = watch.peer();
    let address = peer.local_addr().unwrap();
    peer.write_all(&encode_hello("frodo", 1).unwrap()).unwrap();
    let ping = read_frame(&mut peer);
    assert_eq!((ping[3], ping[7]), (Kind::Ping as u8, 1));
    watch.wait(|event| matches!(event.kind, EventKind::Suspected { .. }) && is(event, address));
    let mut ping = read_frame(&mut peer);
    assert_eq!((ping[3], ping[7]), (Kind::Ping as u8, 2));
    ping[3] = Kind::Pong as u8;
    peer.write_all(&ping).unwrap();
    let event = watch.wait(|event| matches!(event.kind, EventKind::Recovered { .. }) && is(event, address));
    assert_eq!(event.subject.unwrap().identity.as_deref(), Some("frodo"));
    assert_eq!(watch.death(address).cause, Cause::HeartbeatExpired);
    let (_, report) = watch.finish();
    assert_eq!(report.recorder.summary().rtt_us.count, 1);
}

#[test]
fn a_quiet_client_that_answers_its_pings_is_no_suspect_and_its_round_trips_are_told() {
    let mut watch = Watch::start(Setup::FRAMES);
    let mut peer = watch.peer();
    let address = peer.local_addr().unwrap();
    peer.write_all(&beat(1)).unwrap();
    for _ in 0..3 {
        let mut ping = read_frame(&mut peer);
        assert_eq!((ping[3], ping[7]), (Kind::Ping as u8, 1));
        ping[3] = Kind::Pong as u8;
        peer.write_all(&ping).unwrap();
    }
    drop(peer);
    let history = watch.death(address).history;
    let steps: Vec<_> = history.iter().flatten().map(|line| line.step()).collect();
    assert_eq!(steps, [Step::Up, Step::Died(Cause::Closed)]);
    let (_, report) = watch.finish();
    assert_eq!(report.recorder.summary().rtt_us.count, 3);
}

#[test]
fn every_probe_of_the_policy_goes_out_before_the_verdict() {
    let mut watch = Watch::start(Setup::FRAMES);
    let mut peer = watch.peer();
    let address = peer.local_addr().unwrap();
    peer.write_all(&beat(1)).unwrap();
    let sequences = [(); 3].map(|()| read_frame(&mut peer)[7]);
    assert_eq!(sequences, [1, 2, 3]);
    let death = watch.death(address);
    assert_eq!(death.cause, Cause::HeartbeatExpired);
    watch.finish();
}

#[test]
fn a_ping_is_answered_with_its_own_sequence_and_timestamp() {
    let mut watch = Watch::start(Setup::FRAMES);
    let mut peer = watch.peer();
    let ping = Frame { kind: Kind::Ping, sequence: 77, timestamp: 0x1234_5678 };
    peer.write_all(&ping.encode()).unwrap();
    assert_eq!(read_frame(&mut peer), ping.answer().unwrap().encode());
}

#[test]
fn bytes_that_never_complete_a_frame_do_not_keep_a_peer_alive() {
    let mut watch = Watch::start(Setup::FRAMES);
    let mut peer = watch.peer();
    let address = peer.local_addr().unwrap();
    let before = Instant::now();
    peer.write_all(&beat(1)).unwrap();
    let half = beat(2);
    for byte in &half[..15] {
        let _ = peer.write_all(&[*byte]);
        std::thread::park_timeout(Duration::from_millis(60));
    }
    let death = watch.death(address);
    assert_eq!(death.cause, Cause::HeartbeatExpired);
    assert!(death.at.since(before) >= QUICK.detection_time());
    watch.finish();
}

#[test]
fn a_partial_first_frame_is_no_handshake() {
    let hello = encode_hello("a sensor on the roof", 1).unwrap();
    for part in [&beat(1)[..9], &hello[..16], &hello[..hello.len() - 1]] {
        let mut watch = Watch::start(Setup::FRAMES);
        let mut peer = watch.peer();
        peer.write_all(part).unwrap();
        let death = watch.death(peer.local_addr().unwrap());
        assert_eq!((death.cause, death.bytes), (Cause::HandshakeExpired, part.len() as u64));
    }
}

#[test]
fn what_is_no_frame_is_a_protocol_death_at_once() {
    for (bytes, error) in [
        (b"GET / HTTP/1.1\r\n".as_slice(), FrameError::BadMagic),
        (&[0xF5, 0xAD, 9, 1], FrameError::WrongVersion),
        (&[0xF5, 0xAD, 1, 200], FrameError::UnknownKind),
        (&[0xF5, 0xAD, 1, 1, 0, 0, 0, 65, 0, 0, 0, 0, 0, 0, 0, 0], FrameError::IdentityTooLong),
    ] {
        let mut watch = Watch::start(Setup::FRAMES);
        let mut peer = watch.peer();
        peer.write_all(bytes).unwrap();
        let death = watch.death(peer.local_addr().unwrap());
        assert_eq!((death.cause, death.proof.frame), (Cause::Protocol, Some(error)));
        watch.finish();
    }
}

#[test]
fn a_bye_is_an_orderly_end_whatever_follows_it() {
    let mut watch = Watch::start(Setup::FRAMES);
    let mut peer = watch.peer();
    let address = peer.local_addr().unwrap();
    peer.write_all(&beat(1)).unwrap();
    peer.write_all(&Frame { kind: Kind::Bye, sequence: 2, timestamp: 0 }.encode()).unwrap();
    crate::watch::reset(peer);
    let death = watch.death(address);
    assert_eq!((death.cause, death.proof.bye), (Cause::Closed, true));
    watch.finish();
}

#[test]
fn beats_in_one_flood_are_all_read_and_are_one_refresh() {
    let mut watch = Watch::start(Setup::FRAMES);
    let mut peer = watch.peer();
    let address = peer.local_addr().unwrap();
    let flood: Vec<u8> = (0..20_000).flat_map(beat).collect();
    peer.write_all(&flood).unwrap();
    let death = watch.death(address);
    assert_eq!((death.cause, death.bytes), (Cause::HeartbeatExpired, 320_000));
    let (_, report) = watch.finish();
    assert_eq!(report.counts.recovered, 0);
}

/// A peer that asks far more often than it reads, if at all, with little room for the answers; and then
/// falls silent, which is its death.
fn asks_more_than_it_reads(reads: bool) {
    let mut watch = Watch::start(Setup { unread: 1, ..Setup::FRAMES });
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Not less: where a peer has room for a window but not for what carries it, its kernel drops our
    // answer, then refuses our acknowledgements behind it, and the peer cannot speak any more.
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(&watch.address.into()).unwrap();
    let mut peer = TcpStream::from(socket);
    peer.set_nodelay(true).unwrap();
    let address = peer.local_addr().unwrap();
    let ping = Frame { kind: Kind::Ping, sequence: 1, timestamp: 1 }.encode();
    let end = Instant::now() + 3 * QUICK.detection_time();
    let mut asked = 0_u32;
    while asked < 2_000 || Instant::now() < end {
        peer.write_all(&ping).unwrap();
        asked += 1;
        if reads && asked.is_multiple_of(16) {
            peer.read_exact(&mut [0; 16]).unwrap();
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert!(!watch.is_dead(address));
    let death = watch.death(address);
    let (_, report) = watch.finish();
    assert_eq!(report.counts.suspected, 1, "only of the silence at the end");
    assert!(death.proof.evidence.notsent > 0, "it was not stuck: {:?}", death.proof);
    // Our last questions never left: its kernel may have answered a probe of the window, or was not asked.
    assert!(death.proof.transport != Transport::Silent, "{:?}", death.proof);
    assert_eq!(death.cause, Cause::HeartbeatExpired);
}

#[test]
fn a_peer_that_beats_and_never_reads_is_stuck_and_not_dead() {
    asks_more_than_it_reads(false);
}

#[test]
fn a_peer_that_reads_more_slowly_than_it_is_answered_is_alive() {
    asks_more_than_it_reads(true);
}
