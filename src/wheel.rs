//! A lazy timing wheel: which keys are due, in constant time each.
//!
//! # Intuition
//!
//! A clock face with one slot a millisecond. A key is put in the slot of its deadline; as the hand passes a slot, its keys
//! come out. Inserting, removing and moving a key touch a few words, however many keys there are. The wheel is lazy: it is
//! not updated when life puts a deadline off. The key comes out too soon, and the caller, which has the real deadline,
//! schedules it again. So a heartbeat costs nothing here.
//!
//! # Model
//!
//! Time is cut into ticks of [`TICK`]. The *cursor* is the first tick not yet visited, and each of
//! the `WHEEL_SLOTS` ticks from the cursor on owns one slot. A slot is a doubly linked list through
//! one array of links, 8 bytes a key; the back link of the first key names its slot, so a key leaves
//! its list in constant time without knowing when it was due. A bitmap of the occupied slots, and one of that
//! bitmap's words, let the cursor jump over empty ones. A slot that is visited becomes the *due list* in one stroke, and
//! the cursor moves past it: what is scheduled from then on lands in a later slot, so a caller
//! that keeps scheduling the past cannot starve the keys behind.
//!
//! # Contract
//!
//! - A deadline is rounded up to a tick: within reach, a key never comes out before it.
//! - Beyond a round ([`ROUND`]) a key comes out early, once a round. The caller compares, and
//!   schedules again.
//! - A key comes out once for each time it was scheduled, in the order of the slots' times. Keys of
//!   one slot come out in any order.
//! - What is due stays due until it is taken; the caller bounds how many keys it takes in one turn.
//! - After a gap of more than a round every key is due. The wheel then forgets how long ago: the slots
//!   move forward in order, until the last is that of the present. So each key is given once however
//!   long the gap was, and one scheduled for the future meanwhile finds a slot in the future.
//! - Nothing is allocated after [`Wheel::with_capacity`], and the memory of a key that was never used
//!   is never touched.
//!
//! # Example
//!
//! ```
//! use deadpeer::time::Instant;
//! use deadpeer::wheel::Wheel;
//! use std::time::Duration;
//!
//! let start = Instant::from_nanos(5_000_000_000);
//! let mut wheel = Wheel::with_capacity(8, start);
//! wheel.schedule(3, start + Duration::from_micros(2_500));
//! assert_eq!(wheel.next_due(), Some(start + Duration::from_millis(3))); // rounded up
//! assert_eq!(wheel.expire(start + Duration::from_micros(2_999)), None);
//! assert_eq!(wheel.expire(start + Duration::from_millis(3)), Some(3));
//! assert!(wheel.is_empty());
//! ```

use std::time::Duration;

use crate::limits;
use crate::time::Instant;

#[cfg(test)]
mod tests;

/// The width of a slot, and the most by which rounding makes a deadline late.
pub const TICK: Duration = Duration::from_millis(1);

/// How far ahead the wheel reaches.
pub const ROUND: Duration = Duration::from_nanos(SLOTS as u64 * TICK_NANOS);

const TICK_NANOS: u64 = TICK.as_nanos() as u64;
const SLOTS: usize = limits::WHEEL_SLOTS;

/// The list after the last slot: keys whose slot was visited and that were not taken yet.
const DUE: usize = SLOTS;

/// The end of a list, and the head of an empty one.
const NIL: u32 = u32::MAX;

/// Set in the back link of a first key; the other bits are the list that it heads.
const HEADS: u32 = 1 << 31;

/// The back link of a key that is in no list: no list has this number.
const UNLINKED: u32 = u32::MAX;

const BITS: usize = u64::BITS as usize;

/// The words of the bitmap of slots.
const WORDS: usize = SLOTS / BITS;

const _: () = assert!(TICK.as_nanos() > 0);
const _: () = assert!(WORDS.is_multiple_of(BITS));
const _: () = assert!(limits::MAX_PEERS <= HEADS as usize);
const _: () = assert!((DUE as u32 | HEADS) < UNLINKED);

/// Both links of a key, side by side, so that a key is one cache line. An array of each was slower
/// by 9 % in moving and 4 % in expiring a million random keys (medians of five, a noisy machine): the
/// two misses overlap.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// The key before this one, or [`HEADS`] and a list, or [`UNLINKED`].
    prev: u32,
    /// The key after this one, or [`NIL`].
    next: u32,
}

const FREE: Link = Link { prev: UNLINKED, next: NIL };

/// A single-level timing wheel over the keys of a slab. See the [module](self).
#[derive(Debug)]
pub struct Wheel {
    /// By key; grows to the greatest key that was ever scheduled, within its capacity.
    links: Vec<Link>,
    /// What the links may grow to; `Vec::capacity` may promise more.
    keys: usize,
    /// The first key of each slot's list, then of the due list.
    heads: Vec<u32>,
    /// One bit a slot.
    occupied: Vec<u64>,
    /// One bit a word of `occupied`: set if the word is not 0.
    words: [u64; WORDS / BITS],
    /// The first tick not yet visited. Every key is in a tick of `cursor..cursor + SLOTS` or due.
    cursor: u64,
    /// Ticks jumped over in long gaps: slot 0 is that of this tick, and of each a round later.
    skipped: u64,
    /// The tick whose slot became the due list.
    due: u64,
    /// Keys in any list.
    len: usize,
}

impl Wheel {
    /// A wheel for keys below `keys`, whose hand stands at `now`. Panics when `keys` is more than
    /// [`limits::MAX_PEERS`].
    #[must_use]
    pub fn with_capacity(keys: usize, now: Instant) -> Wheel {
        assert!(keys <= limits::MAX_PEERS, "{keys} keys are more than MAX_PEERS");
        Wheel {
            links: Vec::with_capacity(keys),
            keys,
            heads: vec![NIL; SLOTS + 1],
            occupied: vec![0; WORDS],
            words: [0; WORDS / BITS],
            cursor: now.as_nanos() / TICK_NANOS,
            skipped: 0,
            due: 0,
            len: 0,
        }
    }

    /// Schedules `key` for `at`, rounded up to a tick; a key that is scheduled already is moved.
    ///
    /// A deadline in the past is due at the first tick that was not visited yet. One beyond reach comes out early, at
    /// the last tick of the round. Panics when `key` is not below the capacity.
    pub fn schedule(&mut self, key: u32, at: Instant) {
        let index = key as usize;
        assert!(index < self.keys, "key {key} in a wheel for {}", self.keys);
        if index >= self.links.len() {
            self.links.resize(index + 1, FREE);
        } else if self.links[index].prev != UNLINKED {
            self.unlink(key);
        }
        let tick = at.as_nanos().div_ceil(TICK_NANOS);
        let tick = tick.clamp(self.cursor, self.cursor + (SLOTS as u64 - 1));
        self.link(key, self.slot(tick));
    }

    /// Removes `key`; returns whether it was scheduled.
    pub fn cancel(&mut self, key: u32) -> bool {
        let was = self.is_scheduled(key);
        if was {
            self.unlink(key);
        }
        was
    }

    /// Whether `key` is scheduled, or due and not yet taken.
    #[must_use]
    pub fn is_scheduled(&self, key: u32) -> bool {
        self.links.get(key as usize).is_some_and(|link| link.prev != UNLINKED)
    }

    /// The number of keys that are scheduled, or due and not yet taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no key is scheduled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes and returns the next key whose slot's time is not after `now`.
    ///
    /// With `None` every tick up to `now` has been visited. `now` does not run backwards between
    /// calls; if it does, nothing comes out that was not due before.
    #[must_use = "the key has left the wheel"]
    pub fn expire(&mut self, now: Instant) -> Option<u32> {
        if self.heads[DUE] == NIL && !self.visit(now.as_nanos() / TICK_NANOS) {
            return None;
        }
        let key = self.heads[DUE];
        self.unlink(key);
        Some(key)
    }

    /// The time at which [`Wheel::expire`] will next return a key: that of the earliest occupied slot, which may be in the
    /// past.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let tick = if self.is_empty() {
            return None;
        } else if self.heads[DUE] != NIL {
            self.due
        } else {
            self.cursor + self.next_occupied(SLOTS)?
        };
        Some(Instant::from_nanos(tick.saturating_mul(TICK_NANOS)))
    }

    /// Makes the next occupied slot up to the tick `reached` the due list, which is empty, and moves
    /// the cursor past it; without one, past `reached`. Says whether there was one.
    fn visit(&mut self, reached: u64) -> bool {
        if reached < self.cursor {
            return false;
        }
        let behind = reached - self.cursor + 1;
        let lost = behind.saturating_sub(SLOTS as u64);
        self.cursor += lost;
        self.skipped += lost;

        let Some(distance) = self.next_occupied((behind - lost) as usize) else {
            self.cursor = reached + 1;
            return false;
        };
        self.due = self.cursor + distance;
        self.cursor = self.due + 1;
        let slot = self.slot(self.due);
        let first = self.heads[slot];
        assert!(first != NIL, "the bitmap calls slot {slot} occupied");
        self.heads[slot] = NIL;
        self.vacate(slot);
        self.heads[DUE] = first;
        self.links[first as usize].prev = HEADS | DUE as u32;
        true
    }

    /// How far after the cursor the first occupied slot is, among the next `reach` slots.
    fn next_occupied(&self, reach: usize) -> Option<u64> {
        debug_assert!(reach <= SLOTS);
        let from = self.slot(self.cursor);
        let (word, bit) = (from / BITS, from % BITS);
        let here = self.occupied[word] >> bit;
        let distance = if here != 0 {
            here.trailing_zeros() as usize
        } else {
            // The last word may be the first again, whose lower slots end the round.
            let next = self.next_word((word + 1) % WORDS)?;
            let words = if next > word { next - word } else { next + WORDS - word };
            words * BITS - bit + self.occupied[next].trailing_zeros() as usize
        };
        (distance < reach).then_some(distance as u64)
    }

    /// The first word of the bitmap that is not 0, from the word `from` on and around.
    fn next_word(&self, from: usize) -> Option<usize> {
        let (group, bit) = (from / BITS, from % BITS);
        let here = self.words[group] >> bit;
        if here != 0 {
            return Some(from + here.trailing_zeros() as usize);
        }
        let groups = self.words.len();
        let next = (1..=groups).map(|step| (group + step) % groups).find(|&group| self.words[group] != 0)?;
        Some(next * BITS + self.words[next].trailing_zeros() as usize)
    }

    /// Notes that the list of `slot` is empty.
    fn vacate(&mut self, slot: usize) {
        let word = slot / BITS;
        self.occupied[word] &= !(1 << (slot % BITS));
        if self.occupied[word] == 0 {
            self.words[word / BITS] &= !(1 << (word % BITS));
        }
    }

    fn slot(&self, tick: u64) -> usize {
        (tick - self.skipped) as usize % SLOTS
    }

    /// Puts a key that is in no list at the head of the list of `slot`.
    fn link(&mut self, key: u32, slot: usize) {
        let next = self.heads[slot];
        if next == NIL {
            let word = slot / BITS;
            self.occupied[word] |= 1 << (slot % BITS);
            self.words[word / BITS] |= 1 << (word % BITS);
        } else {
            self.links[next as usize].prev = key;
        }
        self.heads[slot] = key;
        self.links[key as usize] = Link { prev: HEADS | slot as u32, next };
        self.len += 1;
    }

    /// Takes a key out of the list that it is in.
    fn unlink(&mut self, key: u32) {
        let Link { prev, next } = self.links[key as usize];
        assert!(prev != UNLINKED, "key {key} is in no list");
        if prev & HEADS == 0 {
            self.links[prev as usize].next = next;
        } else {
            let list = (prev & !HEADS) as usize;
            assert!(self.heads[list] == key, "key {key} heads list {list}");
            self.heads[list] = next;
            if next == NIL && list != DUE {
                self.vacate(list);
            }
        }
        if next != NIL {
            self.links[next as usize].prev = prev;
        }
        self.links[key as usize] = FREE;
        self.len -= 1;
    }
}
