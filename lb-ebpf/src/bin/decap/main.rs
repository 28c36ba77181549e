//! The kernel half of `steelyard decap`: maps, the packet's pointers, and one XDP action for every outcome.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "program and licence sections have unmangled names")]

mod maps;
mod packet;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_ebpf::decap::{DecapOutcome, decap};

use crate::{maps::Maps, packet::XdpPacket};

#[xdp(frags)]
fn steelyard_decap(context: XdpContext) -> u32 {
    let (action, counter) = match decap(&mut XdpPacket::new(&context), &Maps) {
        DecapOutcome::Pass(counter) => (xdp_action::XDP_PASS, counter),
        DecapOutcome::Drop(counter) => (xdp_action::XDP_DROP, counter),
    };
    maps::count(counter);
    action
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The compiler removes it: nothing here can panic, and a loop would not pass the verifier.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
