//! What the proxy does while its events cannot be written.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::{fs, thread};

use serde_json::{Value, json};

use crate::daemon::Killed;
use crate::outcome::{Outcome, deadpeer, until};
use crate::peer::Peer;
use crate::program::{assert_told, on_each};
use crate::upstream::Upstream;

const GET: &str = "GET /work HTTP/1.1\r\nHost: a\r\n\r\n";

/// Each of them is told as interrupted.
fn leave(proxy: SocketAddr, clients: usize) {
    for _ in 0..clients {
        drop(Peer::asking(proxy, "GET /"));
    }
}

fn answers(proxy: SocketAddr) {
    assert_eq!(Peer::asking(proxy, GET).message().1, b"/work");
}

fn address(first: &str) -> SocketAddr {
    let first: Value = serde_json::from_str(first).unwrap();
    first["address"].as_str().unwrap().parse().unwrap()
}

/// The number of events that a stream lacks, by its own word.
fn dropped(lines: &[Value]) -> u64 {
    let told = lines.iter().filter(|line| line["event"] == "events_dropped");
    told.map(|line| line["dropped"].as_u64().unwrap()).sum()
}

fn count(lines: &[Value], event: &str) -> u64 {
    lines.iter().filter(|line| line["event"] == event).count() as u64
}

#[test]
fn a_proxy_whose_events_nobody_reads_goes_on_and_says_how_many_it_has_dropped() {
    // The queues hold 4,096 and some hundreds.
    const CLIENTS: usize = 5_000;
    on_each(|io| {
        let upstream = Upstream::answering();
        let line = format!("proxy --io {io} --threads 1 --listen 127.0.0.1:0 --events - --drain 0s");
        let mut command = deadpeer(&line);
        command.args(["--upstream", &upstream.address.to_string()]);
        let mut child = Killed(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let mut events = BufReader::new(child.0.stdout.take().unwrap());
        let mut first = String::new();
        events.read_line(&mut first).unwrap();
        let proxy = address(&first);
        leave(proxy, CLIENTS);
        answers(proxy);
        // The reader reads again.
        let (send, receive) = mpsc::channel();
        let reading = thread::spawn(move || {
            let lines = events.lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
            let told = |line: &Value| send.send(line["event"] == "events_dropped").unwrap_or(());
            lines.inspect(told).collect::<Vec<_>>()
        });
        assert!(receive.iter().any(|is_gap| is_gap), "{io}: the gap is told");
        answers(proxy);
        child.signal("-TERM");
        let lines = reading.join().unwrap();
        Outcome::after(child).assert_quiet_success();
        let summary = lines.last().unwrap();
        assert_told(summary, &json!({ "event": "summary", "undelivered": 0, "dropped": dropped(&lines) }));
        let interrupted = count(&lines, "interrupted");
        let lost = dropped(&lines);
        assert!(lost > 0, "{io}: {summary:#}");
        // One second's count of whole exchanges may be among what was dropped.
        let told = interrupted + lost;
        assert!((CLIENTS as u64..CLIENTS as u64 + 60).contains(&told), "{io}: {interrupted} and {lost}");
        let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
        assert_eq!(
            seqs,
            (1..=seqs.len() as u64).collect::<Vec<_>>(),
            "{io}: dropped before they had a number"
        );
    });
}

/// A file for events, below a limit on its size.
struct Limited {
    path: PathBuf,
    child: Killed,
    proxy: SocketAddr,
}

impl Limited {
    fn start(io: &str, folder: &str, options: &str, upstream: SocketAddr) -> Limited {
        let path = PathBuf::from(format!("{folder}/full-{}.jsonl", upstream.port()));
        let _ = fs::remove_file(&path);
        let line =
            format!("proxy --io {io} --threads 1 --listen 127.0.0.1:0 --drain 0s --upstream {upstream}");
        let own = deadpeer(&format!("{line} --events {} {options}", path.display()));
        // Blocks of 512 bytes.
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -f 16 && exec \"$0\" \"$@\""]).arg(own.get_program()).args(own.get_args());
        let child = Killed(shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        until("the first line is written", || {
            fs::read_to_string(&path).is_ok_and(|text| text.contains('\n'))
        });
        let proxy = address(fs::read_to_string(&path).unwrap().lines().next().unwrap());
        Limited { path, child, proxy }
    }

    /// Whole lines of what the file held before it was emptied, and of what it holds now.
    fn lines_behind(&self, before: &str) -> Vec<Value> {
        let text = before.to_owned() + &fs::read_to_string(&self.path).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn a_full_disk_costs_events_and_says_which_and_nothing_else() {
    // A disk, and a tmpfs, to which a loop writes itself.
    for folder in [env!("CARGO_TARGET_TMPDIR"), "/dev/shm"] {
        on_each(|io| {
            let upstream = Upstream::answering();
            let full = Limited::start(io, folder, "", upstream.address);
            leave(full.proxy, 100);
            until("the file is full", || fs::metadata(&full.path).unwrap().len() == 16 * 512);
            leave(full.proxy, 10);
            answers(full.proxy);
            // Its end may be the beginning of a line.
            let before = fs::read_to_string(&full.path).unwrap();
            fs::OpenOptions::new().write(true).open(&full.path).unwrap().set_len(0).unwrap();
            until("an event says what is missing", || {
                leave(full.proxy, 1);
                count(&full.lines_behind(&before), "events_dropped") > 0
            });
            let Limited { path, child, .. } = &full;
            child.signal("-TERM");
            until("the summary is written", || count(&full.lines_behind(&before), "summary") == 1);
            let lines = full.lines_behind(&before);
            let told = lines.iter().find(|line| line["event"] == "events_dropped").unwrap();
            let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
            let (first, last) = (told["first_seq"].as_u64().unwrap(), told["last_seq"].as_u64().unwrap());
            assert_eq!(told["dropped"], last - first + 1, "{io}: {told:#}");
            let expected: Vec<_> = (0..first).chain(last + 1..last + 1 + seqs.len() as u64 - first).collect();
            assert_eq!(seqs, expected, "{io}: all but the missing ones, in order");
            assert_told(lines.last().unwrap(), &json!({ "dropped": told["dropped"], "undelivered": 0 }));
            fs::remove_file(path).unwrap();
            Outcome::after(full.child).assert_quiet_success();
        });
    }
}

#[test]
fn a_full_disk_ends_a_proxy_that_is_to_wait_and_one_that_is_still_full_at_the_end_says_so() {
    on_each(|io| {
        let upstream = Upstream::answering();
        for (options, signal) in [("--when-events-stall wait", None), ("", Some("-TERM"))] {
            let full = Limited::start(io, env!("CARGO_TARGET_TMPDIR"), options, upstream.address);
            for _ in 0..100 {
                let _ = std::net::TcpStream::connect(full.proxy)
                    .map(|stream| Peer::of(stream, None).try_send("GET /"));
            }
            until("the file is full", || fs::metadata(&full.path).unwrap().len() == 16 * 512);
            if let Some(signal) = signal {
                full.child.signal(signal);
            }
            let outcome = Outcome::after(full.child);
            assert_eq!(outcome.code, Some(1), "{io}: {outcome:#?}");
            assert!(outcome.stderr.contains("File too large"), "{io}: {outcome:#?}");
            fs::remove_file(&full.path).unwrap();
        }
    });
}
