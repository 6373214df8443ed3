//! The command: its arguments, its start and its end.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::daemon::Killed;
use crate::outcome::{Outcome, deadpeer, nobody, outcome};
use crate::peer::Peer;
use crate::program::{Proxy, assert_rests, assert_told, engines};
use crate::skip::skip;
use crate::upstream::Upstream;

#[test]
fn arguments_that_mean_nothing_are_refused_with_what_would() {
    outcome("proxy").assert_refusal(2, &["--upstream", "required"]);
    let refusals: [(&str, &[&str]); 19] = [
        ("--check often", &["--check", "GET:/healthz:2s"]),
        ("--check GET:healthz:2s", &["--check", "GET:/healthz:2s"]),
        ("--check GET:/healthz:2", &["--check", "2s"]),
        ("--check connect:1ms", &["--check", "at least 20ms"]),
        ("--unix-mode 1777", &["--unix-mode", "in octal"]),
        ("--resolve-every 5", &["--resolve-every", "5s"]),
        ("--half-close maybe", &["--half-close", "probe, gone, wait:D", "forward"]),
        ("--half-close wait:soon", &["--half-close", "soon"]),
        ("--half-close wait:", &["--half-close"]),
        ("--on-gone kill", &["--on-gone", "reset", "close", "ignore"]),
        ("--mode udp", &["--mode", "http", "tcp"]),
        ("--io kqueue", &["--io", "uring", "epoll"]),
        ("--send-proxy v3", &["--send-proxy", "v1", "v2"]),
        ("--policy lax", &["--policy", "standard", "strict"]),
        ("--head-timeout=-1s", &["--head-timeout"]),
        ("--request-buffer 99999999999", &["--request-buffer", "from 0 to 67108864", "`64KiB`"]),
        ("--request-memory 1", &["--request-memory", "65536"]),
        ("--retries 9", &["--retries"]),
        ("--threads 0", &["--threads"]),
    ];
    for (options, words) in refusals {
        outcome(&format!("proxy --upstream 127.0.0.1:1 {options}")).assert_refusal(2, words);
    }
    outcome("proxy --upstream nowhere").assert_refusal(2, &["--upstream", "write it like nowhere:"]);
    outcome("proxy --upstream 127.0.0.1:1 --listen 8080").assert_refusal(2, &["--listen", "write :8080"]);
    outcome("proxy --upstream https://127.0.0.1:1").assert_refusal(2, &["--upstream", "no TLS", "Caddy"]);
    let own = "proxy --upstream 127.0.0.1:18080 --listen 0.0.0.0:18080";
    outcome(own).assert_refusal(2, &["the upstream 127.0.0.1:18080", "listens on", "--upstream"]);
    let twice = "proxy --upstream 127.0.0.1:1 --listen 127.0.0.1:18080 --listen 127.0.0.1:18080";
    outcome(twice).assert_refusal(2, &["--listen", "twice"]);
}

#[test]
fn a_port_that_is_taken_is_refused_with_the_way_to_find_its_owner() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    outcome(&format!("proxy --upstream 127.0.0.1:1 --listen {address}"))
        .assert_refusal(1, &["cannot listen on", &address, "in use", "`ss -ltnp`", "--listen"]);
}

#[test]
fn more_connections_than_descriptors_are_refused_with_what_would_fit() {
    outcome("proxy --upstream 127.0.0.1:1 --listen 127.0.0.1:0 --max-connections 16777216")
        .assert_refusal(78, &["connections do not fit", "--max-connections"]);
}

#[test]
fn the_first_line_says_what_listens_before_what_and_by_which_rules() {
    for io in engines() {
        let upstreams = [nobody(), nobody()];
        let options = "--half-close wait:2s --on-gone close --policy strict --mode tcp --threads 2";
        let mut proxy = Proxy::at(io, "127.0.0.1", &upstreams, options);
        let listening = proxy.daemon.wait_for("listening");
        assert_told(
            &listening,
            &json!({
                "upstreams": upstreams.map(|one| one.to_string()), "mode": "tcp", "half_close": "wait:2s",
                "on_gone": "close", "policy": "strict", "detection_time_ms": 7_000, "threads": 2,
                "engine": if io == "uring" { "io_uring" } else { "epoll" }, "seq": 0, "version": 1,
            }),
        );
        proxy.finish();
    }
}

#[test]
fn a_signal_ends_it_in_order_also_in_the_middle_of_everything() {
    for signal in ["-TERM", "-INT"] {
        for io in engines() {
            let upstream = Upstream::silent();
            let mut proxy = Proxy::start(io, upstream.address, "--threads 2");
            let get = "GET / HTTP/1.1\r\n\r\n";
            let waiting = Peer::asking(proxy.address, get);
            let receiving = Peer::asking(proxy.address, "GET /");
            let idle = Peer::connect(proxy.address);
            upstream.connection(0).wait_for(get.len());
            proxy.daemon.child.signal(signal);
            let summary = proxy.daemon.wait_for("summary");
            assert_told(&summary, &json!({ "interrupted": 2, "cut": 2, "undelivered": 0 }));
            assert_eq!(proxy.daemon.seen.last(), Some(&summary));
            Outcome::after(proxy.daemon.child).assert_quiet_success();
            upstream.connection(0).ended();
            drop((waiting, receiving, idle));
        }
    }
}

#[test]
fn a_reader_that_leaves_ends_it_quietly_though_nothing_happens() {
    for events in ["--events -", ""] {
        for io in engines() {
            let line = format!("proxy --io {io} --listen 127.0.0.1:0 --upstream 127.0.0.1:1 {events}");
            let mut command = deadpeer(&line);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let mut child = Killed(child);
            let mut output = BufReader::new(child.0.stdout.take().unwrap());
            let mut first = String::new();
            output.read_line(&mut first).unwrap();
            assert!(first.contains("127.0.0.1:"), "{first}");
            drop(output);
            Outcome::after(child).assert_quiet_success();
        }
    }
}

#[test]
fn a_reader_that_pauses_holds_clients_up_and_misses_nothing() {
    // More than the pipe, the sink and a thread's own queue take together.
    const CLIENTS: usize = 6_000;
    for io in engines() {
        let line = format!(
            "proxy --io {io} --threads 1 --listen 127.0.0.1:0 --upstream 127.0.0.1:1 --events - --when-events-stall wait"
        );
        let child = deadpeer(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut child = Killed(child);
        let mut output = BufReader::new(child.0.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        let listening: Value = serde_json::from_str(&first).unwrap();
        let address = listening["address"].as_str().unwrap().parse().unwrap();
        for _ in 0..CLIENTS {
            drop(Peer::asking(address, "GET /half"));
        }
        assert_rests(child.0.id());
        let mut events = output.lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let interrupted = events.by_ref().filter(|event| event["event"] == "interrupted");
        assert_eq!(interrupted.take(CLIENTS).count(), CLIENTS, "{io}");
        child.signal("-TERM");
        let summary = events.last().unwrap();
        assert_told(
            &summary,
            &json!({ "event": "summary", "interrupted": CLIENTS, "undelivered": 0, "open": 0 }),
        );
        Outcome::after(child).assert_quiet_success();
    }
}

#[test]
fn it_listens_on_several_addresses_of_both_families() {
    for io in engines() {
        let upstream = Upstream::silent();
        let options = "--listen 127.0.0.1:0 --send-proxy v1";
        let mut proxy = Proxy::at(io, "[::1]", &[upstream.address], options);
        let listening = proxy.daemon.wait_for("listening");
        for (number, address) in listening["addresses"].as_array().unwrap().iter().enumerate() {
            let to: SocketAddr = address.as_str().unwrap().parse().unwrap();
            let client = Peer::asking(to, "GET / HTTP/1.1\r\n\r\n");
            let (from, family) = (client.address, if to.is_ipv6() { "TCP6" } else { "TCP4" });
            let header =
                format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
            let log = upstream.connection(number);
            log.wait_for(header.len());
            assert!(log.bytes().starts_with(header.as_bytes()), "{io}: {header}");
        }
        proxy.finish();
        assert_eq!(upstream.count(), 2, "{io}");
    }
}

#[test]
fn a_port_alone_is_every_address_of_this_machine_and_a_url_is_its_host_and_port() {
    for io in engines() {
        let upstream = Upstream::answering();
        let mut proxy = Proxy::at(io, "", &[], &format!("--upstream http://{}/", upstream.address));
        let told = proxy.daemon.wait_for("listening");
        assert_told(&told, &json!({ "upstreams": [upstream.address.to_string()] }));
        let port = proxy.address.port();
        let families = if proxy.address.is_ipv6() { &["127.0.0.1", "[::1]"][..] } else { &["127.0.0.1"] };
        for host in families {
            let address = format!("{host}:{port}").parse().unwrap();
            assert_eq!(Peer::asking(address, "GET /a HTTP/1.1\r\n\r\n").message().1, b"/a", "{io} {host}");
        }
        proxy.finish_undisturbed(families.len() as u64);
    }
}

#[test]
fn whether_every_address_is_both_families_is_what_the_machine_says() {
    if !Command::new("unshare").args(["--net", "true"]).output().is_ok_and(|out| out.status.success()) {
        return skip("a network namespace needs root, and `unshare`");
    }
    for (only, every, is_own) in [(0, "[::]:18080", true), (1, "0.0.0.0:18080", false)] {
        let command = |arguments: &str| {
            let script =
                format!("ip link set lo up && echo {only} >/proc/sys/net/ipv6/bindv6only && exec \"$@\"");
            let program = deadpeer(&format!("proxy {arguments} --events - --drain 0s"));
            let mut command = Command::new("unshare");
            command.args(["--net", "sh", "-c", &script, "sh"]).arg(program.get_program());
            command.args(program.get_args());
            command
        };
        let proxy = Proxy::of("auto", command("--listen :18080 --upstream 127.0.0.1:1"));
        assert_eq!(proxy.address.to_string(), every);
        proxy.finish();
        // It would be its own upstream only where `[::]` takes IPv4.
        let mut own = command("--listen [::]:18080 --upstream 127.0.0.1:18080");
        if is_own {
            Outcome::of(&mut own).assert_refusal(2, &["connect to itself"]);
        } else {
            Proxy::of("auto", own).finish();
        }
    }
}

#[test]
fn people_are_told_in_sentences() {
    let upstream = Upstream::silent();
    let line = format!("proxy --listen 127.0.0.1:0 --upstream {}", upstream.address);
    let child = deadpeer(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap();
    let address: SocketAddr = first.split(" on ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(first.contains(&format!("before {}", upstream.address)), "{first}");
    let get = "GET /\u{1b}[31mred HTTP/1.1\r\n\r\n";
    let client = Peer::asking(address, get.replace('\u{1b}', "%1b"));
    let from = client.address;
    upstream.connection(0).wait_for(get.len());
    drop(client);
    let told = lines.find(|line| line.contains("interrupted")).unwrap();
    for word in [&format!("{from} GET /%1b[31mred while waiting after"), "aborted", "; upstream reset"] {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
    child.signal("-TERM");
    let rest: Vec<_> = lines.collect();
    assert!(rest[0].contains("0 exchanges completed, 1 interrupted"), "{rest:#?}");
    assert!(rest.iter().any(|line| line.starts_with("  upstreams stopped early")), "{rest:#?}");
    Outcome::after(child).assert_quiet_success();
}

#[test]
fn events_go_to_a_file_as_they_come() {
    let upstream = Upstream::answering();
    let path = format!("{}/proxy-{}.jsonl", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let line = format!("proxy --listen 127.0.0.1:0 --upstream {} --events {path}", upstream.address);
    let child = deadpeer(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let child = Killed(child);
    let read = || -> Vec<Value> {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    crate::outcome::until("it listens", || !read().is_empty());
    let address = read()[0]["address"].as_str().unwrap().parse().unwrap();
    let mut client = Peer::asking(address, "GET /a HTTP/1.1\r\n\r\n");
    assert_eq!(client.message().1, b"/a");
    let completed = || read().iter().any(|event| event["event"] == "completed" && event["completed"] == 1);
    crate::outcome::until("the exchange is told of", completed);
    child.signal("-TERM");
    Outcome::after(child).assert_quiet_success();
    assert_eq!(read().last().unwrap()["event"], "summary");
    std::fs::remove_file(&path).unwrap();
}
