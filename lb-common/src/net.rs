//! Values in network byte order, as they stand in packets, keys and entries, and the two IP versions.

use core::{fmt::Debug, hash::Hash};

use crate::word::Words;

/// IP protocol numbers (IANA).
pub const ICMP: u8 = 1;
/// IPv4 in another IP header (RFC 2003, RFC 2473).
pub const IPIP: u8 = 4;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
/// IPv6 in another IP header (RFC 4213, RFC 2473).
pub const IPV6: u8 = 41;
pub const ICMPV6: u8 = 58;

/// UDP port of generic UDP encapsulation (IANA: gue).
pub const GUE_PORT: u16 = 6_080;

/// A 16-bit value in network byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Be16(pub u16);

/// A 32-bit value in network byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Be32(pub u32);

/// An IPv6 address as it stands in a packet: bytes 0 to 7, then 8 to 15, each as a native word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct Be128(pub [u64; 2]);

/// An IP version: what its addresses are, and in how many words keys and records hold them.
///
/// The two keep tables apart, so that IPv4 keys stay small.
pub trait Family: Copy + Eq + Ord + Hash + Debug + Default + Send + Sync + 'static {
    type Address: Copy + Eq + Ord + Hash + Debug + Default;
    /// Two addresses.
    type Pair: Words;
    /// What the key of a service holds beside its one word.
    type Long: Words;
    /// The protocol number of this version's control messages.
    const ICMP: u8;

    fn pair(first: Self::Address, second: Self::Address) -> Self::Pair;
    fn unpair(pair: Self::Pair) -> (Self::Address, Self::Address);
    /// The long part, and the low half of the word.
    fn split(address: Self::Address) -> (Self::Long, u32);
    fn join(long: Self::Long, low: u32) -> Self::Address;
    /// As a server entry holds it: IPv4 in the low half of the first word.
    fn from_words(words: [u64; 2]) -> Self::Address;
    /// Both words of a 128-bit address; IPv4 is mapped into IPv6 (RFC 4291, section 2.5.5.2).
    fn mapped(address: Self::Address) -> Be128;
    /// The inverse; the caller knows the version.
    fn unmapped(address: Be128) -> Self::Address;
    /// A word in which the low 32 bits are free for ports, keyed.
    fn mixed(address: Self::Address, key: u64) -> u64;
}

/// IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct V4;

/// IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct V6;

impl Family for V4 {
    type Address = Be32;
    type Pair = [u64; 1];
    type Long = [u64; 0];
    const ICMP: u8 = ICMP;

    #[inline(always)]
    fn pair(first: Be32, second: Be32) -> [u64; 1] {
        [first.0 as u64 | (second.0 as u64) << 32]
    }

    #[inline(always)]
    fn unpair([word]: [u64; 1]) -> (Be32, Be32) {
        (Be32(word as u32), Be32((word >> 32) as u32))
    }

    #[inline(always)]
    fn split(address: Be32) -> ([u64; 0], u32) {
        ([], address.0)
    }

    #[inline(always)]
    fn join(_: [u64; 0], low: u32) -> Be32 {
        Be32(low)
    }

    #[inline(always)]
    fn from_words([low, _]: [u64; 2]) -> Be32 {
        Be32(low as u32)
    }

    #[inline(always)]
    fn mapped(address: Be32) -> Be128 {
        Be128([0, MAPPED | (address.0 as u64) << 32])
    }

    #[inline(always)]
    fn unmapped(Be128([_, low]): Be128) -> Be32 {
        Be32((low >> 32) as u32)
    }

    #[inline(always)]
    fn mixed(address: Be32, key: u64) -> u64 {
        (address.0 as u64) << 32 ^ key
    }
}

impl Family for V6 {
    type Address = Be128;
    type Pair = [u64; 4];
    type Long = [u64; 2];
    const ICMP: u8 = ICMPV6;

    #[inline(always)]
    fn pair(Be128([a, b]): Be128, Be128([c, d]): Be128) -> [u64; 4] {
        [a, b, c, d]
    }

    #[inline(always)]
    fn unpair([a, b, c, d]: [u64; 4]) -> (Be128, Be128) {
        (Be128([a, b]), Be128([c, d]))
    }

    #[inline(always)]
    fn split(address: Be128) -> ([u64; 2], u32) {
        (address.0, 0)
    }

    #[inline(always)]
    fn join(long: [u64; 2], _: u32) -> Be128 {
        Be128(long)
    }

    #[inline(always)]
    fn from_words(words: [u64; 2]) -> Be128 {
        Be128(words)
    }

    #[inline(always)]
    fn mapped(address: Be128) -> Be128 {
        address
    }

    #[inline(always)]
    fn unmapped(address: Be128) -> Be128 {
        address
    }

    #[inline(always)]
    fn mixed(Be128([high, low]): Be128, key: u64) -> u64 {
        let x = (high ^ key).wrapping_mul(MIX);
        let x = (x ^ x >> 32 ^ low).wrapping_mul(MIX);
        x ^ x >> 32
    }
}

/// What stands in front of a mapped IPv4 address, in the low half of the second word.
const MAPPED: u64 = 0x0000_ffff_u32.to_be() as u64;

/// From the MurmurHash3 finalizer.
const MIX: u64 = 0xff51_afd7_ed55_8ccd;

impl Be16 {
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Be16(host.to_be())
    }

    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl Be32 {
    #[inline(always)]
    pub const fn new(host: u32) -> Self {
        Be32(host.to_be())
    }

    #[inline(always)]
    pub const fn get(self) -> u32 {
        u32::from_be(self.0)
    }
}

impl From<core::net::Ipv4Addr> for Be32 {
    fn from(address: core::net::Ipv4Addr) -> Self {
        Be32(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Be32> for core::net::Ipv4Addr {
    fn from(address: Be32) -> Self {
        core::net::Ipv4Addr::from(address.0.to_ne_bytes())
    }
}

impl From<core::net::Ipv6Addr> for Be128 {
    fn from(address: core::net::Ipv6Addr) -> Self {
        let bits = address.to_bits();
        Be128([((bits >> 64) as u64).to_be(), (bits as u64).to_be()])
    }
}

impl From<Be128> for core::net::Ipv6Addr {
    fn from(Be128([high, low]): Be128) -> Self {
        core::net::Ipv6Addr::from_bits((u64::from_be(high) as u128) << 64 | u64::from_be(low) as u128)
    }
}

impl Be128 {
    /// An IPv4 address stands in its mapped form.
    pub fn from_ip(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(address) => V4::mapped(address.into()),
            core::net::IpAddr::V6(address) => address.into(),
        }
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    pub const fn is_mapped(self) -> bool {
        let Be128([high, low]) = self;
        high == 0 && low as u32 as u64 == MAPPED
    }

    /// A mapped IPv4 address as what it is.
    pub fn to_ip(self) -> core::net::IpAddr {
        core::net::Ipv6Addr::from(self).to_canonical()
    }
}

/// An Ethernet address in the low 48 bits, first byte lowest, so that a word holds it beside 16 more bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Mac(pub u64);

const MAC_MASK: u64 = (1 << 48) - 1;

impl Mac {
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Mac(word & MAC_MASK)
    }

    #[inline(always)]
    pub const fn from_bytes(b: [u8; 6]) -> Self {
        Mac(u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], 0, 0]))
    }

    #[inline(always)]
    pub const fn bytes(self) -> [u8; 6] {
        let b = self.0.to_le_bytes();
        [b[0], b[1], b[2], b[3], b[4], b[5]]
    }
}
