//! A queue of slots of the slab, each at most once.
//!
//! A ring buffer would walk through all of its reserved memory; this one starts again at its
//! beginning whenever it is empty, which it is once a turn, so that only the pages of the largest
//! batch are ever touched.

/// Slots, first in, first out: at most as many as the slab has. It never allocates.
pub(super) struct Queue {
    items: Vec<u32>,
    head: usize,
    capacity: usize,
}

impl Queue {
    pub(super) fn with_capacity(capacity: usize) -> Queue {
        Queue { items: Vec::with_capacity(capacity), head: 0, capacity }
    }

    pub(super) fn push(&mut self, index: u32) {
        if self.items.len() == self.capacity {
            assert!(self.head > 0, "each place stands in the queue at most once");
            self.items.drain(..self.head);
            self.head = 0;
        }
        self.items.push(index);
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() - self.head
    }

    pub(super) fn front(&self) -> Option<u32> {
        self.items.get(self.head).copied()
    }

    pub(super) fn pop(&mut self) {
        debug_assert!(self.head < self.items.len());
        self.head += 1;
        if self.head == self.items.len() {
            self.items.clear();
            self.head = 0;
        }
    }

    /// Removes a slot from the middle: O(n), and rare, since a peer that is released in the turn in which its last action was
    /// taken is at the front.
    pub(super) fn remove(&mut self, index: u32) {
        if self.front() == Some(index) {
            self.pop();
        } else if let Some(position) = self.items[self.head..].iter().position(|&item| item == index) {
            self.items.remove(self.head + position);
        }
    }
}
