//! The maps, and the tables they make.
#![expect(unsafe_code, reason = "map values are pointers into kernel memory")]

use aya_ebpf::{
    macros::map,
    maps::{HashMap, PerCpuArray},
};
use lb_common::{
    decap::{COUNTS, Counter, Counts, VIPS_MAX},
    net::{Be32, Be128},
};
use lb_ebpf::decap::DecapTables;

#[map(name = "vips4")]
static VIPS4: HashMap<Be32, u8> = HashMap::with_max_entries(VIPS_MAX, 0);
#[map(name = "vips6")]
static VIPS6: HashMap<Be128, u8> = HashMap::with_max_entries(VIPS_MAX, 0);
#[map(name = "counters")]
static COUNTERS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);

pub(crate) struct Maps;

impl DecapTables for Maps {
    #[inline(always)]
    fn is_vip4(&self, address: Be32) -> bool {
        VIPS4.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn is_vip6(&self, address: Be128) -> bool {
        VIPS6.get_ptr(address).is_some()
    }
}

#[inline(always)]
pub(crate) fn count(counter: Counter) {
    let Some(counts) = COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own value; XDP is not interrupted by XDP on the same CPU.
    let counts = unsafe { &mut *counts };
    counts[counter as usize & (COUNTS - 1)] += 1;
}
