//! Services found by address, port and protocol.

use crate::{
    hash,
    net::{Be16, Family, V4, V6},
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
    pub(super) ring: Word,
    /// Service id, MSS, forward mode, flags.
    pub(super) policy: Word,
    /// Ticks after which a silent flow's record is void, and those for a client's.
    pub(super) idle: Word,
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

const _: () = assert!(size_of::<ServiceEntry<V4>>() == 32 && align_of::<ServiceEntry<V4>>() == 8);
const _: () = assert!(size_of::<ServiceEntry<V6>>() == 48 && align_of::<ServiceEntry<V6>>() == 8);

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::net::{Be32, Be128, TCP};

    pub(in crate::entry) const SERVICE: Service = Service {
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
}
