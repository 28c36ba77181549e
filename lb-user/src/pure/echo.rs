//! An ICMP echo request, and the reply that answers it.

use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Icmpv6Header, Icmpv6Slice, Icmpv6Type,
};

/// One echo of one check; the payload tells it from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    pub family: Family,
    pub id: u16,
    pub sequence: u16,
    pub payload: [u8; 16],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Echo {
    /// From the ICMP header on. ICMPv6's checksum is left to the kernel, which knows the addresses (RFC 3542, 3.1).
    pub fn request(&self) -> Vec<u8> {
        let echo = IcmpEchoHeader { id: self.id, seq: self.sequence };
        let mut packet = match self.family {
            Family::V4 => {
                let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), &self.payload);
                header.to_bytes().to_vec()
            }
            Family::V6 => Icmpv6Header::new(Icmpv6Type::EchoRequest(echo)).to_bytes().to_vec(),
        };
        packet.extend_from_slice(&self.payload);
        packet
    }

    /// Whether a packet, from the ICMP header on, is the reply.
    pub fn is_answered_by(&self, packet: &[u8]) -> bool {
        let expected = IcmpEchoHeader { id: self.id, seq: self.sequence };
        let found = match self.family {
            Family::V4 => Icmpv4Slice::from_slice(packet).ok().and_then(|icmp| match icmp.icmp_type() {
                Icmpv4Type::EchoReply(echo) => Some((echo, icmp.payload())),
                _ => None,
            }),
            Family::V6 => Icmpv6Slice::from_slice(packet).ok().and_then(|icmp| match icmp.icmp_type() {
                Icmpv6Type::EchoReply(echo) => Some((echo, icmp.payload())),
                _ => None,
            }),
        };
        found == Some((expected, &self.payload[..]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn echo(family: Family) -> Echo {
        Echo { family, id: 7, sequence: 1, payload: *b"0123456789abcdef" }
    }

    /// What a host makes of a request: another type, and a checksum that is the kernel's matter.
    fn reply(echo: Echo) -> Vec<u8> {
        let mut packet = echo.request();
        packet[0] = if echo.family == Family::V4 { 0 } else { 129 };
        packet
    }

    #[test]
    fn a_request_is_an_echo_request() {
        let packet = echo(Family::V4).request();
        let (header, payload) = Icmpv4Header::from_slice(&packet).unwrap();
        assert_eq!(header.icmp_type, Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 7, seq: 1 }));
        assert_eq!(header.checksum, header.icmp_type.calc_checksum(payload));
        let packet = echo(Family::V6).request();
        assert_eq!(packet[..8], [128, 0, 0, 0, 0, 7, 0, 1]);
    }

    #[test]
    fn only_its_own_reply_answers_it() {
        for family in [Family::V4, Family::V6] {
            let echo = echo(family);
            assert!(echo.is_answered_by(&reply(echo)));
            assert!(
                !echo.is_answered_by(&echo.request()),
                "the request itself, as seen on the loopback device"
            );
            for other in [
                Echo { id: 8, ..echo },
                Echo { sequence: 2, ..echo },
                Echo { payload: *b"0123456789abcdeg", ..echo },
            ] {
                assert!(!echo.is_answered_by(&reply(other)), "{other:?}");
            }
            assert!(!echo.is_answered_by(&reply(echo)[..23]));
        }
    }

    proptest! {
        #[test]
        fn no_packet_is_too_strange(packet: Vec<u8>) {
            prop_assert!(!echo(Family::V4).is_answered_by(&packet));
            prop_assert!(!echo(Family::V6).is_answered_by(&packet));
        }
    }
}
