//! What goes wrong on our side: the ring, the loop and the sink, never the peers.

use std::time::Duration;

use fastrand::Rng;

use crate::world::TICK;

pub const MS: u64 = 1_000_000;

/// Which faults a run has, and how strong.
#[derive(Clone, Debug)]
pub struct Faults {
    /// A completion comes at most this much after what it tells.
    pub late: u64,
    /// The loop comes back at most this much after it was woken, and says nothing of it.
    pub hiccup: u64,
    /// A watch ends without `F_MORE`, of 1,000.
    pub disarmed: u32,
    /// A recv finds no buffer, of 1,000.
    pub starved: u32,
    /// A recv finds nothing, was interrupted or taken back, although there is something, of 1,000.
    pub spurious: u32,
    /// The completion queue overflows, of 10,000 turns, and is flushed at most this much later.
    pub overflow: (u32, u64),
    /// A fact about a former life comes, of 1,000 turns.
    pub stale: u32,
    /// The loop is held up, of 10,000 turns, for at most this long, and says so.
    pub stall: (u32, u64),
    /// The machine is suspended, of 10,000 turns.
    pub suspend: u32,
    /// The sink takes nothing, of 1,000 turns, for at most this long.
    pub stuck: (u32, u64),
    /// A PING does not leave, of 1,000.
    pub unsent: u32,
}

impl Faults {
    /// A machine without faults: 50 us are the cost of a system call and a wake.
    pub const NONE: Faults = Faults {
        late: MS / 20,
        hiccup: MS / 10,
        disarmed: 0,
        starved: 0,
        spurious: 0,
        overflow: (0, 0),
        stale: 0,
        stall: (0, 0),
        suspend: 0,
        stuck: (0, 0),
        unsent: 0,
    };

    /// Each fault is there or not, so that every run has its own mixture, and some have none.
    pub fn random(rng: &mut Rng, detection: Duration) -> Faults {
        let detection = detection.as_nanos() as u64;
        let mut faults = Faults::NONE;
        if rng.u8(..4) == 0 {
            return faults;
        }
        let mut roll = |one_in: u8| rng.u8(..one_in) == 0;
        if roll(3) {
            faults.late = 5 * MS;
        }
        if roll(8) {
            faults.late = 200 * MS;
        }
        if roll(3) {
            faults.hiccup = 10 * MS;
        }
        if roll(8) {
            faults.hiccup = 450 * MS;
        }
        if roll(3) {
            faults.disarmed = 100;
        }
        if roll(3) {
            faults.starved = 100;
        }
        if roll(4) {
            faults.spurious = 20;
        }
        if roll(4) {
            faults.overflow = (50, 100 * MS);
        }
        if roll(2) {
            faults.stale = 100;
        }
        if roll(3) {
            faults.stall = (20, 3 * detection);
        }
        if roll(6) {
            faults.suspend = 5;
        }
        if roll(3) {
            faults.stuck = (20, 2 * detection);
        }
        if roll(3) {
            faults.unsent = 200;
        }
        faults
    }

    /// How long a completion and the turn that it wakes may take.
    pub fn turn(&self) -> u64 {
        self.late + self.hiccup + self.overflow.1
    }

    /// How long after the fact a verdict may come that needs no time to pass: a wake, some recvs, each
    /// a completion and a turn.
    pub fn prompt(&self) -> u64 {
        let turn = self.turn();
        // A starved recv rests for a millisecond, in a tenth of the cases again.
        let starved = if self.starved > 0 { 6 * (turn + 2 * MS) } else { 0 };
        MS + 5 * turn + starved
    }

    /// How long after its deadline an expiry may come: two kernel ticks, a slot of the wheel, and what a
    /// visit takes.
    pub fn lateness(&self) -> u64 {
        2 * TICK + MS + self.prompt()
    }
}
