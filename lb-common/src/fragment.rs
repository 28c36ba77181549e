//! Records of datagrams that come in fragments.

use crate::{flow::Ticks, net::Be16};

/// A datagram under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FragmentKey {
    pub source: [u64; 2],
    pub destination: [u64; 2],
    pub id: u32,
    pub protocol: u32,
}

/// The ports its first fragment had, and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct FragmentEntry {
    pub source_port: Be16,
    pub destination_port: Be16,
    pub seen: Ticks,
}

/// As long as hosts wait for the rest of a datagram (Linux: 30 s; RFC 8200, section 4.5: 60 s).
pub const FRAGMENT_TICKS: u32 = Ticks::in_ms(30_000);

const _: () = assert!(size_of::<FragmentKey>() == 40 && size_of::<FragmentEntry>() == 8);
