//! Values in network byte order, as they stand in packets, keys and entries.

/// IP protocol numbers (IANA) of the transports that services balance.
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// A 16-bit value in network byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Be16(pub u16);

/// A 32-bit value in network byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Be32(pub u32);

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
