//! Answers a TCP packet with a RST (RFC 9293, section 3.10.7.1): a service without a usable server.

use lb_common::{
    counter::Counter,
    net::{Be16, Be32, TCP},
};

use crate::{
    checksum::Sum,
    forward::Outcome,
    header::{
        DONT_FRAGMENT, Ethernet, IPV4_OFFSET, Ipv4, L4_OFFSET, Ports, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN,
        Tcp, VERSION_IHL_20,
    },
    parse::Parsed,
    tables::Packet,
};

const LENGTH: u32 = (L4_OFFSET + size_of::<Tcp>()) as u32;
const TTL: u8 = 64;

/// Turns the packet into its own refusal. A RST is never answered, nor is a frame sent to many.
#[inline(always)]
pub(crate) fn refuse(packet: &mut impl Packet, parsed: &Parsed, reset: Counter, drop: Counter) -> Outcome {
    if parsed.protocol != TCP {
        return Outcome::drop(drop);
    }
    let mut frame = packet.frame();
    let Some(&mut tcp) = frame.at::<Tcp>(L4_OFFSET) else { return Outcome::drop(drop) };
    let Some(ethernet) = frame.at::<Ethernet>(0) else { return Outcome::drop(drop) };
    let (from, to) = (ethernet.source, ethernet.destination);
    if tcp.flags & TCP_RST != 0 || from.is_multicast() || to.is_multicast() {
        return Outcome::drop(drop);
    }
    ethernet.destination = from;
    ethernet.source = to;

    let Some(ip) = frame.at::<Ipv4>(IPV4_OFFSET) else { return Outcome::drop(drop) };
    *ip = answer_ip(parsed);
    let answer = answer_tcp(parsed, &tcp);
    let Some(place) = frame.at::<Tcp>(L4_OFFSET) else { return Outcome::drop(drop) };
    *place = answer;
    match packet.truncate(LENGTH) {
        Some(()) => Outcome::transmit(reset),
        None => Outcome::drop(drop),
    }
}

#[inline(always)]
fn answer_ip(parsed: &Parsed) -> Ipv4 {
    let mut ip = Ipv4 {
        version_ihl: VERSION_IHL_20,
        tos: 0,
        total_length: Be16::new((size_of::<Ipv4>() + size_of::<Tcp>()) as u16),
        id: Be16(0),
        fragment: DONT_FRAGMENT,
        ttl_protocol: [TTL, TCP],
        checksum: Be16(0),
        source: parsed.tuple.destination,
        destination: parsed.tuple.source,
    };
    ip.checksum = Sum::default()
        .add16(Be16(u16::from_ne_bytes([ip.version_ihl, ip.tos])))
        .add16(ip.total_length)
        .add16(ip.fragment)
        .add16(Be16(u16::from_ne_bytes(ip.ttl_protocol)))
        .add32(ip.source)
        .add32(ip.destination)
        .field();
    ip
}

#[inline(always)]
fn answer_tcp(parsed: &Parsed, asked: &Tcp) -> Tcp {
    let (sequence, acknowledgment, flags) = if asked.flags & TCP_ACK != 0 {
        (asked.acknowledgment, Be32(0), TCP_RST)
    } else {
        (
            Be32(0),
            Be32::new(asked.sequence.get().wrapping_add(segment_length(parsed, asked))),
            TCP_RST | TCP_ACK,
        )
    };
    let mut tcp = Tcp {
        ports: Ports { source: parsed.tuple.destination_port, destination: parsed.tuple.source_port },
        sequence,
        acknowledgment,
        data_offset: (size_of::<Tcp>() as u8 / 4) << 4,
        flags,
        window: Be16(0),
        checksum: Be16(0),
        urgent: Be16(0),
    };
    tcp.checksum = Sum::default()
        .add32(parsed.tuple.source)
        .add32(parsed.tuple.destination)
        .add16(Be16::new(TCP as u16))
        .add16(Be16::new(size_of::<Tcp>() as u16))
        .add16(tcp.ports.source)
        .add16(tcp.ports.destination)
        .add32(tcp.sequence)
        .add32(tcp.acknowledgment)
        .add16(Be16(u16::from_ne_bytes([tcp.data_offset, tcp.flags])))
        .field();
    tcp
}

/// Sequence numbers the segment takes: its data, and one each for SYN and FIN.
#[inline(always)]
fn segment_length(parsed: &Parsed, asked: &Tcp) -> u32 {
    let headers = size_of::<Ipv4>() as u32 + (asked.data_offset >> 4) as u32 * 4;
    let data = (parsed.total_length as u32).wrapping_sub(headers);
    data + (asked.flags & TCP_SYN != 0) as u32 + (asked.flags & TCP_FIN != 0) as u32
}
