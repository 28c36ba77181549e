//! The other end of `ipip` and `gue`: opens what a balancer sent to this server.
//!
//! ```text
//! Ethernet [tag [tag]] | outer IPv4 or IPv6 [UDP [GUE]] | inner packet for a VIP
//!          kept, moved ───────────────────────────────► | handed to the local stack
//! ```
//!
//! Reads before it changes: what is not for a listed address passes untouched. One layer is opened; a tunnel
//! inside a tunnel is the kernel's. Must not know maps or helpers.

use lb_common::{
    decap::Counter,
    net::{Be16, Be32, Be128, GUE_PORT, IPIP, IPV6, UDP},
};

use self::DecapOutcome::{Drop, Pass};
use crate::{
    checksum::Sum,
    frame::Frame,
    header::{
        ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Ethernet, FRAGMENT_OFFSET, Gue, Ipv4,
        Ipv6, MORE_FRAGMENTS, Udp, VERSION_IHL_20, Version, Vlan,
    },
};

/// A packet that can lose its outer headers. Implemented by the kernel half and by the host tests.
pub trait DecapPacket {
    /// The bytes that lie in one piece: all headers, but not always all of the payload.
    fn frame(&mut self) -> Frame<'_>;

    /// Bytes of the whole packet, which is no shorter than the frame.
    fn length(&self) -> u32;

    /// Takes `bytes` away from the start; None when the driver refuses.
    fn strip(&mut self, bytes: u32) -> Option<()>;
}

/// The addresses this server answers for. Implemented by the kernel half and by the host tests.
pub trait DecapTables {
    fn is_vip4(&self, address: Be32) -> bool;
    fn is_vip6(&self, address: Be128) -> bool;
}

/// What becomes of a packet, and the counter that names the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum DecapOutcome {
    /// To the kernel: opened, or untouched, as the counter says.
    Pass(Counter),
    Drop(Counter),
}

/// Opens the packet if it is an `ipip` or `gue` packet with something for a listed address inside.
#[inline(always)]
pub fn decap(packet: &mut impl DecapPacket, tables: &impl DecapTables) -> DecapOutcome {
    let length = packet.length();
    match judge(&mut packet.frame(), length, tables) {
        Ok(found) => match open(packet, &found) {
            Some(()) => Pass(found.counter),
            None => Drop(Counter::DropRefused),
        },
        Err(outcome) => outcome,
    }
}

/// A packet that is to be opened.
struct Found {
    link: Link,
    /// Bytes between the link header and the inner packet.
    outer: u32,
    inner: Be16,
    counter: Counter,
}

/// The Ethernet header with its tags.
#[derive(Clone, Copy)]
struct Link {
    ethernet: Ethernet,
    tags: [Vlan; TAGS_MAX],
    tagged: usize,
    ethertype: Be16,
}

impl Link {
    #[inline(always)]
    fn length(&self) -> usize {
        size_of::<Ethernet>() + self.tagged * size_of::<Vlan>()
    }
}

/// IEEE 802.1ad: a service tag and a customer's.
const TAGS_MAX: usize = 2;

const TRUNCATED: DecapOutcome = Pass(Counter::PassTruncated);
const MALFORMED: DecapOutcome = Drop(Counter::DropMalformed);

#[inline(always)]
fn judge(frame: &mut Frame<'_>, length: u32, tables: &impl DecapTables) -> Result<Found, DecapOutcome> {
    let link = link(frame)?;
    let outer = outer(frame, &link)?;
    let carried = carried(frame, &outer)?;
    let inner = inner(frame, carried.offset, tables)?;
    if carried.version.is_some_and(|version| version != inner.version) {
        return Err(Pass(Counter::PassKind));
    }
    let fits = outer.sound
        && inner.sound
        && carried.end <= outer.end
        && carried.offset + inner.length <= carried.end
        && outer.end <= length as usize;
    if !fits {
        return Err(MALFORMED);
    }
    let stripped = (carried.offset - link.length()) as u32;
    Ok(Found { link, outer: stripped, inner: inner.ethertype, counter: carried.counter })
}

#[inline(always)]
fn link(frame: &mut Frame<'_>) -> Result<Link, DecapOutcome> {
    let ethernet = *frame.at::<Ethernet>(0).ok_or(TRUNCATED)?;
    // Flooded to many: each would open it.
    if ethernet.destination.is_multicast() {
        return Err(Pass(Counter::PassMulticast));
    }
    let none = Vlan { control: Be16(0), ethertype: Be16(0) };
    let mut link = Link { ethernet, tags: [none; TAGS_MAX], tagged: 0, ethertype: ethernet.ethertype };
    while link.tagged < TAGS_MAX && [ETHERTYPE_VLAN, ETHERTYPE_QINQ].contains(&link.ethertype) {
        let tag = *frame.at::<Vlan>(link.length()).ok_or(TRUNCATED)?;
        link.tags[link.tagged] = tag;
        link.tagged += 1;
        link.ethertype = tag.ethertype;
    }
    Ok(link)
}

/// The outer IP header.
struct Outer {
    protocol: u8,
    /// Offset of what it carries.
    payload: usize,
    /// Offset of the end of what it carries.
    end: usize,
    /// Checksum and lengths agree.
    sound: bool,
}

#[inline(always)]
fn outer(frame: &mut Frame<'_>, link: &Link) -> Result<Outer, DecapOutcome> {
    let start = link.length();
    match link.ethertype {
        ETHERTYPE_IPV4 => outer4(frame.at::<Ipv4>(start).ok_or(TRUNCATED)?, start),
        ETHERTYPE_IPV6 => outer6(frame.at::<Ipv6>(start).ok_or(TRUNCATED)?, start),
        _ => Err(Pass(Counter::PassOther)),
    }
}

#[inline(always)]
fn outer4(ip: &Ipv4, start: usize) -> Result<Outer, DecapOutcome> {
    let [_, protocol] = ip.ttl_protocol;
    if !matches!(protocol, IPIP | IPV6 | UDP) {
        return Err(Pass(Counter::PassOther));
    }
    if ip.version_ihl != VERSION_IHL_20 {
        let options = ip.version_ihl > VERSION_IHL_20 && ip.version_ihl < 0x50;
        return Err(Pass(if options { Counter::PassOptions } else { Counter::PassOther }));
    }
    if ip.fragment.0 & (FRAGMENT_OFFSET.0 | MORE_FRAGMENTS.0) != 0 {
        return Err(Pass(Counter::PassFragment));
    }
    let sum = Sum::default()
        .add16(Be16(u16::from_ne_bytes([ip.version_ihl, ip.tos])))
        .add16(ip.total_length)
        .add16(ip.id)
        .add16(ip.fragment)
        .add16(Be16(u16::from_ne_bytes(ip.ttl_protocol)))
        .add16(ip.checksum)
        .add32(ip.source)
        .add32(ip.destination);
    Ok(Outer {
        protocol,
        payload: start + size_of::<Ipv4>(),
        end: start + ip.total_length.get() as usize,
        sound: sum.field() == Be16(0),
    })
}

#[inline(always)]
fn outer6(ip: &Ipv6, start: usize) -> Result<Outer, DecapOutcome> {
    match ip.next_header {
        IPIP | IPV6 | UDP => {}
        FRAGMENT => return Err(Pass(Counter::PassFragment)),
        HOP_BY_HOP | ROUTING | DESTINATION => return Err(Pass(Counter::PassOptions)),
        _ => return Err(Pass(Counter::PassOther)),
    }
    let payload = start + size_of::<Ipv6>();
    let end = payload + ip.payload_length.get() as usize;
    Ok(Outer { protocol: ip.next_header, payload, end, sound: ip.version_class_flow.get() >> 28 == 6 })
}

/// IPv6 extension headers (RFC 8200, section 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Where the inner packet begins, and where it has to end.
struct Carried {
    offset: usize,
    end: usize,
    /// What the header in front of it says; None: nothing.
    version: Option<u8>,
    counter: Counter,
}

#[inline(always)]
fn carried(frame: &mut Frame<'_>, outer: &Outer) -> Result<Carried, DecapOutcome> {
    let Outer { protocol, payload, end, .. } = *outer;
    let Some(version) = version_of(protocol) else { return gue(frame, payload) };
    Ok(Carried { offset: payload, end, version: Some(version), counter: Counter::OpenIpip })
}

/// A UDP checksum other than zero is not verified: it covers the whole payload, more than may be read here in
/// bounded time, and the inner packet has checksums of its own.
#[inline(always)]
fn gue(frame: &mut Frame<'_>, start: usize) -> Result<Carried, DecapOutcome> {
    const KIND: DecapOutcome = Pass(Counter::PassKind);
    let udp = *frame.at::<Udp>(start).ok_or(TRUNCATED)?;
    if udp.ports.destination != Be16::new(GUE_PORT) {
        return Err(Pass(Counter::PassOther));
    }
    let payload = start + size_of::<Udp>();
    let end = start + udp.length.get() as usize;
    let counter = Counter::OpenGue;
    let header = *frame.at::<Gue>(payload).ok_or(TRUNCATED)?;
    match header.variant_length >> 6 {
        0 => {
            let version = version_of(header.protocol);
            if header.variant_length & GUE_CONTROL != 0 || header.flags != Be16(0) || version.is_none() {
                return Err(KIND);
            }
            let words = (header.variant_length & GUE_WORDS) as usize;
            Ok(Carried { offset: payload + size_of::<Gue>() + words * 4, end, version, counter })
        }
        1 => Ok(Carried { offset: payload, end, version: None, counter }),
        _ => Err(KIND),
    }
}

const GUE_CONTROL: u8 = 0x20;
const GUE_WORDS: u8 = 0x1f;

#[inline(always)]
fn version_of(protocol: u8) -> Option<u8> {
    match protocol {
        IPIP => Some(4),
        IPV6 => Some(6),
        _ => None,
    }
}

/// The inner packet, which is for a listed address.
struct Inner {
    version: u8,
    ethertype: Be16,
    /// As its header says.
    length: usize,
    sound: bool,
}

#[inline(always)]
fn inner(frame: &mut Frame<'_>, start: usize, tables: &impl DecapTables) -> Result<Inner, DecapOutcome> {
    const NO_VIP: DecapOutcome = Pass(Counter::PassNoVip);
    let Version([first, _]) = *frame.at::<Version>(start).ok_or(TRUNCATED)?;
    match first >> 4 {
        4 => {
            let ip = *frame.at::<Ipv4>(start).ok_or(TRUNCATED)?;
            if !tables.is_vip4(ip.destination) {
                return Err(NO_VIP);
            }
            let (length, header) = (ip.total_length.get() as usize, (first & 0xf) as usize * 4);
            let sound = header >= size_of::<Ipv4>() && length >= header;
            Ok(Inner { version: 4, ethertype: ETHERTYPE_IPV4, length, sound })
        }
        6 => {
            let ip = *frame.at::<Ipv6>(start).ok_or(TRUNCATED)?;
            if !tables.is_vip6(ip.destination) {
                return Err(NO_VIP);
            }
            let length = size_of::<Ipv6>() + ip.payload_length.get() as usize;
            Ok(Inner { version: 6, ethertype: ETHERTYPE_IPV6, length, sound: true })
        }
        _ => Err(Pass(Counter::PassKind)),
    }
}

/// Takes the outer headers away and puts the link header, tags and all, in front of the inner packet.
#[inline(always)]
fn open(packet: &mut impl DecapPacket, found: &Found) -> Option<()> {
    let Found { link, outer, inner, .. } = found;
    packet.strip(*outer)?;
    let mut frame = packet.frame();
    let last = link.tagged;
    let ethertype = |position: usize, old: Be16| if position == last { *inner } else { old };
    let ethernet = frame.at::<Ethernet>(0)?;
    *ethernet = Ethernet { ethertype: ethertype(0, link.ethernet.ethertype), ..link.ethernet };
    for (index, tag) in link.tags.iter().enumerate().take(last) {
        let offset = size_of::<Ethernet>() + index * size_of::<Vlan>();
        *frame.at::<Vlan>(offset)? = Vlan { ethertype: ethertype(index + 1, tag.ethertype), ..*tag };
    }
    Some(())
}
