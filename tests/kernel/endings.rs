//! Ends that the network brings: FIN, RST, and every order of the two.

use std::io::{Read, Write};
use std::time::Duration;

use deadpeer::liveness::event::Transport;
use deadpeer::liveness::{Cause, EventKind, LocalCause, Policy, PollMask, Step, TcpState};

use crate::watch::{PATIENCE, QUICK, Setup, Watch, half_close, is, reset, skip};

/// What a poll tells of a RST. The kernel sets the error first and shuts the directions after it, so a
/// poll that is armed between the two tells the error alone.
const RESET: u16 = PollMask::HUP | PollMask::ERR;

const GRACE: Setup =
    Setup { policy: Policy { half_closed_grace: Duration::from_secs(60), ..QUICK }, ..Setup::LAZY };

#[test]
fn a_fin_behind_data_is_closed_and_all_data_is_counted() {
    for setup in Setup::OPAQUE {
        let mut watch = Watch::start(setup);
        let mut peer = watch.peer();
        let address = peer.local_addr().unwrap();
        peer.write_all(&[7; 3_000]).unwrap();
        drop(peer);
        let death = watch.death(address);
        assert_eq!(death.cause, Cause::Closed);
        assert_eq!(death.bytes, 3_000);
        assert!(death.proof.evidence.mask.has(PollMask::RDHUP));
        assert!(!death.proof.evidence.mask.has(PollMask::HUP));
        assert_eq!(death.proof.evidence.tcp_state, TcpState::CloseWait);
        assert_eq!((death.proof.errno, death.proof.transport), (None, Transport::Answering));
        watch.finish();
    }
}

#[test]
fn a_half_close_without_grace_is_closed_and_the_peer_gets_a_fin() {
    let mut watch = Watch::start(Setup::LAZY);
    let mut peer = watch.speaking_peer();
    half_close(&peer);
    assert_eq!(watch.death(peer.local_addr().unwrap()).cause, Cause::Closed);
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn a_half_close_with_grace_is_half_closed_and_then_closed_when_the_grace_is_over() {
    let policy = Policy { half_closed_grace: Duration::from_millis(300), ..QUICK };
    let mut watch = Watch::start(Setup { policy, ..Setup::LAZY });
    let peer = watch.speaking_peer();
    let address = peer.local_addr().unwrap();
    half_close(&peer);
    let half = watch.wait(|event| matches!(event.kind, EventKind::HalfClosed) && is(event, address));
    let death = watch.death(address);
    assert_eq!(death.cause, Cause::Closed);
    assert!(death.at.since(half.at) >= Duration::from_millis(299), "{:?}", death.at.since(half.at));
    let steps: Vec<_> = death.history.iter().flatten().map(|line| line.step()).collect();
    assert_eq!(steps, [Step::Up, Step::HalfClosed, Step::Died(Cause::Closed)]);
    watch.finish();
}

#[test]
fn a_peer_that_half_closed_and_then_gives_up_is_aborted() {
    let mut watch = Watch::start(GRACE);
    let peer = watch.speaking_peer();
    let address = peer.local_addr().unwrap();
    half_close(&peer);
    watch.wait(|event| matches!(event.kind, EventKind::HalfClosed) && is(event, address));
    reset(peer);
    let death = watch.death(address);
    assert_eq!(death.cause, Cause::Aborted);
    assert!(death.proof.evidence.mask.has(RESET), "{:?}", death.proof);
    assert_eq!(death.proof.evidence.tcp_state, TcpState::Close);
    watch.finish();
}

#[test]
fn a_reset_is_aborted_with_its_errno() {
    for setup in Setup::OPAQUE {
        let mut watch = Watch::start(setup);
        let peer = watch.speaking_peer();
        let address = peer.local_addr().unwrap();
        reset(peer);
        let death = watch.death(address);
        assert_eq!(death.cause, Cause::Aborted);
        assert_eq!(death.proof.errno, Some(libc::ECONNRESET));
        assert_eq!(death.proof.evidence.tcp_state, TcpState::Close);
        assert!(death.proof.evidence.mask.has(RESET), "{:?}", death.proof);
        assert_eq!(death.bytes, 4);
        watch.finish();
    }
}

#[test]
fn data_and_then_a_reset_gives_the_data_first() {
    for setup in Setup::OPAQUE {
        let mut watch = Watch::start(setup);
        let mut peer = watch.peer();
        let address = peer.local_addr().unwrap();
        peer.write_all(&[1; 500]).unwrap();
        reset(peer);
        let death = watch.death(address);
        assert_eq!(death.cause, Cause::Aborted);
        assert_eq!(death.proof.errno, Some(libc::ECONNRESET));
        assert_eq!(death.bytes, 500);
        watch.finish();
    }
}

#[test]
fn a_peer_that_closes_with_unread_bytes_is_aborted() {
    // The server speaks only frames: it answers a PING, and the peer closes without reading it.
    let mut watch = Watch::start(Setup::FRAMES);
    let mut peer = watch.peer();
    let address = peer.local_addr().unwrap();
    let ping = deadpeer::frame::Frame { kind: deadpeer::frame::Kind::Ping, sequence: 1, timestamp: 1 };
    peer.write_all(&ping.encode()).unwrap();
    peer.peek(&mut [0; 1]).unwrap();
    drop(peer);
    let death = watch.death(address);
    assert_eq!(death.cause, Cause::Aborted);
    watch.finish();
}

#[test]
fn an_extra_byte_without_a_fin_keeps_a_peer_alive() {
    let mut watch = Watch::start(Setup::LAZY);
    let mut peer = watch.speaking_peer();
    let address = peer.local_addr().unwrap();
    for _ in 0..6 {
        peer.write_all(b"x").unwrap();
        std::thread::park_timeout(QUICK.idle / 2);
        assert!(!watch.is_dead(address));
    }
    reset(peer);
    assert_eq!(watch.death(address).cause, Cause::Aborted);
    let (_, report) = watch.finish();
    assert_eq!(report.counts.suspected, 0);
}

#[test]
fn ipv6_and_a_wildcard_listener_tell_the_real_addresses() {
    let mut watch = Watch::start(Setup { listen: "[::1]:0", ..Setup::LAZY });
    let peer = watch.speaking_peer();
    let address = peer.local_addr().unwrap();
    assert!(address.is_ipv6());
    drop(peer);
    assert_eq!(watch.death(address).cause, Cause::Closed);

    let mut watch = Watch::start(Setup { listen: "0.0.0.0:0", ..Setup::LAZY });
    watch.address.set_ip("127.0.0.1".parse().unwrap());
    let peer = watch.speaking_peer();
    drop(peer);
    let event = watch.wait(|event| matches!(event.kind, EventKind::Died(_)));
    let local = watch.locals.get(event.subject.unwrap().local);
    assert_eq!(local, Some(watch.address));
}

#[test]
fn a_socket_that_an_administrator_kills_is_a_local_death() {
    if std::process::Command::new("ss").arg("-V").output().is_err() {
        return skip("no `ss`: install iproute2");
    }
    let mut watch = Watch::start(Setup::LAZY);
    let peer = watch.speaking_peer();
    let address = peer.local_addr().unwrap();
    let output = std::process::Command::new("ss")
        .args(["-K", "-tn", "dst", "127.0.0.1", "dport", "=", &format!(":{}", address.port())])
        .output()
        .unwrap();
    if !output.status.success() {
        return skip(&format!("`ss -K` is not allowed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let death = watch.death(address);
    assert_eq!(death.cause, Cause::Local(LocalCause::Destroyed), "{:?}", death.proof);
    assert_eq!(death.proof.errno, Some(libc::ECONNABORTED));
    watch.finish();
}

#[test]
fn a_peer_that_is_judged_gets_a_reset_at_once() {
    let mut watch = Watch::start(Setup::LAZY);
    let mut peer = watch.speaking_peer();
    let address = peer.local_addr().unwrap();
    assert_eq!(watch.death(address).cause, Cause::HeartbeatExpired);
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let error = peer.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_client_on_tokio_uring_is_a_peer_like_any_other() {
    let mut watch = Watch::start(Setup::LAZY);
    let to = watch.address;
    let address = std::thread::spawn(move || {
        tokio_uring::start(async move {
            let stream = crate::watch::connect(to);
            let address = stream.local_addr().unwrap();
            let stream = tokio_uring::net::TcpStream::from_std(stream);
            for _ in 0..5 {
                let (result, _) = stream.write_all(b"beat beat beat !".to_vec()).await;
                result.unwrap();
            }
            address
        })
    });
    let address = address.join().unwrap();
    let death = watch.death(address);
    assert_eq!((death.cause, death.bytes), (Cause::Closed, 80));
}
