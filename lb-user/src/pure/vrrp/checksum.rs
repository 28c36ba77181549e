//! The checksum of the Internet protocols (RFC 1071), with a pseudo header where one belongs to it.

use std::net::IpAddr;

/// What is summed up so far. The parts must be of even length, but for the last one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum(u64);

impl Sum {
    pub(super) fn of(bytes: &[u8]) -> Sum {
        Sum(0).and(bytes)
    }

    /// The pseudo header of IPv4, or of IPv6 (RFC 8200, section 8.1): they differ in form, not in sum.
    pub(super) fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Sum {
        let sum = [source, destination].into_iter().fold(Sum(0), |sum, address| match address {
            IpAddr::V4(address) => sum.and(&address.octets()),
            IpAddr::V6(address) => sum.and(&address.octets()),
        });
        Sum(sum.0 + u64::from(protocol) + length as u64)
    }

    pub(super) fn and(self, bytes: &[u8]) -> Sum {
        let (words, rest) = bytes.as_chunks::<2>();
        let sum = words.iter().fold(self.0, |sum, word| sum + u64::from(u16::from_be_bytes(*word)));
        Sum(rest.iter().fold(sum, |sum, byte| sum + (u64::from(*byte) << 8)))
    }

    /// What the field holds; over a message whose field is filled in: 0 when it is right.
    pub(super) fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > u64::from(u16::MAX) {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    pub(super) fn is_right(self) -> bool {
        self.finish() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 1071, section 3: the sum is ddf2.
        assert_eq!(Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).finish(), !0xddf2);
        assert_eq!(Sum::of(&[0xff]).finish(), 0x00ff);
        assert_eq!(Sum::of(&[]).finish(), 0xffff);
    }
}
