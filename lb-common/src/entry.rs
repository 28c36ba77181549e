//! What the daemon writes and the kernel reads: services, servers, and the values they share.
//!
//! The maps are mapped into the daemon. Every field is one aligned word, written with one store; a reader
//! that meets a change half done sees each word whole.

use crate::{
    hash::HashKey,
    limits::NAT_SOURCES_MAX,
    net::{Be16, Be32, Mac},
    word::Word,
};

/// Address, port and protocol of a service, or the state of an unused bucket, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ServiceKey(pub u64);

impl ServiceKey {
    /// Never used: ends a probe.
    pub const EMPTY: ServiceKey = ServiceKey(0);
    /// Used before: a probe goes on.
    pub const REMOVED: ServiceKey = ServiceKey(1 << 57);
    const USED: u64 = 1 << 56;

    #[inline(always)]
    pub const fn new(address: Be32, port: Be16, protocol: u8) -> Self {
        ServiceKey(address.0 as u64 | (port.0 as u64) << 32 | (protocol as u64) << 48 | Self::USED)
    }

    #[inline(always)]
    pub const fn is_used(self) -> bool {
        self.0 & Self::USED != 0
    }

    pub const fn address(self) -> Be32 {
        Be32(self.0 as u32)
    }

    pub const fn port(self) -> Be16 {
        Be16((self.0 >> 32) as u16)
    }

    pub const fn protocol(self) -> u8 {
        (self.0 >> 48) as u8
    }
}

/// A bucket of the service table.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ServiceEntry {
    /// Written last when a service appears and first when it goes.
    pub key: Word,
    /// First slot of the ring, and its size less one.
    pub ring: Word,
    /// Service id, forward mode, flags.
    pub policy: Word,
    /// Ticks after which a silent flow's record is void.
    pub idle: Word,
}

/// How a service's packets reach its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Dsr = 0,
    Nat = 1,
}

/// The meaning of a bucket's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    pub id: u32,
    pub ring_base: u32,
    pub ring_mask: u32,
    pub mode: Mode,
    /// A client without a server gets a TCP RST rather than silence.
    pub reset: bool,
    pub idle_ticks: u32,
}

const POLICY_NAT: u64 = 1 << 32;
const POLICY_RESET: u64 = 1 << 40;

impl ServiceEntry {
    #[inline(always)]
    pub fn load(&self) -> Service {
        let ring = self.ring.get();
        let policy = self.policy.get();
        Service {
            id: policy as u32,
            ring_base: ring as u32,
            ring_mask: (ring >> 32) as u32,
            mode: if policy & POLICY_NAT != 0 { Mode::Nat } else { Mode::Dsr },
            reset: policy & POLICY_RESET != 0,
            idle_ticks: self.idle.get() as u32,
        }
    }

    /// Everything but the key.
    pub fn store(&self, service: Service) {
        let mut policy = u64::from(service.id);
        if service.mode == Mode::Nat {
            policy |= POLICY_NAT;
        }
        if service.reset {
            policy |= POLICY_RESET;
        }
        self.ring.set(u64::from(service.ring_base) | u64::from(service.ring_mask) << 32);
        self.policy.set(policy);
        self.idle.set(service.idle_ticks.into());
    }
}

/// A server of one service: where its packets go.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ServerEntry {
    /// MAC of the next hop, and the flags.
    pub hop: Word,
    /// MAC of the interface packets leave through, first NAT source and their number.
    pub source: Word,
    /// Address and port; with the service the identity of the server, never changed while the id is in use.
    pub target: Word,
    /// Interface index packets leave through, and the service's id.
    pub egress: Word,
}

/// The meaning of a server entry's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    pub hop: Hop,
    /// Range within the NAT sources of `Globals`.
    pub nat_first: u8,
    pub nat_count: u8,
    pub address: Be32,
    pub port: Be16,
    pub service: u32,
}

/// The layer-2 way to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Not marked down: its records count. A draining server lives.
    pub lives: bool,
    /// `mac`, `source_mac` and `interface` are known.
    pub resolved: bool,
    pub mac: Mac,
    pub source_mac: Mac,
    pub interface: u32,
}

const LIVES: u64 = 1 << 48;
const RESOLVED: u64 = 1 << 49;

impl ServerEntry {
    /// Whether records that name this server count.
    #[inline(always)]
    pub fn lives(&self) -> bool {
        self.hop.get() & LIVES != 0
    }

    #[inline(always)]
    pub fn load(&self) -> Server {
        let hop = self.hop.get();
        let source = self.source.get();
        let target = self.target.get();
        let egress = self.egress.get();
        Server {
            hop: Hop {
                lives: hop & LIVES != 0,
                resolved: hop & RESOLVED != 0,
                mac: Mac::from_word(hop),
                source_mac: Mac::from_word(source),
                interface: egress as u32,
            },
            nat_first: (source >> 48) as u8,
            nat_count: (source >> 56) as u8,
            address: Be32(target as u32),
            port: Be16((target >> 32) as u16),
            service: (egress >> 32) as u32,
        }
    }

    /// The target last: an entry with a target is whole, should the writer be killed half-way.
    pub fn store(&self, server: Server) {
        let nat = u64::from(server.nat_first) << 48 | u64::from(server.nat_count) << 56;
        self.egress.set(u64::from(server.hop.interface) | u64::from(server.service) << 32);
        self.source.set(server.hop.source_mac.0 | nat);
        let mut hop = server.hop.mac.0;
        if server.hop.lives {
            hop |= LIVES;
        }
        if server.hop.resolved {
            hop |= RESOLVED;
        }
        self.hop.set(hop);
        self.target.set(u64::from(server.address.0) | u64::from(server.port.0) << 32);
    }
}

/// Values that all services share: the one entry of its map.
#[derive(Debug)]
#[repr(C)]
pub struct Globals {
    pub hash_key: [Word; 2],
    /// `hash::address_bit` of every NAT source: most other destinations need no flow lookup.
    pub nat_filter: Word,
    /// Of the flow table.
    pub flow_buckets: Word,
    pub flow_seed: Word,
    /// An address in the low half of each word.
    pub nat_sources: [Word; NAT_SOURCES_MAX],
}

impl Globals {
    #[inline(always)]
    pub fn hash_key(&self) -> HashKey {
        HashKey([self.hash_key[0].get(), self.hash_key[1].get()])
    }

    /// None only for an index that no server entry may hold.
    #[inline(always)]
    pub fn nat_source(&self, index: u32) -> Option<Be32> {
        Some(Be32(self.nat_sources.get(index as usize)?.get() as u32))
    }
}

impl Default for Globals {
    fn default() -> Self {
        Globals {
            hash_key: Default::default(),
            nat_filter: Word::new(0),
            flow_buckets: Word::new(0),
            flow_seed: Word::new(0),
            nat_sources: [const { Word::new(0) }; NAT_SOURCES_MAX],
        }
    }
}

/// A word of the ring map; see `slot`.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct SlotEntry(pub Word);

/// Where a key may stand: at most `PROBES_MAX` buckets from here.
#[inline(always)]
pub fn first_bucket(key: ServiceKey) -> u32 {
    crate::hash::service(key.0)
}

const _: () = assert!(size_of::<ServiceEntry>() == 32 && align_of::<ServiceEntry>() == 8);
const _: () = assert!(size_of::<ServerEntry>() == 32 && align_of::<ServerEntry>() == 8);
const _: () = assert!(size_of::<Globals>() == 40 + 8 * NAT_SOURCES_MAX);
const _: () = assert!(size_of::<SlotEntry>() == 8);
const _: () = assert!(NAT_SOURCES_MAX <= u8::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_parts() {
        let service = Service {
            id: 4_095,
            ring_base: u32::MAX - 16_383,
            ring_mask: 16_383,
            mode: Mode::Nat,
            reset: true,
            idle_ticks: 6_705,
        };
        let entry = ServiceEntry::default();
        entry.store(service);
        assert_eq!(entry.load(), service);
        entry.store(Service { mode: Mode::Dsr, reset: false, ..service });
        assert_eq!(entry.load(), Service { mode: Mode::Dsr, reset: false, ..service });

        let server = Server {
            hop: Hop {
                lives: true,
                resolved: true,
                mac: Mac::from_bytes([0xff; 6]),
                source_mac: Mac::from_bytes([2, 0, 0, 0, 0, 0xfe]),
                interface: u32::MAX,
            },
            nat_first: 63,
            nat_count: 1,
            address: Be32::new(0x0a00_055b),
            port: Be16::new(8888),
            service: 4_095,
        };
        let entry = ServerEntry::default();
        entry.store(server);
        assert_eq!(entry.load(), server);
        assert!(entry.lives());
    }

    #[test]
    fn a_used_key_is_neither_empty_nor_removed() {
        let zero = ServiceKey::new(Be32(0), Be16(0), 0);
        assert!(zero.is_used() && zero != ServiceKey::EMPTY && zero != ServiceKey::REMOVED);
        assert!(!ServiceKey::EMPTY.is_used() && !ServiceKey::REMOVED.is_used());
        let key = ServiceKey::new(Be32::new(0x0a00_0560), Be16::new(80), 6);
        assert_eq!((key.address(), key.port(), key.protocol()), (Be32::new(0x0a00_0560), Be16::new(80), 6));
    }
}
