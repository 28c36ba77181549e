//! What a bed looks like: its arms, how packets are forwarded, the families in use.
//!
//! Owns the values that a scenario chooses. Must not know how they are built.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arms {
    One,
    Two,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// As written in a configuration: the bed must not take the program's word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    Nat,
    Gateway,
    Dsr,
    Ipip,
    Gue,
}

#[derive(Debug, Clone, Copy)]
pub struct Layout {
    pub arms: Arms,
    pub forward: Forward,
    /// Of the service's address, hence of what clients send.
    pub family: Family,
    /// Of the servers in the configuration; another one than `family` only with `ipip` and `gue`.
    pub server_family: Family,
    pub servers: u8,
}

impl Layout {
    /// Over IPv4, with three servers.
    pub fn new(arms: Arms, forward: Forward) -> Layout {
        Layout { arms, forward, family: Family::V4, server_family: Family::V4, servers: 3 }
    }

    pub fn over(self, family: Family, server_family: Family) -> Layout {
        Layout { family, server_family, ..self }
    }

    /// The balancer's interfaces, the clients' side first.
    pub fn interfaces(self) -> &'static [&'static str] {
        match self.arms {
            Arms::One => &["eth0"],
            Arms::Two => &["eth0", "eth1"],
        }
    }

    /// The service listens on 80; where ports can be rewritten the servers' port differs, so that they are.
    pub fn server_port(self) -> u16 {
        if self.forward.keeps_vip() { SERVICE_PORT } else { 8_080 }
    }

    /// The longest packet of a client that needs no answer about its size.
    pub fn packet_max(self) -> usize {
        MTU - self.forward.overhead(self.server_family)
    }

    pub(super) fn vip(self, family: Family) -> IpAddr {
        match self.arms {
            Arms::One => FRONT.host(family, 100),
            Arms::Two => match family {
                Family::V4 => Ipv4Addr::new(192, 0, 2, 10).into(),
                Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10).into(),
            },
        }
    }

    pub(super) fn server_segment(self) -> Segment {
        match self.arms {
            Arms::One => FRONT,
            Arms::Two => BACK,
        }
    }
}

impl Forward {
    pub const ALL: [Forward; 5] = [Forward::Nat, Forward::Gateway, Forward::Dsr, Forward::Ipip, Forward::Gue];

    pub fn name(self) -> &'static str {
        match self {
            Forward::Nat => "nat",
            Forward::Gateway => "gateway",
            Forward::Dsr => "dsr",
            Forward::Ipip => "ipip",
            Forward::Gue => "gue",
        }
    }

    /// Servers get packets for the VIP, have it themselves and answer without the balancer.
    pub fn keeps_vip(self) -> bool {
        matches!(self, Forward::Dsr) || self.encapsulates()
    }

    pub fn encapsulates(self) -> bool {
        matches!(self, Forward::Ipip | Forward::Gue)
    }

    /// Bytes that a packet grows by on its way to a server of this family.
    pub fn overhead(self, server: Family) -> usize {
        match self {
            Forward::Nat | Forward::Gateway | Forward::Dsr => 0,
            Forward::Ipip => server.header(),
            Forward::Gue => server.header() + UDP_HEADER,
        }
    }
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// Length of an address in bits.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// Bytes of an IP header without options.
    pub fn header(self) -> usize {
        match self {
            Family::V4 => 20,
            Family::V6 => 40,
        }
    }

    pub fn unspecified(self) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// One bridge, the /24 and the /64 on it.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) bridge: &'static str,
    third: u8,
}

impl Segment {
    pub(super) fn host(self, family: Family, last: u8) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 77, self.third, last).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0x77, self.third.into(), 0, 0, 0, 0, last.into()).into(),
        }
    }

    /// Of the segment's networks, as in "address/bits".
    pub(super) fn bits(family: Family) -> u8 {
        match family {
            Family::V4 => 24,
            Family::V6 => 64,
        }
    }

    /// Follows the address: every host has one MAC a segment.
    pub(super) fn mac(self, last: u8) -> String {
        format!("02:00:0a:4d:{:02x}:{last:02x}", self.third)
    }

    /// The bridge's port for a host.
    pub(super) fn port(self, last: u8) -> String {
        format!("{}-{last}", self.bridge)
    }
}

pub const SERVICE_PORT: u16 = 80;
pub const MTU: usize = 1_500;
pub const UDP_HEADER: usize = 8;

pub(super) const FRONT: Segment = Segment { bridge: "front", third: 1 };
pub(super) const BACK: Segment = Segment { bridge: "back", third: 2 };
/// Nobody is plugged in there.
pub(super) const BEYOND: Segment = Segment { bridge: "beyond", third: 3 };
