//! Places in the order in which they became idle.

/// A list of places, the longest idle first. Each step takes the same time, however long it is.
///
/// The links form a ring: node 0 is its beginning and its end, and place `n` has node `n + 1`. A node that is not in the
/// ring is linked to itself.
#[derive(Debug)]
pub(super) struct IdleList {
    /// The node before each node, and the one behind it.
    links: Vec<[u32; 2]>,
}

impl IdleList {
    pub(super) fn new() -> IdleList {
        IdleList { links: vec![[0, 0]] }
    }

    pub(super) fn contains(&self, place: usize) -> bool {
        self.links.get(place + 1).is_some_and(|&[_, after]| after as usize != place + 1)
    }

    /// The place that is idle for the longest time.
    pub(super) fn first(&self) -> Option<usize> {
        (self.links[0][1] as usize).checked_sub(1)
    }

    /// Appends a place that is not in the list.
    pub(super) fn push(&mut self, place: usize) {
        debug_assert!(!self.contains(place), "it is in the list already");
        while self.links.len() <= place + 1 {
            let node = self.links.len() as u32;
            self.links.push([node, node]);
        }
        let last = self.links[0][0];
        self.link(last, place as u32 + 1);
        self.link(place as u32 + 1, 0);
    }

    /// Takes a place out, if it is in the list.
    pub(super) fn remove(&mut self, place: usize) {
        let Some(&[before, after]) = self.links.get(place + 1) else { return };
        self.link(before, after);
        self.links[place + 1] = [place as u32 + 1; 2];
    }

    fn link(&mut self, before: u32, after: u32) {
        self.links[before as usize][1] = after;
        self.links[after as usize][0] = before;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_queue_from_whose_middle_can_be_taken(steps in prop::collection::vec((0_usize..12, any::<bool>()), 0..200)) {
            let (mut list, mut model) = (IdleList::new(), VecDeque::new());
            for (place, comes) in steps {
                if !comes {
                    list.remove(place);
                    model.retain(|&other| other != place);
                } else if !list.contains(place) {
                    list.push(place);
                    model.push_back(place);
                }
                prop_assert_eq!(list.first(), model.front().copied());
                (0..14).for_each(|place| assert_eq!(list.contains(place), model.contains(&place)));
            }
        }
    }
}
