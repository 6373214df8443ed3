//! The table of local addresses that all rings share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The local addresses of connections, each under a small number: a peer's record has two bytes
/// for what would take it twenty.
///
/// It holds 65,535 addresses, the number of ports that a machine with one address has. All
/// that come later share the number [`LocalAddresses::UNKNOWN`], which stands for no address: an event of
/// such a peer has no `local`, rather than a wrong one.
#[derive(Debug, Default)]
pub struct LocalAddresses(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    addresses: Vec<SocketAddr>,
    numbers: HashMap<SocketAddr, u16>,
}

impl LocalAddresses {
    /// The number of every address for which there was no room.
    pub const UNKNOWN: u16 = u16::MAX;

    /// An empty table.
    #[must_use]
    pub fn new() -> LocalAddresses {
        LocalAddresses::default()
    }

    /// The number of `address`, the same for every thread. Allocates only for an address that is new.
    pub fn intern(&self, address: SocketAddr) -> u16 {
        let mut table = self.lock();
        if let Some(&number) = table.numbers.get(&address) {
            return number;
        }
        match u16::try_from(table.addresses.len()) {
            Ok(LocalAddresses::UNKNOWN) | Err(_) => LocalAddresses::UNKNOWN,
            Ok(number) => {
                table.addresses.push(address);
                table.numbers.insert(address, number);
                number
            }
        }
    }

    /// The address of a number that [`intern`](LocalAddresses::intern) gave; `None` for
    /// [`UNKNOWN`](LocalAddresses::UNKNOWN).
    #[must_use]
    pub fn get(&self, number: u16) -> Option<SocketAddr> {
        self.lock().addresses.get(usize::from(number)).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic of another thread leaves nothing half-done behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the addresses that `known`, a copy of the first ones, does not have yet.
    #[cfg(feature = "cli")]
    pub(crate) fn copy_to(&self, known: &mut Vec<SocketAddr>) {
        let table = self.lock();
        known.extend_from_slice(table.addresses.get(known.len()..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_address_has_one_number_and_the_table_has_an_end() {
        let locals = LocalAddresses::new();
        let address = |port: u16, host: u8| SocketAddr::from(([127, 0, 0, host], port));
        assert_eq!((locals.intern(address(7, 1)), locals.intern(address(8, 1))), (0, 1));
        assert_eq!(locals.intern(address(7, 1)), 0);
        assert_eq!((locals.get(1), locals.get(2)), (Some(address(8, 1)), None));
        for port in 0..=u16::MAX {
            locals.intern(address(port, 2));
        }
        assert_eq!(locals.intern(address(1, 3)), LocalAddresses::UNKNOWN);
        assert_eq!(locals.get(LocalAddresses::UNKNOWN), None);
        assert_eq!(locals.intern(address(8, 1)), 1, "what is known stays known");
        let mut known = vec![address(7, 1)];
        locals.copy_to(&mut known);
        assert_eq!(known.len(), usize::from(LocalAddresses::UNKNOWN));
    }
}
