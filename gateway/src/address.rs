//! Which address counts as the client's, and which proxies may say so.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use http::HeaderMap;
use serde::{Deserialize, Serialize};

/// An IP network, written `10.0.0.0/8`; a plain address is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    base: IpAddr,
    prefix_bits: u8,
}

/// The text is no IP address or network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an IP address or a network such as 10.0.0.0/8")]
pub struct ParseNetworkError;

impl Network {
    /// Whether `address` belongs to the network. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix_bits);
                base.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix_bits);
                base.to_bits().checked_shr(shift) == address.to_bits().checked_shr(shift)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (base, prefix_bits) = match text.split_once('/') {
            Some((base, bits)) => (base, Some(bits.parse::<u8>().map_err(|_| ParseNetworkError)?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| ParseNetworkError)?;
        let bits_max = if base.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix_bits.unwrap_or(bits_max);
        if prefix_bits > bits_max {
            return Err(ParseNetworkError);
        }
        Ok(Self { base, prefix_bits })
    }
}

impl TryFrom<String> for Network {
    type Error = ParseNetworkError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_bits)
    }
}

/// Entries of `X-Forwarded-For` that are looked at; a longer chain is a forgery or a loop.
const FORWARDED_HOPS_MAX: usize = 16;

/// The client's address: the peer, or, if the peer is a trusted proxy, the last address in `X-Forwarded-For` that is
/// not a trusted proxy itself. What stands left of that was written by the client and is not believed.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    let values: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let hops = values.iter().rev().flat_map(|value| value.rsplit(','));
    for hop in hops.take(FORWARDED_HOPS_MAX) {
        let Some(address) = parse_hop(hop.trim()) else {
            break;
        };
        client = address.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// An address as proxies write it: plain, or with a port (`192.0.2.1:4711`, `[2001:db8::1]:4711`).
fn parse_hop(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Some(rest) = text.strip_prefix('[') {
        return rest
            .split_once(']')
            .and_then(|(address, _)| address.parse::<Ipv6Addr>().ok())
            .map(IpAddr::V6);
    }
    let (address, _) = text.rsplit_once(':')?;
    address.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn forwarded(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        assert!(network("10.0.0.0/8").contains(ip("10.255.0.1")));
        assert!(network("10.0.0.0/8").contains(ip("::ffff:10.1.2.3")));
        assert!(!network("10.0.0.0/8").contains(ip("11.0.0.1")));
        assert!(network("192.0.2.7").contains(ip("192.0.2.7")));
        assert!(!network("192.0.2.7").contains(ip("192.0.2.8")));
        assert!(network("0.0.0.0/0").contains(ip("203.0.113.9")));
        assert!(!network("0.0.0.0/0").contains(ip("2001:db8::1")));
        assert!(network("2001:db8::/32").contains(ip("2001:db8:1::1")));
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "example.com",
        ] {
            assert_eq!(text.parse::<Network>(), Err(ParseNetworkError), "{text}");
        }
    }

    #[test]
    fn a_client_cannot_name_its_own_address() {
        let headers = forwarded(&["198.51.100.1"]);
        assert_eq!(
            client_address(ip("203.0.113.9"), &headers, &[]),
            ip("203.0.113.9")
        );
        assert_eq!(
            client_address(ip("203.0.113.9"), &headers, &[network("10.0.0.0/8")]),
            ip("203.0.113.9")
        );
    }

    #[test]
    fn a_trusted_proxy_names_the_client_and_only_its_own_entry_counts() {
        let trusted = [network("10.0.0.0/8")];
        let peer = ip("10.0.0.1");
        let seen = |values: &[&str]| client_address(peer, &forwarded(values), &trusted);
        assert_eq!(seen(&["198.51.100.1"]), ip("198.51.100.1"));
        assert_eq!(seen(&["1.1.1.1, 198.51.100.1"]), ip("198.51.100.1"));
        assert_eq!(seen(&["1.1.1.1", "198.51.100.1, 10.0.0.2"]), ip("198.51.100.1"));
        assert_eq!(seen(&["198.51.100.1:4711"]), ip("198.51.100.1"));
        assert_eq!(seen(&["[2001:db8::1]:4711"]), ip("2001:db8::1"));
        assert_eq!(seen(&["198.51.100.1, nonsense"]), peer);
        assert_eq!(seen(&[]), peer);
    }
}
