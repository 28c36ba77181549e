//! Headers that only encapsulated or tagged packets have.
#![expect(unsafe_code, reason = "marks plain layouts as headers")]

use lb_common::net::Be16;

use crate::frame::Header;

/// IEEE 802.1Q; the type in front of it says which of the two.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Tag {
    pub control: Be16,
    /// Of what follows.
    pub ethertype: Be16,
}

pub(super) const ETHERTYPE_VLAN: Be16 = Be16::new(0x8100);
pub(super) const ETHERTYPE_QINQ: Be16 = Be16::new(0x88a8);

/// The start of a GUE header of variant 0 (draft-ietf-intarea-gue, section 3). Variant 1 has none: the first
/// byte is that of the IP header.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Gue {
    /// Variant (2 bits), control message (1), length in words behind these four bytes (5).
    pub variant_length: u8,
    pub protocol: u8,
    pub flags: Be16,
}

/// The first two bytes of an IP header.
#[derive(Clone, Copy)]
#[repr(C, align(2))]
pub(super) struct Version(pub [u8; 2]);

// SAFETY: integers only, no padding (sizes asserted below), align 2.
unsafe impl Header for Tag {}
// SAFETY: as above.
unsafe impl Header for Gue {}
// SAFETY: as above.
unsafe impl Header for Version {}

const _: () = assert!(size_of::<Tag>() == 4 && align_of::<Tag>() == 2);
const _: () = assert!(size_of::<Gue>() == 4 && align_of::<Gue>() == 2);
const _: () = assert!(size_of::<Version>() == 2 && align_of::<Version>() == 2);
