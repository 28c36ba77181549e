//! ICMP errors about checking connections: a closed UDP port is told in no other way.
//!
//! Only where server and service are of one IP version.

use core::mem::offset_of;

use lb_common::{
    net::{V4, V6},
    through::{Connection, ConnectionKey, counter::Counter},
};

use super::{Bytes, Covered, Field, SocketBuffer, ThroughTables, UNTOUCHED, Verdict};
use crate::{
    checksum::Sum,
    frame::Frame,
    header::{Icmp, L3_OFFSET, Ports},
    ip::{Fields, Ip},
};

/// The quoted packet gets the ends that its socket knows, and so does the error when it comes from the VIP, which may be
/// an address of this machine.
#[inline(always)]
pub(super) fn arrive<F: Ip>(packet: &mut impl SocketBuffer, tables: &impl ThroughTables) -> Verdict {
    let Some(quoted) = read::<F>(&mut packet.frame()) else { return UNTOUCHED };
    let key = ConnectionKey {
        local: F::mapped(quoted.fields.source),
        vip: F::mapped(quoted.fields.destination),
        local_port: quoted.ports.source,
        vip_port: quoted.ports.destination,
        protocol: quoted.fields.protocol as u32,
    };
    let Some(connection) = tables.connection(&key) else { return UNTOUCHED };
    if connection.server.is_mapped() != (F::NUMBER == V4::NUMBER) {
        return UNTOUCHED;
    }
    let told = tell(packet, &quoted, connection);
    told.map_or(super::REFUSED, |()| Verdict::Next(Some(Counter::CheckError)))
}

struct Quoted<F: Ip> {
    /// Where the error itself comes from, and its header.
    sender: F::Address,
    outer: F::Header,
    header: F::Header,
    fields: Fields<F>,
    ports: Ports,
}

#[inline(always)]
fn read<F: Ip>(frame: &mut Frame<'_>) -> Option<Quoted<F>> {
    let outer = *frame.at::<F::Header>(L3_OFFSET)?;
    let around = F::fields(&outer)?;
    let icmp = *frame.at::<Icmp>(icmp_offset::<F>())?;
    if around.protocol != F::ICMP || around.is_simple || !is_error::<F>(icmp.kind) {
        return None;
    }
    let header = *frame.at::<F::Header>(quoted_offset::<F>())?;
    let fields = F::fields(&header).filter(|fields| fields.is_simple)?;
    let ports = *frame.at::<Ports>(quoted_offset::<F>() + F::LENGTH)?;
    Some(Quoted { sender: around.source, outer, header, fields, ports })
}

#[inline(always)]
fn tell<F: Ip>(packet: &mut impl SocketBuffer, quoted: &Quoted<F>, connection: &Connection) -> Option<()> {
    let (vip, server) = (quoted.fields.destination, F::unmapped(connection.server));
    let mut header = quoted.header;
    F::set_ends(&mut header, quoted.fields.source, server);
    let ports = Ports { source: quoted.ports.source, destination: connection.server_port };
    packet.store(quoted_offset::<F>(), header, Bytes::Unsummed)?;
    packet.store(quoted_offset::<F>() + F::LENGTH, ports, Bytes::Unsummed)?;
    let field = Field { offset: icmp_offset::<F>() + offset_of!(Icmp, checksum), optional: false };
    // The change of a quoted IPv4 address and that of its header's checksum cancel each other.
    let change =
        if F::NUMBER == V6::NUMBER { F::exchange(Sum::default(), vip, server) } else { Sum::default() };
    let change = change.replace16(quoted.ports.destination, connection.server_port);
    packet.amend(field, change, Covered::Payload)?;
    packet.set_mark(connection.mark);
    if quoted.sender != vip {
        return Some(());
    }
    let mut outer = quoted.outer;
    let around = F::fields(&outer)?;
    F::set_ends(&mut outer, server, around.destination);
    packet.store(L3_OFFSET, outer, Bytes::Summed)?;
    if F::NUMBER == V4::NUMBER {
        return Some(());
    }
    packet.amend(field, F::exchange(Sum::default(), vip, server), Covered::Ends)
}

/// Destination unreachable, time exceeded, parameter problem; of IPv6 also that it is too big.
#[inline(always)]
fn is_error<F: Ip>(kind: u8) -> bool {
    if F::NUMBER == V4::NUMBER { matches!(kind, 3 | 11 | 12) } else { matches!(kind, 1..=4) }
}

#[inline(always)]
fn icmp_offset<F: Ip>() -> usize {
    L3_OFFSET + F::LENGTH
}

#[inline(always)]
fn quoted_offset<F: Ip>() -> usize {
    icmp_offset::<F>() + size_of::<Icmp>()
}
