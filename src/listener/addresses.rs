//! How many connections each client's address has open.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;

/// Counts open connections by address, up to a limit. Addresses without a connection are not in the map, so it is bounded by the
/// number of connections.
#[derive(Clone)]
pub(super) struct Addresses {
    /// 0 = no limit; then nothing is counted.
    limit: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// Counts one connection of an address until it is dropped.
pub(super) struct AddressGuard {
    address: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// The address has as many connections as it may have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Addresses {
    pub fn new(limit: usize) -> Self {
        Self { limit, open: Arc::default() }
    }

    /// Counts one more connection of this address. Without a limit there is no guard.
    pub fn enter(&self, address: IpAddr) -> Result<Option<AddressGuard>, TooMany> {
        if self.limit == 0 {
            return Ok(None);
        }
        let address = address.to_canonical();
        let mut open = self.open.lock();
        let count = open.entry(address).or_default();
        if *count >= self.limit {
            return Err(TooMany);
        }
        *count += 1;
        Ok(Some(AddressGuard { address, open: self.open.clone() }))
    }
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.open.lock().entry(self.address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_limit() {
        let addresses = Addresses::new(2);
        let enter = |text: &str| addresses.enter(text.parse().unwrap());
        let (first, second) = (enter("1.1.1.1").unwrap(), enter("::ffff:1.1.1.1").unwrap());
        assert_eq!(enter("1.1.1.1").err(), Some(TooMany));
        let other = enter("2.2.2.2").unwrap();
        drop(first);
        let third = enter("1.1.1.1").unwrap();
        assert_eq!(enter("1.1.1.1").err(), Some(TooMany));
        drop((second, third, other));
        assert!(addresses.open.lock().is_empty(), "only what is open is kept");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let addresses = Addresses::new(0);
        assert!(addresses.enter("1.1.1.1".parse().unwrap()).unwrap().is_none());
        assert!(addresses.open.lock().is_empty());
    }
}
