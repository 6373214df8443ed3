//! How the daemon ends when it is told to.

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::daemon::{Daemon, Killed};
use crate::outcome::{Outcome, deadpeer, end, until};
use crate::output::Stuck;

#[test]
fn the_first_signal_ends_in_order_with_a_summary() {
    for signal in ["-TERM", "-INT"] {
        let mut command = deadpeer("run --listen 127.0.0.1:0 --events - --batch-window 100ms");
        command.stderr(Stdio::piped());
        let mut daemon = Daemon::of(command);
        let peer = TcpStream::connect(daemon.address).unwrap();
        daemon.wait_for("up");
        daemon.child.signal(signal);
        let summary = daemon.wait_for("summary");
        assert_eq!((&summary["opened"], &summary["open"]), (&1.into(), &1.into()), "{summary:#}");
        assert_eq!(daemon.seen.last(), Some(&summary));
        Outcome::after(daemon.child).assert_quiet_success();
        drop(peer);
    }
}

#[test]
fn a_second_signal_ends_at_once_what_a_stuck_output_holds_up() {
    let stuck = Stuck::start();
    // Both are there before the daemon can take the first: it goes on with two to take.
    stuck.child.signal("-STOP");
    stuck.child.signal("-TERM");
    stuck.child.signal("-INT");
    stuck.child.signal("-CONT");
    let outcome = Outcome::after(stuck.child);
    let code = outcome.code.expect("it exits, and is not killed");
    assert!(code == 128 + libc::SIGTERM || code == 128 + libc::SIGINT, "{outcome:#?}");
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_signal_ends_a_start_that_waits_for_the_reader_of_a_fifo() {
    let path = format!("{}/fifo-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let child = deadpeer(&format!("run --listen 127.0.0.1:0 --events {path}")).spawn().unwrap();
    let mut child = Killed(child);
    until("it waits in open(2), its listeners made", || waits_for_a_reader(child.0.id()));
    child.signal("-TERM");
    let status = end(&mut child);
    assert_eq!(status.signal(), Some(libc::SIGTERM), "{status}");
    std::fs::remove_file(&path).unwrap();
}

fn waits_for_a_reader(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    call.starts_with(&format!("{} ", libc::SYS_openat))
        && links.into_iter().any(|link| link.to_string_lossy().starts_with("socket:"))
}
