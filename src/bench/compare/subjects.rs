//! Who is compared: deadpeer in its modes, and the yardsticks.

use std::io;
use std::process::Command;

use crate::bench::role_command;
use crate::bench::yardsticks::YardstickPlan;
use crate::bench::yardsticks::floor::{FloorPlan, FloorWake};
use crate::measure::result::Subject;

/// What can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Yardstick {
    /// An edge-triggered epoll loop, without and with a low-water mark.
    Epoll,
    /// A task for each connection on tokio.
    Tokio,
    /// A task for each connection on tokio-uring.
    TokioUring,
    /// A bare ring loop that judges nothing, in both ways of waking.
    Floor,
}

/// How a subject is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// `deadpeer run` with these arguments.
    Deadpeer(&'static [&'static str]),
    /// Without and with its low-water mark.
    Epoll(Option<u32>),
    Tokio,
    TokioUring,
    FloorLazy,
    FloorBeat,
    /// No row of its own: what the kernel's memory is counted above.
    Hold,
}

/// A row of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: &'static str,
    start: Start,
    what: &'static str,
    gives_up: &'static str,
}

/// The low-water mark that deadpeer takes by default.
pub(super) const UNREAD: u32 = 1_024;
/// Silence until the verdict, for all of them: that of `--policy standard`.
const IDLE_MS: u64 = 32_000;
/// In lazy mode a peer is visited once in about this time under the standard policy.
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
        what: "The same loop with deadpeer's idea: SO_RCVLOWAT of 1,024 bytes, TCP_INFO for who could be overdue.",
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

const FLOOR: [Row; 2] = [
    Row {
        name: "floor",
        start: Start::FloorLazy,
        what: "A bare ring loop with deadpeer's system calls and operations, in rounds of a set period.",
        gives_up: "Judges nothing and tells nothing: what no deadpeer can do without.",
    },
    Row {
        name: "floor --wake beat",
        start: Start::FloorBeat,
        what: "The same, woken by each beat, with one recv for eight of them and a batch window of 500 us.",
        gives_up: "Judges nothing and tells nothing.",
    },
];

pub(super) const HOLD: Row = Row { name: "hold", start: Start::Hold, what: "", gives_up: "" };

/// The rows: ours always, the yardsticks as asked for; of these only the named ones, when names are given.
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

    /// Whether it tells of deaths.
    pub(super) fn judges(&self) -> bool {
        !matches!(self.start, Start::FloorLazy | Start::FloorBeat | Start::Hold)
    }

    /// Whether it notices deaths at all.
    pub(super) fn buries(&self) -> bool {
        self.start != Start::Hold
    }

    /// At how many unread bytes it wakes.
    pub(super) fn mark(&self) -> u64 {
        let Start::Deadpeer(["--unread", mark]) = self.start else { return UNREAD.into() };
        mark.parse().expect("a number, as written above")
    }

    /// Whether it looks at quiet peers only now and then, so that a short window may not show it.
    pub(super) fn visits_late(&self) -> bool {
        matches!(self.start, Start::FloorLazy | Start::Epoll(Some(_)))
            || (self.is_ours() && self.start != Start::Deadpeer(&["--wake", "beat"]))
    }

    /// The command that starts it, for connections that send so many bytes a second each.
    pub(super) fn command(&self, bytes_per_second: f64) -> io::Result<Command> {
        let yardstick = |unread| YardstickPlan { idle_ms: IDLE_MS, unread };
        match self.start {
            Start::Deadpeer(arguments) => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["run", "--listen", "127.0.0.1:0", "--events", "-", "--threads", "1"]);
                // Nobody may be judged for having had nothing to say: the idle part is about that.
                command.args(["--handshake", "10m"]).args(arguments);
                Ok(command)
            }
            Start::Epoll(unread) => role_command("epoll", &yardstick(unread)),
            Start::Tokio => role_command("tokio", &yardstick(None)),
            Start::TokioUring => role_command("tokio-uring", &yardstick(None)),
            Start::Hold => role_command("hold", &yardstick(None)),
            Start::FloorLazy => role_command("floor", &FloorPlan { wake: lazy_floor(bytes_per_second) }),
            Start::FloorBeat => {
                role_command("floor", &FloorPlan { wake: FloorWake::Beat { drain_every: 8, window_us: 500 } })
            }
        }
    }
}

/// It knows the load beforehand, where deadpeer has to find out: each connection is drained at three quarters
/// of the mark.
fn lazy_floor(bytes_per_second: f64) -> FloorWake {
    let drain_ms = (f64::from(UNREAD) * 0.75 * 1e3 / bytes_per_second).max(1.0);
    let drain_ms = (bytes_per_second > 0.0).then_some(drain_ms as u64);
    // Whoever was drained lives, and need not be looked at.
    let visits_ms = VISITS_NS / 1_000_000;
    let inspect_ms = drain_ms.is_some_and(|drain_ms| drain_ms > visits_ms).then_some(visits_ms);
    FloorWake::Lazy { unread: UNREAD, drain_ms, inspect_ms }
}
