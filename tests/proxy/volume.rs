//! Much, through little memory.

use std::thread;
use std::time::Duration;

use crate::peer::{End, Peer};
use crate::program::{Proxy, engines, on_each};
use crate::upstream::{Upstream, answer};

/// A GiB where there is time for it; a quarter where two cores also play both ends.
fn much() -> u64 {
    if std::env::var_os("DEADPEER_MILLION").is_some() { 1 << 30 } else { 1 << 28 }
}

const PIECE: usize = 1 << 18;

/// More than any of these take, and far less than what goes through.
const MEMORY_KIB: u64 = 64 * 1_024;

/// The bytes from `at` on: each place has its own, so that none may be missing, doubled or elsewhere.
fn fill(piece: &mut [u8], at: u64) {
    for (eight, number) in piece.chunks_exact_mut(8).zip(at / 8..) {
        eight.copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    }
}

fn send_much(peer: &mut Peer, bytes: u64) {
    let mut piece = vec![0; PIECE];
    for at in (0..bytes).step_by(PIECE) {
        fill(&mut piece, at);
        peer.send(&piece);
    }
}

fn take_much(peer: &mut Peer, bytes: u64) {
    let mut expected = vec![0; PIECE];
    for at in (0..bytes).step_by(PIECE) {
        fill(&mut expected, at);
        assert!(peer.take(PIECE) == expected, "other bytes from {at} on");
    }
}

#[test]
fn a_body_of_any_size_passes_in_both_directions_through_bounded_memory() {
    let bytes = much();
    for io in engines() {
        let upstream = Upstream::forgetful(move |peer| {
            let head = peer.head();
            if head.starts_with("POST") {
                take_much(peer, bytes);
                peer.send(answer("all of it"));
            }
            peer.head();
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n"));
            send_much(peer, bytes);
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let mut client =
            Peer::asking(proxy.address, format!("POST / HTTP/1.1\r\nContent-Length: {bytes}\r\n\r\n"));
        send_much(&mut client, bytes);
        assert_eq!(client.message().1, b"all of it", "{io}");
        client.send("GET / HTTP/1.1\r\n\r\n");
        client.head();
        take_much(&mut client, bytes);
        let most = proxy.memory("VmHWM");
        assert!(most < MEMORY_KIB, "{io}: {most} KiB");
        drop(client);
        proxy.finish_undisturbed(2);
    }
}

#[test]
fn both_directions_of_one_exchange_flow_at_once() {
    let bytes = much() / 4;
    for io in engines() {
        // The response begins before the request is whole, and each waits for the other's room.
        let upstream = Upstream::forgetful(move |peer| {
            peer.head();
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n"));
            let mut back = Peer::of(peer.stream.try_clone().unwrap(), None);
            let sending = thread::spawn(move || send_much(&mut back, bytes));
            take_much(peer, bytes);
            sending.join().unwrap();
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let mut client =
            Peer::asking(proxy.address, format!("PUT / HTTP/1.1\r\nContent-Length: {bytes}\r\n\r\n"));
        let mut writer = Peer::of(client.stream.try_clone().unwrap(), None);
        let sending = thread::spawn(move || send_much(&mut writer, bytes));
        client.head();
        take_much(&mut client, bytes);
        sending.join().unwrap();
        let most = proxy.memory("VmHWM");
        assert!(most < MEMORY_KIB, "{io}: {most} KiB");
        client.half_close();
        assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}");
        proxy.finish_undisturbed(1);
    }
}

#[test]
fn an_upstream_that_takes_its_time_with_a_body_is_waited_for() {
    const BODY: usize = 30_000_000;
    on_each(|io| {
        let upstream = Upstream::forgetful(|peer| {
            peer.head();
            // Longer than a client may pause: it is not the client that pauses.
            thread::park_timeout(Duration::from_secs(5));
            peer.take(BODY);
            peer.send(answer("at last"));
        });
        let body = vec![3; BODY]; // before the client's time runs
        let proxy = Proxy::start(io, upstream.address, "--body-timeout 2s");
        let mut client =
            Peer::asking(proxy.address, format!("POST / HTTP/1.1\r\nContent-Length: {BODY}\r\n\r\n"));
        let mut writer = Peer::of(client.stream.try_clone().unwrap(), None);
        let sending = thread::spawn(move || writer.try_send(body));
        assert_eq!(client.message().1, b"at last", "{io}");
        assert_eq!(sending.join().unwrap(), Ok(()));
        proxy.finish_undisturbed(1);
    });
}
