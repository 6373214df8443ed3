//! Connections to upstreams that are kept between requests, and requests that meet their end.

use std::net::{SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::namespace::is_alone;
use crate::outcome::{nobody, until};
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, engines, on_each};
use crate::upstream::{Gate, Upstream, answer};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /x HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi";

/// Answers every request with this.
fn serve(peer: &mut Peer, body: &str) {
    while peer.try_head().is_ok() && peer.try_send(answer(body)).is_ok() {}
}

#[test]
fn a_connection_serves_one_client_after_the_other() {
    for io in engines() {
        let upstream = Upstream::start(|peer| serve(peer, "/x"));
        let proxy = Proxy::start(io, upstream.address, "");
        for _ in 0..50 {
            let mut client = Peer::asking(proxy.address, GET);
            assert_eq!(client.message().1, b"/x", "{io}");
        }
        assert_eq!(upstream.count(), 1, "{io}");
        let summary = proxy.finish_undisturbed(50);
        let expected = json!({ "opened": 1, "reused": 49, "repeated": 0, "waited": 0 });
        assert_told(&summary, &json!({ "upstream_connections": expected }));
        assert_eq!(upstream.connection(0).ended(), End::Fin, "{io}");
    }
}

#[test]
fn no_more_connections_are_kept_than_were_asked_for() {
    for io in engines() {
        let gate = Gate::default();
        let answers = gate.clone();
        let upstream = Upstream::start(move |peer| {
            peer.head();
            answers.pass();
            peer.send(answer("now"));
        });
        let proxy = Proxy::start(io, upstream.address, "--pool 2");
        let mut clients: Vec<_> = (0..5).map(|_| Peer::asking(proxy.address, GET)).collect();
        until("all are asked", || upstream.count() == 5);
        gate.open();
        clients.iter_mut().for_each(|client| assert_eq!(client.message().1, b"now", "{io}"));
        let over = || (0..5).filter(|&number| upstream.connection(number).is_over()).count();
        until("three are closed", || over() == 3);
        proxy.finish_undisturbed(5);
        until("all are closed", || over() == 5);
    }
}

#[test]
fn a_request_that_meets_the_end_of_a_kept_connection_is_sent_again_where_it_may_be() {
    on_each(|io| {
        // Every connection ends when its second request is there.
        let upstream = Upstream::ending(|peer| {
            peer.head();
            peer.send(answer("well"));
            peer.head();
            ControlFlow::Break(())
        });
        let mut proxy = Proxy::start(io, upstream.address, "");
        for _ in 0..10 {
            assert_eq!(Peer::asking(proxy.address, GET).message().1, b"well", "{io}");
        }
        // The upstream had received this one.
        let mut client = Peer::asking(proxy.address, POST);
        assert!(client.message().0.starts_with("HTTP/1.1 502 "), "{io}");
        assert_told(
            &proxy.told("upstream_failed", client.address),
            &json!({ "failure": "closed", "answered": 502 }),
        );
        let summary = proxy.finish();
        let expected = json!({ "opened": 10, "reused": 10, "repeated": 9, "waited": 0 });
        assert_told(
            &summary,
            &json!({ "completed": 10, "upstream_failed": 1, "upstream_connections": expected, "upstream_down": 0 }),
        );
    });
}

/// A server may close what was idle for long. A request that cannot be sent again does not find out.
#[test]
fn an_old_connection_is_not_used_for_a_post_of_a_new_client() {
    for io in engines() {
        let upstream = Upstream::start(|peer| {
            while let Ok(head) = peer.try_head() {
                if head.starts_with("POST") {
                    peer.take(2);
                }
                if peer.try_send(answer("well")).is_err() {
                    break;
                }
            }
        });
        let proxy = Proxy::start(io, upstream.address, "");
        assert_eq!(Peer::asking(proxy.address, GET).message().1, b"well", "{io}");
        thread::park_timeout(Duration::from_millis(600));
        assert_eq!(Peer::asking(proxy.address, POST).message().1, b"well", "{io}");
        assert_eq!(upstream.connection(0).bytes(), GET.as_bytes(), "{io}");
        proxy.finish_undisturbed(2);
    }
}

#[test]
fn bytes_that_nobody_asked_for_end_a_kept_connection_and_reach_no_client() {
    on_each(|io| {
        let gate = Gate::default();
        let late = gate.clone();
        let upstream = Upstream::start(move |peer| {
            peer.head();
            peer.send(answer("first"));
            late.pass();
            let _ = peer.try_send(answer("stray"));
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let mut client = Peer::asking(proxy.address, GET);
        assert_eq!(client.message().1, b"first", "{io}");
        gate.open();
        upstream.connection(0).ended();
        client.send(GET);
        assert_eq!(client.message().1, b"first", "{io}");
        proxy.finish_undisturbed(2);
    });
}

#[test]
fn a_client_that_logs_in_for_a_connection_shares_it_with_nobody() {
    for io in engines() {
        let upstream = Upstream::start(|peer| {
            while let Ok(head) = peer.try_head() {
                let asks = head.contains("Authorization");
                let login = if asks { "WWW-Authenticate: NTLM TlRM\r\n" } else { "" };
                let status = if asks { "401 Unauthorized" } else { "200 OK" };
                if peer.try_send(format!("HTTP/1.1 {status}\r\n{login}Content-Length: 0\r\n\r\n")).is_err() {
                    break;
                }
            }
        });
        let proxy = Proxy::start(io, upstream.address, "");
        let login = "GET /x HTTP/1.1\r\nAuthorization: NTLM TlRM\r\n\r\n";
        let mut one = Peer::asking(proxy.address, login);
        one.message();
        let mut other = Peer::asking(proxy.address, GET);
        other.message();
        one.send(GET);
        one.message();
        let logged_in = upstream.connection(0).bytes();
        assert_eq!(logged_in, [login, GET].concat().as_bytes(), "{io}");
        assert_eq!(upstream.connection(1).bytes(), GET.as_bytes(), "{io}");
        drop(one);
        assert_eq!(upstream.connection(0).ended(), End::Fin, "{io}: nobody else may have it");
        proxy.finish_undisturbed(3);
    }
}

#[test]
fn an_upstream_that_comes_back_gets_its_share_of_the_requests_of_old_connections() {
    on_each(|io| {
        let stays = Upstream::forgetful(|peer| serve(peer, "stays"));
        let back = nobody();
        let mut proxy = Proxy::at(io, "127.0.0.1", &[stays.address, back], "");
        let mut clients: Vec<_> = (0..8).map(|_| Peer::connect(proxy.address)).collect();
        let mut round = || {
            clients.iter_mut().for_each(|client| client.send(GET));
            let bodies: Vec<_> = clients.iter_mut().map(|client| client.message().1).collect();
            bodies.iter().filter(|body| body.as_slice() == b"back").count()
        };
        assert_eq!(round(), 0, "{io}: it is away");
        proxy.daemon.wait_for("upstream_down");
        let listener = TcpListener::bind(back).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || serve(&mut Peer::of(stream.unwrap(), None), "back"));
            }
        });
        until("it is tried", || round() > 0);
        let got: usize = (0..100).map(|_| round()).sum();
        assert!((200..=600).contains(&got), "{io}: {got} of 800");
        proxy.finish();
    });
}

/// No more are ever with an upstream than it may have, and all are served, also those of the other thread.
#[test]
fn a_request_waits_for_a_place_at_its_upstream() {
    on_each(|io| {
        let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, highest) = (Arc::clone(&under_way), Arc::clone(&most));
        let upstream = Upstream::forgetful(move |peer| {
            while peer.try_head().is_ok() {
                highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                thread::park_timeout(Duration::from_millis(2));
                now.fetch_sub(1, Ordering::SeqCst);
                if peer.try_send(answer("now")).is_err() {
                    break;
                }
            }
        });
        let proxy = Proxy::start(io, upstream.address, "--upstream-limit 3 --threads 2 --queue-timeout 60s");
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        assert_eq!(Peer::asking(proxy.address, GET).message().1, b"now", "{io}");
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 3, "{io}");
        let summary = proxy.finish_undisturbed(200);
        assert_ne!(summary["upstream_connections"]["waited"], 0, "{io}: {summary}");
    });
}

/// A thread whose clients all wait is woken when their turn comes.
#[test]
fn a_place_goes_from_one_thread_to_the_other() {
    on_each(|io| {
        let gate = Gate::default();
        let answers = gate.clone();
        let upstream = Upstream::forgetful(move |peer| {
            while peer.try_head().is_ok() {
                answers.pass();
                if peer.try_send(answer("now")).is_err() {
                    break;
                }
            }
        });
        let proxy = Proxy::start(io, upstream.address, "--upstream-limit 1 --threads 2 --queue-timeout 1h");
        let mut clients: Vec<_> = (0..16).map(|_| Peer::asking(proxy.address, GET)).collect();
        thread::park_timeout(Duration::from_millis(300)); // they wait
        gate.open();
        clients.iter_mut().for_each(|client| assert_eq!(client.message().1, b"now", "{io}"));
        proxy.finish_undisturbed(16);
    });
}

#[test]
fn one_that_waits_too_long_is_told_so_and_one_that_leaves_takes_no_place() {
    on_each(|io| {
        let upstream = Upstream::silent();
        let options = "--upstream-limit 1 --queue-timeout 500ms --on-gone reset";
        let mut proxy = Proxy::start(io, upstream.address, options);
        let first = Peer::asking(proxy.address, GET);
        upstream.connection(0).wait_for(GET.len());
        let leaves = Peer::asking(proxy.address, GET);
        let left = leaves.address;
        leaves.reset();
        assert_told(&proxy.interruption(left), &json!({ "phase": "waiting", "done": "nothing" }));
        let mut late = Peer::asking(proxy.address, GET);
        assert!(late.message().0.starts_with("HTTP/1.1 503 "), "{io}");
        let told = proxy.told("upstream_failed", late.address);
        assert_told(&told, &json!({ "failure": "full", "answered": 503, "upstream": null }));
        // The place is free for the next.
        first.reset();
        let _next = Peer::asking(proxy.address, GET);
        upstream.connection(1).wait_for(GET.len());
        assert_eq!(upstream.count(), 2, "{io}");
        // Each waited once: the one that was late was not queued again.
        let summary = proxy.finish();
        assert_eq!(
            (&summary["upstream_connections"]["waited"], &summary["upstream_down"]),
            (&json!(2), &json!(0))
        );
    });
}

#[test]
fn clients_that_close_use_up_no_ports() {
    // The ports of a machine are many, and loopback uses those in TIME_WAIT again: 500 ports, and no such reuse.
    let few_ports = "echo 40000 40499 >/proc/sys/net/ipv4/ip_local_port_range \
                     && echo 0 >/proc/sys/net/ipv4/tcp_tw_reuse";
    if !is_alone("pooled::clients_that_close_use_up_no_ports", few_ports) {
        return;
    }
    const CLOSING: &str = "GET /x HTTP/1.1\r\nConnection: close\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    for io in engines() {
        let served = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&served);
        let upstream = Upstream::ending(move |peer| {
            while let Ok(head) = peer.try_head() {
                count.fetch_add(1, Ordering::Relaxed);
                let closes = head.contains("close");
                if peer.try_send(if closes { last.to_owned() } else { answer("ok") }).is_err() || closes {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        // Of 2,000 clients one after the other, how many get no response.
        let failed = |options: &str, request: &str| {
            let proxy = Proxy::start(io, upstream.address, &format!("--retries 0 {options}"));
            let failed = (0..2_000).filter(|number| {
                // Their own ports last: each address has 500.
                let from = SocketAddr::from(([127, 0, 1, (number % 200) as u8 + 1], 0));
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.bind(&from.into()).unwrap();
                socket.connect(&proxy.address.into()).unwrap();
                let mut client = Peer::of(socket.into(), None);
                client.send(request);
                !client.message().0.starts_with("HTTP/1.1 200 ")
            });
            let failed = failed.count();
            proxy.finish();
            failed
        };
        assert_eq!(failed("", GET), 0, "{io}");
        assert_eq!(failed("", CLOSING), 0, "{io}: the upstream closes first");
        // What the pool is for, and that the test can see it.
        assert!(failed("--pool 0", GET) > 0, "{io}");
    }
}
