//! The identities that peers give in their HELLOs, and the peer that has each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Tracker;
use super::ending::Ending;
use crate::liveness::fact::Evidence;
use crate::liveness::peer::{Flags, Peer, PeerId, PendingActions, Step};
use crate::liveness::state::{Cause, LocalCause, State};
use crate::liveness::tracker::OnDuplicate;
use crate::time::Instant;

/// Room for one identity a place. Reserved at the start; the text of each identity is allocated when it is given.
#[derive(Debug)]
pub(super) struct Identities {
    /// The identity of the peer at each place of the slab.
    entries: Vec<Option<Entry>>,
    /// The place of the living peer that gave an identity last.
    holders: HashMap<Arc<str>, u32>,
}

#[derive(Debug)]
struct Entry {
    identity: Arc<str>,
    /// An event that waits for the sink.
    duplicate: Option<Duplicate>,
}

/// What a peer has in common with an older one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Duplicate {
    /// The older peer.
    pub(super) of: PeerId,
    /// The peer's address.
    pub(super) address: SocketAddr,
    /// When the newer one gave the identity.
    pub(super) at: Instant,
}

impl Identities {
    pub(super) fn with_capacity(places: usize) -> Identities {
        Identities { entries: Vec::with_capacity(places), holders: HashMap::with_capacity(places) }
    }

    /// The identity of the peer in a place.
    pub(super) fn of(&self, index: u32) -> Option<Arc<str>> {
        self.entries.get(index as usize)?.as_ref().map(|entry| entry.identity.clone())
    }

    /// Notes what the peer in a place calls itself. Returns the place of another living peer that gave the same.
    fn set(&mut self, index: u32, identity: &str) -> Option<u32> {
        let place = index as usize;
        if let Some(Some(entry)) = self.entries.get(place)
            && *entry.identity == *identity
        {
            return None;
        }
        self.release(index);
        let identity: Arc<str> = Arc::from(identity);
        if self.entries.len() <= place {
            self.entries.resize_with(place + 1, || None);
        }
        let waiting = self.entries[place].take().and_then(|entry| entry.duplicate);
        self.entries[place] = Some(Entry { identity: identity.clone(), duplicate: waiting });
        self.holders.insert(identity, index)
    }

    /// The peer in a place has died: another may have its identity without being a duplicate.
    pub(super) fn release(&mut self, index: u32) {
        if let Some(Some(entry)) = self.entries.get(index as usize)
            && self.holders.get(&entry.identity) == Some(&index)
        {
            self.holders.remove(&entry.identity);
        }
    }

    /// The place is free: no event about its peer will come.
    pub(super) fn forget(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            *entry = None;
        }
    }

    /// Takes the event of a peer that is a duplicate, when its turn has come: behind what happened before, and before the
    /// death.
    pub(super) fn duplicate(&mut self, index: u32, peer: &mut Peer) -> Option<Duplicate> {
        if !peer.flags.has(Flags::DUPLICATE) {
            return None;
        }
        let waiting = &mut self.entries.get_mut(index as usize)?.as_mut()?.duplicate;
        let at = waiting.as_ref()?.at;
        let later =
            |line: &crate::liveness::Transition| matches!(line.step(), Step::Died(_)) || line.at() > at;
        if peer.next_transition().as_ref().is_some_and(|line| !later(line)) {
            return None;
        }
        peer.flags.clear(Flags::DUPLICATE);
        waiting.take()
    }
}

impl Tracker {
    /// A HELLO. An empty identity says nothing.
    pub(super) fn on_identity(&mut self, index: u32, identity: &str, now: Instant) {
        if identity.is_empty() {
            return;
        }
        let Some(old) = self.identities.set(index, identity) else { return };
        let older = self.at(old);
        let duplicate =
            Duplicate { of: PeerId::new(old, older.generation), address: older.address(), at: now };
        if self.config.on_duplicate == OnDuplicate::Replace {
            self.at(old).flags.set(Flags::REPLACED);
            self.request(old, PendingActions::INSPECT); // a death has a proof
        }
        if let Some(Some(entry)) = self.identities.entries.get_mut(index as usize) {
            entry.duplicate = Some(duplicate);
            self.at(index).flags.set(Flags::DUPLICATE);
            self.queue_event(index);
        }
    }

    /// Ends a peer that was replaced, now that its socket was looked at. Returns whether it did.
    pub(super) fn end_replaced(&mut self, index: u32, evidence: &Evidence, now: Instant) -> bool {
        let peer = self.at(index);
        let ends = peer.flags.has(Flags::REPLACED) && peer.state != State::Dead;
        if ends {
            self.die(index, Ending::of(Cause::Local(LocalCause::Replaced)), evidence, now);
        }
        ends
    }
}
