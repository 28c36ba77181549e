//! What is found by the longest network around an address: services by port range, and who may use them.

use super::service::{PolicyEntry, Service};
use crate::{
    limits::WILDCARD_RULES_MAX,
    net::{Be32, Be128, Family},
    word::Word,
};

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

const _: () = assert!(size_of::<RuleEntry>() == 32);
const _: () = assert!(size_of::<Scoped>() == 20 && align_of::<Scoped>() == 4);

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::{
        entry::service::tests::SERVICE,
        net::{TCP, V4},
    };

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
}
