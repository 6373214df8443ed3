//! The cost of a watcher: the time of entering and leaving a socket, and its thread's CPU beside a program that reads
//! 50,000 messages a second from 10,000 connections (`cargo bench --bench watcher -- beside`; `--test` takes a
//! second of a small one).

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use deadpeer::liveness::Policy;
use deadpeer::sys::epoll::{Epoll, ReadyList};
use deadpeer::sys::rlimit::raise_nofile;
use deadpeer::watch::{Watch, Watcher, WatcherConfig};

fn start() -> Watcher {
    Watcher::start(WatcherConfig::default()).expect("a watcher starts")
}

fn enter_and_leave(criterion: &mut Criterion) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let _client = TcpStream::connect(address).expect("a connection");
    let (server, _) = listener.accept().expect("a connection");
    let watcher = start();
    let mut group = criterion.benchmark_group("watcher");
    group.throughput(Throughput::Elements(1));
    group.bench_function("enter_and_leave", |bencher| {
        bencher.iter(|| drop(watcher.observe(&server, Policy::STANDARD).expect("it is watched")));
    });
    group.finish();
}

struct Crowd {
    connections: usize,
    messages_per_second: usize,
    lasts: Duration,
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The resident memory of this process, in bytes.
fn resident() -> io::Result<usize> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    Ok(text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0) * 4_096)
}

/// The nanoseconds that a thread of this process has run (`/proc/self/task/*/schedstat`).
fn ran(thread: &str) -> io::Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        let name = std::fs::read_to_string(path.join("comm"))?;
        if thread.is_empty() || name.trim() == thread {
            let text = std::fs::read_to_string(path.join("schedstat"))?;
            sum += text.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(sum)
}

/// Reads as a server does, beside a watcher, and returns the CPU of the watcher's thread.
fn beside(crowd: &Crowd, policy: (&str, Policy)) -> io::Result<()> {
    raise_nofile()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // All connect at once, and the backlog of std is 128.
    socket2::SockRef::from(&listener).listen(4_096)?;
    let every = crowd.connections * 1_000_000 / crowd.messages_per_second;
    let address = listener.local_addr()?.to_string();
    let clients = Command::new(env!("CARGO_BIN_EXE_deadpeer"))
        .args(["beat", &address, "--quiet", "--reconnect", "--count", &crowd.connections.to_string()])
        .args(["--every", &format!("{every}us")])
        .stdout(Stdio::null())
        .spawn()?;
    let _clients = Killed(clients);
    let watcher = start();
    let epoll = Epoll::new()?;
    let mut streams = Vec::with_capacity(crowd.connections);
    let mut watches: Vec<Watch> = Vec::with_capacity(crowd.connections);
    for token in 0..crowd.connections {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        epoll.add(stream.as_fd(), (libc::EPOLLIN | libc::EPOLLET).cast_unsigned(), token as u64)?;
        streams.push(stream);
    }
    let before = resident()?;
    for stream in &streams {
        watches.push(watcher.observe(stream, policy.1).map_err(io::Error::other)?);
    }
    let each = (resident()? - before) as f64 / crowd.connections as f64;
    let mut found = ReadyList::new(256);
    let mut buffer = vec![0; 4_096];
    let mut run = |lasts: Duration| -> io::Result<u64> {
        let (end, mut messages) = (Instant::now() + lasts, 0);
        while Instant::now() < end {
            epoll.wait(&mut found, Some(Duration::from_millis(10)))?;
            for ready in found.iter() {
                if let Ok(taken) = (&streams[ready.token as usize]).read(&mut buffer) {
                    messages += taken as u64 / 16;
                }
            }
        }
        Ok(messages)
    };
    run(crowd.lasts / 8)?;
    let (watching, all, began) = (ran("deadpeer-watch")?, ran("")?, Instant::now());
    let messages = run(crowd.lasts)?;
    let (watching, all) = (ran("deadpeer-watch")? - watching, ran("")? - all);
    let lasted = began.elapsed().as_nanos() as f64;
    let here = watches.iter().filter(|watch| !watch.state().is_gone()).count();
    println!(
        "{} connections under {} ({each:.0} bytes each), {:.0} messages/s read by the program ({:.1} % of a core): the \
         watcher took {:.3} % of a core; {here} are here",
        crowd.connections,
        policy.0,
        messages as f64 * 1e9 / lasted,
        (all - watching) as f64 * 100.0 / lasted,
        watching as f64 * 100.0 / lasted,
    );
    Ok(())
}

fn main() -> io::Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let crowd = if has("--test") {
        Crowd { connections: 100, messages_per_second: 500, lasts: Duration::from_secs(1) }
    } else {
        // Longer than a detection time, so that each socket is looked at.
        Crowd { connections: 10_000, messages_per_second: 50_000, lasts: Duration::from_secs(40) }
    };
    if has("--test") || has("beside") {
        for policy in [("standard", Policy::STANDARD), ("transport only", Policy::STANDARD.transport_only())]
        {
            beside(&crowd, policy)?;
        }
    }
    if !has("beside") {
        let mut criterion = Criterion::default().configure_from_args();
        enter_and_leave(&mut criterion);
        criterion.final_summary();
    }
    Ok(())
}
