//! The kernel half: maps, the packet's pointers, a program for every stage, and one XDP action for every outcome.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "program and licence sections have unmangled names")]

mod maps;
mod packet;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{counter::Counter, stage::Stage};
use lb_ebpf::{Action, Outcome, entry, run};

use crate::{maps::Maps, packet::XdpPacket};

#[xdp(frags)]
fn steelyard(context: XdpContext) -> u32 {
    let outcome = entry(&mut XdpPacket::new(&context), &Maps);
    act(&context, outcome)
}

#[xdp(frags)]
fn any4(context: XdpContext) -> u32 {
    stage(&context, Stage::Any4)
}

#[xdp(frags)]
fn any6(context: XdpContext) -> u32 {
    stage(&context, Stage::Any6)
}

#[xdp(frags)]
fn choose4(context: XdpContext) -> u32 {
    stage(&context, Stage::Choose4)
}

#[xdp(frags)]
fn choose6(context: XdpContext) -> u32 {
    stage(&context, Stage::Choose6)
}

#[xdp(frags)]
fn nat4(context: XdpContext) -> u32 {
    stage(&context, Stage::Nat4)
}

#[xdp(frags)]
fn nat6(context: XdpContext) -> u32 {
    stage(&context, Stage::Nat6)
}

#[xdp(frags)]
fn open4(context: XdpContext) -> u32 {
    stage(&context, Stage::Open4)
}

#[xdp(frags)]
fn open6(context: XdpContext) -> u32 {
    stage(&context, Stage::Open6)
}

#[xdp(frags)]
fn reply4(context: XdpContext) -> u32 {
    stage(&context, Stage::Reply4)
}

#[xdp(frags)]
fn reply6(context: XdpContext) -> u32 {
    stage(&context, Stage::Reply6)
}

#[xdp(frags)]
fn icmp4(context: XdpContext) -> u32 {
    stage(&context, Stage::Icmp4)
}

#[xdp(frags)]
fn icmp6(context: XdpContext) -> u32 {
    stage(&context, Stage::Icmp6)
}

#[xdp(frags)]
fn answer4(context: XdpContext) -> u32 {
    stage(&context, Stage::Answer4)
}

#[xdp(frags)]
fn answer6(context: XdpContext) -> u32 {
    stage(&context, Stage::Answer6)
}

#[inline(always)]
fn stage(context: &XdpContext, stage: Stage) -> u32 {
    let outcome = run(stage, &mut XdpPacket::new(context), &Maps);
    act(context, outcome)
}

#[inline(always)]
fn act(context: &XdpContext, outcome: Outcome) -> u32 {
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
        Action::Next(stage) => {
            maps::go_on(context, stage);
            xdp_action::XDP_DROP
        }
    };
    maps::count(outcome.counter());
    #[cfg(feature = "log")]
    if let Action::Drop = outcome.action() {
        aya_log_ebpf::debug!(context, "dropped, counter {}", outcome.counter() as u64);
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
