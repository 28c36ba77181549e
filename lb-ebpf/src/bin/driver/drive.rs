//! Feeds the program under test from one BPF_PROG_TEST_RUN call: a fresh packet of the next flow, then a
//! tail call.
//!
//! Must not know the program it calls. `pass` in its place is the floor every measurement is net of.
//!
//! ```text
//! orders ─► flow number ─► length restored ─► headers written ─► tail call, entry 0
//! ```
#![expect(unsafe_code, reason = "map values are pointers into kernel memory, and so are packets")]

mod orders;

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_action,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    macros::{map, xdp},
    maps::{Array, ProgramArray},
    programs::XdpContext,
};
use lb_common::net::{Be16, Be32};
use lb_ebpf::{
    checksum::{Sum, udp_field},
    frame::{Frame, Header},
    header::{Ipv4, Ports},
};

use self::orders::{Headers, Orders};

#[map(name = "orders")]
static ORDERS: Array<Orders> = Array::with_max_entries(1, 0);
#[map(name = "program")]
static PROGRAM: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Returns XDP_ABORTED when there is nothing to call or the frame cannot be restored.
#[xdp]
fn drive(context: XdpContext) -> u32 {
    if prepare(&context).is_some() {
        // SAFETY: the context is the kernel's own, and nothing here needs to be dropped.
        unsafe { PROGRAM.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

#[xdp]
fn pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[inline(always)]
fn prepare(context: &XdpContext) -> Option<()> {
    let orders = ORDERS.get_ptr_mut(0)?;
    // SAFETY: the value lives as long as the program, and one CPU drives at a time.
    let orders = unsafe { &mut *orders };
    let flow = (orders.packets.wrapping_mul(orders.stride) & orders.flow_mask) as u32;
    orders.packets += 1;
    restore_length(context, orders.length as i32)?;
    // SAFETY: the bounds of a packet that only this run touches, read after its ends were moved.
    let mut frame = unsafe { Frame::new(context.data(), context.data_end()) };
    write(frame.at::<Headers>(0)?, orders, flow);
    Some(())
}

/// A frame that is longer had its head grown, one that is shorter its tail cut: what programs do here.
#[inline(always)]
fn restore_length(context: &XdpContext, length: i32) -> Option<()> {
    let excess = (context.data_end() - context.data()) as i32 - length;
    if excess == 0 {
        return Some(());
    }
    // SAFETY: nothing borrows the packet; the kernel checks the new bounds.
    let result = unsafe {
        if excess > 0 {
            bpf_xdp_adjust_head(context.as_ptr().cast(), excess)
        } else {
            bpf_xdp_adjust_tail(context.as_ptr().cast(), -excess)
        }
    };
    (result == 0).then_some(())
}

#[inline(always)]
fn write(headers: &mut Headers, orders: &Orders, flow: u32) {
    let template = &orders.template;
    let source = Be32::new(orders.source.get().wrapping_add(flow >> PORT_BITS));
    let port = Be16::new(orders.source_port.get().wrapping_add((flow & PORT_MASK) as u16));
    headers.ethernet.destination.set(template.ethernet.destination.get());
    headers.ethernet.source.set(template.ethernet.source.get());
    headers.ethernet.ethertype = template.ethernet.ethertype;
    headers.ip =
        Ipv4 { source, checksum: Sum::of_field(template.ip.checksum).add32(source).field(), ..template.ip };
    headers.ports = Ports { source: port, ..template.ports };
    headers.rest = template.rest;
    let place = if orders.is_udp != 0 { UDP_CHECKSUM } else { TCP_CHECKSUM };
    let sum = Sum::of_field(Be16(template.rest[place])).add32(source).add16(port);
    headers.rest[place] = udp_field(sum).0;
}

/// Places of the checksums within `Headers::rest`.
const TCP_CHECKSUM: usize = 6;
const UDP_CHECKSUM: usize = 1;
/// Connections of one client address before the next.
const PORT_BITS: u32 = 4;
const PORT_MASK: u32 = (1 << PORT_BITS) - 1;

// SAFETY: integers only, without padding and with align 2, as `orders` asserts.
unsafe impl Header for Headers {}
