//! The log of deaths: those whose events were not taken, and the last ones whose events were.
//!
//! The entries are in one slab, in two linked lists: the waiting ones in the order of the deaths, the taken ones in the
//! order of the taking. A place that becomes free is the next to be used, so the log uses the same memory over and over.
//! That memory is touched before the first death: a death that is the first in its page waits for the kernel.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use slab::Slab;

use crate::limits;
use crate::liveness::event::{Death, Proof, Transport};
use crate::liveness::fact::Evidence;
use crate::liveness::peer::PeerId;
use crate::liveness::state::Cause;
use crate::time::Instant;

/// No place, which is the end of a list.
const NOWHERE: u32 = u32::MAX;

pub(super) struct DeathLog {
    /// The number of deaths to keep after their events were taken.
    most: usize,
    kept: Slab<DeathEntry>,
    waiting: List,
    told: List,
}

struct DeathEntry {
    death: Death,
    told: bool,
    before: u32,
    behind: u32,
}

struct List {
    first: u32,
    last: u32,
    len: usize,
}

impl DeathLog {
    /// Room for `most` deaths whose events were taken and for `waiting` whose events were not. The memory of the former,
    /// and of the visits of one turn, is touched.
    pub(super) fn with_capacity(most: usize, waiting: usize) -> DeathLog {
        let mut kept = Slab::with_capacity(most + waiting);
        for _ in 0..most + waiting.min(limits::MAX_VISITS_PER_TURN) {
            kept.insert(DeathEntry { death: nobody(), told: false, before: NOWHERE, behind: NOWHERE });
        }
        kept.clear();
        DeathLog { most, kept, waiting: List::EMPTY, told: List::EMPTY }
    }

    /// Adds a death and returns its place.
    pub(super) fn push(&mut self, death: Death) -> usize {
        let place = self.kept.insert(DeathEntry { death, told: false, before: NOWHERE, behind: NOWHERE });
        self.waiting.push(&mut self.kept, u32::try_from(place).expect("places of peers have 31 bits"));
        place
    }

    /// Returns the death in a place for its event, and drops the oldest one beyond `most`.
    pub(super) fn tell(&mut self, place: usize) -> Death {
        let kept = &mut self.kept[place];
        assert!(!kept.told, "a death is told once");
        kept.told = true;
        let death = kept.death;
        let place = place as u32;
        self.waiting.unlink(&mut self.kept, place);
        self.told.push(&mut self.kept, place);
        if self.told.len > self.most {
            let oldest = self.told.first;
            self.told.unlink(&mut self.kept, oldest);
            self.kept.remove(oldest as usize);
        }
        death
    }

    /// Oldest first: the deaths whose events were taken, then those that wait.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Death> {
        self.told.iter(&self.kept).chain(self.waiting.iter(&self.kept)).map(|kept| &kept.death)
    }
}

impl fmt::Debug for DeathLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deaths = |list: &List| list.iter(&self.kept).map(|kept| kept.death).collect::<Vec<_>>();
        f.debug_struct("DeathLog")
            .field("told", &deaths(&self.told))
            .field("waiting", &deaths(&self.waiting))
            .finish()
    }
}

impl List {
    const EMPTY: List = List { first: NOWHERE, last: NOWHERE, len: 0 };

    /// Appends an entry.
    fn push(&mut self, kept: &mut Slab<DeathEntry>, place: u32) {
        let new = &mut kept[place as usize];
        (new.before, new.behind) = (self.last, NOWHERE);
        match kept.get_mut(self.last as usize) {
            Some(last) => last.behind = place,
            None => self.first = place,
        }
        self.last = place;
        self.len += 1;
    }

    fn unlink(&mut self, kept: &mut Slab<DeathEntry>, place: u32) {
        let DeathEntry { before, behind, .. } = kept[place as usize];
        match kept.get_mut(before as usize) {
            Some(other) => other.behind = behind,
            None => self.first = behind,
        }
        match kept.get_mut(behind as usize) {
            Some(other) => other.before = before,
            None => self.last = before,
        }
        self.len -= 1;
    }

    fn iter<'a>(&self, kept: &'a Slab<DeathEntry>) -> Links<'a> {
        Links { kept, next: self.first, next_back: self.last, left: self.len }
    }
}

/// An iterator along a list, from both ends.
struct Links<'a> {
    kept: &'a Slab<DeathEntry>,
    next: u32,
    next_back: u32,
    left: usize,
}

impl<'a> Iterator for Links<'a> {
    type Item = &'a DeathEntry;

    fn next(&mut self) -> Option<&'a DeathEntry> {
        self.left = self.left.checked_sub(1)?;
        let kept = &self.kept[self.next as usize];
        self.next = kept.behind;
        Some(kept)
    }
}

impl DoubleEndedIterator for Links<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let kept = &self.kept[self.next_back as usize];
        self.next_back = kept.before;
        Some(kept)
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
    use std::collections::VecDeque;

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
        assert!(places * size_of::<DeathEntry>() < 3_000_000, "{} bytes each", size_of::<DeathEntry>());
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
        assert_eq!(highest, 3, "one more than are kept");
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
    fn who_waits_is_kept_and_holds_nobody_back() {
        let mut rng = fastrand::Rng::with_seed(7);
        for most in [0, 1, 2, 5] {
            let mut log = DeathLog::with_capacity(most, 8);
            let room = log.kept.capacity();
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
                    told.iter().copied().chain(waiting.iter().map(|who| who.0)).collect();
                assert_eq!(numbers(&log), expected);
                expected.reverse();
                let backwards: Vec<u64> = log.iter().rev().map(|death| death.bytes).collect();
                assert_eq!(backwards, expected);
                assert_eq!(log.kept.capacity(), room, "it grew");
            }
        }
    }

    #[test]
    #[should_panic(expected = "told once")]
    fn nobody_is_told_twice() {
        let mut log = DeathLog::with_capacity(2, 2);
        let place = log.push(dead(1));
        log.tell(place);
        log.tell(place);
    }
}
