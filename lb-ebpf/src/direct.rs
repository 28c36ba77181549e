//! `dsr`, `ipip`, `gue`: the packet keeps its ends, and the server answers the client itself.

use lb_common::{
    counter::Counter,
    entry::{Hop, Mode, ServerEntry, Tags},
    net::{Be16, GUE_PORT, UDP, V4, V6},
};

use crate::{
    decide::{Choice, Request},
    forward::{Outcome, Task},
    header::{Ports, Udp},
    ip::{Fresh, Ip},
    link,
    tables::{Packet, Tables},
};

/// Where the packet stands: constants on the fast path, so that it has no tags to think of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Fast,
    Any,
}

/// A packet that goes another way than to a server.
pub(crate) enum Detour {
    Out(Outcome),
    /// To be answered.
    Answer(Task),
    /// More than the entry does: a record to be made, or a hop that is reached by VLAN.
    Slow,
}

/// Sends a packet to its server.
#[inline(always)]
pub(crate) fn send<F: Ip>(
    packet: &mut impl Packet,
    tables: &impl Tables,
    request: &Request<'_, F>,
    choice: Choice,
    path: Path,
) -> Result<Outcome, Detour> {
    let entry = tables.server(choice.server).ok_or(Detour::Out(Outcome::drop(Counter::DropTables)))?;
    let hop = way(entry, path)?;
    let parsed = request.parsed;
    let overhead = overhead(request.service.mode, entry.is_v6());
    if parsed.length + overhead > hop.mtu as u32 {
        return Err(Detour::Answer(Task::too_big((hop.mtu as u32).saturating_sub(overhead))));
    }
    let sent = Sent { entry, hop, hash: request.hash, mode: request.service.mode };
    let l3 = parsed.l3;
    let counter = deliver::<F>(packet, &sent, l3, parsed.length)?;
    tables.count_server(choice.server, parsed.length, request.opens(choice.recorded));
    Ok(link::leave(packet, hop.interface, counter))
}

/// Where and how a packet goes.
pub(crate) struct Sent<'a> {
    pub entry: &'a ServerEntry,
    pub hop: Hop,
    pub hash: u32,
    pub mode: Mode,
}

/// The layer-2 way to a server.
#[inline(always)]
pub(crate) fn way(entry: &ServerEntry, path: Path) -> Result<Hop, Detour> {
    let hop = entry.hop();
    if !hop.resolved {
        return Err(Detour::Out(Outcome::drop(Counter::DropUnresolved)));
    }
    match path {
        Path::Fast if hop.tags != Tags::default() => Err(Detour::Slow),
        Path::Fast => Ok(Hop { tags: Tags::default(), ..hop }),
        Path::Any => Ok(hop),
    }
}

/// Bytes a mode puts in front of a packet.
#[inline(always)]
pub(crate) fn overhead(mode: Mode, outer_v6: bool) -> u32 {
    let ip = if outer_v6 { V6::LENGTH } else { V4::LENGTH } as u32;
    match mode {
        Mode::Ipip => ip,
        Mode::Gue => ip + size_of::<Udp>() as u32,
        Mode::Dsr | Mode::Nat | Mode::Gateway => 0,
    }
}

/// Rewrites the packet for its way.
#[inline(always)]
pub(crate) fn deliver<F: Ip>(
    packet: &mut impl Packet,
    sent: &Sent<'_>,
    l3: usize,
    length: u32,
) -> Result<Counter, Detour> {
    const MALFORMED: Detour = Detour::Out(Outcome::drop(Counter::DropMalformed));
    let mut frame = packet.frame();
    let header = frame.at::<F::Header>(l3).ok_or(MALFORMED)?;
    F::hop(header);
    let traffic_class = F::traffic_class(header);
    let inner = Inner { number: F::NUMBER, traffic_class, length: length as u16, l3 };
    match (sent.mode, sent.entry.is_v6()) {
        (Mode::Ipip, false) => encapsulate::<V4>(packet, sent, inner, false).map(|()| Counter::ForwardIpip),
        (Mode::Ipip, true) => encapsulate::<V6>(packet, sent, inner, false).map(|()| Counter::ForwardIpip),
        (Mode::Gue, false) => encapsulate::<V4>(packet, sent, inner, true).map(|()| Counter::ForwardGue),
        (Mode::Gue, true) => encapsulate::<V6>(packet, sent, inner, true).map(|()| Counter::ForwardGue),
        (Mode::Dsr | Mode::Nat | Mode::Gateway, _) => {
            link::resize(packet, l3, sent.hop.tags, 0).map_err(Detour::Out)?;
            link::to_hop(&mut packet.frame(), &sent.hop, F::ETHERTYPE).ok_or(MALFORMED)?;
            Ok(Counter::ForwardDsr)
        }
    }
}

/// A packet that becomes another's payload.
#[derive(Clone, Copy)]
struct Inner {
    number: u8,
    /// Kept in the outer header (RFC 6040).
    traffic_class: u8,
    length: u16,
    l3: usize,
}

/// Puts an outer header of version `O` in front, and UDP behind it for `gue`: its variant 1, in which the inner
/// header follows at once. The UDP checksum is left out (RFC 6935): the inner packet has its own.
#[inline(always)]
fn encapsulate<O: Ip>(
    packet: &mut impl Packet,
    sent: &Sent<'_>,
    inner: Inner,
    in_udp: bool,
) -> Result<(), Detour> {
    const MALFORMED: Detour = Detour::Out(Outcome::drop(Counter::DropMalformed));
    let udp_length = if in_udp { size_of::<Udp>() } else { 0 };
    link::resize(packet, inner.l3, sent.hop.tags, O::LENGTH + udp_length).map_err(Detour::Out)?;
    let mut frame = packet.frame();
    link::to_hop(&mut frame, &sent.hop, O::ETHERTYPE).ok_or(MALFORMED)?;
    let l3 = link::length(sent.hop.tags);
    let payload = inner.length + udp_length as u16;
    *frame.at::<O::Header>(l3).ok_or(MALFORMED)? = O::fresh(Fresh {
        source: sent.entry.outer_source::<O>(),
        destination: sent.entry.address::<O>(),
        protocol: if in_udp { UDP } else { inner.number },
        traffic_class: inner.traffic_class,
        payload,
    });
    if in_udp {
        *frame.at::<Udp>(l3 + O::LENGTH).ok_or(MALFORMED)? = Udp {
            ports: Ports { source: entropy(sent.hash), destination: Be16::new(GUE_PORT) },
            length: Be16::new(payload),
            checksum: Be16(0),
        };
    }
    Ok(())
}

/// A port of the ephemeral range for each flow, so that receivers spread flows over their CPUs.
#[inline(always)]
fn entropy(hash: u32) -> Be16 {
    Be16::new(0xc000 | (hash >> 16) as u16 & 0x3fff)
}
