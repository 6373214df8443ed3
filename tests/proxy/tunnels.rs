//! Connections that are relayed and not followed.

use std::ops::ControlFlow;
use std::thread;

use serde_json::json;

use crate::dice::Dice;
use crate::outcome::until;
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, engines, on_each};
use crate::upstream::Upstream;

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Random bytes in random pieces in both directions at once.
fn flood(mine: &mut Peer, seed: u64, theirs: u64, count: usize) {
    let mut writer = Peer::of(mine.stream.try_clone().unwrap(), None);
    let sending = thread::spawn(move || {
        let mut dice = Dice::new(seed);
        let bytes = dice.bytes(count);
        dice.send(&mut writer, &bytes);
    });
    assert!(mine.take(count) == Dice::new(theirs).bytes(count), "other bytes");
    sending.join().unwrap();
}

#[test]
fn an_upgrade_opens_a_tunnel_in_both_directions() {
    for io in engines() {
        let upstream = Upstream::forgetful(|peer| {
            assert_eq!(peer.head(), UPGRADE);
            peer.send(format!("{SWITCH}the server speaks first"));
            assert_eq!(peer.take(5), b"early"); // sent before the switch was seen
            flood(peer, 1, 2, 3_000_000);
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let mut client = Peer::asking(proxy.address, format!("{UPGRADE}early"));
        assert_eq!(client.head(), SWITCH, "{io}");
        assert_eq!(client.take(23), b"the server speaks first", "{io}");
        flood(&mut client, 2, 1, 3_000_000);
        // The client is still there.
        assert_told(&proxy.finish(), &json!({ "completed": 1, "interrupted": 1, "cut": 1 }));
    }
}

#[test]
fn an_upgrade_that_is_declined_is_an_exchange_like_any_other() {
    for io in engines() {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, "");
        let mut client = Peer::asking(proxy.address, UPGRADE);
        assert_eq!(client.message().1, b"/chat", "{io}");
        client.send(UPGRADE);
        assert_eq!(client.message().1, b"/chat", "{io}");
        drop(client);
        proxy.finish_undisturbed(2);
    }
}

#[test]
fn connect_opens_a_tunnel_in_which_each_side_may_end_first() {
    let connect = "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n";
    for io in engines() {
        for client_first in [true, false] {
            let upstream = Upstream::start(move |peer| {
                peer.head();
                // A length here says nothing: behind it is the tunnel.
                peer.send("HTTP/1.1 200 Fine\r\nContent-Length: 5\r\n\r\n");
                if client_first {
                    assert_eq!(peer.rest(), (b"\x16\x03 all that I say".to_vec(), End::Fin));
                    peer.send("all that I answer");
                    peer.half_close();
                } else {
                    peer.send("all that I answer");
                    peer.half_close();
                    assert_eq!(peer.rest(), (b"\x16\x03 all that I say".to_vec(), End::Fin));
                }
            });
            let proxy = Proxy::start(io, upstream.address, "--half-close forward");
            let mut client = Peer::asking(proxy.address, connect);
            client.head();
            if client_first {
                client.send(b"\x16\x03 all that I say");
                client.half_close();
                assert_eq!(client.rest(), (b"all that I answer".to_vec(), End::Fin), "{io}");
            } else {
                assert_eq!(client.rest(), (b"all that I answer".to_vec(), End::Fin), "{io}");
                client.send(b"\x16\x03 all that I say");
                client.half_close();
            }
            let log = upstream.connection(0);
            assert_eq!(log.ended(), End::Fin, "{io}");
            assert!(log.bytes().ends_with(b"all that I say"), "{io}");
            proxy.finish_undisturbed(1);
        }
    }
}

#[test]
fn bytes_are_relayed_whichever_side_speaks_first() {
    for io in engines() {
        let upstream = Upstream::forgetful(|peer| {
            peer.send("220 I speak first\r\n");
            flood(peer, 3, 4, 2_000_000);
        });
        let proxy = Proxy::start(io, upstream.address, "--mode tcp");
        let mut client = Peer::connect(proxy.address);
        assert_eq!(client.take(19), b"220 I speak first\r\n", "{io}");
        flood(&mut client, 4, 3, 2_000_000);
        drop(client);
        proxy.finish();
    }
}

#[test]
fn half_closes_are_forwarded_each_way_behind_all_bytes() {
    const BYTES: usize = 5_000_000;
    for io in engines() {
        // The client ends first: an echo of everything, behind its FIN.
        let upstream = Upstream::start(|peer| {
            let (all, end) = peer.rest();
            assert_eq!(end, End::Fin);
            peer.send(all);
        });
        let proxy = Proxy::start(io, upstream.address, "--mode tcp --half-close forward");
        let mut client = Peer::connect(proxy.address);
        let sent = Dice::new(6).bytes(BYTES);
        client.send(&sent);
        client.half_close();
        let (got, end) = client.rest();
        assert!(got == sent && end == End::Fin, "{io}: {} bytes, {end:?}", got.len());
        proxy.finish_undisturbed(0);

        // The server ends first, and goes on listening.
        let upstream = Upstream::start(|peer| {
            peer.send(Dice::new(6).bytes(BYTES));
            peer.half_close();
        });
        let proxy = Proxy::start(io, upstream.address, "--mode tcp --half-close forward");
        let mut client = Peer::connect(proxy.address);
        let (got, end) = client.rest();
        assert!(got == sent && end == End::Fin, "{io}: {} bytes, {end:?}", got.len());
        client.send(&sent);
        client.half_close();
        let log = upstream.connection(0);
        assert_eq!(log.ended(), End::Fin, "{io}");
        assert!(log.bytes() == sent, "{io}: {} bytes", log.bytes().len());
        proxy.finish_undisturbed(0);
    }
}

#[test]
fn a_half_closed_client_that_is_being_answered_in_a_tunnel_gets_all_of_it() {
    on_each(|io| {
        // For longer than a FIN that cannot be asked about is waited out.
        let upstream = Upstream::start(|peer| {
            peer.take(4);
            for _ in 0..20 {
                peer.send([b'x'; 1_000]);
                thread::park_timeout(std::time::Duration::from_millis(100));
            }
            peer.half_close();
        });
        let proxy = Proxy::start(io, upstream.address, "--mode tcp");
        let mut client = Peer::asking(proxy.address, "all?");
        client.half_close();
        let (got, end) = client.rest();
        assert_eq!((got.len(), end), (20_000, End::Fin), "{io}");
        proxy.finish_undisturbed(0);
    });
}

#[test]
fn a_server_that_resets_after_its_fin_ends_the_client_of_its_tunnel() {
    on_each(|io| {
        let upstream = Upstream::ending(|peer| {
            peer.send("bye");
            peer.half_close();
            peer.take(4);
            peer.abort_on_close();
            ControlFlow::Break(())
        });
        let proxy = Proxy::start(io, upstream.address, "--mode tcp");
        let mut client = Peer::connect(proxy.address);
        assert_eq!(client.rest(), (b"bye".to_vec(), End::Fin), "{io}");
        until("the client is reset", || client.try_send("more").is_err());
        assert_eq!(proxy.finish()["open"], 0, "{io}");
    });
}
