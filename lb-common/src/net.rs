//! Values in network byte order, as they stand in packets, keys and entries.

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
