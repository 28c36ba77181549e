//! Health checks through the data path: what a probe sends to a server's own address goes to the service's address
//! on that very server, as the service's packets go, and what the server answers comes back to the probe.
//!
//! ```text
//! probe's socket ─► to server:port, marked ─► egress: to VIP:port [in an outer header] ─► neighbour's MAC, wire
//!                                                │ remembers the connection
//! probe's socket ◄─ from server:port, marked ◄─ ingress: from VIP:port ◄─ wire
//! ```
//!
//! The kernel routes and resolves as for any connection to the server, whatever it thinks of the VIP, which may be one of
//! its own addresses. What carries no mark and is no answer passes untouched. Must not know maps or helpers.

mod error;

use core::mem::offset_of;

use lb_common::{
    entry::{Mode, ServerEntry},
    net::{Be16, Be128, Family, GUE_PORT, TCP, UDP, V4, V6},
    slot::ServerId,
    through::{self, Connection, ConnectionKey, Target, counter::Counter},
};

use self::Verdict::{Drop, Next};
use crate::{
    checksum::Sum,
    frame::{Frame, Header},
    header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Ipv6, L3_OFFSET, Ports, Tcp, Udp},
    ip::{Fresh, Ip, TTL},
};

/// A packet of the kernel's stack. Implemented by the kernel half and by the host tests.
///
/// Changed by `store` alone: a packet on its way out shares its bytes with the socket that may send them again.
pub trait SocketBuffer {
    fn mark(&self) -> u32;
    fn set_mark(&mut self, mark: u32);

    /// To read from: the bytes that lie in one piece.
    fn frame(&mut self) -> Frame<'_>;

    /// Tries to bring so many bytes into the frame.
    fn pull(&mut self, bytes: u32);

    fn store<T: Header>(&mut self, offset: usize, header: T, bytes: Bytes) -> Option<()>;

    /// Adds `change` to a transport checksum, as far as that is computed already.
    fn amend(&mut self, field: Field, change: Sum, of: Covered) -> Option<()>;

    /// Puts the room for a header of the other IP version in the place of the header there is.
    fn convert(&mut self, to: Version) -> Option<()>;

    /// Makes room for an outer header, with UDP behind it or not, in front of the IP header.
    fn wrap(&mut self, outer: Version, udp: bool) -> Option<()>;
}

/// Whether the kernel's sum over a received packet, if the driver made one, has to be told of stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    Summed,
    /// They stand in front of what is summed, or an amended checksum makes up for them.
    Unsummed,
}

/// Where a transport checksum stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub offset: usize,
    /// Zero means that there is none, and stays (RFC 768).
    pub optional: bool,
}

/// What a transport checksum covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covered {
    /// In the pseudo header: part of a checksum that is not computed yet, too.
    Ends,
    Payload,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V4,
    V6,
}

/// What the programs look up. Implemented by the kernel half and by the host tests.
pub trait ThroughTables {
    fn target(&self, server: ServerId) -> Option<&Target>;
    fn server(&self, server: ServerId) -> Option<&ServerEntry>;
    fn connection(&self, key: &ConnectionKey) -> Option<&Connection>;
    /// None: there is no room.
    fn remember(&self, key: &ConnectionKey, connection: &Connection) -> Option<()>;
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// On its way, as whoever comes next wants it. None: it was not touched.
    Next(Option<Counter>),
    Drop(Counter),
}

const UNTOUCHED: Verdict = Next(None);
const REFUSED: Verdict = Drop(Counter::CheckRefused);

/// Time to live of what a server is to take itself: enough for a container behind it. A server without the VIP that
/// forwards may send the packet back to the balancer, which then answers it instead of sending it to a server that has
/// the VIP.
pub const INNER_TTL: u8 = 2;

/// Of a packet that leaves.
#[inline(always)]
pub fn egress(packet: &mut impl SocketBuffer, tables: &impl ThroughTables) -> Verdict {
    let Some(id) = through::marked(packet.mark()) else { return UNTOUCHED };
    let (Some(target), Some(entry)) = (tables.target(id), tables.server(id)) else { return UNTOUCHED };
    match (entry.is_v6(), target.vip.is_mapped()) {
        (false, true) => send::<V4, V4>(packet, tables, target, entry),
        (false, false) => send::<V4, V6>(packet, tables, target, entry),
        (true, true) => send::<V6, V4>(packet, tables, target, entry),
        (true, false) => send::<V6, V6>(packet, tables, target, entry),
    }
}

/// To a server over `S`, for a service over `V`.
#[inline(always)]
fn send<S: Ip, V: Ip>(
    packet: &mut impl SocketBuffer,
    tables: &impl ThroughTables,
    target: &Target,
    entry: &ServerEntry,
) -> Verdict {
    let mark = packet.mark();
    let Some(seen) = read::<S>(&mut packet.frame()) else { return UNTOUCHED };
    let server = entry.address::<S>();
    if seen.destination != server || seen.ports.destination != target.port {
        return UNTOUCHED;
    }
    let own = S::mapped(seen.source);
    let local = if S::NUMBER == V::NUMBER { own } else { target.source };
    if local == Be128::default() {
        return Drop(Counter::CheckNoSource);
    }
    let key = ConnectionKey {
        local,
        vip: target.vip,
        local_port: seen.ports.source,
        vip_port: target.vip_port,
        protocol: seen.protocol as u32,
    };
    let connection =
        Connection { local: own, server: S::mapped(server), server_port: target.port, reserved: 0, mark };
    if tables.remember(&key, &connection).is_none() {
        return REFUSED;
    }
    let ends = Ends {
        source: V::unmapped(local),
        destination: V::unmapped(target.vip),
        ports: Ports { source: seen.ports.source, destination: target.vip_port },
        ttl: INNER_TTL,
    };
    let sent = rewrite::<S, V>(packet, &seen, &ends).and_then(|()| {
        let inner = Inner {
            number: V::NUMBER,
            traffic_class: seen.traffic_class,
            length: V::LENGTH as u16 + seen.payload,
            local_port: seen.ports.source,
        };
        encapsulate::<S>(packet, entry, seen.source, target.mode, inner)
    });
    sent.map_or(REFUSED, |()| Next(Some(Counter::CheckSent)))
}

/// Of a packet that arrives.
#[inline(always)]
pub fn ingress(packet: &mut impl SocketBuffer, tables: &impl ThroughTables) -> Verdict {
    if packet.frame().len() < HEADERS {
        packet.pull(HEADERS);
    }
    let Some(&mut Ethernet { ethertype, .. }) = packet.frame().at::<Ethernet>(0) else { return UNTOUCHED };
    match ethertype {
        ETHERTYPE_IPV4 => arrive::<V4>(packet, tables),
        ETHERTYPE_IPV6 => arrive::<V6>(packet, tables),
        _ => UNTOUCHED,
    }
}

/// All that is looked at: of an ICMP error with what it quotes.
const HEADERS: u32 = (size_of::<Ethernet>() + 2 * size_of::<Ipv6>() + 16) as u32;

/// Over `V`, as the service.
#[inline(always)]
fn arrive<V: Ip>(packet: &mut impl SocketBuffer, tables: &impl ThroughTables) -> Verdict {
    let Some(seen) = read::<V>(&mut packet.frame()) else { return error::arrive::<V>(packet, tables) };
    let key = ConnectionKey {
        local: V::mapped(seen.destination),
        vip: V::mapped(seen.source),
        local_port: seen.ports.destination,
        vip_port: seen.ports.source,
        protocol: seen.protocol as u32,
    };
    let Some(connection) = tables.connection(&key) else { return UNTOUCHED };
    let taken = match connection.server.is_mapped() {
        true => answer::<V, V4>(packet, &seen, connection),
        false => answer::<V, V6>(packet, &seen, connection),
    };
    taken.map_or(REFUSED, |()| Next(Some(Counter::CheckAnswered)))
}

/// From a service over `V`, for a socket over `S`.
#[inline(always)]
fn answer<V: Ip, S: Ip>(
    packet: &mut impl SocketBuffer,
    seen: &Seen<V>,
    connection: &Connection,
) -> Option<()> {
    let ends = Ends {
        source: S::unmapped(connection.server),
        destination: S::unmapped(connection.local),
        ports: Ports { source: connection.server_port, destination: seen.ports.destination },
        ttl: TTL,
    };
    rewrite::<V, S>(packet, seen, &ends)?;
    packet.set_mark(connection.mark);
    Some(())
}

/// A TCP segment or a datagram, whole.
struct Seen<F: Family> {
    source: F::Address,
    destination: F::Address,
    ports: Ports,
    protocol: u8,
    traffic_class: u8,
    /// Bytes behind the IP header.
    payload: u16,
}

/// None: something else.
#[inline(always)]
fn read<F: Ip>(frame: &mut Frame<'_>) -> Option<Seen<F>> {
    if frame.at::<Ethernet>(0)?.ethertype != F::ETHERTYPE {
        return None;
    }
    let header = *frame.at::<F::Header>(L3_OFFSET)?;
    let fields = F::fields(&header).filter(|fields| fields.is_simple)?;
    let ports = *frame.at::<Ports>(L3_OFFSET + F::LENGTH)?;
    Some(Seen {
        source: fields.source,
        destination: fields.destination,
        ports,
        protocol: fields.protocol,
        traffic_class: F::traffic_class(&header),
        payload: fields.length.checked_sub(F::LENGTH as u32)? as u16,
    })
}

/// What a packet is to have.
struct Ends<F: Family> {
    source: F::Address,
    destination: F::Address,
    ports: Ports,
    ttl: u8,
}

/// New ends over `N` for a packet over `O`, under a header of its own.
#[inline(always)]
fn rewrite<O: Ip, N: Ip>(packet: &mut impl SocketBuffer, seen: &Seen<O>, ends: &Ends<N>) -> Option<()> {
    if O::NUMBER != N::NUMBER {
        packet.convert(version::<N>())?;
        set_ethertype::<N>(packet)?;
    }
    let mut header = N::fresh(Fresh {
        source: ends.source,
        destination: ends.destination,
        protocol: seen.protocol,
        traffic_class: seen.traffic_class,
        payload: seen.payload,
    });
    N::set_ttl(&mut header, ends.ttl);
    packet.store(L3_OFFSET, header, Bytes::Summed)?;
    let l4 = L3_OFFSET + N::LENGTH;
    packet.store(l4, ends.ports, Bytes::Unsummed)?;
    let field = checksum(l4, seen.protocol);
    packet.amend(field, difference::<O, N>(seen, ends), Covered::Ends)?;
    let old = seen.ports;
    let ports = Sum::default()
        .replace16(old.source, ends.ports.source)
        .replace16(old.destination, ends.ports.destination);
    packet.amend(field, ports, Covered::Payload)
}

/// Of the pseudo headers: length and protocol are the same in both.
#[inline(always)]
fn difference<O: Ip, N: Ip>(seen: &Seen<O>, ends: &Ends<N>) -> Sum {
    let nothing = O::Address::default();
    let without = O::exchange(O::exchange(Sum::default(), seen.source, nothing), seen.destination, nothing);
    N::sum(N::sum(without, ends.source), ends.destination)
}

/// Of a transport header at `l4`.
#[inline(always)]
fn checksum(l4: usize, protocol: u8) -> Field {
    if protocol == TCP {
        Field { offset: l4 + offset_of!(Tcp, checksum), optional: false }
    } else {
        Field { offset: l4 + offset_of!(Udp, checksum), optional: true }
    }
}

/// A packet that may become another's payload.
struct Inner {
    number: u8,
    traffic_class: u8,
    length: u16,
    local_port: Be16,
}

/// What the service's mode puts in front of its packets, made as `direct` makes it for them. `own`: the source that the
/// kernel chose, for a server whose way is not known yet.
#[inline(always)]
fn encapsulate<S: Ip>(
    packet: &mut impl SocketBuffer,
    entry: &ServerEntry,
    own: S::Address,
    mode: u32,
    inner: Inner,
) -> Option<()> {
    let in_udp = mode == Mode::Gue as u32;
    if !in_udp && mode != Mode::Ipip as u32 {
        return Some(());
    }
    packet.wrap(version::<S>(), in_udp)?;
    set_ethertype::<S>(packet)?;
    let planned = entry.outer_source::<S>();
    let payload = inner.length + if in_udp { size_of::<Udp>() as u16 } else { 0 };
    let outer = S::fresh(Fresh {
        source: if planned == S::Address::default() { own } else { planned },
        destination: entry.address::<S>(),
        protocol: if in_udp { UDP } else { inner.number },
        traffic_class: inner.traffic_class,
        payload,
    });
    packet.store(L3_OFFSET, outer, Bytes::Unsummed)?;
    if !in_udp {
        return Some(());
    }
    let udp = Udp {
        ports: Ports { source: entropy(inner.local_port), destination: Be16::new(GUE_PORT) },
        length: Be16::new(payload),
        checksum: Be16(0),
    };
    packet.store(L3_OFFSET + S::LENGTH, udp, Bytes::Unsummed)
}

#[inline(always)]
fn set_ethertype<F: Ip>(packet: &mut impl SocketBuffer) -> Option<()> {
    let ethernet = *packet.frame().at::<Ethernet>(0)?;
    packet.store(0, Ethernet { ethertype: F::ETHERTYPE, ..ethernet }, Bytes::Unsummed)
}

#[inline(always)]
fn version<F: Ip>() -> Version {
    if F::NUMBER == V4::NUMBER { Version::V4 } else { Version::V6 }
}

/// As the data path's, of the range in which receivers expect it.
#[inline(always)]
fn entropy(local_port: Be16) -> Be16 {
    Be16::new(0xc000 | local_port.get() & 0x3fff)
}
