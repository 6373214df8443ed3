//! The log of deaths: those whose events were not taken, and the last ones whose events were.
//!
//! The former are in a slab, whose free places are used again; the latter in a ring of as many as are kept. All of this
//! memory is touched before the first death: a death that is the first in its page waits for the kernel.

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use slab::Slab;

use crate::limits;
use crate::liveness::event::{Death, Proof, Transport};
use crate::liveness::fact::Evidence;
use crate::liveness::peer::PeerId;
use crate::liveness::state::Cause;
use crate::time::Instant;

pub(super) struct DeathLog {
    /// The number of deaths to keep after their events were taken.
    most: usize,
    /// The deaths whose events wait, each with its number.
    waiting: Slab<(u64, Death)>,
    /// The number of deaths so far.
    count: u64,
    /// The deaths whose events were taken, oldest first.
    told: VecDeque<Death>,
}

impl DeathLog {
    /// Room for `most` deaths whose events were taken and for `waiting` whose events were not. The memory of the former,
    /// and of the visits of one turn, is touched.
    pub(super) fn with_capacity(most: usize, waiting: usize) -> DeathLog {
        let mut log = DeathLog {
            most,
            waiting: Slab::with_capacity(waiting),
            count: 0,
            told: VecDeque::with_capacity(most),
        };
        for _ in 0..waiting.min(limits::MAX_VISITS_PER_TURN) {
            log.waiting.insert((0, nobody()));
        }
        log.waiting.clear();
        log.told.resize(most, nobody());
        log.told.clear();
        log
    }

    /// Adds a death and returns its place.
    pub(super) fn push(&mut self, death: Death) -> usize {
        self.count += 1;
        self.waiting.insert((self.count, death))
    }

    /// Takes the death in a place for its event, and drops the oldest one beyond `most`.
    pub(super) fn tell(&mut self, place: usize) -> Death {
        let (_, death) = self.waiting.try_remove(place).expect("a death is told once");
        if self.told.len() == self.most {
            self.told.pop_front();
        }
        if self.most > 0 {
            self.told.push_back(death);
        }
        death
    }

    /// Oldest first: the deaths whose events were taken, then those that wait.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Death> {
        let mut waiting: Vec<_> = self.waiting.iter().map(|(_, numbered)| numbered).collect();
        waiting.sort_unstable_by_key(|(number, _)| *number);
        self.told.iter().chain(waiting.into_iter().map(|(_, death)| death))
    }
}

impl fmt::Debug for DeathLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A death that fills memory which is only to be touched.
fn nobody() -> Death {
    Death {
        peer: PeerId::new(0, 0),
        address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        local: 0,
        cause: Cause::Closed,
        proof: Proof {
            errno: None,
            frame: None,
            bye: false,
            evidence: Evidence::default(),
            last_life: Instant::ZERO,
            transport: Transport::Unasked,
            outage: false,
        },
        accepted_at: Instant::ZERO,
        at: Instant::ZERO,
        deadline: None,
        bytes: 0,
        history: [None; limits::HISTORY],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(bytes: u64) -> Death {
        Death { bytes, ..nobody() }
    }

    fn numbers(log: &DeathLog) -> Vec<u64> {
        log.iter().map(|death| death.bytes).collect()
    }

    #[test]
    fn ten_thousand_are_less_than_three_megabytes() {
        let places = limits::MAX_DEAD_KEPT + limits::MAX_VISITS_PER_TURN;
        assert!(places * size_of::<(u64, Death)>() < 3_000_000, "{} bytes each", size_of::<(u64, Death)>());
    }

    #[test]
    fn places_are_used_again_so_that_memory_is_for_those_that_are_kept() {
        let mut log = DeathLog::with_capacity(3, 100);
        let mut highest = 0;
        for number in 0..1_000 {
            let place = log.push(dead(number));
            highest = highest.max(place);
            assert_eq!(log.tell(place).bytes, number);
            assert_eq!(numbers(&log), (number.saturating_sub(2)..=number).collect::<Vec<_>>());
        }
        assert_eq!(highest, 0, "only one waits at a time");
    }

    /// Page faults of this thread that needed no disk.
    fn faults() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(7).unwrap().parse().unwrap()
    }

    #[test]
    fn no_death_waits_for_a_page() {
        let mut log = DeathLog::with_capacity(limits::MAX_DEAD_KEPT, 1 << 20);
        let before = faults();
        for number in 0..30_000 {
            let place = log.push(dead(number));
            log.tell(place);
        }
        // Some are of the reading itself; a new page for every sixteenth would be 625.
        assert!(faults() - before < 50, "{} faults", faults() - before);
    }

    /// Against two queues, in random orders of taking: never more than were promised, however many wait.
    #[test]
    fn deaths_that_wait_are_kept_and_hold_no_others_back() {
        let mut rng = fastrand::Rng::with_seed(7);
        for most in [0, 1, 2, 5] {
            let mut log = DeathLog::with_capacity(most, 8);
            let room = (log.waiting.capacity(), log.told.capacity());
            let (mut waiting, mut told) = (Vec::new(), VecDeque::new());
            for number in 0..2_000 {
                if waiting.len() < 8 && rng.bool() {
                    waiting.push((number, log.push(dead(number))));
                } else if !waiting.is_empty() {
                    let (number, place) = waiting.remove(rng.usize(..waiting.len()));
                    assert_eq!(log.tell(place).bytes, number);
                    told.push_back(number);
                    if told.len() > most {
                        told.pop_front();
                    }
                }
                let mut expected: Vec<u64> =
                    told.iter().copied().chain(waiting.iter().map(|death| death.0)).collect();
                assert_eq!(numbers(&log), expected);
                expected.reverse();
                let backwards: Vec<u64> = log.iter().rev().map(|death| death.bytes).collect();
                assert_eq!(backwards, expected);
                assert_eq!((log.waiting.capacity(), log.told.capacity()), room, "it grew");
            }
        }
    }

    #[test]
    #[should_panic(expected = "told once")]
    fn no_death_is_told_twice() {
        let mut log = DeathLog::with_capacity(2, 2);
        let place = log.push(dead(1));
        log.tell(place);
        log.tell(place);
    }
}
