//! The hashes both sides compute: of a flow, for its slot; of a service's key, for its bucket.

use crate::{
    net::{Be16, Be128, Family},
    word::Words,
};

/// Derived from the cluster secret; equal on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HashKey(pub [u64; 2]);

/// What a flow is hashed by. The service is left out: the ring belongs to it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowTuple<F: Family> {
    pub source: F::Address,
    pub source_port: Be16,
    pub destination_port: Be16,
}

/// Multiply and xor, keyed: uniform over a ring and cheap in BPF, which has no 128-bit product.
///
/// Not a cryptographic hash. The key keeps an outsider from choosing ports for one server blindly.
#[inline(always)]
pub fn flow<F: Family>(key: HashKey, tuple: FlowTuple<F>) -> u32 {
    let ports = (tuple.source_port.0 as u64) << 16 | tuple.destination_port.0 as u64;
    let mut x = F::mixed(tuple.source, key.0[0]) ^ ports;
    x = x.wrapping_mul(key.0[1] | 1);
    x ^= x >> 32;
    x = x.wrapping_mul(MIX_1);
    x ^= x >> 29;
    x = x.wrapping_mul(MIX_2);
    (x >> 32) as u32
}

/// A second value from a flow's hash, for what must not follow its slot: the NAT port to begin with.
#[inline(always)]
pub fn again(hash: u32) -> u32 {
    ((hash as u64 ^ MIX_2 >> 32).wrapping_mul(MIX_1) >> 32) as u32
}

/// Bucket of a service key, before masking.
#[inline(always)]
pub fn service<W: Words>(long: W, word: u64) -> u32 {
    let key = long.mix(0) ^ word;
    // The port stands in the high half, where a product alone would not carry it far.
    ((key ^ key >> 29).wrapping_mul(MIX_1) >> 40) as u32
}

/// Of a flow record's key: both buckets and the tag.
#[inline(always)]
pub fn record<W: Words>(seed: u64, addresses: W, rest: u64) -> u64 {
    let x = (addresses.mix(seed) ^ rest).wrapping_mul(seed | 1);
    let x = (x ^ x >> 32).wrapping_mul(MIX_1);
    x ^ x >> 29
}

/// Of where a packet arrives: in the bits of `flow::ARRIVAL`.
#[inline(always)]
pub fn arrival(interface: u32, tags: u32, peer_mac: u64, own_mac: u64) -> u32 {
    let x = (peer_mac ^ (tags as u64) << 24).wrapping_mul(MIX_1) ^ own_mac ^ (interface as u64) << 40;
    (x.wrapping_mul(MIX_2) >> 32) as u32 & crate::flow::ARRIVAL
}

/// One bit of 64: whether an address may be among those a filter stands for.
#[inline(always)]
pub fn address_bit<F: Family>(address: F::Address) -> u64 {
    let Be128([high, low]) = F::mapped(address);
    1 << ((high.rotate_left(29) ^ low).wrapping_mul(MIX_1) >> 58 & 63)
}

/// 2^64 divided by the golden ratio (Knuth, TAOCP 3, section 6.4).
pub(crate) const MIX_1: u64 = 0x9e37_79b9_7f4a_7c15;
/// From the MurmurHash3 finalizer.
const MIX_2: u64 = 0xff51_afd7_ed55_8ccd;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Be32, V4, V6};

    const KEY: HashKey = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211]);

    fn tuple(source: u32, port: u16) -> FlowTuple<V4> {
        FlowTuple { source: Be32::new(source), source_port: Be16::new(port), destination_port: Be16::new(80) }
    }

    /// Chi-squared of 2^16 flows over 256 slots: about 255, and 400 is more than six deviations away.
    fn check_uniform(name: &str, hashes: impl Iterator<Item = u32>) {
        let mut slots = [0u32; 256];
        let mut flows = 0u32;
        for hash in hashes {
            slots[hash as usize & 255] += 1;
            flows += 1;
        }
        let expected = f64::from(flows) / 256.0;
        let chi: f64 = slots.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        assert!(chi < 400.0, "{name}: chi-squared {chi}");
    }

    #[test]
    fn slots_are_filled_evenly() {
        check_uniform(
            "one client, all ports",
            (0..=u16::MAX).map(|port| flow(KEY, tuple(0x0a00_0001, port))),
        );
        check_uniform("many clients, one port", (0..=u16::MAX).map(|n| flow(KEY, tuple(n.into(), 40_000))));
        check_uniform("even ports", (0..32_768u16).map(|n| flow(KEY, tuple(0x0a00_0001, n * 2))));
        check_uniform("no key", (0..=u16::MAX).map(|n| flow(HashKey([0, 0]), tuple(0x0a00_0001, n))));
        let wide = |host: u64, port: u16| FlowTuple::<V6> {
            source: Be128([0x0db8_0120_u64, host.to_be()]),
            source_port: Be16::new(port),
            destination_port: Be16::new(80),
        };
        check_uniform("one v6 client", (0..=u16::MAX).map(|port| flow(KEY, wide(1, port))));
        check_uniform("many v6 clients", (0..=u16::MAX).map(|n| flow(KEY, wide(n.into(), 40_000))));
        check_uniform("second value", (0..=u16::MAX).map(|n| again(flow(KEY, tuple(0x0a00_0001, n)))));
    }

    /// As many keys as a table may hold, in the patterns that operators configure.
    #[test]
    fn services_find_a_bucket_near() {
        use crate::{
            entry::ServiceKey,
            limits::{PROBES_MAX, SERVICE_BUCKETS},
        };
        let key = |address: u32, port: u32, protocol| {
            ServiceKey::<V4>::new(Be32::new(0x0a00_0000 + address), Be16::new(port as u16), protocol)
        };
        type Pattern<'a> = &'a dyn Fn(u32) -> ServiceKey<V4>;
        let patterns: [(&str, Pattern<'_>); 5] = [
            ("one address, ports in a row, both protocols", &|n| {
                key(1, 1_000 + n / 2, if n % 2 == 0 { 6 } else { 17 })
            }),
            ("one address, ports in a row", &|n| key(1, 1 + n, 6)),
            ("addresses in a row, one port", &|n| key(n, 443, 6)),
            ("addresses in a row, two ports", &|n| key(n / 2, if n % 2 == 0 { 80 } else { 443 }, 6)),
            ("every 16th address, ports in a row", &|n| key(n / 64 * 16, 8_000 + n % 64, 6)),
        ];
        for (name, pattern) in patterns {
            let mut table = [false; SERVICE_BUCKETS as usize];
            for n in 0..SERVICE_BUCKETS / 4 {
                let first = pattern(n).first_bucket();
                let places =
                    (0..PROBES_MAX).map(|probe| (first.wrapping_add(probe) & (SERVICE_BUCKETS - 1)) as usize);
                let free = places.into_iter().find(|&place| !table[place]);
                table[free.unwrap_or_else(|| panic!("{name}: key {n} finds no bucket"))] = true;
            }
        }
    }

    #[test]
    fn the_key_changes_the_slot() {
        let other = HashKey([KEY.0[0], KEY.0[1] ^ 2]);
        let same = (0..4_096u16).filter(|&n| flow(KEY, tuple(1, n)) & 255 == flow(other, tuple(1, n)) & 255);
        assert!(same.count() < 64);
    }
}
