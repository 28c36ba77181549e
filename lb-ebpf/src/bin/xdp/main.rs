//! The kernel half: maps, the packet's pointers, and one XDP action for every outcome.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "program and licence sections have unmangled names")]

mod maps;
mod packet;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::counter::Counter;
use lb_ebpf::{Action, forward};

use crate::{maps::Maps, packet::XdpPacket};

#[xdp(frags)]
fn steelyard(context: XdpContext) -> u32 {
    let outcome = forward(&mut XdpPacket::new(&context), &Maps);
    let action = match outcome.action() {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Transmit => xdp_action::XDP_TX,
        Action::Redirect(interface) => match maps::redirect(interface) {
            Some(action) => action,
            None => {
                maps::count(Counter::DropDevice as usize);
                return xdp_action::XDP_DROP;
            }
        },
    };
    maps::count(outcome.counter());
    #[cfg(feature = "log")]
    if let Action::Drop = outcome.action() {
        aya_log_ebpf::debug!(&context, "dropped, counter {}", outcome.counter() as u64);
    }
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
