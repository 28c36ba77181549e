//! Headers as they stand in a packet: align-2 types, fields in network byte order.
#![expect(unsafe_code, reason = "marks plain layouts as headers")]

use lb_common::net::{Be16, Be32, Be128, Mac};

use crate::frame::Header;

pub const ETHERTYPE_IPV4: Be16 = Be16::new(0x0800);
pub const ETHERTYPE_IPV6: Be16 = Be16::new(0x86dd);

/// Offsets with an IPv4 header of 20 bytes, the only kind handled.
pub const IPV4_OFFSET: usize = size_of::<Ethernet>();
pub const L4_OFFSET: usize = IPV4_OFFSET + size_of::<Ipv4>();

#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub struct Ethernet {
    pub destination: MacBytes,
    pub source: MacBytes,
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
/// "More fragments" and the fragment offset.
pub const FRAGMENT_MASK: Be16 = Be16::new(0x3fff);
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
unsafe impl Header for Ipv6 {}
// SAFETY: as above.
unsafe impl Header for Ports {}
// SAFETY: as above.
unsafe impl Header for Tcp {}
// SAFETY: as above.
unsafe impl Header for Udp {}

const _: () = assert!(size_of::<Ethernet>() == 14 && align_of::<Ethernet>() == 2);
const _: () = assert!(size_of::<Ipv4>() == 20 && align_of::<Ipv4>() == 2);
const _: () = assert!(size_of::<Ipv6>() == 40 && align_of::<Ipv6>() == 2);
const _: () = assert!(size_of::<Ports>() == 4 && align_of::<Ports>() == 2);
const _: () = assert!(size_of::<Tcp>() == 20 && align_of::<Tcp>() == 2);
const _: () = assert!(size_of::<Udp>() == 8 && align_of::<Udp>() == 2);
const _: () = assert!(network_types::eth::EthHdr::LEN == size_of::<Ethernet>());
const _: () = assert!(network_types::ip::Ipv4Hdr::LEN == size_of::<Ipv4>());
const _: () = assert!(network_types::ip::Ipv6Hdr::LEN == size_of::<Ipv6>());
const _: () = assert!(network_types::tcp::TcpHdr::LEN == size_of::<Tcp>());
const _: () = assert!(network_types::udp::UdpHdr::LEN == size_of::<Udp>());
