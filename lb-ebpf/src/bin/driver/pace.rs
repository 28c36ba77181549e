//! Keeps a generator from sending more than a queue takes: frames that are lost there cost both ends.
//!
//! ```text
//! generate, CPU A ── frames ──► forwarder, sink, CPU B
//!        ▲                              │ every 32nd frame
//!        └────────── arrived ◄──────────┘
//! ```
#![expect(
    unsafe_code,
    reason = "map values are pointers into kernel memory, and a loop is a helper with a callback"
)]

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, bpf_loop},
    macros::map,
    maps::Array,
};

/// By `ARRIVED` and `STALLED`.
#[map(name = "pace")]
static PACE: Array<u64> = Array::with_max_entries(2, 0);

/// Says that this many frames were counted, now and then: both CPUs want the cache line.
#[inline(always)]
pub(crate) fn arrived(count: u64) {
    if count.is_multiple_of(STEP)
        && let Some(arrived) = PACE.get_ptr_mut(ARRIVED)
    {
        // SAFETY: a live map value of 8 aligned bytes, written by the one CPU that receives.
        unsafe { arrived.write_volatile(count) };
    }
}

/// Waits at the start of a batch until the frames of two more find room behind those under way. None: nothing
/// arrived for a good part of a tenth of a second, and nothing is sent before `STALLED` is cleared.
#[inline(always)]
pub(crate) fn wait(sent: u64) -> Option<()> {
    let stalled = PACE.get_ptr_mut(STALLED)?;
    // SAFETY: a live map value, written by the one CPU that sends.
    if unsafe { stalled.read() } != 0 {
        return None;
    }
    if !sent.is_multiple_of(BATCH) || has_room(sent) {
        return Some(());
    }
    let mut sent = sent;
    // SAFETY: the callback has the signature that the helper calls, and `sent` outlives the call.
    unsafe { bpf_loop(LOOKS, look as *mut c_void, (&raw mut sent).cast(), 0) };
    if !has_room(sent) {
        // SAFETY: as above.
        unsafe { stalled.write(1) };
        return None;
    }
    Some(())
}

#[inline(always)]
fn has_room(sent: u64) -> bool {
    // SAFETY: a live map value of 8 aligned bytes.
    let arrived = PACE.get_ptr(ARRIVED).map_or(0, |arrived| unsafe { arrived.read_volatile() });
    sent.wrapping_sub(arrived) <= UNDER_WAY
}

/// Ends the loop with 1. Reads the clock to pass time, so that the line stays with the CPU that writes it.
extern "C" fn look(_: u32, sent: *mut c_void) -> i64 {
    for _ in 0..CLOCKS {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() };
    }
    // SAFETY: the value that `wait` lent to the loop.
    has_room(unsafe { *sent.cast::<u64>() }).into()
}

const ARRIVED: u32 = 0;
const STALLED: u32 = 1;
/// Frames between two publications.
const STEP: u64 = 32;
/// Frames the kernel generates between two flushes.
const BATCH: u64 = 64;
/// With one batch more, below the 256 frames that a queue of a veth holds.
const UNDER_WAY: u64 = 128;
/// About a microsecond a look.
const CLOCKS: u32 = 32;
const LOOKS: u32 = 100_000;
