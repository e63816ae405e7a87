//! The publish rates of clients that are known by their addresses alone.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

use parking_lot::Mutex;

use super::{Broker, Error, principal::of_client};
use crate::channel::Bucket;

/// Addresses whose use is remembered. One that has not published for a second or two need not be, so this many have
/// published within that time.
const MAX_ADDRESSES: usize = 100_000;

/// A token bucket for each address that has published a moment ago.
pub(super) struct ClientRates {
    per_second: u32,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

impl ClientRates {
    /// In messages a second; 0 means no limit.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, buckets: Mutex::default() }
    }

    fn take(&self, address: IpAddr) -> Result<(), Error> {
        if self.per_second == 0 {
            return Ok(());
        }
        let mut buckets = self.buckets.lock();
        let address = network(address);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&address) {
            buckets.retain(|_, bucket| !bucket.is_full());
            if buckets.len() >= MAX_ADDRESSES {
                return Err(Error::LimitReached {
                    what: "addresses that publish at the same time",
                    limit: MAX_ADDRESSES,
                    own: false,
                });
            }
        }
        buckets.entry(address).or_insert_with(|| Bucket::new(self.per_second)).take().map_err(of_client)
    }
}

/// What counts as one client: a host with IPv6 has a whole network of 64 bits to choose its address from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Broker {
    /// Takes one token of the publish rate of an address.
    ///
    /// # Errors
    /// [`Error::ClientRateLimited`]; [`Error::LimitReached`] where more addresses publish than can be remembered.
    pub(super) fn take_token_of(&self, address: IpAddr) -> Result<(), Error> {
        self.0.client_rates.take(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_address_has_its_own_rate() {
        let rates = ClientRates::new(2);
        let [one, two, six, neighbour]: [IpAddr; 4] =
            ["10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"].map(|address| address.parse().unwrap());
        for address in [one, two, six] {
            assert_eq!((0..5).filter(|_| rates.take(address).is_ok()).count(), 2, "{address}");
        }
        assert!(rates.take(neighbour).is_err(), "it is in the same network");
        assert!(rates.take("::ffff:10.0.0.1".parse().unwrap()).is_err(), "it is the same address");
        let Err(Error::ClientRateLimited { wait, .. }) = rates.take(one) else { panic!("a third one") };
        tokio::time::advance(wait).await;
        assert_eq!(rates.take(one), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_full_is_forgotten() {
        let rates = ClientRates::new(1);
        for number in 0..u32::try_from(MAX_ADDRESSES).unwrap() {
            rates.take(IpAddr::V4(number.into())).unwrap();
        }
        let another: IpAddr = "255.0.0.1".parse().unwrap();
        assert!(matches!(rates.take(another), Err(Error::LimitReached { .. })));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(rates.take(another), Ok(()));
        assert_eq!(rates.buckets.lock().len(), 1);
    }
}
