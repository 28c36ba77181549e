//! Headers as they stand in a packet: align-2 types, fields in network byte order.
#![expect(unsafe_code, reason = "marks plain layouts as headers")]

use lb_common::net::{Be16, Be32, Be128, Mac};

use crate::frame::Header;

pub const ETHERTYPE_IPV4: Be16 = Be16::new(0x0800);
pub const ETHERTYPE_IPV6: Be16 = Be16::new(0x86dd);

pub const ETHERTYPE_VLAN: Be16 = Be16::new(0x8100);
/// Service tag, the outer of two (IEEE 802.1ad).
pub const ETHERTYPE_QINQ: Be16 = Be16::new(0x88a8);

/// Where an IP header stands in a frame without VLAN tags.
pub const L3_OFFSET: usize = size_of::<Ethernet>();

#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub struct Ethernet {
    pub destination: MacBytes,
    pub source: MacBytes,
    pub ethertype: Be16,
}

/// IEEE 802.1Q, behind the type that announces it.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub struct Vlan {
    /// Priority (4 bits with the drop flag) and VLAN id (12).
    pub control: Be16,
    pub ethertype: Be16,
}

/// Six bytes as halfwords: what an align-2 header can hold.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct MacBytes([u16; 3]);

impl MacBytes {
    #[inline(always)]
    pub fn get(self) -> Mac {
        let [a, b, c] = self.0;
        Mac(a.to_le() as u64 | (b.to_le() as u64) << 16 | (c.to_le() as u64) << 32)
    }

    #[inline(always)]
    pub fn set(&mut self, mac: Mac) {
        self.0 = [(mac.0 as u16).to_le(), ((mac.0 >> 16) as u16).to_le(), ((mac.0 >> 32) as u16).to_le()];
    }

    #[inline(always)]
    pub fn is_multicast(self) -> bool {
        self.0[0].to_le() & 1 != 0
    }
}

/// RFC 791, without options.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    pub total_length: Be16,
    pub id: Be16,
    pub fragment: Be16,
    /// Time to live in the first byte, protocol in the second: the checksum sums them as one word.
    pub ttl_protocol: [u8; 2],
    pub checksum: Be16,
    pub source: Be32,
    pub destination: Be32,
}

pub const VERSION_IHL_20: u8 = 0x45;
pub const MORE_FRAGMENTS: Be16 = Be16::new(0x2000);
pub const FRAGMENT_OFFSET: Be16 = Be16::new(0x1fff);
pub const DONT_FRAGMENT: Be16 = Be16::new(0x4000);

/// RFC 8200, the fixed header.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub struct Ipv6 {
    /// Version (4 bits), traffic class (8) and flow label (20).
    pub version_class_flow: Be32,
    pub payload_length: Be16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: Be128,
    pub destination: Be128,
}

/// What the options headers and the routing header of IPv6 have in common (RFC 8200, section 4).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Extension {
    pub next_header: u8,
    /// In units of 8 bytes, without the first.
    pub length: u8,
}

/// RFC 8200, section 4.5.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub struct Fragment {
    pub next_header: u8,
    pub reserved: u8,
    pub offset_more: Be16,
    pub id: Be32,
}

pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const DESTINATION_OPTIONS: u8 = 60;
/// Of `Fragment::offset_more`.
pub const V6_FRAGMENT_OFFSET: Be16 = Be16::new(0xfff8);
pub const V6_MORE_FRAGMENTS: Be16 = Be16::new(0x0001);

/// RFC 792 and RFC 4443: every message starts like this.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub checksum: Be16,
    /// Identifier and sequence number, or the MTU.
    pub rest: Be32,
}

/// The start of a GUE header of variant 0 (draft-ietf-intarea-gue, section 3). Variant 1 has none: the first
/// byte is that of the IP header.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Gue {
    /// Variant (2 bits), control message (1), length in words behind these four bytes (5).
    pub variant_length: u8,
    pub protocol: u8,
    pub flags: Be16,
}

/// The first two bytes of an IP header.
#[derive(Clone, Copy)]
#[repr(C, align(2))]
pub struct Version(pub [u8; 2]);

/// Four bytes of a packet, for checksums.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub struct Word32(pub Be32);

/// What TCP and UDP have in common.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub struct Ports {
    pub source: Be16,
    pub destination: Be16,
}

/// RFC 9293, without options.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub struct Tcp {
    pub ports: Ports,
    pub sequence: Be32,
    pub acknowledgment: Be32,
    /// Header length in 32-bit words, in the high four bits.
    pub data_offset: u8,
    pub flags: u8,
    pub window: Be16,
    pub checksum: Be16,
    pub urgent: Be16,
}

/// An option with a value of 16 bits; it may stand at an odd offset.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct TcpOption {
    pub kind: u8,
    pub length: u8,
    pub value: [u8; 2],
}

pub const TCP_OPTION_END: u8 = 0;
pub const TCP_OPTION_NOP: u8 = 1;
pub const TCP_OPTION_MSS: u8 = 2;

pub const TCP_FIN: u8 = 0x01;
pub const TCP_SYN: u8 = 0x02;
pub const TCP_RST: u8 = 0x04;
pub const TCP_ACK: u8 = 0x10;

/// RFC 768.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub struct Udp {
    pub ports: Ports,
    pub length: Be16,
    pub checksum: Be16,
}

// SAFETY: integers only, no padding (sizes asserted below), align 2.
unsafe impl Header for Ethernet {}
// SAFETY: as above.
unsafe impl Header for Ipv4 {}
// SAFETY: as above.
unsafe impl Header for Vlan {}
// SAFETY: as above.
unsafe impl Header for Extension {}
// SAFETY: as above.
unsafe impl Header for Fragment {}
// SAFETY: as above.
unsafe impl Header for Icmp {}
// SAFETY: as above.
unsafe impl Header for Gue {}
// SAFETY: as above.
unsafe impl Header for Version {}
// SAFETY: as above.
unsafe impl Header for Word32 {}
// SAFETY: as above.
unsafe impl Header for TcpOption {}
// SAFETY: as above.
unsafe impl Header for Ipv6 {}
// SAFETY: as above.
unsafe impl Header for Ports {}
// SAFETY: as above.
unsafe impl Header for Tcp {}
// SAFETY: as above.
unsafe impl Header for Udp {}

const _: () = assert!(size_of::<Ethernet>() == 14 && align_of::<Ethernet>() == 2);
const _: () = assert!(size_of::<Ipv4>() == 20 && align_of::<Ipv4>() == 2);
const _: () = assert!(size_of::<Vlan>() == 4 && align_of::<Vlan>() == 2);
const _: () = assert!(size_of::<Extension>() == 2);
const _: () = assert!(size_of::<Fragment>() == 8 && align_of::<Fragment>() == 2);
const _: () = assert!(size_of::<TcpOption>() == 4 && align_of::<TcpOption>() == 1);
const _: () = assert!(size_of::<Gue>() == 4 && align_of::<Gue>() == 2);
const _: () = assert!(size_of::<Version>() == 2 && align_of::<Version>() == 2);
const _: () = assert!(size_of::<Icmp>() == 8 && align_of::<Icmp>() == 2);
const _: () = assert!(size_of::<Ipv6>() == 40 && align_of::<Ipv6>() == 2);
const _: () = assert!(size_of::<Ports>() == 4 && align_of::<Ports>() == 2);
const _: () = assert!(size_of::<Tcp>() == 20 && align_of::<Tcp>() == 2);
const _: () = assert!(size_of::<Udp>() == 8 && align_of::<Udp>() == 2);
const _: () = assert!(network_types::eth::EthHdr::LEN == size_of::<Ethernet>());
const _: () = assert!(network_types::ip::Ipv4Hdr::LEN == size_of::<Ipv4>());
const _: () = assert!(network_types::ip::Ipv6Hdr::LEN == size_of::<Ipv6>());
const _: () = assert!(network_types::tcp::TcpHdr::LEN == size_of::<Tcp>());
const _: () = assert!(network_types::udp::UdpHdr::LEN == size_of::<Udp>());
