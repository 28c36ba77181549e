//! The least an IPIP encapsulation can cost: bounds, one outer header, no map. The measure that every case of
//! the benchmark is compared with.
//!
//! Must not know the balancer: the server is always the same, and written here.
#![expect(unsafe_code, reason = "moves the head of a packet and writes what it frees")]

use aya_ebpf::{
    EbpfContext, bindings::xdp_action, helpers::bpf_xdp_adjust_head, macros::xdp, programs::XdpContext,
};
use lb_common::net::{Be16, Be32, IPIP, Mac, TCP};
use lb_ebpf::{
    checksum::Sum,
    frame::{Frame, Header},
    header::{DONT_FRAGMENT, ETHERTYPE_IPV4, Ethernet, Ipv4, L3_OFFSET, Tcp, VERSION_IHL_20},
};

/// Drops what is not TCP over IPv4 without options.
#[xdp(frags)]
fn encap(context: XdpContext) -> u32 {
    match encapsulate(&context) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn encapsulate(context: &XdpContext) -> Option<()> {
    let mut frame = frame(context);
    let Headers { ethernet, ip } = *frame.at::<Headers>(0)?;
    frame.at::<Tcp>(L3_OFFSET + size_of::<Ipv4>())?;
    if ethernet.ethertype != ETHERTYPE_IPV4 || ip.version_ihl != VERSION_IHL_20 || ip.ttl_protocol[1] != TCP {
        return None;
    }
    // SAFETY: nothing borrows the packet any more; the kernel checks the new bounds.
    if unsafe { bpf_xdp_adjust_head(context.as_ptr().cast(), -(size_of::<Ipv4>() as i32)) } != 0 {
        return None;
    }
    let mut frame = self::frame(context);
    let outer = frame.at::<Headers>(0)?;
    outer.ethernet.destination.set(SERVER_MAC);
    outer.ethernet.source.set(OWN_MAC);
    outer.ethernet.ethertype = ETHERTYPE_IPV4;
    let total_length = Be16::new(ip.total_length.get() + size_of::<Ipv4>() as u16);
    outer.ip =
        Ipv4 { total_length, checksum: Sum::of_field(OUTER_CHECKSUM).add16(total_length).field(), ..OUTER };
    Some(())
}

#[inline(always)]
fn frame(context: &XdpContext) -> Frame<'_> {
    // SAFETY: the bounds of a packet that only this run touches, read after its head was moved, if it was.
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

const OWN_MAC: Mac = Mac::from_bytes([2, 0, 0, 0, 0, 2]);
const SERVER_MAC: Mac = Mac::from_bytes([2, 0, 0, 1, 0, 1]);
/// From 10.0.255.1 to 10.0.0.1.
const OUTER: Ipv4 = Ipv4 {
    version_ihl: VERSION_IHL_20,
    tos: 0,
    total_length: Be16::new(0),
    id: Be16::new(0),
    fragment: DONT_FRAGMENT,
    ttl_protocol: [64, IPIP],
    checksum: Be16::new(0),
    source: Be32::new(0x0a00_ff01),
    destination: Be32::new(0x0a00_0001),
};
/// Of `OUTER`, its length taken as zero: the complement of 4500 + 4000 + 4004 + 0a00 + ff01 + 0a00 + 0001.
const OUTER_CHECKSUM: Be16 = Be16::new(!0xd807);
