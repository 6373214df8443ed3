//! The queue of events that are about no peer.
//!
//! The events of peers wait in their records, which are bounded by the slots. These have no record, and stalls or limits
//! can come again and again for as long as a sink is stuck. So beyond a number that wait as they are, each new one is
//! merged into one of its kind.

use std::collections::VecDeque;
use std::mem::discriminant;

use crate::liveness::event::{Event, EventKind};

/// The events that wait, oldest first: at most [`TrackerEvents::MAX`] and one of each kind.
pub(super) struct TrackerEvents(VecDeque<Event>);

impl TrackerEvents {
    /// The number of events that wait before new ones are merged.
    const MAX: usize = 16;

    pub(super) fn new() -> TrackerEvents {
        TrackerEvents(VecDeque::with_capacity(TrackerEvents::MAX + 4))
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }

    /// Adds an event. When many wait, stalls are added up, a limit that was reached and left again is dropped, and of
    /// every other kind the latest is kept.
    pub(super) fn push(&mut self, event: Event) {
        if self.0.len() < TrackerEvents::MAX {
            self.0.push_back(event);
            return;
        }
        let is_limit = |kind: &EventKind| matches!(kind, EventKind::Saturated { .. } | EventKind::Resumed);
        let same = |waiting: &Event| {
            discriminant(&waiting.kind) == discriminant(&event.kind)
                || (is_limit(&waiting.kind) && is_limit(&event.kind))
        };
        let Some(index) = self.0.iter().rposition(same) else {
            self.0.push_back(event);
            return;
        };
        match (&mut self.0[index].kind, &event.kind) {
            (EventKind::Stall { held: sum }, EventKind::Stall { held }) => *sum += *held,
            (EventKind::Saturated { .. }, EventKind::Resumed)
            | (EventKind::Resumed, EventKind::Saturated { .. }) => {
                self.0.remove(index);
            }
            _ => self.0[index] = event,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::Instant;

    fn event(second: u64, kind: EventKind) -> Event {
        Event { at: Instant::from_nanos(second * 1_000_000_000), subject: None, kind }
    }

    #[test]
    fn a_stuck_sink_keeps_the_sum_of_stalls_and_whether_a_limit_is_reached() {
        let mut events = TrackerEvents::new();
        for round in 0..1_000 {
            events.push(event(3 * round, EventKind::Stall { held: Duration::from_secs(1) }));
            events.push(event(3 * round + 1, EventKind::Saturated { limit: "descriptors" }));
            events.push(event(3 * round + 2, EventKind::PathOutage { suspects: round as u32, peers: 9 }));
            if round < 999 {
                events.push(event(3 * round + 2, EventKind::Resumed));
            }
        }
        assert!(events.0.len() <= TrackerEvents::MAX + 4, "{}", events.0.len());
        let waiting: Vec<Event> = std::iter::from_fn(|| events.pop()).collect();
        let held: Duration = waiting
            .iter()
            .filter_map(|event| match event.kind {
                EventKind::Stall { held } => Some(held),
                _ => None,
            })
            .sum();
        assert_eq!(held, Duration::from_secs(1_000));
        let mut saturated = false;
        for event in &waiting {
            match event.kind {
                EventKind::Saturated { .. } => assert!(!std::mem::replace(&mut saturated, true)),
                EventKind::Resumed => assert!(std::mem::take(&mut saturated)),
                _ => {}
            }
        }
        assert!(saturated, "it ended at the limit");
        let last = waiting.iter().rev().find_map(|event| match event.kind {
            EventKind::PathOutage { suspects, .. } => Some(suspects),
            _ => None,
        });
        assert_eq!(last, Some(999));
    }

    #[test]
    fn no_kind_of_event_grows_the_queue_without_bound() {
        let mut events = TrackerEvents::new();
        for second in 0..1_000 {
            events.push(event(second, EventKind::HalfClosed));
        }
        assert_eq!(events.0.len(), TrackerEvents::MAX);
        assert_eq!(events.0.back(), Some(&event(999, EventKind::HalfClosed)));
    }
}
