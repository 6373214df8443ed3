//! Ends that only the owner of the descriptors can cause, on the real kernel.
//!
//! Where the kernel has to give up by itself, its own timers are set far below the policy's.

use std::any::type_name;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{SockRef, TcpKeepalive};

use super::super::super::*;
use super::rig::{PATIENCE, Rig};
use crate::frame::{Frame, Kind};
use crate::liveness::{Cause, EventKind, Hop, LocalCause, Policy, PollMask, TcpState, Transport};
use crate::sys::tcp;

const SECOND: Duration = Duration::from_secs(1);

/// A policy by which no peer is judged while a test lasts.
const PATIENT: Policy = Policy { idle: Duration::from_secs(100), ..Policy::STANDARD };
/// The same, and a FIN is not the end.
const GRACE: Policy = Policy { half_closed_grace: Duration::from_secs(100), ..PATIENT };

/// One peer that was accepted, and its address.
fn one(mut rig: Rig) -> (Rig, TcpStream, SocketAddr) {
    let peer = rig.peer();
    let address = peer.local_addr().unwrap();
    (rig, peer, address)
}

/// The kernel gives up when what this side sent is not acknowledged for a second.
fn hasty(listen: &str) -> Rig {
    Rig::with(PATIENT, listen, |listener| listener.set_tcp_user_timeout(Some(SECOND)).unwrap())
}

/// Repeats until it is so, for as long as patience lasts.
fn until(holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never was so");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Closes with a RST.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn write(socket: &SockRef<'_>, bytes: &[u8]) -> io::Result<usize> {
    (&mut &**socket).write(bytes)
}

/// Sends until nothing more fits, to a peer that does not read.
fn fill(socket: &SockRef<'_>) {
    let error = loop {
        if let Err(error) = write(socket, &[0; 1 << 16]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

// --- ends --------------------------------------------------------------------------------------

#[test]
fn a_reset_whose_error_another_reader_took_is_aborted_and_not_closed() {
    let (mut rig, peer, address) = one(Rig::new(PATIENT));
    reset(peer);
    let ours = rig.ours(address);
    until(|| match (&mut &*ours).read(&mut [0; 8]) {
        Ok(_) => unreachable!("it said nothing"),
        Err(error) => error.raw_os_error() == Some(libc::ECONNRESET),
    });
    let death = rig.death(address);
    assert_eq!((death.cause, death.proof.errno), (Cause::Aborted, None));
    assert_eq!(death.proof.evidence.tcp_state, TcpState::Close);
    assert!(death.proof.evidence.mask.has(PollMask::HUP), "{:?}", death.proof);
}

#[test]
fn a_reading_side_that_this_side_shut_is_a_local_end() {
    for policy in [PATIENT, GRACE] {
        let (mut rig, mut peer, address) = one(Rig::new(policy));
        peer.write_all(b"beat").unwrap();
        until(|| rig.info(address).tcpi_bytes_received == 4);
        rig.ours(address).shutdown(Shutdown::Read).unwrap();
        let death = rig.death(address);
        assert_eq!((death.cause, death.bytes), (Cause::Local(LocalCause::Shutdown), 4));
        assert_eq!(death.proof.evidence.tcp_state, TcpState::Established);
    }
}

#[test]
fn a_simultaneous_close_is_closed() {
    for policy in [PATIENT, GRACE] {
        let (mut rig, peer, address) = one(Rig::new(policy));
        // The peer does not read, so our FIN waits behind our bytes, and the peer's overtakes it.
        fill(&rig.ours(address));
        rig.ours(address).shutdown(Shutdown::Write).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let death = rig.death(address);
        assert_eq!(death.cause, Cause::Closed);
        assert_eq!(death.proof.evidence.tcp_state, TcpState::Closing);
    }
}

#[test]
fn a_peer_that_closed_altogether_is_half_closed_until_this_side_writes() {
    let (mut rig, peer, address) = one(Rig::new(GRACE));
    drop(peer);
    rig.event(address, |kind| matches!(kind, EventKind::HalfClosed));
    write(&rig.ours(address), b"still there?").unwrap();
    let death = rig.death(address);
    assert_eq!((death.cause, death.bytes), (Cause::Aborted, 0));
    assert_eq!(death.proof.evidence.tcp_state, TcpState::Close);
}

#[test]
fn a_send_that_finds_the_pipe_broken_takes_the_error_and_the_death_is_told_once() {
    let (mut rig, peer, address) = one(Rig::new(GRACE));
    peer.shutdown(Shutdown::Write).unwrap();
    rig.event(address, |kind| matches!(kind, EventKind::HalfClosed));
    reset(peer);
    let ours = rig.ours(address);
    until(|| write(&ours, b"x").is_err_and(|error| error.kind() == ErrorKind::BrokenPipe));
    let death = rig.death(address);
    assert_eq!((death.cause, death.proof.evidence.so_error), (Cause::Aborted, None));
    rig.driver.turn().unwrap();
    assert_eq!((rig.deaths(), rig.driver.service.tracker.len()), (1, 0));
}

#[test]
fn a_fin_before_a_reset_is_no_byte() {
    for said in [0, 1, 700] {
        let (mut rig, mut peer, address) = one(Rig::new(PATIENT));
        peer.write_all(&vec![7; said as usize]).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        reset(peer);
        until(|| rig.info(address).tcpi_state == TcpState::Close as u8);
        assert_eq!(rig.info(address).tcpi_bytes_received, said + 1, "the kernel counts it");
        let death = rig.death(address);
        assert_eq!((death.cause, death.bytes), (Cause::Aborted, said));
    }
}

#[test]
fn ends_that_come_together_are_told_as_those_that_come_alone() {
    // The first of a turn are read at once, the others by the engine.
    let many = 3 * limits::ENDS_AT_ONCE as u64;
    let mut rig = Rig::new(PATIENT);
    let peers: Vec<_> = (0..many).map(|_| rig.peer()).collect();
    let addresses: Vec<_> = peers.iter().map(|peer| peer.local_addr().unwrap()).collect();
    for (said, mut peer) in (0..).zip(peers) {
        peer.write_all(&vec![7; said]).unwrap();
        match said % 3 {
            0 => drop(peer),
            1 => reset(peer),
            _ => {
                peer.shutdown(Shutdown::Write).unwrap();
                reset(peer);
            }
        }
    }
    let ends = [TcpState::CloseWait as u8, TcpState::Close as u8];
    until(|| addresses.iter().all(|&address| ends.contains(&rig.info(address).tcpi_state)));
    for (said, &address) in (0..).zip(&addresses) {
        let death = rig.death(address);
        let cause = if said % 3 == 0 { Cause::Closed } else { Cause::Aborted };
        assert_eq!((death.cause, death.bytes), (cause, said));
    }
    rig.driver.turn().unwrap();
    assert_eq!((rig.deaths(), rig.driver.service.tracker.len()), (many, 0));
}

// --- local --------------------------------------------------------------------------------------

#[test]
fn when_the_frame_buffers_run_out_no_peer_dies_and_every_frame_is_read() {
    crate::sys::rlimit::raise_nofile().unwrap();
    let policy = Policy { heartbeat: Heartbeat::Frames, idle: 2 * SECOND, probes: 100, ..PATIENT };
    let mut rig = Rig::new(policy);
    let mut peers: Vec<_> = (0..limits::FRAME_BUFFERS + 100).map(|_| rig.peer()).collect();
    let ping = Frame { kind: Kind::Ping, sequence: 7, timestamp: 0 };
    let read =
        |rig: &Rig, bytes| rig.driver.service.tracker.peers().filter(|view| view.taken == bytes).count();
    let mut starved = false;
    for round in 1..=2 {
        for peer in &mut peers {
            peer.write_all(&ping.encode()).unwrap();
        }
        if round == 2 {
            // The second frame causes no wake-up, so all are read together when all could be overdue.
            std::thread::park_timeout(policy.idle + SECOND / 10);
        }
        let end = Instant::now() + PATIENCE;
        while read(&rig, 16 * round) < peers.len() {
            assert!(Instant::now() < end, "{} of {} were read", read(&rig, 16 * round), peers.len());
            rig.driver.turn().unwrap();
            starved |= !rig.driver.service.starved.is_empty();
        }
    }
    assert!(starved, "there were buffers enough");
    for peer in &mut peers {
        let mut answers = [0; 32];
        peer.read_exact(&mut answers).unwrap();
        assert_eq!(answers[16..], ping.answer().unwrap().encode());
    }
    assert_eq!(rig.deaths(), 0);
}

// --- broken paths ------------------------------------------------------------------------------

/// Runs a test in a network namespace of its own, where it may break the network: the test program
/// is started once more, for this test alone.
fn alone<F: FnOnce()>(test: F) {
    const INSIDE: &str = "DEADPEER_TEST_IS_ALONE";
    if std::env::var_os(INSIDE).is_some() {
        must("ip", &["link", "set", "lo", "up"]);
        return test();
    }
    let name = type_name::<F>().trim_end_matches("::{{closure}}");
    let name = name.split_once("::").unwrap().1; // without the crate's
    for (tool, arguments) in [("unshare", &["--net", "true"][..]), ("ip", &["-V"]), ("nft", &["-v"])] {
        if !Command::new(tool).args(arguments).output().is_ok_and(|output| output.status.success()) {
            println!(
                "SKIPPED: {name}: no network of its own: be root, install util-linux, iproute2, nftables"
            );
            assert!(std::env::var_os("DEADPEER_REQUIRE_ALL").is_none(), "{name} must run here: no `{tool}`");
            return;
        }
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .arg("--net")
        .arg(program)
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}{complaint}");
}

fn must(tool: &str, arguments: &[&str]) {
    let output = Command::new(tool).args(arguments).output().unwrap();
    assert!(output.status.success(), "{tool} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What becomes of everything that a server sends: `drop`, or a `reject`. At `output` it does not leave
/// us, as where a route is missing; at `input` it leaves and does not arrive.
fn break_path(server: SocketAddr, hook: &str, verdict: &str) {
    let rules = format!(
        "add table inet broken; add chain inet broken path {{ type filter hook {hook} priority 0; }}; \
         add rule inet broken path tcp sport {} {verdict}",
        server.port()
    );
    must("nft", &[&rules]);
}

fn mend_path() {
    must("nft", &["delete table inet broken"]);
}

#[test]
fn the_kernels_own_keepalive_says_so_where_all_was_quiet() {
    alone(|| {
        let keepalive = TcpKeepalive::new().with_time(SECOND).with_interval(SECOND).with_retries(2);
        let mut rig = Rig::with(PATIENT, "127.0.0.1:0", |listener| {
            listener.set_tcp_keepalive(&keepalive).unwrap();
            listener.set_tcp_user_timeout(None).unwrap();
        });
        let mut peer = rig.peer();
        let address = peer.local_addr().unwrap();
        peer.write_all(b"beat").unwrap();
        until(|| rig.info(address).tcpi_bytes_received == 4);
        break_path(rig.address, "input", "drop");
        let death = rig.death(address);
        assert_eq!((death.cause, death.proof.errno), (Cause::KeepaliveExpired, Some(libc::ETIMEDOUT)));
        assert_eq!((death.deadline, death.proof.transport), (None, Transport::Silent));
        let evidence = death.proof.evidence;
        assert_eq!((evidence.probes, evidence.retransmits, evidence.notsent), (2, 0, 0), "{evidence:?}");
    });
}

#[test]
fn bytes_that_were_never_acknowledged_are_a_user_timeout() {
    alone(|| {
        for (hook, left) in [("input", true), ("output", false)] {
            let (mut rig, _peer, address) = one(hasty("127.0.0.1:0"));
            break_path(rig.address, hook, "drop");
            write(&rig.ours(address), b"anyone?").unwrap();
            let death = rig.death(address);
            assert_eq!((death.cause, death.proof.errno), (Cause::UserTimeout, Some(libc::ETIMEDOUT)));
            // The kernel has thrown away what was out; only these counts are left of it.
            let evidence = death.proof.evidence;
            assert_eq!((evidence.retransmits > 0, evidence.notsent > 0), (left, !left), "{evidence:?}");
            assert_eq!(evidence.unacked, 0);
            mend_path();
        }
    });
}

#[test]
fn a_user_timeout_ends_also_a_peer_that_is_there_and_does_not_read() {
    let (mut rig, _peer, address) = one(hasty("127.0.0.1:0"));
    fill(&rig.ours(address));
    let death = rig.death(address);
    assert_eq!((death.cause, death.proof.errno), (Cause::UserTimeout, Some(libc::ETIMEDOUT)));
    assert!(death.proof.evidence.notsent > 0, "{:?}", death.proof);
}

#[test]
fn a_ping_that_waits_behind_a_closed_window_asks_nothing() {
    let policy = Policy {
        heartbeat: Heartbeat::Frames,
        idle: SECOND / 2,
        interval: SECOND / 10,
        probes: 3,
        ..Policy::STANDARD
    };
    let (mut rig, mut peer, address) = one(Rig::new(policy));
    fill(&rig.ours(address));
    // The loop rests until the window probes are further apart than the detection time.
    until(|| rig.info(address).tcpi_backoff >= 4);
    peer.write_all(&Frame { kind: Kind::Pong, sequence: 1, timestamp: 0 }.encode()).unwrap();
    let death = rig.death(address);
    assert_eq!((death.cause, death.proof.transport), (Cause::HeartbeatExpired, Transport::Unasked));
    assert!(death.proof.evidence.notsent > 0, "{:?}", death.proof);
}

#[test]
fn a_path_that_says_unreachable_gives_the_cause_when_the_kernel_gives_up() {
    alone(|| {
        for (listen, answer, hop, errno) in [
            ("127.0.0.1:0", "icmp type host-unreachable", Hop::Host, libc::EHOSTUNREACH),
            ("127.0.0.1:0", "icmp type net-unreachable", Hop::Net, libc::ENETUNREACH),
            ("[::1]:0", "icmpv6 type addr-unreachable", Hop::Host, libc::EHOSTUNREACH),
            ("[::1]:0", "icmpv6 type no-route", Hop::Net, libc::ENETUNREACH),
        ] {
            let (mut rig, _peer, address) = one(hasty(listen));
            break_path(rig.address, "input", &format!("reject with {answer}"));
            write(&rig.ours(address), b"anyone?").unwrap();
            let death = rig.death(address);
            assert_eq!((death.cause, death.proof.errno), (Cause::Unreachable(hop), Some(errno)), "{answer}");
            assert_eq!(death.proof.evidence.tcp_state, TcpState::Close);
            mend_path();
        }
    });
}

#[test]
fn a_soft_error_makes_a_suspect_that_recovers_when_the_path_does() {
    alone(|| {
        let policy = Policy { interval: SECOND, ..PATIENT };
        let mut rig = Rig::with(policy, "127.0.0.1:0", |listener| {
            tcp::report_errors(listener.as_fd()).unwrap();
        });
        let mut peer = rig.peer();
        let address = peer.local_addr().unwrap();
        peer.write_all(b"beat").unwrap();
        until(|| rig.info(address).tcpi_bytes_received == 4);
        break_path(rig.address, "input", "reject with icmp type host-unreachable");
        write(&rig.ours(address), b"anyone?").unwrap();
        rig.event(address, |kind| matches!(kind, EventKind::Suspected { .. }));
        // It stays a suspect however often the error comes.
        while rig.info(address).tcpi_retransmits < 10 {
            rig.driver.turn().unwrap();
        }
        let counts = rig.driver.service.tracker.counts();
        assert_eq!((counts.suspected, counts.recovered, counts.suspects), (1, 0, 1));
        mend_path();
        rig.event(address, |kind| matches!(kind, EventKind::Recovered { .. }));
        assert_eq!(rig.deaths(), 0);
    });
}

#[test]
fn a_path_that_says_it_is_broken_is_in_doubt_although_the_peer_is_heard() {
    alone(|| {
        let policy = Policy { idle: 2 * SECOND, interval: SECOND / 2, probes: 40, ..Policy::STANDARD };
        let (mut rig, mut peer, address) = one(Rig::new(policy));
        // What this side sends does not arrive; what the peer sends does.
        break_path(rig.address, "input", "meta length > 500 reject with icmp type host-unreachable");
        write(&rig.ours(address), &[0; 1_000]).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let beating = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    peer.write_all(b"beat").unwrap();
                    std::thread::park_timeout(Duration::from_millis(300));
                }
                peer
            }
        });
        let suspected = rig.event(address, |kind| matches!(kind, EventKind::Suspected { .. }));
        assert!(matches!(suspected.kind, EventKind::Suspected { doubt: true, .. }), "{suspected:?}");
        assert!(rig.info(address).tcpi_retransmits > 0);
        assert_eq!(rig.info(address).tcpi_backoff, 0, "the path's answer takes the backoff back");
        mend_path();
        rig.event(address, |kind| matches!(kind, EventKind::Recovered { .. }));
        assert_eq!(rig.deaths(), 0);
        stop.store(true, Ordering::Relaxed);
        beating.join().unwrap();
    });
}
