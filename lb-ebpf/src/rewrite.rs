//! Changes to a packet's headers, with every checksum updated in place.

use lb_common::{
    flow::Tuple,
    net::{Be16, Mac, TCP},
};

use crate::{
    checksum::{Sum, udp_field},
    frame::Frame,
    header::{Ethernet, IPV4_OFFSET, Ipv4, L4_OFFSET, Ports, Tcp, Udp},
};

/// The Ethernet addresses a packet leaves with.
#[inline(always)]
pub(crate) fn link(frame: &mut Frame<'_>, destination: Mac, source: Mac) -> Option<()> {
    let ethernet = frame.at::<Ethernet>(0)?;
    ethernet.destination.set(destination);
    ethernet.source.set(source);
    Some(())
}

/// One hop less to live.
#[inline(always)]
pub(crate) fn hop(frame: &mut Frame<'_>) -> Option<()> {
    let ip = frame.at::<Ipv4>(IPV4_OFFSET)?;
    let sum = decrement(ip, Sum::of_field(ip.checksum));
    ip.checksum = sum.field();
    Some(())
}

/// New ends, and one hop less to live.
#[inline(always)]
pub(crate) fn ends(frame: &mut Frame<'_>, old: Tuple, new: Tuple, protocol: u8) -> Option<()> {
    let addresses =
        Sum::default().replace32(old.source, new.source).replace32(old.destination, new.destination);
    let ip = frame.at::<Ipv4>(IPV4_OFFSET)?;
    ip.source = new.source;
    ip.destination = new.destination;
    let sum = decrement(ip, Sum::of_field(ip.checksum).plus(addresses));
    ip.checksum = sum.field();

    let ports = Ports { source: new.source_port, destination: new.destination_port };
    let change = addresses
        .replace16(old.source_port, new.source_port)
        .replace16(old.destination_port, new.destination_port);
    if protocol == TCP {
        let tcp = frame.at::<Tcp>(L4_OFFSET)?;
        tcp.ports = ports;
        tcp.checksum = Sum::of_field(tcp.checksum).plus(change).field();
    } else {
        let udp = frame.at::<Udp>(L4_OFFSET)?;
        udp.ports = ports;
        if udp.checksum != Be16(0) {
            udp.checksum = udp_field(Sum::of_field(udp.checksum).plus(change));
        }
    }
    Some(())
}

#[inline(always)]
fn decrement(ip: &mut Ipv4, sum: Sum) -> Sum {
    let [ttl, protocol] = ip.ttl_protocol;
    let old = Be16(u16::from_ne_bytes([ttl, protocol]));
    let new = Be16(u16::from_ne_bytes([ttl.wrapping_sub(1), protocol]));
    ip.ttl_protocol = [ttl.wrapping_sub(1), protocol];
    sum.replace16(old, new)
}
