//! Both ends of a measurement over real links: what sends every frame back, and what counts those that arrive.
#![expect(unsafe_code, reason = "map values are pointers into kernel memory, and so are packets")]

use aya_ebpf::{
    bindings::xdp_action,
    macros::{map, xdp},
    maps::PerCpuArray,
    programs::XdpContext,
};
use lb_common::net::Be32;
use lb_ebpf::{
    frame::{Frame, Header},
    header::{ETHERTYPE_IPV4, Ethernet, Ipv4},
};

use crate::{drive, pace};

/// By `ARRIVED_AT_VIP`, `ARRIVED_ELSEWHERE`, `BOUNCED`.
#[map(name = "seen")]
static SEEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(3, 0);

/// The least a program can do that sends a frame back: swap the MAC addresses, and count.
#[xdp(frags)]
fn bounce(context: XdpContext) -> u32 {
    match swap(&context) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_DROP,
    }
}

/// Takes IPv4 off the link; what else a kernel may say there passes.
#[xdp(frags)]
fn sink(context: XdpContext) -> u32 {
    match destination(&context) {
        Some(address) => {
            let at_vip = drive::destination() == Some(address);
            let arrived = count(if at_vip { ARRIVED_AT_VIP } else { ARRIVED_ELSEWHERE });
            pace::arrived(arrived);
            xdp_action::XDP_DROP
        }
        None => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn swap(context: &XdpContext) -> Option<()> {
    let mut frame = frame(context);
    let ethernet = frame.at::<Ethernet>(0)?;
    let source = ethernet.source.get();
    ethernet.source.set(ethernet.destination.get());
    ethernet.destination.set(source);
    count(BOUNCED);
    Some(())
}

#[inline(always)]
fn destination(context: &XdpContext) -> Option<Be32> {
    let mut frame = frame(context);
    let Headers { ethernet, ip } = *frame.at::<Headers>(0)?;
    (ethernet.ethertype == ETHERTYPE_IPV4).then_some(ip.destination)
}

/// The count, this frame included.
#[inline(always)]
fn count(index: u32) -> u64 {
    let Some(count) = SEEN.get_ptr_mut(index) else { return 0 };
    // SAFETY: this CPU's own value; XDP is not interrupted by XDP on the same CPU.
    unsafe {
        *count += 1;
        *count
    }
}

#[inline(always)]
fn frame(context: &XdpContext) -> Frame<'_> {
    // SAFETY: the bounds of a packet that only this run touches.
    unsafe { Frame::new(context.data(), context.data_end()) }
}

#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Headers {
    ethernet: Ethernet,
    ip: Ipv4,
}

// SAFETY: two headers, without padding between and of align 2.
unsafe impl Header for Headers {}

const ARRIVED_AT_VIP: u32 = 0;
const ARRIVED_ELSEWHERE: u32 = 1;
const BOUNCED: u32 = 2;
