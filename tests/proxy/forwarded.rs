//! Whom a server takes for its client, whatever the client says.

use crate::outcome::outcome;
use crate::peer::{End, Peer};
use crate::program::{Proxy, on_each};
use crate::upstream::{Upstream, answer};

#[test]
fn a_server_learns_its_client_and_not_what_the_client_says() {
    on_each(|io| {
        for (how, gives) in [
            ("off", "Host: a\r\nx-forwarded-for: 10.0.0.1\r\nX_Forwarded_For: 10.0.0.2\r\n\r\n"),
            (
                "append",
                "Host: a\r\nX-Forwarded-For: 10.0.0.1, 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\
                 Forwarded: for=127.0.0.1;proto=http\r\n\r\n",
            ),
            (
                "replace",
                "Host: a\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\
                 Forwarded: for=127.0.0.1;proto=http\r\n\r\n",
            ),
        ] {
            let upstream = Upstream::start(|peer| {
                while let Ok(head) = peer.try_head() {
                    let length = head.split("Length: ").nth(1).map_or(0, |rest| {
                        rest.split("\r\n").next().and_then(|length| length.parse().ok()).unwrap()
                    });
                    let body = peer.take(length);
                    let fields = head.split_once("\r\n").unwrap().1;
                    peer.send(answer(&format!("{fields}{}", body.len())));
                }
            });
            let options = format!("--forwarded {how} --request-buffer 1000");
            let proxy = Proxy::start(io, upstream.address, &options);
            let fields = "Host: a\r\nx-forwarded-for: 10.0.0.1\r\nX_Forwarded_For: 10.0.0.2\r\n\r\n";
            let get = format!("GET / HTTP/1.1\r\n{fields}");
            // Gathered, streamed, two sent at once, and all on one connection.
            let mut client = Peer::connect(proxy.address);
            for length in [0, 900, 300_000] {
                let body = "b".repeat(length);
                client.send(format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n{fields}{body}"));
                let got = String::from_utf8(client.message().1).unwrap();
                assert_eq!(got, format!("Content-Length: {length}\r\n{gives}{length}"), "{io}");
            }
            client.send(get.repeat(2));
            for _ in 0..2 {
                assert_eq!(client.message().1, format!("{gives}0").into_bytes(), "{io}, {how}");
            }
            proxy.finish_undisturbed(5);
        }
    });
}

#[test]
fn what_cannot_be_rewritten_is_refused_and_so_is_mode_tcp() {
    on_each(|io| {
        let upstream = Upstream::silent();
        let proxy = Proxy::start(io, upstream.address, "--forwarded replace");
        for bytes in ["GET / HTTP/1.1\nX-Forwarded-For: a\n\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let (got, end) = Peer::asking(proxy.address, bytes).rest();
            assert!(got.starts_with(b"HTTP/1.1 400 ") && end == End::Fin, "{io}");
        }
        proxy.finish();
        assert_eq!(upstream.count(), 0, "{io}");
    });
    outcome("proxy --upstream 127.0.0.1:1 --forwarded append --mode tcp")
        .assert_refusal(2, &["--forwarded", "--mode tcp", "--send-proxy"]);
    outcome("proxy --upstream 127.0.0.1:1 --strict --mode tcp")
        .assert_refusal(2, &["--strict", "--mode tcp"]);
    outcome("proxy --upstream 127.0.0.1:1 --forwarded yes").assert_refusal(2, &["append", "replace", "off"]);
}
