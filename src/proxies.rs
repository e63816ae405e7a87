//! Proxies in front of the server, and the address of a client behind them.

use std::{fmt, net::IpAddr, str::FromStr};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// Where proxies say for whom they ask.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The networks of proxies that are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// A part of the list that is neither an IP address nor a network.
#[derive(Debug, PartialEq, Eq)]
pub struct NotANetwork(pub String);

impl FromStr for TrustedProxies {
    type Err = NotANetwork;

    /// Reads addresses and networks (`10.0.0.0/8`) that commas separate.
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let network = |part: &str| part.parse().or_else(|_| part.parse::<IpAddr>().map(IpNet::from));
        parts.map(|part| network(part).map_err(|_| NotANetwork(part.to_owned()))).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks: Vec<_> = self.0.iter().map(shown).collect();
        f.write_str(&networks.join(","))
    }
}

/// A network of one address is written as that address.
fn shown(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
}

impl TrustedProxies {
    /// Whether a proxy at this address is believed. An IPv4 address counts as such where IPv6 contains it, too.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address: `peer`, or, where that is a trusted proxy, the rightmost address of `X-Forwarded-For` that is not.
    /// What stands further left has come from outside, and may be invented.
    #[must_use]
    pub fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        while self.contains(client) {
            // Behind something that is no address, such as `unknown`, nobody can be told from another.
            let Some(hop) = hops.next().and_then(address_of) else { break };
            client = hop;
        }
        client
    }
}

/// The address of a hop. Some proxies append a port, and then put an IPv6 address into brackets.
fn address_of(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let address = hop.parse().or_else(|_| hop.parse().map(|socket: std::net::SocketAddr| socket.ip())).ok();
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_and_networks() {
        let proxies: TrustedProxies = "127.0.0.1, 10.0.0.0/8,::1,fd00::/8".parse().unwrap();
        for inside in ["127.0.0.1", "10.255.0.1", "::1", "fd12::1", "::ffff:10.1.1.1"] {
            assert!(proxies.contains(address(inside)), "{inside}");
        }
        for outside in ["127.0.0.2", "11.0.0.1", "::2", "fe80::1"] {
            assert!(!proxies.contains(address(outside)), "{outside}");
        }
        assert_eq!(proxies.to_string(), "127.0.0.1,10.0.0.0/8,::1,fd00::/8");
        assert_eq!(proxies.to_string().parse(), Ok(proxies));
        assert_eq!("".parse(), Ok(TrustedProxies::default()));
        for bad in ["localhost", "10.0.0.0/33", "10.0.0/8", "1.2.3.4:80"] {
            assert_eq!(bad.parse::<TrustedProxies>(), Err(NotANetwork(bad.to_owned())));
        }
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted() {
        let proxies: TrustedProxies = "10.0.0.0/8,::1".parse().unwrap();
        for (peer, lines, client) in [
            ("10.0.0.1", &[][..], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2,10.0.0.3"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6", "1.1.1.1", "10.0.0.2"], "1.1.1.1"),
            ("::ffff:10.0.0.1", &["::ffff:1.1.1.1"], "1.1.1.1"),
            ("::1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("::1", &["[2001:db8::1]"], "2001:db8::1"),
            ("::1", &["1.1.1.1:80"], "1.1.1.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["1.1.1.1,"], "10.0.0.1"),
            // Nobody believes a stranger.
            ("2.2.2.2", &["1.1.1.1"], "2.2.2.2"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            assert_eq!(proxies.client_address(address(peer), &headers), address(client), "{peer} {lines:?}");
        }
    }

    proptest! {
        /// Whatever a client writes to the left of what its proxy appends changes nothing.
        #[test]
        fn what_stands_further_left_changes_nothing(invented in "[ -~]{0,80}") {
            let proxies: TrustedProxies = "10.0.0.0/8".parse().unwrap();
            let mut headers = HeaderMap::new();
            headers.append(FORWARDED_FOR, format!("{invented}, 1.1.1.1").parse().unwrap());
            prop_assert_eq!(proxies.client_address(address("10.0.0.1"), &headers), address("1.1.1.1"));
        }
    }
}
