//! Feeds the program under test from one BPF_PROG_TEST_RUN call: a fresh packet of the next flow, then a
//! tail call. `generate` sends the packet instead, for calls with live frames.
//!
//! Must not know the program it calls. `pass` in its place is the floor every measurement is net of, `encap` the
//! least an encapsulation can cost.
//!
//! ```text
//! orders ─► ends of the flow ─► frame restored ─► template and ends written ─► tail call, entry 0
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
    header::{Ethernet, Ipv4, Ipv6, Ports},
};

use self::orders::{Ends, IPV4, IPV4_TAGGED, IPV6, LONG, Orders, SHORT};
use crate::pace;

#[map(name = "orders")]
static ORDERS: Array<Orders> = Array::with_max_entries(1, 0);
/// The benchmark sets the size when it creates the map.
#[map(name = "ends")]
static ENDS: Array<Ends> = Array::with_max_entries(1, 0);
#[map(name = "program")]
static PROGRAM: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Returns XDP_ABORTED when there is nothing to call or the frame cannot be restored.
#[xdp(frags)]
fn drive(context: XdpContext) -> u32 {
    if prepare(&context).is_some() {
        // SAFETY: the context is the kernel's own, and nothing here needs to be dropped.
        unsafe { PROGRAM.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Sends the packet out of the interface that the call names as its own, as soon as the queue there has room.
#[xdp(frags)]
fn generate(context: XdpContext) -> u32 {
    let sent = ORDERS.get(0).map_or(0, |orders| orders.packets);
    match pace::wait(sent).and_then(|()| prepare(&context)) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_DROP,
    }
}

#[xdp(frags)]
fn pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Where all packets go; the end of an address of IPv6.
#[inline(always)]
pub(crate) fn destination() -> Option<Be32> {
    Some(ORDERS.get(0)?.first.destination)
}

#[inline(always)]
fn prepare(context: &XdpContext) -> Option<()> {
    let orders = ORDERS.get_ptr_mut(0)?;
    // SAFETY: the value lives as long as the program, and one CPU drives at a time.
    let orders = unsafe { &mut *orders };
    let ends = if orders.from_map != 0 {
        *ENDS.get((orders.packets & orders.flow_mask) as u32)?
    } else {
        let flow = orders.packets.wrapping_mul(orders.stride) & orders.flow_mask;
        counted(&orders.first, flow as u32)
    };
    orders.packets += 1;
    restore(context, orders)?;
    // SAFETY: the bounds of a packet that only this run touches, read after its ends were moved.
    let mut frame = unsafe { Frame::new(context.data(), context.data_end()) };
    *frame.at::<Start>(0)? = Start(core::array::from_fn(|i| orders.template[i]));
    if orders.length != SHORT as u64 {
        *frame.at::<Rest>(SHORT)? = Rest(core::array::from_fn(|i| orders.template[SHORT / 2 + i]));
    }
    match orders.layout {
        IPV4 => write_ipv4::<{ size_of::<Ethernet>() }>(&mut frame, orders, ends),
        IPV4_TAGGED => write_ipv4::<{ size_of::<Ethernet>() + VLAN_TAG }>(&mut frame, orders, ends),
        IPV6 => write_ipv6(&mut frame, orders, ends),
        _ => None,
    }
}

/// A few connections of each address.
#[inline(always)]
fn counted(first: &Ends, flow: u32) -> Ends {
    Ends {
        source: Be32::new(first.source.get().wrapping_add(flow >> PORT_BITS)),
        source_port: Be16::new(first.source_port.get().wrapping_add((flow & PORT_MASK) as u16)),
        ..*first
    }
}

/// A program that moves the head is driven with one call of the helper for each packet, also when its head
/// stands where it should: the floor then pays the same.
#[inline(always)]
fn restore(context: &XdpContext, orders: &Orders) -> Option<()> {
    let excess = (context.data_end() - context.data()) as i32 - orders.length as i32;
    // SAFETY: nothing borrows the packet; the kernel checks the new bounds.
    let result = unsafe {
        if orders.moves_head != 0 {
            bpf_xdp_adjust_head(context.as_ptr().cast(), excess)
        } else if excess != 0 {
            bpf_xdp_adjust_tail(context.as_ptr().cast(), -excess)
        } else {
            0
        }
    };
    (result == 0).then_some(())
}

#[inline(always)]
fn write_ipv4<const AT: usize>(frame: &mut Frame<'_>, orders: &Orders, ends: Ends) -> Option<()> {
    let sum = Sum::of_field(Be16(orders.template[(AT + IPV4_CHECKSUM) / 2]));
    let patch = frame.at::<Ends4>(AT + IPV4_CHECKSUM)?;
    patch.checksum = sum.add32(ends.source).add32(ends.destination).field();
    patch.source = ends.source;
    patch.destination = ends.destination;
    patch.ports = Ports { source: ends.source_port, destination: ends.destination_port };
    if orders.is_udp != 0 {
        write_checksum(frame, orders, ends, AT + size_of::<Ipv4>() + UDP_CHECKSUM)
    } else {
        write_checksum(frame, orders, ends, AT + size_of::<Ipv4>() + TCP_CHECKSUM)
    }
}

#[inline(always)]
fn write_ipv6(frame: &mut Frame<'_>, orders: &Orders, ends: Ends) -> Option<()> {
    const AT: usize = size_of::<Ethernet>();
    frame.at::<Word>(AT + IPV6_SOURCE_END)?.0 = ends.source;
    let patch = frame.at::<Ends6>(AT + IPV6_DESTINATION_END)?;
    patch.destination = ends.destination;
    patch.ports = Ports { source: ends.source_port, destination: ends.destination_port };
    if orders.is_udp != 0 {
        write_checksum(frame, orders, ends, AT + size_of::<Ipv6>() + UDP_CHECKSUM)
    } else {
        write_checksum(frame, orders, ends, AT + size_of::<Ipv6>() + TCP_CHECKSUM)
    }
}

/// The transport's, at `place`, always a constant.
#[inline(always)]
fn write_checksum(frame: &mut Frame<'_>, orders: &Orders, ends: Ends, place: usize) -> Option<()> {
    let sum = Sum::of_field(Be16(orders.template[place / 2]))
        .add32(ends.source)
        .add32(ends.destination)
        .add16(ends.source_port)
        .add16(ends.destination_port);
    frame.at::<Checksum>(place)?.0 = udp_field(sum);
    Some(())
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Start([u16; SHORT / 2]);

#[derive(Clone, Copy)]
#[repr(C)]
struct Rest([u16; (LONG - SHORT) / 2]);

#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Ends4 {
    checksum: Be16,
    source: Be32,
    destination: Be32,
    ports: Ports,
}

#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Ends6 {
    destination: Be32,
    ports: Ports,
}

#[derive(Clone, Copy)]
#[repr(C, packed(2))]
struct Word(Be32);

#[derive(Clone, Copy)]
#[repr(C)]
struct Checksum(Be16);

// SAFETY: integers only, without padding (packed or of one type) and with align 2.
unsafe impl Header for Start {}
// SAFETY: as above.
unsafe impl Header for Rest {}
// SAFETY: as above.
unsafe impl Header for Ends4 {}
// SAFETY: as above.
unsafe impl Header for Ends6 {}
// SAFETY: as above.
unsafe impl Header for Word {}
// SAFETY: as above.
unsafe impl Header for Checksum {}

const VLAN_TAG: usize = 4;
/// Places within their headers; of IPv6 addresses their last four bytes.
const IPV4_CHECKSUM: usize = 10;
const IPV6_SOURCE_END: usize = 20;
const IPV6_DESTINATION_END: usize = 36;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
/// Connections of one client address before the next.
const PORT_BITS: u32 = 4;
const PORT_MASK: u32 = (1 << PORT_BITS) - 1;
