//! Sockets that another program has opened, as the service manager does: they outlive the proxy.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use crate::outcome::Outcome;
use crate::program::{Proxy, engines};
use crate::upstream::{Upstream, answer};

/// `deadpeer` with the words of a line, and a descriptor that is passed to it.
fn with_passed(fd: OwnedFd, line: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg("LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null");
    command.arg(env!("CARGO_BIN_EXE_deadpeer")).args(line.split_whitespace());
    command.stdin(Stdio::from(fd));
    command
}

fn refusal(fd: OwnedFd, line: &str) -> Outcome {
    let mut command = with_passed(fd, line);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Outcome::after(crate::daemon::Killed(child))
}

fn exchange(mut client: impl Read + Write) -> String {
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_restart_on_a_passed_socket_refuses_no_connection() {
    for io in engines() {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let upstream = Upstream::start(|peer| {
            while peer.try_head().is_ok() {
                peer.send(answer("whole"));
            }
        });
        let start = |threads: u32| {
            let line = format!(
                "proxy --io {io} --threads {threads} --listen {address} --upstream {} --events - --drain 20s",
                upstream.address
            );
            Proxy::of(io, with_passed(socket.try_clone().unwrap().into(), &line))
        };
        let (over, asked) = (AtomicBool::new(false), AtomicU32::new(0));
        thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            let text = exchange(TcpStream::connect(address).unwrap());
                            assert!(text.ends_with("whole"), "{text}");
                            asked.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let more_than = |before: u32| {
                crate::outcome::until("clients get answers", || {
                    asked.load(Ordering::Relaxed) > before + 20
                        || clients.iter().any(thread::ScopedJoinHandle::is_finished)
                });
            };
            for threads in [1, 2, 1, 2, 1] {
                let proxy = start(threads);
                more_than(asked.load(Ordering::Relaxed));
                proxy.daemon.child.signal("-TERM");
                Outcome::after(proxy.daemon.child).assert_quiet_success();
            }
            let last = start(1);
            more_than(asked.load(Ordering::Relaxed));
            over.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().unwrap();
            }
            drop(last);
        });
    }
}

#[test]
fn a_passed_socket_at_a_path_keeps_its_file() {
    let folder = std::env::temp_dir().join(format!("deadpeer-passed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for io in engines() {
        let path = folder.join(io);
        let socket = UnixListener::bind(&path).unwrap();
        let upstream = Upstream::start(|peer| {
            while peer.try_head().is_ok() {
                peer.send(answer("whole"));
            }
        });
        for _ in 0..2 {
            let line = format!(
                "proxy --io {io} --listen unix:{} --upstream {} --drain 20s",
                path.display(),
                upstream.address
            );
            let mut command = with_passed(socket.try_clone().unwrap().into(), &line);
            let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let proxy = crate::daemon::Killed(child);
            assert!(exchange(UnixStream::connect(&path).unwrap()).ends_with("whole"));
            proxy.signal("-TERM");
            assert_eq!(Outcome::after(proxy).code, Some(0));
            assert!(path.exists());
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_is_passed_and_cannot_be_listened_on_is_refused_in_words() {
    let upstream = "--upstream 127.0.0.1:9";
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address: SocketAddr = socket.local_addr().unwrap();
    let other = format!("proxy --listen 127.0.0.1:0 {upstream}");
    refusal(socket.into(), &other).assert_refusal(2, &[&format!("add --listen {address}"), "ListenStream="]);
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    refusal(udp.into(), &other).assert_refusal(2, &["descriptor 3", "ListenStream="]);
    let connected = UnixStream::pair().unwrap().0;
    refusal(connected.into(), &other).assert_refusal(2, &["descriptor 3", "Accept=no"]);
    let wrong = |pid: &str, number: &str| {
        let line = format!("LISTEN_PID={pid} LISTEN_FDS={number} exec \"$0\" {other}");
        let mut command = Command::new("sh");
        Outcome::of(command.args(["-c", &line, env!("CARGO_BIN_EXE_deadpeer")]))
    };
    for (pid, number) in [("x", "1"), ("$$", "x"), ("$$", "900"), ("$$", "4294967295"), ("$$", "2147483647")]
    {
        wrong(pid, number).assert_refusal(1, &["LISTEN_PID and LISTEN_FDS"]);
    }
}
