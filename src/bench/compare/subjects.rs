//! The subjects of a comparison: deadpeer in its modes, and the yardsticks.

use std::io;
use std::process::Command;

use crate::bench::role_command;
use crate::bench::yardsticks::YardstickPlan;
use crate::bench::yardsticks::floor::{FloorPlan, FloorWake};
use crate::measure::result::Subject;

/// The servers to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Yardstick {
    /// A task for each connection on tokio.
    Tokio,
    /// A task for each connection on tokio-uring.
    TokioUring,
    /// An edge-triggered epoll loop, without and with a low-water mark.
    Epoll,
    /// Loops with a deadpeer's system calls and no judgement: on a ring in both ways of waking, and on a ring and on
    /// epoll with a proof written for each death.
    Floor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// `deadpeer run` with these arguments.
    Deadpeer(&'static [&'static str]),
    /// With this low-water mark.
    Epoll(Option<u32>),
    EpollProofs,
    Tokio,
    TokioUring,
    FloorLazy,
    FloorBeat,
    FloorProofs,
    /// No row of the result: kernel memory is counted above that of this server.
    Hold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: &'static str,
    start: Start,
    what: &'static str,
    gives_up: &'static str,
}

/// Deadpeer's default low-water mark, in bytes.
pub(super) const UNREAD: u32 = 1_024;
/// The silence after which every subject judges a peer dead: that of `--policy standard`.
const IDLE_MS: u64 = 32_000;
/// About the time between two visits of a peer in lazy mode, under the standard policy.
pub(super) const VISITS_NS: u64 = 30_000_000_000;

const UNREAD_LIES: &str =
    "Bytes are read when the mark is reached or shortly before; until then they lie in kernel memory.";
const READ_AT_ONCE: &str = "Nothing lies unread; each beat is a wake-up.";

const OURS: [Row; 8] = [
    Row {
        name: "deadpeer",
        start: Start::Deadpeer(&[]),
        what: "As it comes: lazy wake, low-water mark of 1,024 bytes, batch window of 0.",
        gives_up: UNREAD_LIES,
    },
    Row {
        name: "deadpeer --wake beat",
        start: Start::Deadpeer(&["--wake", "beat"]),
        what: "Each beat is noticed as it comes, batches are waited for up to 500 us.",
        gives_up: "Bytes are read at every eighth beat, and a verdict may wait 500 us for its batch.",
    },
    Row {
        name: "deadpeer --batch-window 100us",
        start: Start::Deadpeer(&["--batch-window", "100us"]),
        what: "Lazy, and once there is a completion others are waited for up to 100 us.",
        gives_up: "As deadpeer, and a verdict may wait 100 us.",
    },
    Row {
        name: "deadpeer --batch-window 1ms",
        start: Start::Deadpeer(&["--batch-window", "1ms"]),
        what: "Lazy, and once there is a completion others are waited for up to 1 ms.",
        gives_up: "As deadpeer, and a verdict may wait 1 ms.",
    },
    Row {
        name: "deadpeer --unread 256",
        start: Start::Deadpeer(&["--unread", "256"]),
        what: "Lazy with a quarter of the default low-water mark.",
        gives_up: "As deadpeer, with less lying unread and four times the reads.",
    },
    Row {
        name: "deadpeer --unread 4096",
        start: Start::Deadpeer(&["--unread", "4096"]),
        what: "Lazy with four times the default low-water mark.",
        gives_up: "As deadpeer, with four times as much lying unread.",
    },
    Row {
        name: "deadpeer --io epoll",
        start: Start::Deadpeer(&["--io", "epoll"]),
        what: "Lazy, on epoll, as where io_uring is forbidden.",
        gives_up: "As deadpeer, and a system call for each look at a socket's bytes.",
    },
    Row {
        name: "deadpeer --io tokio-uring",
        start: Start::Deadpeer(&["--io", "tokio-uring"]),
        what: "Lazy, on a ring that the tokio-uring runtime waits for: the tracker as a program of that runtime hosts it.",
        gives_up: "As deadpeer, and each wake goes through the runtime: its ring, its epoll, its eventfd.",
    },
];

const EPOLL: [Row; 2] = [
    Row {
        name: "epoll",
        start: Start::Epoll(None),
        what: "An edge-triggered loop: a recv at each wake, a sweep for the silent once a second.",
        gives_up: READ_AT_ONCE,
    },
    Row {
        name: "epoll with low-water mark",
        start: Start::Epoll(Some(UNREAD)),
        what: "The same loop with deadpeer's idea: SO_RCVLOWAT of 1,024 bytes, TCP_INFO of peers that could be overdue.",
        gives_up: "Bytes are read when the mark is reached; until then they lie in kernel memory.",
    },
];

const TOKIO: Row = Row {
    name: "tokio",
    start: Start::Tokio,
    what: "A task for each connection on a current-thread runtime, an idle deadline around its read.",
    gives_up: READ_AT_ONCE,
};

const TOKIO_URING: Row = Row {
    name: "tokio-uring",
    start: Start::TokioUring,
    what: "A task for each connection with one read under way, and a tokio timeout around it.",
    gives_up: "Nothing lies unread; each beat is a wake-up, and each connection owns a buffer while it waits.",
};

const FLOOR: [Row; 4] = [
    Row {
        name: "floor",
        start: Start::FloorLazy,
        what: "A bare ring loop with deadpeer's system calls and operations, in rounds of a set period.",
        gives_up: "Judges nothing and reports nothing: no deadpeer can cost less.",
    },
    Row {
        name: "floor --wake beat",
        start: Start::FloorBeat,
        what: "The same, woken by each beat, with one recv for eight of them and a batch window of 500 us.",
        gives_up: "Judges nothing and reports nothing.",
    },
    Row {
        name: "floor with proofs",
        start: Start::FloorProofs,
        what: "The bare ring loop, which also writes a line with the proof for each death.",
        gives_up: "Judges no silence.",
    },
    Row {
        name: "epoll with proofs",
        start: Start::EpollProofs,
        what: "The epoll loop, which also reads TCP_INFO at each death and writes a line with that proof.",
        gives_up: READ_AT_ONCE,
    },
];

pub(super) const HOLD: Row = Row { name: "hold", start: Start::Hold, what: "", gives_up: "" };

/// The rows: deadpeer's modes and the chosen yardsticks; only the named ones when there are names.
pub(super) fn rows(against: &[Yardstick], only: Option<&[String]>) -> io::Result<Vec<Row>> {
    let mut rows = OURS.to_vec();
    for (yardstick, its) in [
        (Yardstick::Epoll, &EPOLL[..]),
        (Yardstick::Tokio, &[TOKIO]),
        (Yardstick::TokioUring, &[TOKIO_URING]),
        (Yardstick::Floor, &FLOOR),
    ] {
        if against.contains(&yardstick) {
            rows.extend_from_slice(its);
        }
    }
    let Some(only) = only else { return Ok(rows) };
    if let Some(unknown) = only.iter().find(|name| rows.iter().all(|row| row.name != name.as_str())) {
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("no subject is called `{unknown}`; those of this comparison are: {}", names.join(", ")),
        ));
    }
    rows.retain(|row| only.iter().any(|name| name == row.name));
    Ok(rows)
}

impl Row {
    pub(super) fn subject(&self) -> Subject {
        Subject {
            name: self.name.into(),
            what: self.what.into(),
            gives_up: self.gives_up.into(),
            ours: self.is_ours(),
        }
    }

    pub(super) fn is_ours(&self) -> bool {
        matches!(self.start, Start::Deadpeer(_))
    }

    /// Whether it reports deaths.
    pub(super) fn judges(&self) -> bool {
        !matches!(self.start, Start::FloorLazy | Start::FloorBeat | Start::Hold)
    }

    /// Whether it closes dead connections.
    pub(super) fn buries(&self) -> bool {
        self.start != Start::Hold
    }

    /// The number of unread bytes at which it wakes.
    pub(super) fn mark(&self) -> u64 {
        let Start::Deadpeer(["--unread", mark]) = self.start else { return UNREAD.into() };
        mark.parse().expect("a number, as written above")
    }

    /// Whether it visits quiet peers so rarely that a short window may have no visit.
    pub(super) fn visits_late(&self) -> bool {
        matches!(self.start, Start::FloorLazy | Start::FloorProofs | Start::Epoll(Some(_)))
            || (self.is_ours() && self.start != Start::Deadpeer(&["--wake", "beat"]))
    }

    /// Whether it runs on the engine that `--io` of the bench names: a deadpeer that names none itself.
    pub(super) fn takes_io(&self) -> bool {
        matches!(self.start, Start::Deadpeer(arguments) if !arguments.contains(&"--io"))
    }

    /// The command that starts it, for connections that send `bytes_per_second` each.
    pub(super) fn command(&self, bytes_per_second: f64, io: &str) -> io::Result<Command> {
        let yardstick = |unread, proofs| YardstickPlan { idle_ms: IDLE_MS, unread, proofs };
        let floor = |wake, proofs| FloorPlan { wake, proofs };
        match self.start {
            Start::Deadpeer(arguments) => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["run", "--listen", "127.0.0.1:0", "--events", "-", "--threads", "1"]);
                // The peers of the idle part send nothing, and none of them may be judged for that.
                command.args(["--handshake", "10m"]).args(arguments);
                if self.takes_io() {
                    command.args(["--io", io]);
                }
                Ok(command)
            }
            Start::Epoll(unread) => role_command("epoll", &yardstick(unread, false)),
            Start::EpollProofs => role_command("epoll", &yardstick(None, true)),
            Start::Tokio => role_command("tokio", &yardstick(None, false)),
            Start::TokioUring => role_command("tokio-uring", &yardstick(None, false)),
            Start::Hold => role_command("hold", &yardstick(None, false)),
            Start::FloorLazy => role_command("floor", &floor(lazy_floor(bytes_per_second), false)),
            Start::FloorProofs => role_command("floor", &floor(lazy_floor(bytes_per_second), true)),
            Start::FloorBeat => {
                role_command("floor", &floor(FloorWake::Beat { drain_every: 8, window_us: 500 }, false))
            }
        }
    }
}

/// The lazy floor for a load that is known beforehand, where deadpeer has to learn it: each connection is drained at
/// three quarters of the mark.
fn lazy_floor(bytes_per_second: f64) -> FloorWake {
    let drain_ms = (f64::from(UNREAD) * 0.75 * 1e3 / bytes_per_second).max(1.0);
    let drain_ms = (bytes_per_second > 0.0).then_some(drain_ms as u64);
    // A drained connection is alive and needs no inspection.
    let visits_ms = VISITS_NS / 1_000_000;
    let inspect_ms = drain_ms.is_some_and(|drain_ms| drain_ms > visits_ms).then_some(visits_ms);
    FloorWake::Lazy { unread: UNREAD, drain_ms, inspect_ms }
}
