//! Clients without a place: idle ones give way, and others never do.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, on_each};
use crate::upstream::{Gate, Upstream, answer};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
const PLACES: usize = 20;

/// So many clients, each of which has had a response.
fn served(proxy: &Proxy, count: usize) -> Vec<Peer> {
    let client = |_| {
        let mut client = Peer::asking(proxy.address, GET);
        assert_eq!(client.message().1, b"/x");
        client
    };
    (0..count).map(client).collect()
}

#[test]
fn a_new_client_gets_the_place_of_the_one_that_is_idle_for_the_longest_time() {
    on_each(|io| {
        let upstream = Upstream::answering();
        let mut proxy = Proxy::start(io, upstream.address, &format!("--max-connections {PLACES}"));
        let mut clients = served(&proxy, PLACES);
        // The first is the last to be idle.
        clients[0].send(GET);
        assert_eq!(clients[0].message().1, b"/x");
        clients.rotate_left(1);
        for _ in 0..3 {
            let mut late = Peer::asking(proxy.address, GET);
            let mut gone = clients.remove(0);
            assert_eq!(gone.rest(), (Vec::new(), End::Fin), "{io}: in order");
            drop(gone);
            assert_eq!(late.message().1, b"/x", "{io}");
            clients.push(late);
        }
        for client in &mut clients {
            client.send(GET);
            assert_eq!(client.message().1, b"/x", "{io}: the others are there");
        }
        proxy.daemon.wait_for("saturated");
        drop(clients);
        let exchanges = 2 * PLACES as u64 + 4;
        assert_told(&proxy.finish_undisturbed(exchanges), &json!({ "gave_way": 3 }));
    });
}

#[test]
fn one_that_waits_takes_the_place_of_one_however_long_that_takes_to_close() {
    on_each(|io| {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, &format!("--max-connections {PLACES}"));
        let clients = served(&proxy, PLACES);
        assert_eq!(Peer::asking(proxy.address, GET).message().1, b"/x", "{io}");
        drop(clients);
        assert_told(&proxy.finish_undisturbed(PLACES as u64 + 1), &json!({ "gave_way": 1 }));
    });
}

#[test]
fn clients_that_never_said_anything_and_those_that_read_nothing_give_way_too() {
    on_each(|io| {
        let upstream = Upstream::answering();
        let proxy = Proxy::start(io, upstream.address, &format!("--max-connections {PLACES}"));
        let silent: Vec<_> = (0..PLACES).map(|_| Peer::connect(proxy.address)).collect();
        // All of them at once, and none of them closes its side.
        let mut late: Vec<_> = (0..PLACES).map(|_| Peer::asking(proxy.address, GET)).collect();
        for client in &mut late {
            assert_eq!(client.message().1, b"/x", "{io}");
        }
        thread::park_timeout(Duration::from_millis(2_100));
        let mut last = Peer::asking(proxy.address, GET);
        assert_eq!(last.message().1, b"/x", "{io}");
        drop((silent, late, last));
        let summary = proxy.finish_undisturbed(PLACES as u64 + 1);
        assert_told(&summary, &json!({ "gave_way": PLACES + 1 }));
    });
}

#[test]
fn a_client_whose_request_is_under_way_keeps_its_place() {
    on_each(|io| {
        let gate = Gate::default();
        let opened = gate.clone();
        let upstream = Upstream::forgetful(move |peer| {
            while let Ok(head) = peer.try_head() {
                gate.pass();
                if peer.try_send(answer(head.split(' ').nth(1).unwrap())).is_err() {
                    break;
                }
            }
        });
        let proxy = Proxy::start(io, upstream.address, &format!("--max-connections {PLACES}"));
        // One of them is still sending its request.
        let mut clients: Vec<_> = (1..PLACES).map(|_| Peer::asking(proxy.address, GET)).collect();
        let mut slow = Peer::asking(proxy.address, &GET[..9]);
        let mut late = Peer::asking(proxy.address, GET);
        thread::park_timeout(Duration::from_millis(700));
        slow.send(&GET[9..]);
        opened.open();
        for client in clients.iter_mut().chain([&mut slow, &mut late]) {
            assert_eq!(client.message().1, b"/x", "{io}");
        }
        drop((clients, slow, late));
        proxy.finish_undisturbed(PLACES as u64 + 1);
    });
}

#[test]
fn idle_clients_of_another_thread_give_way_as_well() {
    on_each(|io| {
        let upstream = Upstream::answering();
        let options = format!("--threads 2 --max-connections {PLACES}");
        let proxy = Proxy::start(io, upstream.address, &options);
        let clients = served(&proxy, PLACES);
        drop(
            clients
                .into_iter()
                .map(|client| {
                    thread::spawn(move || {
                        let mut client = client;
                        client.rest()
                    })
                })
                .collect::<Vec<_>>(),
        );
        let late: Vec<_> = (0..PLACES).map(|_| Peer::asking(proxy.address, GET)).collect();
        for mut client in late {
            assert_eq!(client.message().1, b"/x", "{io}");
        }
        proxy.finish_undisturbed(2 * PLACES as u64);
    });
}
