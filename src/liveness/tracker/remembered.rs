//! The dead that are remembered, in the order of their deaths.
//!
//! A place that becomes free is the next to be taken, so that the dead of years lie where those of the first
//! hour lay: memory for as many as are kept, not for as many as could die at once. And it was touched before the
//! first of them: a death that is the first in a page of memory waits until the kernel has found one.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use slab::Slab;

use crate::limits;
use crate::liveness::event::{Death, Proof, Transport};
use crate::liveness::fact::Evidence;
use crate::liveness::peer::PeerId;
use crate::liveness::state::Cause;
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Remembered {
    /// So many are kept after they were handed over.
    most: usize,
    kept: Slab<Kept>,
    /// Their places, oldest death first.
    order: VecDeque<u32>,
}

#[derive(Debug)]
struct Kept {
    death: Death,
    handed_over: bool,
}

impl Remembered {
    /// Room for `most` that were handed over and for `waiting` that were not.
    pub(super) fn with_capacity(most: usize, waiting: usize) -> Remembered {
        Remembered {
            most,
            kept: Slab::with_capacity(most + waiting),
            order: VecDeque::with_capacity(most + waiting),
        }
    }

    /// Touches the memory of all that will be kept. Only before the first death.
    pub(super) fn warm_up(&mut self) {
        assert!(self.order.is_empty(), "somebody died before the warm-up");
        for _ in 0..self.most {
            self.kept.insert(Kept { death: nobody(), handed_over: true });
        }
        self.kept.clear();
    }

    /// Its place, by which it is handed over.
    pub(super) fn push(&mut self, death: Death) -> usize {
        let place = self.kept.insert(Kept { death, handed_over: false });
        self.order.push_back(u32::try_from(place).expect("fewer than peers and remembered dead together"));
        place
    }

    /// Hands a death over. From now on it may be forgotten.
    pub(super) fn hand_over(&mut self, place: usize) -> Death {
        let kept = &mut self.kept[place];
        assert!(!kept.handed_over, "a death is told once");
        kept.handed_over = true;
        kept.death
    }

    /// Forgets the oldest beyond the most. Nobody is forgotten who was not handed over.
    pub(super) fn forget_old(&mut self) {
        while self.order.len() > self.most
            && let Some(&oldest) = self.order.front()
            && self.kept[oldest as usize].handed_over
        {
            self.kept.remove(oldest as usize);
            self.order.pop_front();
        }
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Death> {
        self.order.iter().map(|&place| &self.kept[place as usize].death)
    }
}

/// What fills memory that is only to be touched.
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
        born: Instant::ZERO,
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

    #[test]
    fn ten_thousand_are_less_than_three_megabytes() {
        let bytes = limits::MAX_REMEMBERED_DEAD * (size_of::<Kept>() + size_of::<u32>());
        assert!(bytes < 3_000_000, "{} bytes each", size_of::<Kept>());
    }

    #[test]
    fn places_are_used_again_so_that_memory_is_for_those_that_are_kept() {
        let mut remembered = Remembered::with_capacity(3, 100);
        remembered.warm_up();
        assert_eq!(remembered.iter().count(), 0);
        let mut highest = 0;
        for number in 0..1_000 {
            let place = remembered.push(dead(number));
            highest = highest.max(place);
            assert_eq!(remembered.hand_over(place).bytes, number);
            remembered.forget_old();
            let kept: Vec<u64> = remembered.iter().map(|death| death.bytes).collect();
            assert_eq!(kept, (number.saturating_sub(2)..=number).collect::<Vec<_>>());
        }
        assert_eq!(highest, 3, "one more than are kept");
    }

    #[test]
    fn whoever_waits_is_kept_and_holds_the_younger_back() {
        let mut remembered = Remembered::with_capacity(1, 10);
        let places: Vec<usize> = (0..4).map(|number| remembered.push(dead(number))).collect();
        for &place in &places[1..] {
            remembered.hand_over(place);
            remembered.forget_old();
        }
        assert_eq!(remembered.iter().count(), 4);
        remembered.hand_over(places[0]);
        remembered.forget_old();
        assert_eq!(remembered.iter().map(|death| death.bytes).collect::<Vec<_>>(), [3]);
    }
}
