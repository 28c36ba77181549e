//! Values that all services share.

use core::net::IpAddr;

use super::{address, words};
use crate::{
    flow::Ticks,
    hash::{self, HashKey},
    limits::NAT_SOURCES_MAX,
    net::{Be32, Be128, Family, V4, V6},
    word::{SharedWords, Word},
};

/// Values that all services share: the one entry of its map.
#[derive(Debug)]
#[repr(C)]
pub struct Globals {
    hash_key: [Word; 2],
    /// Below, the bits of the constants; above, the ticks without a daemon after which packets pass, 0: none.
    flags: Word,
    /// `hash::address_bit` of every NAT source, and of every server of `gateway`: other packets need no flow lookup
    /// to tell that they are no replies.
    filters: [Word; 2],
    /// Buckets of the IPv4 flow table, and of the IPv6 one.
    flow_buckets: [Word; 2],
    flow_seed: Word,
    nat_sources: [[Word; 2]; NAT_SOURCES_MAX],
    /// `Ticks` at which the daemon was last alive.
    heartbeat: Word,
}

const WILDCARDS: u64 = 1;
const MOVING: u64 = 1 << 1;
const PATIENCE_SHIFT: u32 = 32;

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
        let others = self.flags.get() & !WILDCARDS;
        self.flags.set(others | if present { WILDCARDS } else { 0 });
    }

    /// Whether records are on their way from another flow table: what has none may have one in a moment.
    #[inline(always)]
    pub fn is_moving(&self) -> bool {
        self.flags.get() & MOVING != 0
    }

    pub fn set_moving(&self, moving: bool) {
        let others = self.flags.get() & !MOVING;
        self.flags.set(others | if moving { MOVING } else { 0 });
    }

    /// Whether packets pass once the daemon has been silent for a while.
    #[inline(always)]
    pub fn has_watchdog(&self) -> bool {
        self.flags.get() >> PATIENCE_SHIFT != 0
    }

    /// Whether that time is over. Only with a watchdog.
    #[inline(always)]
    pub fn is_abandoned(&self, now: Ticks) -> bool {
        now.since(Ticks(self.heartbeat.get() as u32)) > (self.flags.get() >> PATIENCE_SHIFT) as u32
    }

    /// The daemon lives. `patience`: ticks without it after which packets pass.
    pub fn beat(&self, now: Ticks, patience: Option<u32>) {
        self.heartbeat.set(now.0.into());
        let others = self.flags.get() & !(u64::from(u32::MAX) << PATIENCE_SHIFT);
        self.flags.set(others | u64::from(patience.unwrap_or(0)) << PATIENCE_SHIFT);
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

    pub fn expects_replies_to(&self, address: IpAddr) -> bool {
        self.filters[0].get() & bit(address) != 0
    }

    pub fn expects_replies_from(&self, address: IpAddr) -> bool {
        self.filters[1].get() & bit(address) != 0
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

    /// What decides about packets, as `other` has it: neither the flow tables' size and seed, nor the watchdog.
    pub fn copy_from(&self, other: &Globals) {
        self.hash_key.store(other.hash_key.load());
        self.flags.set(other.flags.get() & WILDCARDS);
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
            heartbeat: Word::new(0),
        }
    }
}

const _: () = assert!(size_of::<Globals>() == 64 + 16 * NAT_SOURCES_MAX + 8);
const _: () = assert!(NAT_SOURCES_MAX <= u8::MAX as usize);

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_daemon_that_is_silent_for_longer_than_the_patience_is_gone() {
        let globals = Globals::default();
        globals.set_wildcards(true);
        globals.beat(Ticks(100), None);
        assert!(!globals.has_watchdog());
        globals.beat(Ticks(100), Some(7));
        assert!(globals.has_watchdog() && globals.has_wildcards());
        for (now, expected) in [(99, false), (100, false), (107, false), (108, true)] {
            assert_eq!(globals.is_abandoned(Ticks(now)), expected, "{now}");
        }
        globals.set_wildcards(false);
        assert!(globals.has_watchdog() && !globals.has_wildcards());
        globals.beat(Ticks(200), None);
        assert!(!globals.has_watchdog());
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
