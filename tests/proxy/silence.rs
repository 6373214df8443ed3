//! Clients that vanish without a word: behind a path that drops everything.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::daemon::Killed;
use crate::peer::End;
use crate::program::{Proxy, assert_told, on_each};
use crate::skip::skip;
use crate::upstream::{Gate, Log, Upstream};

/// A namespace for clients, joined to this one; removed when the test is over.
struct Far {
    name: String,
    near: String,
}

impl Far {
    /// `None`, and the skip is said, where namespaces cannot be made.
    fn new() -> Option<Far> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (number, id) = (NUMBER.fetch_add(1, Ordering::Relaxed), std::process::id());
        for tool in ["ip", "nft", "nc"] {
            if Command::new(tool).arg("-h").output().is_err() {
                skip(&format!("no `{tool}`: install iproute2, nftables and netcat-openbsd"));
                return None;
            }
        }
        let far = Far {
            name: format!("dpx{id}-{number}"),
            // Link-local (RFC 3927), and another net for each test.
            near: format!("169.254.{}.{}", id % 250 + 1, number * 4 + 1),
        };
        let made = ip(&["netns", "add", &far.name]);
        if !made.status.success() {
            skip(&format!("no network namespaces (root?): {}", String::from_utf8_lossy(&made.stderr)));
            return None;
        }
        let here = format!("dpx{id}-{number}");
        must(&["link", "add", &here, "type", "veth", "peer", "dp0", "netns", &far.name]);
        must(&["address", "add", &format!("{}/30", far.near), "dev", &here]);
        must(&["link", "set", &here, "up"]);
        let theirs = format!("169.254.{}.{}/30", id % 250 + 1, number * 4 + 2);
        must(&["-n", &far.name, "address", "add", &theirs, "dev", "dp0"]);
        must(&["-n", &far.name, "link", "set", "dp0", "up"]);
        Some(far)
    }

    /// Drops what comes in there; then what goes out, too.
    fn drop_packets(&self, hook: &str) {
        for rule in [
            format!("add table inet {hook}"),
            format!("add chain inet {hook} drops {{ type filter hook {hook} priority 0; policy drop; }}"),
        ] {
            let output = ip(&["netns", "exec", &self.name, "nft", &rule]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// A client that has sent this, from a port of our choice: by that it is told of.
    fn client(&self, proxy: &Proxy, request: &str) -> Client {
        static PORT: AtomicU32 = AtomicU32::new(20_001);
        let port = PORT.fetch_add(1, Ordering::Relaxed) as u16;
        let (host, to) = (proxy.address.ip().to_string(), proxy.address.port().to_string());
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "nc", "-N", "-p", &port.to_string(), &host, &to]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut child = Killed(child);
        let mut stdin = child.0.stdin.take().unwrap();
        stdin.write_all(request.as_bytes()).unwrap();
        let output = BufReader::new(child.0.stdout.take().unwrap());
        let address = self
            .near
            .rsplit_once('.')
            .map(|(net, last)| format!("{net}.{}:{port}", last.parse::<u8>().unwrap() + 1).parse().unwrap());
        Client { _child: child, stdin: Some(stdin), output, address: address.unwrap() }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Output {
    Command::new("ip").args(arguments).output().unwrap()
}

fn must(arguments: &[&str]) {
    let output = ip(arguments);
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `nc` over there: what it gets lies in its pipe, then in its socket, until it is read here.
struct Client {
    _child: Killed,
    /// Dropped, it half-closes.
    stdin: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

/// Takes a head, then does what its target says.
fn upstream(drip: Gate) -> Upstream {
    Upstream::start(move |peer| {
        let head = peer.head();
        match head.split(' ').nth(1).unwrap() {
            "/drip" => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthe beginning\n");
                drip.pass();
                peer.send("and a little more");
            }
            "/much" => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n");
                // As far as it goes.
                let _ = peer.try_send(vec![b'm'; 30_000_000]);
            }
            _ => {}
        }
    })
}

#[test]
fn a_client_that_vanishes_is_reported_in_time_in_every_phase_and_one_that_only_does_not_read_is_not() {
    on_each(vanish);
}

fn vanish(io: &'static str) {
    let Some(far) = Far::new() else { return };
    let drip = Gate::default();
    let upstream = upstream(drip.clone());
    let mut proxy = Proxy::at(io, &far.near, &[upstream.address], "--policy strict --pool 0");
    let mut number = 0;
    let mut ask = |target: &str| -> (Client, Arc<Log>) {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let client = far.client(&proxy, &request);
        let log = upstream.connection(number);
        log.wait_for(request.len());
        number += 1;
        (client, log)
    };
    let (waits, waits_log) = ask("/wait");
    let (mut drips, drips_log) = ask("/drip");
    let (mut asked, asked_log) = ask("/asked");
    let (mut reads_later, _) = ask("/much");
    let mut line = String::new();
    while line != "the beginning\n" {
        line.clear();
        drips.output.read_line(&mut line).unwrap();
    }
    // Longer than silence may last: one does not read, the others have nothing to read, and all are there.
    thread::park_timeout(Duration::from_secs(10));
    let mut much = vec![0; 30_000_000];
    reads_later.output.read_exact(&mut much).unwrap();
    let (stalls, stalls_log) = ask("/much");
    thread::park_timeout(Duration::from_millis(500));
    proxy.daemon.listen_for(Duration::ZERO);
    assert_eq!(proxy.daemon.count("interrupted"), 0, "{io}: {:#?}", proxy.daemon.seen);

    far.drop_packets("input");
    drip.open(); // its bytes are not acknowledged
    asked.stdin = None; // its FIN comes, and the question behind it is not acknowledged
    thread::park_timeout(Duration::from_millis(500));
    far.drop_packets("output");
    let expired = ["keepalive_expired"];
    let unacknowledged = ["user_timeout"];
    // Behind a closed window there are only probes, but it may not have closed in time.
    let either = ["keepalive_expired", "user_timeout"];
    for (client, log, phase, causes) in [
        (&waits, waits_log, "waiting", &expired[..]),
        (&drips, drips_log, "sending", &unacknowledged),
        (&asked, asked_log, "waiting", &unacknowledged),
        (&stalls, stalls_log, "sending", &either),
    ] {
        let event = proxy.interruption(client.address);
        assert_told(&event, &json!({ "phase": phase, "done": "reset", "saved": true }));
        assert!(causes.contains(&event["cause"].as_str().unwrap()), "{io}: {event:#}");
        assert_eq!(log.ended(), End::Reset, "{io}: {event:#}");
    }
    assert_told(&proxy.finish(), &json!({ "upstream_failed": 0 }));
}
