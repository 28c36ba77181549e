//! What the benchmark tells the driver: the one value of the map `orders`, the same source on both sides.

use lb_common::net::{Be16, Be32};
use lb_ebpf::header::{Ethernet, Ipv4, Ports};

/// Written before every call. The words first, so that nothing is padded.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Orders {
    /// Packets driven so far; the driver counts on.
    pub(super) packets: u64,
    /// Flows less one; their number is a power of two.
    pub(super) flow_mask: u64,
    /// Flows from one packet to the next; odd, so that all are visited.
    pub(super) stride: u64,
    /// Length of the frame the program under test must find.
    pub(super) length: u64,
    /// Whether the transport is UDP, whose checksum stands elsewhere.
    pub(super) is_udp: u64,
    /// Its checksums are those of a packet whose source address and port are zero.
    pub(super) template: Headers,
    /// Source of flow 0; the others count on from here.
    pub(super) source_port: Be16,
    pub(super) source: Be32,
    pub(super) zero: u32,
}

/// The start of the frame: TCP, or UDP with twelve bytes of data.
#[derive(Clone, Copy)]
#[repr(C, packed(2))]
pub(super) struct Headers {
    pub(super) ethernet: Ethernet,
    pub(super) ip: Ipv4,
    pub(super) ports: Ports,
    pub(super) rest: [u16; 8],
}

const _: () = assert!(size_of::<Headers>() == 54 && align_of::<Headers>() == 2);
const _: () = assert!(size_of::<Orders>() == 5 * 8 + 64);
