//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).
//!
//! Ones' complement sums do not depend on byte order, so everything stays as it stands in the packet.

use lb_common::net::{Be16, Be32, Be128};

/// An unfolded ones' complement sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum behind a checksum field.
    #[inline(always)]
    pub fn of_field(checksum: Be16) -> Self {
        Sum(!checksum.0 as u64)
    }

    #[inline(always)]
    pub fn add16(self, value: Be16) -> Self {
        Sum(self.0 + value.0 as u64)
    }

    #[inline(always)]
    pub fn add32(self, value: Be32) -> Self {
        Sum(self.0 + value.0 as u64)
    }

    #[inline(always)]
    pub fn add128(self, Be128([high, low]): Be128) -> Self {
        Sum(self.0 + (high & LOW) + (high >> 32) + (low & LOW) + (low >> 32))
    }

    #[inline(always)]
    pub fn plus(self, other: Sum) -> Self {
        Sum(self.0 + other.0)
    }

    /// Takes `old` out and puts `new` in.
    #[inline(always)]
    pub fn replace16(self, old: Be16, new: Be16) -> Self {
        Sum(self.0 + !old.0 as u64 + new.0 as u64)
    }

    /// Takes `old` out and puts `new` in.
    #[inline(always)]
    pub fn replace32(self, old: Be32, new: Be32) -> Self {
        Sum(self.0 + !old.0 as u64 + new.0 as u64)
    }

    /// Takes `old` out and puts `new` in.
    #[inline(always)]
    pub fn replace128(self, Be128([high, low]): Be128, new: Be128) -> Self {
        self.add128(Be128([!high, !low])).add128(new)
    }

    /// Folded to 32 bits, as the kernel takes a difference.
    #[inline(always)]
    pub fn word(self) -> u32 {
        let s = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((s & 0xffff_ffff) + (s >> 32)) as u32
    }

    /// The checksum field. Bounded: 2^16 terms of 32 bits fit the sum.
    #[inline(always)]
    pub fn field(self) -> Be16 {
        let s = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let s = (s & 0xffff) + (s >> 16);
        let s = (s & 0xffff) + (s >> 16);
        let s = (s & 0xffff) + (s >> 16);
        Be16(!(s as u16))
    }
}

const LOW: u64 = 0xffff_ffff;

/// A computed UDP checksum of zero is sent as all ones; zero means "none" (RFC 768).
#[inline(always)]
pub fn udp_field(sum: Sum) -> Be16 {
    let field = sum.field();
    if field.0 == 0 { Be16(0xffff) } else { field }
}
