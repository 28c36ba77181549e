//! What the daemon writes and the kernel reads: services, servers, and the values they share.
//!
//! The maps are mapped into the daemon. Every field is one aligned word, written with one store; a reader
//! that meets a change half done sees each word whole.

use core::net::IpAddr;

use crate::{
    hash::{self, HashKey},
    limits::{NAT_SOURCES_MAX, WILDCARD_RULES_MAX},
    net::{Be16, Be32, Be128, Family, Mac, V4, V6},
    word::{SharedWords, Word, Words},
};

/// Address, port and protocol of a service, or the state of an unused bucket. IPv4 keys are one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey<F: Family = V4> {
    long: F::Long,
    pub word: u64,
}

/// Never used: ends a probe.
pub const EMPTY: u64 = 0;
/// Used before: a probe goes on.
pub const REMOVED: u64 = 1 << 57;
const USED: u64 = 1 << 56;

impl<F: Family> ServiceKey<F> {
    #[inline(always)]
    pub fn new(address: F::Address, port: Be16, protocol: u8) -> Self {
        let (long, low) = F::split(address);
        ServiceKey { long, word: low as u64 | (port.0 as u64) << 32 | (protocol as u64) << 48 | USED }
    }

    /// Says that an address belongs to a service, whatever its ports: it is pinged, for one.
    #[inline(always)]
    pub fn of_vip(address: F::Address) -> Self {
        ServiceKey::new(address, Be16(0), F::ICMP)
    }

    pub fn address(self) -> F::Address {
        F::join(self.long, self.word as u32)
    }

    pub fn port(self) -> Be16 {
        Be16((self.word >> 32) as u16)
    }

    pub fn protocol(self) -> u8 {
        (self.word >> 48) as u8
    }

    /// Where the key may stand: at most `PROBES_MAX` buckets from here.
    #[inline(always)]
    pub fn first_bucket(self) -> u32 {
        hash::service(self.long, self.word)
    }
}

/// A bucket of a service table.
#[derive(Debug)]
#[repr(C)]
pub struct ServiceEntry<F: Family = V4> {
    long: <F::Long as Words>::Shared,
    /// Written last when a service appears and first when it goes.
    key: Word,
    pub policy: PolicyEntry,
}

/// A service without its key: what a bucket holds, and a rule.
#[derive(Debug, Default)]
#[repr(C)]
pub struct PolicyEntry {
    /// First slot of the ring, and its size less one.
    ring: Word,
    /// Service id, MSS, forward mode, flags.
    policy: Word,
    /// Ticks after which a silent flow's record is void, and those for a client's.
    idle: Word,
}

impl<F: Family> Default for ServiceEntry<F> {
    fn default() -> Self {
        ServiceEntry { long: SharedWords::ZERO, key: Word::new(EMPTY), policy: PolicyEntry::default() }
    }
}

impl<F: Family> ServiceEntry<F> {
    /// `EMPTY`, `REMOVED`, or the word of a key in use.
    #[inline(always)]
    pub fn word(&self) -> u64 {
        self.key.get()
    }

    #[inline(always)]
    pub fn is(&self, key: ServiceKey<F>) -> bool {
        self.long.differs(key.long) | (self.key.get() ^ key.word) == 0
    }

    pub fn key(&self) -> Option<ServiceKey<F>> {
        let word = self.key.get();
        (word & USED != 0).then(|| ServiceKey { long: self.long.load(), word })
    }

    /// The service before its key: a reader that finds the key finds the service.
    pub fn publish(&self, key: ServiceKey<F>, service: Service) {
        self.policy.store(service);
        self.long.store(key.long);
        core::sync::atomic::fence(core::sync::atomic::Ordering::Release);
        self.key.set(key.word);
    }

    /// `word`: `EMPTY` or `REMOVED`.
    pub fn withdraw(&self, word: u64) {
        self.key.set(word);
    }
}

/// How a service's packets reach its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// MAC rewritten.
    Dsr = 0,
    /// In another IP header.
    Ipip = 1,
    /// In another IP header and UDP.
    Gue = 2,
    /// Both ends rewritten.
    Nat = 3,
    /// Destination rewritten.
    Gateway = 4,
}

impl Mode {
    /// Whether both directions pass the balancer, so that every flow has a pair of records.
    #[inline(always)]
    pub const fn rewrites(self) -> bool {
        matches!(self, Mode::Nat | Mode::Gateway)
    }
}

/// Who takes a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Scheduler {
    /// The server of the flow's slot.
    Ring = 0,
    /// The next slot's; every flow is recorded.
    RoundRobin = 1,
    /// The server with the fewest connections for its weight, among the next slots'; every flow is recorded.
    LeastConn = 2,
}

/// The meaning of a service's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    pub id: u32,
    pub ring_base: u32,
    pub ring_mask: u32,
    pub mode: Mode,
    pub scheduler: Scheduler,
    /// Slot and record follow the client's address alone.
    pub by_client: bool,
    /// Clients are looked up in the access list.
    pub access: bool,
    /// A client without a server gets an answer rather than silence.
    pub reset: bool,
    /// At most this MSS in SYNs; 0: as they are.
    pub mss: u16,
    /// Silence after which the record of a flow is void.
    pub idle_ticks: u32,
    /// The same of a client's, with `by_client`.
    pub client_ticks: u32,
}

impl Service {
    /// Nothing but a ring and a mode: what the fast path handles.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        self.mss == 0 && !self.access && !self.by_client && matches!(self.scheduler, Scheduler::Ring)
    }
}

const MODE_SHIFT: u32 = 32;
const SCHEDULER_SHIFT: u32 = 36;
const POLICY_RESET: u64 = 1 << 40;
const POLICY_BY_CLIENT: u64 = 1 << 41;
const POLICY_ACCESS: u64 = 1 << 42;

impl PolicyEntry {
    #[inline(always)]
    pub fn load(&self) -> Service {
        let ring = self.ring.get();
        let policy = self.policy.get();
        let idle = self.idle.get();
        Service {
            id: policy as u32 & 0xffff,
            ring_base: ring as u32,
            ring_mask: (ring >> 32) as u32,
            mode: match policy >> MODE_SHIFT & 0xf {
                0 => Mode::Dsr,
                1 => Mode::Ipip,
                2 => Mode::Gue,
                3 => Mode::Nat,
                _ => Mode::Gateway,
            },
            scheduler: match policy >> SCHEDULER_SHIFT & 0xf {
                0 => Scheduler::Ring,
                1 => Scheduler::RoundRobin,
                _ => Scheduler::LeastConn,
            },
            by_client: policy & POLICY_BY_CLIENT != 0,
            access: policy & POLICY_ACCESS != 0,
            reset: policy & POLICY_RESET != 0,
            mss: (policy >> 16) as u16,
            idle_ticks: idle as u32,
            client_ticks: (idle >> 32) as u32,
        }
    }

    pub fn store(&self, service: Service) {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let policy = u64::from(service.id)
            | u64::from(service.mss) << 16
            | (service.mode as u64) << MODE_SHIFT
            | (service.scheduler as u64) << SCHEDULER_SHIFT
            | flag(service.reset, POLICY_RESET)
            | flag(service.by_client, POLICY_BY_CLIENT)
            | flag(service.access, POLICY_ACCESS);
        self.ring.set(u64::from(service.ring_base) | u64::from(service.ring_mask) << 32);
        self.policy.set(policy);
        self.idle.set(u64::from(service.idle_ticks) | u64::from(service.client_ticks) << 32);
    }
}

/// A service for a stretch of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub protocol: u8,
    pub first: u16,
    pub last: u16,
    pub service: Service,
}

#[derive(Debug, Default)]
#[repr(C)]
pub struct RuleEntry {
    /// First port, last port, protocol, in host order; 0: no further rule.
    ports: Word,
    policy: PolicyEntry,
}

impl RuleEntry {
    #[inline(always)]
    pub fn is_end(&self) -> bool {
        self.ports.get() == 0
    }

    #[inline(always)]
    pub fn matches(&self, port: u16, protocol: u8) -> bool {
        let ports = self.ports.get();
        ports as u16 <= port && port <= (ports >> 16) as u16 && (ports >> 32) as u8 == protocol
    }

    #[inline(always)]
    pub fn service(&self) -> Service {
        self.policy.load()
    }

    fn store(&self, rule: Option<&Rule>) {
        let Some(rule) = rule else { return self.ports.set(0) };
        self.policy.store(rule.service);
        self.ports.set(
            u64::from(rule.first) | u64::from(rule.last) << 16 | u64::from(rule.protocol) << 32 | 1 << 40,
        );
    }

    fn load(&self) -> Rule {
        let ports = self.ports.get();
        Rule {
            protocol: (ports >> 32) as u8,
            first: ports as u16,
            last: (ports >> 16) as u16,
            service: self.policy.load(),
        }
    }
}

/// The services of the addresses in one network that are not found by address, port and protocol: the first rule
/// that matches a packet is the most specific one. One more than may be configured: the network's own for ICMP.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Rules(pub [RuleEntry; WILDCARD_RULES_MAX + 1]);

impl Rules {
    pub fn new(rules: &[Rule]) -> Self {
        let entries = Rules::default();
        for (entry, rule) in entries.0.iter().zip(rules) {
            entry.store(Some(rule));
        }
        entries
    }

    pub fn list(&self) -> impl Iterator<Item = Rule> {
        self.0.iter().take_while(|entry| !entry.is_end()).map(RuleEntry::load)
    }

    /// As the map's value is written.
    pub fn to_words(&self) -> [u64; RULES_WORDS] {
        let mut words = [0; RULES_WORDS];
        for (to, entry) in words.chunks_exact_mut(RULE_WORDS).zip(&self.0) {
            let PolicyEntry { ring, policy, idle } = &entry.policy;
            to.copy_from_slice(&[&entry.ports, ring, policy, idle].map(Word::get));
        }
        words
    }

    pub fn from_words(words: &[u64; RULES_WORDS]) -> Self {
        let rules = Rules::default();
        for (entry, from) in rules.0.iter().zip(words.chunks_exact(RULE_WORDS)) {
            let PolicyEntry { ring, policy, idle } = &entry.policy;
            for (word, &value) in [&entry.ports, ring, policy, idle].into_iter().zip(from) {
                word.set(value);
            }
        }
        rules
    }
}

const RULE_WORDS: usize = size_of::<RuleEntry>() / 8;
/// Words of `Rules`.
pub const RULES_WORDS: usize = size_of::<Rules>() / 8;

/// Key of the longest-prefix tables, behind the prefix length: a scope, and a mapped address in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Scoped {
    /// Service id in network byte order; 0 in tables without.
    pub scope: Be32,
    pub address: [u32; 4],
}

impl Scoped {
    #[inline(always)]
    pub fn new<F: Family>(scope: u32, address: F::Address) -> Self {
        let Be128([high, low]) = F::mapped(address);
        let address = [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32];
        Scoped { scope: Be32::new(scope), address }
    }

    pub fn address(&self) -> Be128 {
        let word = |low: usize| self.address[low] as u64 | (self.address[low + 1] as u64) << 32;
        Be128([word(0), word(2)])
    }

    /// Bits of the key in front of an address's own.
    pub const fn bits(prefix: u32, is_v4: bool) -> u32 {
        32 + prefix + if is_v4 { 96 } else { 0 }
    }
}

/// Values of the table of clients.
pub const ALLOW: u32 = 0;
pub const DENY: u32 = 1;

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
            service: (self.traits.get() >> 48) as u32,
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

/// IPv4: in the low half of the first word. Never all zero for an address that a server may have.
fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [Be32::from(address).0.into(), 0],
        IpAddr::V6(address) => Be128::from(address).0,
    }
}

#[inline(always)]
fn address<F: Family>(words: &[Word; 2]) -> F::Address {
    let (low, high) = (words[0].get(), words[1].get());
    F::from_words([low, high])
}

/// Values that all services share: the one entry of its map.
#[derive(Debug)]
#[repr(C)]
pub struct Globals {
    hash_key: [Word; 2],
    flags: Word,
    /// `hash::address_bit` of every NAT source, and of every server of `gateway`: other packets need no flow lookup
    /// to tell that they are no replies.
    filters: [Word; 2],
    /// Buckets of the IPv4 flow table, and of the IPv6 one.
    flow_buckets: [Word; 2],
    flow_seed: Word,
    nat_sources: [[Word; 2]; NAT_SOURCES_MAX],
}

const WILDCARDS: u64 = 1;

impl Globals {
    #[inline(always)]
    pub fn hash_key(&self) -> HashKey {
        HashKey([self.hash_key[0].get(), self.hash_key[1].get()])
    }

    pub fn set_hash_key(&self, key: HashKey) {
        self.hash_key.store(key.0);
    }

    /// Whether there are services that are not found by address, port and protocol.
    #[inline(always)]
    pub fn has_wildcards(&self) -> bool {
        self.flags.get() & WILDCARDS != 0
    }

    pub fn set_wildcards(&self, present: bool) {
        self.flags.set(if present { WILDCARDS } else { 0 });
    }

    /// Whether a packet may be a server's answer.
    #[inline(always)]
    pub fn may_be_reply<F: Family>(&self, source: F::Address, destination: F::Address) -> bool {
        let nat = self.filters[0].get() & hash::address_bit::<F>(destination);
        let gateway = self.filters[1].get() & hash::address_bit::<F>(source);
        nat | gateway != 0
    }

    /// The filters only grow: replies of a flow whose source or server is no longer in use must still find it.
    pub fn expect_replies_to(&self, address: IpAddr) {
        self.filters[0].set(self.filters[0].get() | bit(address));
    }

    /// See `expect_replies_to`.
    pub fn expect_replies_from(&self, address: IpAddr) {
        self.filters[1].set(self.filters[1].get() | bit(address));
    }

    #[inline(always)]
    pub fn flow_buckets(&self, is_v6: bool) -> u32 {
        self.flow_buckets[is_v6 as usize].get() as u32
    }

    #[inline(always)]
    pub fn flow_seed(&self) -> u64 {
        self.flow_seed.get()
    }

    pub fn set_flow_table(&self, buckets: u32, seed: u64) {
        self.flow_buckets.store([buckets.into(); 2]);
        self.flow_seed.set(seed);
    }

    /// Everything but the flow tables' size and seed, as `other` has it.
    pub fn copy_from(&self, other: &Globals) {
        self.hash_key.store(other.hash_key.load());
        self.flags.set(other.flags.get());
        self.filters.store(other.filters.load());
        for (place, source) in self.nat_sources.iter().zip(&other.nat_sources) {
            place.store(source.load());
        }
    }

    /// None only for an index that no server entry may hold.
    #[inline(always)]
    pub fn nat_source<F: Family>(&self, index: u32) -> Option<F::Address> {
        Some(address::<F>(self.nat_sources.get(index as usize)?))
    }

    pub fn set_nat_source(&self, index: usize, address: IpAddr) {
        if let Some(place) = self.nat_sources.get(index) {
            place.store(words(address));
        }
    }

    /// As they were set; the first that is unspecified ends them.
    pub fn nat_sources(&self) -> impl Iterator<Item = IpAddr> {
        let load = |place: &[Word; 2]| match place.load() {
            [0, 0] => None,
            [low, 0] if low >> 32 == 0 => Some(IpAddr::V4(Be32(low as u32).into())),
            words => Some(IpAddr::V6(Be128(words).into())),
        };
        self.nat_sources.iter().map_while(load)
    }
}

fn bit(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => hash::address_bit::<V4>(address.into()),
        IpAddr::V6(address) => hash::address_bit::<V6>(address.into()),
    }
}

impl Default for Globals {
    fn default() -> Self {
        Globals {
            hash_key: SharedWords::ZERO,
            flags: Word::new(0),
            filters: SharedWords::ZERO,
            flow_buckets: SharedWords::ZERO,
            flow_seed: Word::new(0),
            nat_sources: [const { [const { Word::new(0) }; 2] }; NAT_SOURCES_MAX],
        }
    }
}

/// A word of the ring map; see `slot`.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct SlotEntry(pub Word);

const _: () = assert!(size_of::<ServiceEntry<V4>>() == 32 && align_of::<ServiceEntry<V4>>() == 8);
const _: () = assert!(size_of::<ServiceEntry<V6>>() == 48 && align_of::<ServiceEntry<V6>>() == 8);
const _: () = assert!(size_of::<RuleEntry>() == 32);
const _: () = assert!(size_of::<Scoped>() == 20 && align_of::<Scoped>() == 4);
const _: () = assert!(size_of::<ServerEntry>() == 64 && align_of::<ServerEntry>() == 64);
const _: () = assert!(size_of::<Globals>() == 64 + 16 * NAT_SOURCES_MAX);
const _: () = assert!(size_of::<SlotEntry>() == 8);
const _: () = assert!(NAT_SOURCES_MAX <= u8::MAX as usize);

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::net::TCP;

    const SERVICE: Service = Service {
        id: 4_095,
        ring_base: u32::MAX - 16_383,
        ring_mask: 16_383,
        mode: Mode::Nat,
        scheduler: Scheduler::LeastConn,
        by_client: true,
        access: true,
        reset: true,
        mss: 1_400,
        idle_ticks: 6_705,
        client_ticks: 26_822,
    };

    #[test]
    fn services_keep_their_parts() {
        let entry = PolicyEntry::default();
        for mode in [Mode::Dsr, Mode::Ipip, Mode::Gue, Mode::Nat, Mode::Gateway] {
            for scheduler in [Scheduler::Ring, Scheduler::RoundRobin, Scheduler::LeastConn] {
                let service = Service { mode, scheduler, ..SERVICE };
                entry.store(service);
                assert_eq!(entry.load(), service);
            }
        }
        for plain in [
            Service { scheduler: Scheduler::Ring, by_client: false, access: false, mss: 0, ..SERVICE },
            Service {
                reset: false,
                scheduler: Scheduler::Ring,
                by_client: false,
                access: false,
                mss: 0,
                ..SERVICE
            },
        ] {
            entry.store(plain);
            assert_eq!(entry.load(), plain);
            assert!(plain.is_plain() && !SERVICE.is_plain());
        }
    }

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

    #[test]
    fn a_used_key_is_neither_empty_nor_removed() {
        let zero = ServiceKey::<V4>::new(Be32(0), Be16(0), 0);
        assert!(zero.word != EMPTY && zero.word != REMOVED);
        let key = ServiceKey::<V4>::new(Be32::new(0x0a00_0560), Be16::new(80), TCP);
        assert_eq!((key.address(), key.port(), key.protocol()), (Be32::new(0x0a00_0560), Be16::new(80), TCP));
        let address = Be128([1, 2]);
        let key = ServiceKey::<V6>::new(address, Be16::new(80), TCP);
        assert_eq!((key.address(), key.port(), key.protocol()), (address, Be16::new(80), TCP));
        let entry = ServiceEntry::<V6>::default();
        entry.publish(key, SERVICE);
        assert!(entry.is(key) && entry.key() == Some(key) && entry.policy.load() == SERVICE);
        entry.withdraw(REMOVED);
        assert!(!entry.is(key) && entry.key().is_none());
    }

    #[test]
    fn rules_match_their_ports() {
        let rule = |protocol, first, last| Rule { protocol, first, last, service: SERVICE };
        let rules = [rule(TCP, 8_000, 8_999), rule(TCP, 1, u16::MAX), rule(V4::ICMP, 0, 0)];
        let entries = Rules::new(&rules);
        assert_eq!(entries.list().collect::<Vec<_>>(), rules);
        assert_eq!(Rules::from_words(&entries.to_words()).list().collect::<Vec<_>>(), rules);
        for (port, protocol, expected) in [
            (8_000, TCP, Some(0)),
            (8_999, TCP, Some(0)),
            (9_000, TCP, Some(1)),
            (0, TCP, None),
            (0, V4::ICMP, Some(2)),
        ] {
            assert_eq!(entries.0.iter().position(|entry| entry.matches(port, protocol)), expected, "{port}");
        }
    }

    #[test]
    fn nat_sources_are_those_that_were_set() {
        let globals = Globals::default();
        let sources = ["10.0.0.1", "2001:db8::1", "::1:2"].map(|text| text.parse().expect("valid"));
        for (index, &source) in sources.iter().enumerate() {
            globals.set_nat_source(index, source);
        }
        assert_eq!(globals.nat_sources().collect::<Vec<_>>(), sources);
    }
}
