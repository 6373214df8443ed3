//! The access log: each exchange has one line, whatever becomes of it, and nobody can forge one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{fs, thread};

use serde_json::{Value, json};

use crate::daemon::Killed;
use crate::outcome::{Outcome, deadpeer, nobody, outcome, until};
use crate::peer::{End, Peer};
use crate::program::{Proxy, assert_told, on_each};
use crate::upstream::{Upstream, answer};

const HOST: &str = "Host: a\r\n\r\n";

/// A proxy with an access log of its own.
struct Logging {
    proxy: Proxy,
    path: PathBuf,
}

impl Logging {
    fn start(io: &'static str, upstream: SocketAddr, options: &str) -> Logging {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("access-{}-{number}.log", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let options = format!("--access-log {} {options}", path.display());
        Logging { proxy: Proxy::start(io, upstream, &options), path }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    /// The lines, once there are so many.
    fn lines(&self, count: usize) -> Vec<String> {
        until("the lines are there", || self.text().matches('\n').count() >= count);
        self.text().lines().map(str::to_owned).collect()
    }

    /// Ends it. Its summary and its lines.
    fn finish(self) -> (Value, Vec<Value>) {
        let summary = self.proxy.finish();
        let text = fs::read_to_string(&self.path).unwrap();
        fs::remove_file(&self.path).unwrap();
        (summary, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }
}

/// Answers by the target.
fn serve(peer: &mut Peer) {
    while let Ok(head) = peer.try_head() {
        match head.split(' ').nth(1).unwrap() {
            "/two" => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
            "/silent" => peer.rest().0.clear(),
            "/part" => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
            "/breaks" => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
                return peer.half_close();
            }
            "/tunnel:1" => {
                peer.send("HTTP/1.1 200 OK\r\n\r\n");
                let hello = peer.take(5);
                peer.send([&hello[..], b"!"].concat());
            }
            target => peer.send(answer(target)),
        }
    }
}

#[test]
fn each_exchange_has_one_line_whatever_becomes_of_it() {
    on_each(|io| {
        let upstream = Upstream::start(serve);
        let options = "--access-format json --body-timeout 300ms --drain 0s --pool 0";
        let logging = Logging::start(io, upstream.address, options);
        let at = logging.proxy.address;
        let mut expected = Vec::new();
        let mut expect = |what: &Value| {
            expected.push(what.clone());
            logging.lines(expected.len());
        };

        // Two on one connection, sent at once.
        let mut client = Peer::asking(
            at,
            format!(
                "GET /one?a=b HTTP/1.1\r\nReferer: r\r\nUser-Agent: u\r\n{HOST}HEAD /two HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
            ),
        );
        assert_eq!(client.message().1, b"/one?a=b");
        client.head();
        expect(
            &json!({ "method": "GET", "target": "/one?a=b", "version": "1.1", "referer": "r", "user_agent": "u",
            "status": 200, "body_bytes": 8, "response_bytes": answer("/one?a=b").len(), "cause": "completed",
            "by": "server", "upstream": upstream.address.to_string(), "client": client.address.to_string() }),
        );
        expect(
            &json!({ "method": "HEAD", "target": "/two", "version": "1.0", "referer": null, "status": 200,
            "body_bytes": 0, "cause": "completed", "by": "server" }),
        );
        drop(client);

        let mut client = Peer::asking(at, format!("GET /part HTTP/1.1\r\n{HOST}"));
        client.head();
        client.take(3);
        client.reset();
        expect(
            &json!({ "target": "/part", "status": 200, "body_bytes": 3, "cause": "aborted", "by": "peer" }),
        );

        let client = Peer::asking(at, format!("GET /silent HTTP/1.1\r\n{HOST}"));
        until("it is asked", || upstream.connection(2).bytes().ends_with(b"\r\n\r\n"));
        client.reset();
        expect(
            &json!({ "target": "/silent", "status": null, "body_bytes": 0, "cause": "aborted", "by": "peer" }),
        );

        drop(Peer::asking(at, "GET /par"));
        expect(
            &json!({ "method": null, "status": null, "request_bytes": 8, "cause": "closed", "by": "peer" }),
        );

        let mut client = Peer::asking(at, "POST /up HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf");
        assert!(client.message().0.starts_with("HTTP/1.1 408"), "{io}");
        expect(&json!({ "method": "POST", "status": 408, "body_bytes": 17, "upstream": null,
            "cause": "body_timeout", "by": "us" }));

        let mut client = Peer::asking(at, format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(129)));
        assert!(client.message().0.starts_with("HTTP/1.1 431"), "{io}");
        expect(&json!({ "method": null, "status": 431, "cause": "head_too_large", "by": "us" }));

        let mut client = Peer::asking(at, format!("GET /breaks HTTP/1.1\r\n{HOST}"));
        assert_eq!(client.rest().1, End::Fin, "{io}");
        expect(
            &json!({ "target": "/breaks", "status": 200, "body_bytes": 3, "cause": "truncated", "by": "server" }),
        );

        let mut client = Peer::asking(at, "CONNECT /tunnel:1 HTTP/1.1\r\n\r\nhello");
        client.head();
        assert_eq!(client.take(6), b"hello!", "{io}");
        client.half_close();
        assert_eq!(client.rest().1, End::Fin, "{io}");
        expect(
            &json!({ "method": "CONNECT", "tunnel": true, "status": 200, "body_bytes": 6, "request_bytes": 35,
            "cause": "closed", "by": "peer" }),
        );

        let mut client = Peer::asking(at, format!("GET /part HTTP/1.1\r\n{HOST}"));
        client.head();
        client.take(3);
        expected.push(json!({ "target": "/part", "status": 200, "cause": "shutdown", "by": "us" }));
        let (summary, lines) = logging.finish();
        assert_eq!(lines.len(), expected.len(), "{io}: {lines:#?}");
        for (line, expected) in lines.iter().zip(&expected) {
            assert_told(line, expected);
        }
        assert_told(&summary, &json!({ "log_dropped": 0, "cut": 1, "completed": 3 }));
    });
}

#[test]
fn an_answer_of_ours_names_no_upstream_of_an_earlier_request() {
    on_each(|io| {
        let upstream = Upstream::answering();
        let logging =
            Logging::start(io, upstream.address, "--access-format json --body-timeout 300ms --drain 0s");
        let mut client = Peer::asking(logging.proxy.address, format!("GET /one HTTP/1.1\r\n{HOST}"));
        assert_eq!(client.message().1, b"/one", "{io}");
        client.send("POST /up HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf");
        assert!(client.message().0.starts_with("HTTP/1.1 408"), "{io}");
        let (_, lines) = logging.finish();
        assert_told(&lines[0], &json!({ "target": "/one", "upstream": upstream.address.to_string() }));
        assert_told(&lines[1], &json!({ "target": "/up", "upstream": null }));
    });
}

#[test]
fn in_mode_tcp_a_connection_is_a_line_and_an_upstream_that_is_not_there_is_named() {
    on_each(|io| {
        let upstream = Upstream::start(|peer| {
            peer.rest();
            peer.send("done");
            peer.half_close();
        });
        let logging = Logging::start(io, upstream.address, "--access-format json --mode tcp");
        let mut client = Peer::asking(logging.proxy.address, "bytes");
        client.half_close();
        assert_eq!(client.rest(), (b"done".to_vec(), End::Fin), "{io}");
        let (_, lines) = logging.finish();
        assert_eq!(lines.len(), 1, "{io}: {lines:#?}");
        assert_told(
            &lines[0],
            &json!({ "method": null, "status": null, "tunnel": true, "request_bytes": 5, "response_bytes": 4,
                     "cause": "closed", "by": "peer" }),
        );
        let nobody = nobody();
        let logging = Logging::start(io, nobody, "--access-format json --retries 0");
        let mut client = Peer::asking(logging.proxy.address, format!("GET / HTTP/1.1\r\n{HOST}"));
        assert!(client.message().0.starts_with("HTTP/1.1 502"), "{io}");
        let (_, lines) = logging.finish();
        assert_told(
            &lines[0],
            &json!({ "status": 502, "upstream": nobody.to_string(), "cause": "refused", "by": "server" }),
        );
    });
}

#[test]
fn a_client_forges_no_line_and_its_query_may_be_left_out() {
    on_each(|io| {
        let upstream = Upstream::answering();
        let logging = Logging::start(io, upstream.address, "--log-query no --head-timeout 300ms");
        let hostile = "GET /a?secret=1 HTTP/1.1\r\nReferer: http://a/?secret=2\r\nUser-Agent: \" 200 \\ \u{202e}\"\r\n\r\n";
        let mut client = Peer::asking(logging.proxy.address, hostile);
        assert_eq!(client.message().1, b"/a?secret=1", "{io}: the upstream gets all of it");
        let line = logging.lines(1).remove(0);
        let (date, rest) = line.split_once("] ").unwrap();
        assert!(date.starts_with("127.0.0.1 - - ["), "{io}: {line}");
        let (request, rest) = rest.split_once(" 200 ").unwrap();
        assert_eq!(request, "\"GET /a? HTTP/1.1\"", "{io}: {line}");
        let expected = r#"11 "http://a/?" "\" 200 \\ \u{202e}\"" "#;
        assert!(rest.starts_with(expected), "{io}: {line}");
        assert!(rest.ends_with(" completed server"), "{io}: {line}");
        assert_eq!(logging.text().lines().count(), 1, "{io}");
        // Events leave it out as well.
        let client =
            Peer::asking(logging.proxy.address, "POST /b?secret=3 HTTP/1.1\r\nContent-Length: 3\r\n\r\n");
        let address = client.address;
        let mut proxy = logging.proxy;
        drop(client);
        assert_told(&proxy.interruption(address), &json!({ "target": "/b?" }));
        proxy.finish();
        fs::remove_file(&logging.path).unwrap();
    });
}

#[test]
fn standard_output_may_have_the_access_log_and_then_people_read_standard_error() {
    let upstream = Upstream::answering();
    let line =
        format!("proxy --listen 127.0.0.1:0 --upstream {} --access-log - --drain 0s", upstream.address);
    let child = deadpeer(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Killed(child);
    let mut sentences = BufReader::new(child.0.stderr.take().unwrap());
    let mut first = String::new();
    sentences.read_line(&mut first).unwrap();
    let address: SocketAddr = first.split(" on ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(Peer::asking(address, format!("GET /x HTTP/1.1\r\n{HOST}")).message().1, b"/x");
    let mut lines = BufReader::new(child.0.stdout.take().unwrap());
    let mut logged = String::new();
    lines.read_line(&mut logged).unwrap();
    assert!(logged.contains("] \"GET /x HTTP/1.1\" 200 2 \"-\" \"-\" 0.0"), "{logged}");
    child.signal("-TERM");
    let mut rest = String::new();
    sentences.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("1 exchange completed"), "{rest}");
    logged.clear();
    lines.read_to_string(&mut logged).unwrap();
    assert_eq!(logged, "", "nothing else is in it");
    assert!(child.0.wait().unwrap().success());
}

/// So many exchanges while nobody reads the log. What the log then has, and the summary.
fn unread(io: &str, how: &str, count: usize) -> (Vec<Value>, Value) {
    let upstream = Upstream::answering();
    let line = format!(
        "proxy --io {io} --threads 1 --listen 127.0.0.1:0 --upstream {} --events /dev/stderr --access-log - \
         --drain 0s --access-format json --when-events-stall {how}",
        upstream.address
    );
    let mut child = Killed(deadpeer(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut events = BufReader::new(child.0.stderr.take().unwrap());
    let mut first = String::new();
    events.read_line(&mut first).unwrap();
    let listening: Value = serde_json::from_str(&first).unwrap();
    let address: SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
    let requests = format!("GET /x HTTP/1.1\r\n{HOST}").repeat(count);
    let mut client = Peer::connect(address);
    let mut writer = client.stream.try_clone().unwrap();
    let writing = thread::spawn(move || writer.write_all(requests.as_bytes()).unwrap());
    let answered = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&answered);
    let asking = thread::spawn(move || {
        for _ in 0..count {
            assert_eq!(client.message().1, b"/x");
            counter.fetch_add(1, Relaxed);
        }
    });
    if how == "drop" {
        asking.join().unwrap();
    } else {
        let mut before = 0;
        until("the proxy waits for the reader", || {
            thread::park_timeout(Duration::from_millis(300));
            std::mem::replace(&mut before, answered.load(Relaxed)) == answered.load(Relaxed) && before > 0
        });
        assert!(!asking.is_finished(), "{io}: {before} answers");
        thread::spawn(move || asking.join().unwrap());
    }
    let log = BufReader::new(child.0.stdout.take().unwrap());
    let (send, receive) = mpsc::channel();
    let reading = thread::spawn(move || {
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        lines.inspect(|line| send.send(line.clone()).unwrap_or(())).collect::<Vec<_>>()
    });
    let mut seen = 0;
    let told = receive.iter().any(|line| {
        seen += line["dropped"].as_u64().unwrap_or(1) as usize;
        seen == count
    });
    assert!(told, "{io}: each exchange is in the log, or counted there");
    child.signal("-TERM");
    let lines = reading.join().unwrap();
    let mut rest = String::new();
    events.read_to_string(&mut rest).unwrap();
    writing.join().unwrap();
    assert!(child.0.wait().unwrap().success(), "{io}");
    (lines, serde_json::from_str(rest.lines().last().unwrap()).unwrap())
}

#[test]
fn a_log_that_nobody_reads_costs_lines_and_no_answer_or_holds_clients_up() {
    // The queues hold 4,096 and some hundreds.
    const COUNT: usize = 6_000;
    on_each(|io| {
        for how in ["drop", "wait"] {
            let (lines, summary) = unread(io, how, COUNT);
            let dropped = lines.iter().filter_map(|line| line["dropped"].as_u64()).sum::<u64>();
            assert_eq!(dropped > 0, how == "drop", "{io}: {dropped}");
            assert_told(&summary, &json!({ "log_dropped": dropped, "dropped": 0, "completed": COUNT }));
        }
    });
}

#[test]
fn a_full_disk_costs_lines_that_are_counted_and_tears_none() {
    for folder in [env!("CARGO_TARGET_TMPDIR"), "/dev/shm"] {
        on_each(|io| {
            let upstream = Upstream::answering();
            let path = PathBuf::from(format!("{folder}/full-{io}-{}.log", upstream.address.port()));
            let line = format!(
                "proxy --io {io} --threads 1 --listen 127.0.0.1:0 --upstream {} --events - --drain 0s",
                upstream.address
            );
            let own = deadpeer(&format!("{line} --access-log {}", path.display()));
            // Blocks of 512 bytes.
            let mut shell = Command::new("sh");
            shell.args(["-c", "ulimit -f 16 && exec \"$0\" \"$@\""]);
            shell.arg(own.get_program()).args(own.get_args());
            let mut child = Killed(shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
            let mut events = BufReader::new(child.0.stdout.take().unwrap());
            let mut first = String::new();
            events.read_line(&mut first).unwrap();
            let listening: Value = serde_json::from_str(&first).unwrap();
            let proxy: SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
            let mut count = 0;
            let mut ask = |more: usize| {
                for _ in 0..more {
                    let mut client = Peer::asking(proxy, format!("GET /x HTTP/1.1\r\n{HOST}"));
                    assert_eq!(client.message().1, b"/x", "{io}");
                }
                count += more;
            };
            ask(100);
            until("the file is full", || fs::metadata(&path).unwrap().len() == 16 * 512);
            ask(10);
            let before = fs::read_to_string(&path).unwrap();
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
            until("there are lines again", || {
                ask(1);
                fs::read_to_string(&path).unwrap().ends_with("server\n")
            });
            child.signal("-TERM");
            let mut rest = String::new();
            events.read_to_string(&mut rest).unwrap();
            let summary: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
            let text = before + &fs::read_to_string(&path).unwrap();
            fs::remove_file(&path).unwrap();
            assert!(
                text.lines().all(|line| line.starts_with("127.0.0.1 - - [") && line.ends_with(" server"))
            );
            let dropped = count - text.lines().count();
            assert!(dropped > 0, "{io}");
            assert_told(&summary, &json!({ "log_dropped": dropped, "dropped": 0, "completed": count }));
            assert!(child.0.wait().unwrap().success(), "{io}");
        });
    }
}

#[test]
fn a_disk_that_is_still_full_at_the_end_is_an_error() {
    on_each(|io| {
        let upstream = Upstream::answering();
        let mut proxy = Proxy::start(io, upstream.address, "--access-log /dev/full");
        let mut client = Peer::asking(proxy.address, format!("GET /x HTTP/1.1\r\n{HOST}"));
        assert_eq!(client.message().1, b"/x", "{io}");
        proxy.daemon.child.signal("-TERM");
        assert_told(&proxy.daemon.wait_for("summary"), &json!({ "log_dropped": 1 }));
        let outcome = Outcome::after(proxy.daemon.child);
        assert_eq!(outcome.code, Some(1), "{io}: {outcome:#?}");
        assert!(
            outcome.stderr.contains("cannot write the access log /dev/full: No space"),
            "{io}: {outcome:#?}"
        );
    });
}

#[test]
fn a_log_that_cannot_be_written_is_refused() {
    let proxy = "proxy --upstream 127.0.0.1:1 --listen 127.0.0.1:0";
    outcome(&format!("{proxy} --access-log /nowhere/log"))
        .assert_refusal(1, &["cannot write the access log /nowhere/log", "--access-log"]);
    outcome(&format!("{proxy} --access-log - --events -"))
        .assert_refusal(2, &["--access-log", "--events", "same"]);
    outcome(&format!("{proxy} --access-log a --access-format clf")).assert_refusal(2, &["combined", "json"]);
}
