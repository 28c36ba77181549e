//! The kernel half of checks through the data path: maps, the packet's pointers, and one verdict for every outcome.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "program and licence sections have unmangled names")]

mod maps;
mod packet;

use aya_ebpf::{
    bindings::tcx_action_base::{TCX_DROP, TCX_NEXT},
    macros::classifier,
    programs::TcContext,
};
use lb_ebpf::through::{Verdict, egress, ingress};

use crate::{maps::Maps, packet::TcPacket};

#[classifier]
fn steelyard_out(context: TcContext) -> i32 {
    finish(egress(&mut TcPacket::new(&context), &Maps))
}

#[classifier]
fn steelyard_in(context: TcContext) -> i32 {
    finish(ingress(&mut TcPacket::new(&context), &Maps))
}

/// What passes goes on to whoever else is attached.
#[inline(always)]
fn finish(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Next(None) => TCX_NEXT,
        Verdict::Next(Some(counter)) => {
            maps::count(counter);
            TCX_NEXT
        }
        Verdict::Drop(counter) => {
            maps::count(counter);
            TCX_DROP
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The compiler removes it: nothing here can panic, and a loop would not pass the verifier.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
