//! What the benchmark tells the driver: the values of its maps, the same source on both sides.

use lb_common::net::{Be16, Be32};

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
    /// Length of the frame the program under test must find: `SHORT` or `LONG`.
    pub(super) length: u64,
    /// `IPV4`, `IPV4_TAGGED` or `IPV6`.
    pub(super) layout: u64,
    /// Whether the transport is UDP, whose checksum stands elsewhere.
    pub(super) is_udp: u64,
    /// Whether the program under test moves the head of the packet; otherwise it may cut the tail.
    pub(super) moves_head: u64,
    /// Whether the ends of packet i are entry i of the map `ends`, which repeats, rather than counted on from
    /// `first`. The map is read in ascending order, so that it costs the cache little.
    pub(super) from_map: u64,
    /// The frame with zeroes for the ends of its flow, and checksums that fit.
    pub(super) template: [u16; LONG / 2],
    /// Of flow 0; the others count on from its source.
    pub(super) first: Ends,
    pub(super) zero: u32,
}

/// What differs from flow to flow; of IPv6 addresses the last four bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Ends {
    pub(super) source: Be32,
    pub(super) destination: Be32,
    pub(super) source_port: Be16,
    pub(super) destination_port: Be16,
}

/// Whole frames, data included, so that each is written with stores of fixed places.
pub(crate) const SHORT: usize = 64;
pub(crate) const LONG: usize = 96;

pub(super) const IPV4: u64 = 0;
/// Behind one VLAN tag.
pub(super) const IPV4_TAGGED: u64 = 1;
pub(super) const IPV6: u64 = 2;

const _: () = assert!(size_of::<Ends>() == 12);
const _: () = assert!(size_of::<Orders>() == 8 * 8 + LONG + 16);
