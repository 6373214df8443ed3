//! Programs that run to their end, and what came of them.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::{Killed, PATIENCE, program};

/// What is left of a program.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Runs a command to its end, which must come by itself. What it does not send elsewhere is
    /// caught.
    pub fn of(command: &mut Command) -> Outcome {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Outcome::after(Killed(child.spawn().unwrap()))
    }

    /// Waits for the end of a child, and reads what it left in its pipes.
    pub fn after(mut child: Killed) -> Outcome {
        let stdout = child.0.stdout.take().map(read);
        let stderr = child.0.stderr.take().map(read);
        let status = end(&mut child);
        let text = |reader: Option<thread::JoinHandle<String>>| {
            reader.map_or_else(String::new, |reader| reader.join().unwrap())
        };
        Outcome { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Holds a refusal against what it must say: the code, and on standard error the cause and the
    /// cure in words for people.
    #[track_caller]
    pub fn assert_refusal(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.stdout, "", "a refusal is no output");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is not in: {}", self.stderr);
        }
        assert!(self.stderr.ends_with('\n'), "{self:#?}");
        for noise in ["panicked", "os error", "Some(", "RUST_BACKTRACE"] {
            assert!(!self.stderr.contains(noise), "`{noise}` is not for people: {}", self.stderr);
        }
    }

    /// Holds an orderly end against what it must not say.
    #[track_caller]
    pub fn assert_quiet_success(&self) {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:#?}");
    }
}

fn read(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    })
}

/// `deadpeer` with the words of a line as its arguments.
pub fn deadpeer(line: &str) -> Command {
    let mut command = program(None);
    command.args(line.split_whitespace());
    command
}

/// What a line of words leads to.
pub fn outcome(line: &str) -> Outcome {
    Outcome::of(&mut deadpeer(line))
}

/// Waits for the end of a child.
#[track_caller]
pub fn end(child: &mut Killed) -> ExitStatus {
    let mut status = None;
    until("the end of a child", || {
        status = child.0.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Waits until something holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let late = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < late, "not within {PATIENCE:?}: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// An address where no program listens. The kernel gives its port to no other test; one that names it can listen there.
pub fn nobody() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}
