//! What the drivers of one program share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Shared by all rings: the budget of connections and the word to stop. Only counters, so that no
/// ring ever waits for another.
#[derive(Debug)]
pub struct Shared {
    left: AtomicUsize,
    saturated: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    /// Allows `capacity` connections over all rings.
    #[must_use]
    pub const fn new(capacity: usize) -> Shared {
        Shared {
            left: AtomicUsize::new(capacity),
            saturated: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }

    /// Asks every driver to end. Wake them after it.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether the drivers were asked to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Takes the right to one more connection, if there is one left.
    pub(super) fn take(&self) -> bool {
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }

    /// Gives rights back.
    pub(super) fn give(&self, count: usize) {
        self.left.fetch_add(count, Ordering::AcqRel);
    }

    /// Marks the limit as reached; whether this call was the first to say so.
    pub(super) fn saturate(&self) -> bool {
        !self.saturated.swap(true, Ordering::AcqRel)
    }

    /// Marks the limit as left; whether it had been reached.
    pub(super) fn resume(&self) -> bool {
        self.saturated.load(Ordering::Acquire) && self.saturated.swap(false, Ordering::AcqRel)
    }
}

/// The local addresses that connections were accepted on, each with a number. A host has few; a
/// host that answers for a whole network may have more than there are numbers, and then all further
/// ones share the last number, which prints as the last address.
#[derive(Debug, Default)]
pub struct Locals(Mutex<Vec<SocketAddr>>);

impl Locals {
    const MOST: usize = u16::MAX as usize + 1;

    /// The number of `address`, new if need be.
    pub fn intern(&self, address: SocketAddr) -> u16 {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let position = table.iter().position(|&known| known == address).unwrap_or_else(|| {
            if table.len() < Locals::MOST {
                table.push(address);
            }
            table.len() - 1
        });
        u16::try_from(position).unwrap_or(u16::MAX)
    }

    /// The address with this number.
    #[must_use]
    pub fn get(&self, number: u16) -> Option<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(usize::from(number)).copied()
    }
}
