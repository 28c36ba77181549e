//! Keys and values of the maps that aya writes, in its terms.
#![expect(unsafe_code, reason = "aya's Pod is an unsafe trait")]

use lb_common::entry::Scoped;

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct PodScoped(pub(super) Scoped);

// SAFETY: integers without padding; every bit pattern is a value.
unsafe impl aya::Pod for PodScoped {}
