//! Networks, ports and families: what a service is found by, and who may reach it.
//!
//! Owns their relations and how they are shown. Must not know how they are typed: that is `address`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

/// An address and the length of its prefix; no bit behind the prefix is set. One address: the whole length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

/// From `first` to `last`, both included; never 0, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

impl Family {
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// The longest prefix.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

impl Network {
    pub fn host(address: IpAddr) -> Network {
        Network { address, length: Family::of(address).bits() }
    }

    /// The network of this length that holds the address; None where the family has no such length.
    pub fn around(address: IpAddr, length: u8) -> Option<Network> {
        let host_bits = u32::from(Family::of(address).bits().checked_sub(length)?);
        let address = match address {
            IpAddr::V4(address) => {
                Ipv4Addr::from_bits(address.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0)).into()
            }
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)).into()
            }
        };
        Some(Network { address, length })
    }

    /// Every address of a family.
    pub fn all(family: Family) -> Network {
        let address = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        Network { address, length: 0 }
    }

    /// The first of its addresses.
    pub fn address(self) -> IpAddr {
        self.address
    }

    pub fn length(self) -> u8 {
        self.length
    }

    pub fn family(self) -> Family {
        Family::of(self.address)
    }

    pub fn is_host(self) -> bool {
        self.length == self.family().bits()
    }

    /// Whether every address of the other is one of its own.
    pub fn covers(self, other: Network) -> bool {
        self.family() == other.family()
            && self.length <= other.length
            && Network::around(other.address, self.length) == Some(self)
    }

    pub fn contains(self, address: IpAddr) -> bool {
        self.covers(Network::host(address))
    }

    /// Two networks share addresses only where one covers the other.
    pub fn overlaps(self, other: Network) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Itself, then every network that covers it, the longest prefix first.
    pub fn enclosing(self) -> impl Iterator<Item = Network> {
        (0..=self.length).rev().filter_map(move |length| Network::around(self.address, length))
    }
}

impl Ports {
    pub const ANY: Ports = Ports { first: 1, last: u16::MAX };

    pub const fn exact(port: u16) -> Ports {
        Ports { first: port, last: port }
    }

    pub const fn is_exact(self) -> bool {
        self.first == self.last
    }

    /// The port, where it is only one.
    pub fn single(self) -> Option<u16> {
        self.is_exact().then_some(self.first)
    }

    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    pub const fn covers(self, other: Ports) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_host() {
            true => self.address.fmt(f),
            false => write!(f, "{}/{}", self.address, self.length),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Ports::ANY => f.write_str("any"),
            Ports { first, last } if first == last => first.fmt(f),
            Ports { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

/// "10.0.5.96:80", "[2001:db8::/64]:any".
pub fn endpoint(network: Network, ports: Ports) -> String {
    match network.family() {
        Family::V4 => format!("{network}:{ports}"),
        Family::V6 => format!("[{network}]:{ports}"),
    }
}

/// A server's address; port 0 is none.
pub fn shown(address: SocketAddr) -> String {
    if address.port() == 0 { address.ip().to_string() } else { address.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str, length: u8) -> Network {
        Network::around(text.parse().unwrap(), length).unwrap()
    }

    #[test]
    fn networks_are_canonical() {
        let cases = [
            ("10.0.5.96", 32, "10.0.5.96"),
            ("10.0.5.96", 24, "10.0.5.0/24"),
            ("10.0.5.96", 0, "0.0.0.0/0"),
            ("2001:db8::96", 128, "2001:db8::96"),
            ("2001:db8:0:1::96", 63, "2001:db8::/63"),
            ("2001:db8::96", 0, "::/0"),
        ];
        for (address, length, expected) in cases {
            assert_eq!(network(address, length).to_string(), expected);
        }
        assert_eq!(Network::around(IpAddr::V4(Ipv4Addr::LOCALHOST), 33), None);
        assert_eq!(Network::around(IpAddr::V6(Ipv6Addr::LOCALHOST), 129), None);
    }

    #[test]
    fn one_network_covers_another() {
        let cases = [
            (("10.0.0.0", 8), ("10.0.5.96", 32), true),
            (("10.0.0.0", 8), ("10.0.0.0", 8), true),
            (("10.0.5.0", 24), ("10.0.0.0", 8), false),
            (("10.0.5.0", 24), ("10.0.6.1", 32), false),
            (("0.0.0.0", 0), ("2001:db8::", 32), false),
            (("::", 0), ("2001:db8::", 32), true),
        ];
        for ((wide, wide_length), (narrow, narrow_length), expected) in cases {
            let (wide, narrow) = (network(wide, wide_length), network(narrow, narrow_length));
            assert_eq!(wide.covers(narrow), expected, "{wide} {narrow}");
            let listed = narrow.enclosing().any(|enclosing| enclosing == wide);
            assert_eq!(listed, expected, "{wide} around {narrow}");
        }
    }

    #[test]
    fn endpoints_are_shown_as_they_are_typed() {
        let cases = [
            (network("10.0.5.96", 32), Ports::exact(80), "10.0.5.96:80"),
            (network("10.0.5.0", 24), Ports { first: 8_000, last: 8_999 }, "10.0.5.0/24:8000-8999"),
            (network("2001:db8::96", 128), Ports::exact(80), "[2001:db8::96]:80"),
            (network("2001:db8::", 64), Ports::ANY, "[2001:db8::/64]:any"),
        ];
        for (network, ports, expected) in cases {
            assert_eq!(endpoint(network, ports), expected);
        }
    }
}
