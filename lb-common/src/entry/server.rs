//! Servers: where their packets go.

use core::net::IpAddr;

use super::{address, words};
use crate::{
    net::{Be16, Family, Mac, V4, V6},
    word::{SharedWords, Word},
};

/// A server of one service: where its packets go. One cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct ServerEntry {
    /// MAC of the next hop, and the flags.
    hop: Word,
    /// MAC of the interface packets leave through, first NAT source and their number.
    source: Word,
    /// Port, weight, MTU of the way, service id.
    traits: Word,
    /// Interface index packets leave through, and their VLAN tags.
    egress: Word,
    /// Written last: an entry with an address is whole, should the writer be killed half-way.
    address: [Word; 2],
    /// Source address of the outer header.
    outer: [Word; 2],
}

/// The meaning of a server entry's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    pub hop: Hop,
    /// Range within the NAT sources of `Globals`.
    pub nat_first: u8,
    pub nat_count: u8,
    /// With the service the identity of the server, never changed while the id is in use.
    pub address: IpAddr,
    /// 0: packets keep theirs.
    pub port: Be16,
    pub weight: u16,
    pub service: u32,
    /// Source of the outer header of tunnelled packets, of the family of `address`.
    pub outer_source: IpAddr,
}

/// The layer-2 way to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Not marked down: its records count. A draining server lives.
    pub lives: bool,
    /// The rest is known.
    pub resolved: bool,
    pub mac: Mac,
    pub source_mac: Mac,
    pub interface: u32,
    pub tags: Tags,
    /// Longest IP packet, in bytes.
    pub mtu: u16,
}

/// Up to two VLAN tags, innermost in the low half; 0: none.
///
/// ```text
///  31..29    28    27..16   15..13    12    11..0
///  priority  used  VLAN id  priority  used  VLAN id
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Tags(pub u32);

impl Tags {
    const USED: u32 = 1 << 12;

    /// A tag behind those there are. `control`: priority and VLAN id (IEEE 802.1Q, 9.6).
    #[inline(always)]
    pub const fn with(self, control: u16) -> Self {
        Tags(self.0 << 16 | control as u32 & !Self::USED | Self::USED)
    }

    #[inline(always)]
    pub const fn count(self) -> u32 {
        (self.0 >> 12 & 1) + (self.0 >> 28 & 1)
    }

    /// Control word of the outer of two tags.
    #[inline(always)]
    pub const fn outer(self) -> u16 {
        (self.0 >> 16) as u16 & !(Self::USED as u16)
    }

    /// Control word of the tag in front of the packet's own type.
    #[inline(always)]
    pub const fn inner(self) -> u16 {
        self.0 as u16 & !(Self::USED as u16)
    }
}

const LIVES: u64 = 1 << 48;
const RESOLVED: u64 = 1 << 49;
const IS_V6: u64 = 1 << 50;

impl ServerEntry {
    /// Whether records that name this server count.
    #[inline(always)]
    pub fn lives(&self) -> bool {
        self.hop.get() & LIVES != 0
    }

    #[inline(always)]
    pub fn hop(&self) -> Hop {
        let (hop, egress) = (self.hop.get(), self.egress.get());
        Hop {
            lives: hop & LIVES != 0,
            resolved: hop & RESOLVED != 0,
            mac: Mac::from_word(hop),
            source_mac: Mac::from_word(self.source.get()),
            interface: egress as u32,
            tags: Tags((egress >> 32) as u32),
            mtu: (self.traits.get() >> 32) as u16,
        }
    }

    #[inline(always)]
    pub fn is_v6(&self) -> bool {
        self.hop.get() & IS_V6 != 0
    }

    #[inline(always)]
    pub fn port(&self) -> Be16 {
        Be16(self.traits.get() as u16)
    }

    #[inline(always)]
    pub fn weight(&self) -> u16 {
        (self.traits.get() >> 16) as u16
    }

    #[inline(always)]
    pub fn service(&self) -> u32 {
        (self.traits.get() >> 48) as u32
    }

    #[inline(always)]
    pub fn nat_range(&self) -> (u8, u8) {
        let source = self.source.get();
        ((source >> 48) as u8, (source >> 56) as u8)
    }

    /// Of the family that the caller knows from `is_v6` or the service.
    #[inline(always)]
    pub fn address<F: Family>(&self) -> F::Address {
        address::<F>(&self.address)
    }

    #[inline(always)]
    pub fn outer_source<F: Family>(&self) -> F::Address {
        address::<F>(&self.outer)
    }

    /// None: not in use.
    pub fn load(&self) -> Option<Server> {
        let ip = |words: &[Word; 2]| match self.is_v6() {
            true => IpAddr::V6(address::<V6>(words).into()),
            false => IpAddr::V4(address::<V4>(words).into()),
        };
        if self.address.is([0, 0]) {
            return None;
        }
        let (nat_first, nat_count) = self.nat_range();
        Some(Server {
            hop: self.hop(),
            nat_first,
            nat_count,
            address: ip(&self.address),
            port: self.port(),
            weight: self.weight(),
            service: self.service(),
            outer_source: ip(&self.outer),
        })
    }

    pub fn store(&self, server: Server) {
        let Server { hop, .. } = server;
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let nat = u64::from(server.nat_first) << 48 | u64::from(server.nat_count) << 56;
        self.egress.set(u64::from(hop.interface) | u64::from(hop.tags.0) << 32);
        self.source.set(hop.source_mac.0 | nat);
        self.traits.set(
            u64::from(server.port.0)
                | u64::from(server.weight) << 16
                | u64::from(hop.mtu) << 32
                | u64::from(server.service) << 48,
        );
        self.outer.store(words(server.outer_source));
        let flags =
            flag(hop.lives, LIVES) | flag(hop.resolved, RESOLVED) | flag(server.address.is_ipv6(), IS_V6);
        self.hop.set(hop.mac.0 | flags);
        self.address.store(words(server.address));
    }

    pub fn clear(&self) {
        self.address.store([0, 0]);
        for word in [&self.hop, &self.source, &self.traits, &self.egress] {
            word.set(0);
        }
        self.outer.store([0, 0]);
    }
}

const _: () = assert!(size_of::<ServerEntry>() == 64 && align_of::<ServerEntry>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_keep_their_parts() {
        let server = Server {
            hop: Hop {
                lives: true,
                resolved: true,
                mac: Mac::from_bytes([0xff; 6]),
                source_mac: Mac::from_bytes([2, 0, 0, 0, 0, 0xfe]),
                interface: u32::MAX,
                tags: Tags::default().with(0xefff).with(1),
                mtu: 9_000,
            },
            nat_first: 63,
            nat_count: 1,
            address: "10.0.5.91".parse().expect("valid"),
            port: Be16::new(8888),
            weight: u16::MAX,
            service: 4_095,
            outer_source: "10.0.5.1".parse().expect("valid"),
        };
        let entry = ServerEntry::default();
        assert_eq!(entry.load(), None);
        for address in ["10.0.5.91", "2001:db8::91"].map(|text| text.parse().expect("valid")) {
            let outer_source = address;
            let server = Server { address, outer_source, ..server };
            entry.store(server);
            assert_eq!(entry.load(), Some(server));
            assert!(entry.lives());
        }
        entry.clear();
        assert_eq!(entry.load(), None);
        assert!(!entry.lives());
    }

    #[test]
    fn tags_are_counted_and_ordered() {
        let none = Tags::default();
        let one = none.with(0x2064);
        let two = one.with(0x0fff);
        assert_eq!([none.count(), one.count(), two.count()], [0, 1, 2]);
        assert_eq!((one.inner(), two.outer(), two.inner()), (0x2064, 0x2064, 0x0fff));
        assert_eq!(none.with(0).count(), 1, "a priority tag");
    }
}
