//! Chance that can be repeated: xorshift64*.

use std::thread;
use std::time::Duration;

use crate::peer::Peer;

pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.roll() >> 16) as usize % limit
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.roll().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }

    /// Mostly little, now and then much.
    pub fn size(&mut self, most: usize) -> usize {
        let most = if self.one_in(4) { most } else { most.min(64) };
        self.below(most + 1)
    }

    /// Sends in pieces, some of which travel alone.
    pub fn send(&mut self, peer: &mut Peer, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let most = *self.of(&[&3, &100, &1_500, &100_000]);
            let (piece, rest) = bytes.split_at((1 + self.below(most)).min(bytes.len()));
            peer.send(piece);
            bytes = rest;
            if self.one_in(8) {
                thread::park_timeout(Duration::from_micros(50));
            } else if self.one_in(2) {
                thread::yield_now();
            }
        }
    }
}
