//! Clients behind a load balancer, which names them by the PROXY protocol.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::daemon::Killed;
use crate::outcome::{nobody, until};
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, on_each};
use crate::skip::skip;
use crate::upstream::{Upstream, answer};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
const LINE: &[u8] = b"PROXY TCP4 198.51.100.9 192.0.2.1 50000 443\r\n";

/// The same as [`LINE`], in version 2 and with something beside the addresses.
fn binary() -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13".to_vec();
    bytes.extend([198, 51, 100, 9, 192, 0, 2, 1, 0xC3, 0x50, 1, 0xBB]);
    bytes.extend(b"\x04\0\x04hiho");
    bytes
}

fn log_path(io: &str, mode: &str) -> String {
    format!("{}/naming-{}-{io}-{mode}.log", env!("CARGO_TARGET_TMPDIR"), std::process::id())
}

#[test]
fn the_client_that_was_named_is_told_logged_forwarded_and_named_to_the_upstream() {
    on_each(|io| {
        for header in [LINE.to_vec(), binary()] {
            let upstream = Upstream::start(|peer| {
                while let Ok(head) = peer.try_head() {
                    if head.contains("/silent") {
                        return;
                    }
                    peer.send(answer(&head));
                }
            });
            let log = log_path(io, "http");
            let options = format!("--accept-proxy --send-proxy v1 --forwarded replace --access-log {log}");
            let mut proxy = Proxy::start(io, upstream.address, &options);
            let mut client = Peer::connect(proxy.address);
            // Its pieces may come one by one.
            for byte in &header {
                client.send([*byte]);
            }
            client.send(GET);
            let got = String::from_utf8(client.message().1).unwrap();
            assert!(got.starts_with(std::str::from_utf8(LINE).unwrap()), "{io}: {got}");
            assert!(got.contains("X-Forwarded-For: 198.51.100.9\r\n"), "{io}: {got}");
            // It names the client once, for all requests.
            client.send(GET);
            let got = String::from_utf8(client.message().1).unwrap();
            assert!(got.starts_with("GET ") && got.contains("for=198.51.100.9;"), "{io}: {got}");
            client.send(GET.replace("/x", "/silent"));
            until("it is asked", || upstream.connection(0).bytes().windows(7).any(|some| some == b"/silent"));
            client.reset();
            let named: SocketAddr = "198.51.100.9:50000".parse().unwrap();
            assert_told(&proxy.interruption(named), &json!({ "target": "/silent", "cause": "aborted" }));
            assert_told(&proxy.finish(), &json!({ "completed": 2, "header_refused": 0 }));
            let text = std::fs::read_to_string(&log).unwrap();
            assert_eq!(
                text.lines().filter(|line| line.starts_with("198.51.100.9 - - [")).count(),
                3,
                "{text}"
            );
            std::fs::remove_file(&log).unwrap();
        }
    });
}

#[test]
fn in_mode_tcp_bytes_follow_the_header_and_the_upstream_is_named_the_client() {
    on_each(|io| {
        let upstream = Upstream::start(|peer| {
            let _ = peer.take(LINE.len());
            peer.send("220 hello");
            assert_eq!(peer.take(5), b"bytes");
            peer.send("bye");
        });
        let proxy = Proxy::start(io, upstream.address, "--mode tcp --accept-proxy --send-proxy v1");
        let mut client = Peer::connect(proxy.address);
        client.send(&binary()[..20]);
        assert_eq!(upstream.count(), 0, "{io}: its client is not known yet");
        client.send(&binary()[20..]);
        assert_eq!(client.take(9), b"220 hello", "{io}");
        client.send("bytes");
        assert_eq!(client.take(3), b"bye", "{io}");
        assert!(upstream.connection(0).bytes().starts_with(LINE), "{io}");
        client.half_close();
        assert_eq!(client.rest(), (Vec::new(), End::Fin), "{io}");
        assert_told(&proxy.finish(), &json!({ "interrupted": 0, "cut": 0 }));
    });
}

#[test]
fn a_connection_without_a_header_is_reset_told_and_counted_and_a_check_is_not() {
    on_each(|io| {
        for mode in ["http", "tcp"] {
            let upstream = Upstream::answering();
            let options = format!("--accept-proxy --mode {mode} --head-timeout 400ms");
            let mut proxy = Proxy::start(io, upstream.address, &options);
            for (bytes, reason) in [
                (GET.as_bytes(), "missing"),
                (b"PROXY TCP4 127.0.0.1\r\n", "malformed"),
                (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "too_long"),
                (&LINE[..20], "timeout"),
            ] {
                let mut client = Peer::asking(proxy.address, bytes);
                assert_eq!(client.rest(), (Vec::new(), End::Reset), "{io}, {mode}: {reason}");
                let told = proxy.told("header_refused", client.address);
                assert_told(&told, &json!({ "reason": reason }));
            }
            drop(Peer::connect(proxy.address));
            drop(Peer::asking(proxy.address, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"));
            assert_eq!(Peer::connect(proxy.address).rest(), (Vec::new(), End::Fin), "{io}: it says nothing");
            let summary = proxy.finish();
            assert_told(&summary, &json!({ "header_refused": 4, "interrupted": 0, "opened": 7 }));
        }
    });
}

/// HAProxy before the proxy: what it sends, with everything that it says beside the addresses.
struct LoadBalancer {
    _child: Killed,
    port: u16,
}

impl LoadBalancer {
    fn start(options: &str, to: SocketAddr) -> Option<LoadBalancer> {
        if Command::new("haproxy").arg("-v").output().is_err() {
            skip("no `haproxy`: install haproxy");
            return None;
        }
        let port = nobody().port();
        let path = format!("{}/balancer-{port}.cfg", env!("CARGO_TARGET_TMPDIR"));
        let checks = "check inter 50ms";
        let config = format!(
            "defaults\n mode tcp\n timeout connect 9s\n timeout client 60s\n timeout server 60s\n\
             listen all\n bind 127.0.0.1:{port}\n server one {to} {options} {checks}\n"
        );
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-q", "-f", &path]).stdin(Stdio::null()).stderr(Stdio::null());
        let child = Killed(command.spawn().unwrap());
        until("HAProxy listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        std::fs::remove_file(path).unwrap();
        Some(LoadBalancer { _child: child, port })
    }
}

#[test]
fn haproxy_names_its_clients_and_its_checks_are_told_by_nobody() {
    on_each(|io| {
        for options in [
            "send-proxy check-send-proxy",
            "send-proxy-v2 check-send-proxy",
            "send-proxy-v2 proxy-v2-options ssl,cert-cn,crc32c,unique-id",
        ] {
            let upstream = Upstream::start(|peer| {
                while let Ok(head) = peer.try_head() {
                    peer.send(answer(&head));
                }
            });
            let proxy =
                Proxy::start(io, upstream.address, "--accept-proxy --forwarded replace --send-proxy v1");
            let Some(balancer) = LoadBalancer::start(options, proxy.address) else { return };
            let mut client = Peer::asking(([127, 0, 0, 1], balancer.port).into(), GET);
            let got = String::from_utf8(client.message().1).unwrap();
            let line =
                format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", client.address.port(), balancer.port);
            assert!(got.starts_with(&line), "{io}, {options}: {got}");
            drop(balancer);
            assert_told(
                &proxy.finish(),
                &json!({ "completed": 1, "header_refused": 0, "upstream_failed": 0 }),
            );
        }
    });
}
