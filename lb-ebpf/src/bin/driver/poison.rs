//! Fills the headroom of a packet, so that a program that reads it is found out.
//!
//! Must not know the program it calls.
#![expect(unsafe_code, reason = "moves the head of a packet and writes what it frees")]

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_action,
    helpers::bpf_xdp_adjust_head,
    macros::{map, xdp},
    maps::ProgramArray,
    programs::XdpContext,
};
use lb_ebpf::frame::{Frame, Header};

#[map(name = "poisoned")]
static POISONED: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Returns XDP_ABORTED when there is nothing to call or no headroom.
#[xdp(frags)]
fn poison(context: XdpContext) -> u32 {
    if fill(&context).is_some() {
        // SAFETY: the context is the kernel's own, and nothing here needs to be dropped.
        unsafe { POISONED.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

#[inline(always)]
fn fill(context: &XdpContext) -> Option<()> {
    move_head(context, -ROOM)?;
    // SAFETY: the bounds of a packet that only this run touches, read after its head was moved.
    let mut frame = unsafe { Frame::new(context.data(), context.data_end()) };
    *frame.at::<Room>(0)? = Room([0xa5a5; ROOM as usize / 2]);
    move_head(context, ROOM)
}

#[inline(always)]
fn move_head(context: &XdpContext, by: i32) -> Option<()> {
    // SAFETY: nothing borrows the packet; the kernel checks the new bounds.
    let result = unsafe { bpf_xdp_adjust_head(context.as_ptr().cast(), by) };
    (result == 0).then_some(())
}

/// More than any header the program under test could mistake for its own.
const ROOM: i32 = 64;

#[derive(Clone, Copy)]
#[repr(C)]
struct Room([u16; ROOM as usize / 2]);

// SAFETY: integers only, without padding and with align 2.
unsafe impl Header for Room {}
