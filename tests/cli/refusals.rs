//! What a machine refuses: ports, addresses, descriptors, files, io_uring itself.
//!
//! The sandboxes are bubblewrap's: a root without one capability, a file system that is only read,
//! a system call that is forbidden.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::daemon::{Daemon, Killed, program};
use crate::outcome::{Outcome, deadpeer, outcome};
use crate::skip::skip;

/// `deadpeer` in a sandbox, or `None`, and the skip is said, where there is no sandbox.
pub fn sandboxed(options: &[&str], line: &str) -> Option<Command> {
    let ways = ["--bind", "/", "/", "--dev", "/dev", "--proc", "/proc"];
    let tried = Command::new("bwrap").args(ways).arg("true").output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        skip("no sandbox: install bubblewrap, and be root or allow user namespaces");
        return None;
    }
    let mut command = Command::new("bwrap");
    command.args(ways).args(options).arg(program(None).get_program()).args(line.split_whitespace());
    Some(command)
}

/// A command under a limit of the shell's.
fn limited(limit: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

#[test]
fn a_port_that_another_program_has_is_refused_with_the_way_to_find_it() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    outcome(&format!("run --listen {address}"))
        .assert_refusal(1, &["cannot listen on", &address, "in use", "`ss -ltnp`", "--listen"]);
}

#[test]
fn a_second_daemon_does_not_share_the_port_of_the_first() {
    let first = Daemon::start(None, "127.0.0.1:0", &[]);
    let address = first.address.to_string();
    outcome(&format!("run --listen {address}")).assert_refusal(1, &[&address, "in use", "another port"]);
}

#[test]
fn an_address_of_another_machine_is_refused_with_the_way_to_see_ours() {
    // Documentation addresses (RFC 5737, RFC 3849): no machine has them.
    let ipv6 = UdpSocket::bind("[::1]:0").is_ok();
    for address in ["192.0.2.1:0", "[2001:db8::1]:0"].into_iter().take(1 + usize::from(ipv6)) {
        outcome(&format!("run --listen {address}"))
            .assert_refusal(1, &[address, "Cannot assign requested address", "`ip address`"]);
    }
}

#[test]
fn a_low_port_without_the_right_is_refused_with_the_capability() {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first_free.is_ok_and(|port| port.trim() == "0") {
        return skip("every port is free here: net.ipv4.ip_unprivileged_port_start is 0");
    }
    let line = "run --listen 127.0.0.1:1";
    let Some(mut command) = sandboxed(&["--cap-drop", "CAP_NET_BIND_SERVICE"], line) else { return };
    let words = ["127.0.0.1:1", "Permission denied", "CAP_NET_BIND_SERVICE", "higher port"];
    Outcome::of(&mut command).assert_refusal(1, &words);
}

#[test]
fn more_connections_than_descriptors_are_refused_with_the_arithmetic() {
    let limited = |limit: u32, line: &str| Outcome::of(&mut limited(&format!("-n {limit}"), &deadpeer(line)));
    // 64 kept back, and for the one ring itself, its wakeup and its listener.
    let line = "run --threads 1 --listen 127.0.0.1:0 --max-connections 134";
    let words = [
        "134 connections do not fit",
        "is 200, less 67",
        "leaves 133",
        "LimitNOFILE=",
        "--max-connections 133",
    ];
    limited(200, line).assert_refusal(78, &words);
    let most = limited(200, "run --threads 1 --listen 127.0.0.1:0 --max-connections 133 --events /dev/full");
    most.assert_refusal(1, &["No space left on device"]);
    limited(67, "run --threads 1 --listen 127.0.0.1:0")
        .assert_refusal(78, &["no connection fits", "ulimit -Hn", "fewer --threads"]);

    let words = ["cannot open 264 descriptors", "hard limit is 200", "`ulimit -Hn 264`", "lower the count"];
    limited(200, "beat 127.0.0.1:1 --count 200").assert_refusal(1, &words);
}

#[test]
fn an_events_path_that_cannot_be_opened_is_refused_with_the_reason() {
    let line = |path: &str| format!("run --listen 127.0.0.1:0 --events {path}");
    let missing = concat!(env!("CARGO_TARGET_TMPDIR"), "/no-such-directory/events");
    outcome(&line(missing))
        .assert_refusal(1, &[missing, "No such file", "create its directory first", "--events"]);
    let directory = env!("CARGO_TARGET_TMPDIR");
    outcome(&line(directory)).assert_refusal(1, &[directory, "Is a directory", "name a file in it"]);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml/events");
    outcome(&line(file)).assert_refusal(1, &[file, "Not a directory", "--events"]);
}

#[test]
fn an_events_path_that_may_not_be_written_is_refused_with_the_user_that_must_be_allowed() {
    let path = format!("{}/closed-{}.jsonl", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let closed = File::create(&path).unwrap();
    let mut permissions = closed.metadata().unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o400);
    closed.set_permissions(permissions).unwrap();
    let line = format!("run --listen 127.0.0.1:0 --events {path}");
    // Without the capability root is bound by the mode too.
    let Some(mut command) = sandboxed(&["--cap-drop", "CAP_DAC_OVERRIDE"], &line) else { return };
    Outcome::of(&mut command)
        .assert_refusal(1, &[&path, "Permission denied", "allow this user to write there"]);
    std::fs::remove_file(&path).unwrap();

    let writable = concat!(env!("CARGO_TARGET_TMPDIR"), "/read-only.jsonl");
    let line = format!("run --listen 127.0.0.1:0 --events {writable}");
    let mut command = sandboxed(&["--remount-ro", "/"], &line).expect("there was a sandbox a moment ago");
    Outcome::of(&mut command).assert_refusal(1, &[writable, "Read-only file system", "writable file system"]);
}

#[test]
fn a_file_beyond_the_limit_on_file_sizes_is_refused_with_the_limit() {
    // A tmpfs, where a loop writes itself, and a disk.
    for folder in ["/dev/shm", env!("CARGO_TARGET_TMPDIR")] {
        let path = format!("{folder}/deadpeer-limited-{}", std::process::id());
        for line in ["run --listen 127.0.0.1:0", "proxy --listen 127.0.0.1:0 --upstream 127.0.0.1:1"] {
            let outcome = Outcome::of(&mut limited("-f 0", &deadpeer(&format!("{line} --events {path}"))));
            outcome.assert_refusal(1, &[&path, "File too large", "rotate the file", "ulimit -f"]);
        }
        let line = format!("run --listen 127.0.0.1:0 --latency-log {path}.hlog");
        Outcome::of(&mut limited("-f 0", &deadpeer(&line)))
            .assert_refusal(1, &[&path, "latency log", "File too large"]);
        let _ = std::fs::remove_file(&path);
        std::fs::remove_file(path + ".hlog").unwrap();
    }
}

#[test]
fn a_latency_log_that_grows_beyond_the_limit_on_file_sizes_is_reported_and_nothing_else_ends() {
    let path = format!("{}/limited-{}.hlog", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let line = format!(
        "run --listen 127.0.0.1:0 --threads 1 --latency-log {path} --latency-interval 100ms --events -"
    );
    let mut command = limited("-f 2", &deadpeer(&line));
    command.stderr(Stdio::piped());
    let mut daemon = Daemon::of(command);
    let mut said = String::new();
    BufReader::new(daemon.child.0.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("takes no more: File too large; raise the limit"), "{said}");
    daemon.child.signal("-TERM");
    daemon.wait_for("summary");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_thread_that_ends_before_the_program_ends_it_with_a_message() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let beat = format!("beat {}", listener.local_addr().unwrap());
    for line in ["run --listen 127.0.0.1:0", "proxy --listen 127.0.0.1:0 --upstream 127.0.0.1:1", &beat] {
        // The thread that waits for signals reads them from a socket.
        let Some(mut command) = without(libc::SYS_recvfrom, libc::EPERM, line) else { return };
        let outcome = Outcome::after(Killed(command.spawn().unwrap()));
        let said = outcome.stderr.contains("the thread `signals` ended before the program did");
        assert!(outcome.code == Some(1) && said, "{outcome:#?}");
    }
}

/// A classic BPF program (`struct sock_filter`, seccomp(2)) that answers one system call with an errno and lets all
/// others pass.
fn forbid(call: libc::c_long, errno: i32) -> Vec<u8> {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let call = u32::try_from(call).unwrap();
    let answer = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    let program: [(u16, u8, u8, u32); 4] = [
        (LOAD_WORD, 0, 0, 0), // the number of the system call
        (JUMP_IF_EQUAL, 0, 1, call),
        (RETURN, 0, 0, answer),
        (RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let bytes = |&(code, yes, no, k): &(u16, u8, u8, u32)| {
        [&code.to_ne_bytes()[..], &[yes, no], &k.to_ne_bytes()].concat()
    };
    program.iter().flat_map(bytes).collect()
}

/// `deadpeer` where a seccomp filter answers `io_uring_setup` with this errno; `None` as [`sandboxed`].
pub fn without_io_uring(errno: i32, line: &str) -> Option<Command> {
    without(libc::SYS_io_uring_setup, errno, line)
}

/// `deadpeer` where a seccomp filter answers a system call with this errno; `None` as [`sandboxed`].
fn without(call: libc::c_long, errno: i32, line: &str) -> Option<Command> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = format!("{}/{}-{number}.bpf", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    // The filter comes in by standard input, the one descriptor that needs no arranging.
    let mut command = sandboxed(&["--seccomp", "0"], line)?;
    std::fs::write(&path, forbid(call, errno)).unwrap();
    command.stdin(File::open(&path).unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    std::fs::remove_file(&path).unwrap();
    Some(command)
}

#[test]
fn forbidden_io_uring_is_refused_with_its_own_code_and_what_to_type() {
    for (code, errno, words) in [
        (77, libc::EPERM, ["Operation not permitted", "kernel.io_uring_disabled=0", "seccomp profile"]),
        (
            71,
            libc::ENOSYS,
            ["Function not implemented", "Docker, containerd and Podman", "Linux 6.1 or newer"],
        ),
    ] {
        for line in
            ["run --listen 127.0.0.1:0", "proxy --listen 127.0.0.1:0 --upstream 127.0.0.1:1 --events -"]
        {
            let Some(mut command) = without_io_uring(errno, &format!("{line} --io uring")) else { return };
            let outcome = Outcome::after(Killed(command.spawn().unwrap()));
            let start = ["cannot set up io_uring", "io_uring_setup", "until then it runs with --io epoll"];
            outcome.assert_refusal(code, &[&start[..], &words].concat());
        }
    }
}

/// The events that a child writes to its standard output, one a call.
pub fn events(child: &mut Killed) -> impl FnMut() -> Value + use<> {
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    move || serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap()
}

/// The first event of a child that got no ring, and a function that returns the next ones.
fn on_epoll(child: &mut Killed, reason: &str) -> (Value, impl FnMut() -> Value + use<>) {
    let mut next = events(child);
    let listening = next();
    assert_eq!((&listening["engine"], &listening["features"]), (&"epoll".into(), &"".into()));
    let why_not = listening["why_not"].as_str().unwrap();
    assert!(why_not.contains("io_uring_setup") && why_not.contains(reason), "{why_not}");
    (listening, next)
}

const FORBIDDEN_OR_HIDDEN: [(i32, &str); 2] =
    [(libc::EPERM, "kernel.io_uring_disabled=0"), (libc::ENOSYS, "Linux 6.1 or newer")];

/// Where the ring is forbidden the default runs all the same, says why it is no better, and misses nothing.
#[test]
fn where_io_uring_is_forbidden_the_default_runs_on_epoll_and_says_why() {
    for (errno, reason) in FORBIDDEN_OR_HIDDEN {
        let Some(mut command) = without_io_uring(errno, "run --listen 127.0.0.1:0 --events -") else {
            return;
        };
        let mut child = Killed(command.spawn().unwrap());
        let (listening, mut next) = on_epoll(&mut child, reason);
        let address: SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
        let closing = TcpStream::connect(address).unwrap();
        assert_eq!(next()["event"], "up");
        drop(closing);
        assert_eq!(next()["cause"], "closed");
        let resetting = TcpStream::connect(address).unwrap();
        assert_eq!(next()["event"], "up");
        socket2::SockRef::from(&resetting).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(resetting);
        assert_eq!(next()["cause"], "aborted");
    }
}

#[test]
fn where_io_uring_is_forbidden_the_proxy_serves_on_epoll_and_reports_clients_that_left() {
    for (errno, reason) in FORBIDDEN_OR_HIDDEN {
        for io in ["", "--io auto"] {
            let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
            let behind = upstream.local_addr().unwrap();
            let line = format!("proxy --listen 127.0.0.1:0 --upstream {behind} --events - {io}");
            let Some(mut command) = without_io_uring(errno, &line) else { return };
            let mut child = Killed(command.spawn().unwrap());
            let (listening, next) = on_epoll(&mut child, reason);
            let address: SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
            let ask = || {
                let mut client = TcpStream::connect(address).unwrap();
                client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
                let mut server = upstream.accept().unwrap().0;
                assert!(server.read(&mut [0; 512]).unwrap() > 0);
                (client, server)
            };
            let (mut client, mut server) = ask();
            server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n42").unwrap();
            let mut response = [0; 40];
            client.read_exact(&mut response).unwrap();
            assert!(response.ends_with(b"\r\n\r\n42"), "{}", String::from_utf8_lossy(&response));
            drop((client, server));
            let (client, mut server) = ask();
            socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(client);
            assert_eq!(server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            let interrupted = std::iter::repeat_with(next).find(|event| event["event"] == "interrupted");
            assert_eq!(interrupted.unwrap()["cause"], "aborted");
        }
    }
}

#[test]
fn locked_memory_that_runs_out_is_refused_with_the_limit_that_it_is_about() {
    let line = "run --io uring --listen 127.0.0.1:0 --threads 4 --events -";
    let Some(command) = sandboxed(&["--cap-drop", "CAP_IPC_LOCK"], line) else { return };
    // Before Linux 6.14 a ring's memory was not counted, so there is nothing to run out of.
    if !counts_locked_memory() {
        return println!("the memory of rings is not counted by this kernel");
    }
    let words =
        ["set up io_uring", "Cannot allocate memory", "`ulimit -l`", "LimitMEMLOCK=", "fewer --threads"];
    Outcome::of(&mut limited("-l 1024", &command)).assert_refusal(1, &words);

    // By default those threads that find none take epoll, and the first line says of how many.
    let line = "run --listen 127.0.0.1:0 --threads 4 --events -";
    let Some(command) = sandboxed(&["--cap-drop", "CAP_IPC_LOCK"], line) else { return };
    let child = limited("-l 1024", &command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = Killed(child.unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let listening: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(listening["engine"], "epoll");
    let why_not = listening["why_not"].as_str().unwrap();
    assert!(why_not.contains("Cannot allocate memory") && why_not.contains("`ulimit -l`"), "{why_not}");
}

fn counts_locked_memory() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(14))
}

#[test]
fn an_output_that_is_full_is_a_failure_and_says_so() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let words = ["cannot write", "No space left on device", "free some space"];
    outcome("run --listen 127.0.0.1:0 --events /dev/full")
        .assert_refusal(1, &[&words[..], &["/dev/full", "--events"]].concat());
    for line in ["run --listen 127.0.0.1:0", "run --listen 127.0.0.1:0 --events -"] {
        let child = deadpeer(line).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
        let outcome = Outcome::after(Killed(child));
        outcome.assert_refusal(1, &[&words[..], &["standard output"]].concat());
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = format!("beat {} --for 1ms", listener.local_addr().unwrap());
    let child = deadpeer(&line).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
    let outcome = Outcome::after(Killed(child));
    outcome.assert_refusal(1, &["cannot write the totals", "No space left on device", "elsewhere"]);
}
