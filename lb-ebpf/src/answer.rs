//! Turns a packet into its own answer: a TCP RST (RFC 9293, section 3.10.7.1), or an ICMP error (RFC 792, RFC 4443).

use lb_common::{
    counter::Counter,
    net::{Be16, Be32, Family, TCP, V4, V6},
};

use crate::{
    checksum::Sum,
    forward::{Held, Kind, Outcome, held},
    frame::Frame,
    header::{Ethernet, Icmp, Ports, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Tcp, Word32},
    ip::{Fresh, Ip, Part},
    link,
    parse::Parsed,
    tables::{FamilyTables, Packet, Tables},
};

/// The stage that answers.
#[inline(always)]
pub(crate) fn stage<F: Errors>(
    packet: &mut impl Packet,
    tables: &(impl Tables + FamilyTables<F>),
) -> Outcome {
    let Some(Held { parsed, task, .. }) = held::<F>(tables) else {
        return Outcome::drop(Counter::DropTables);
    };
    let is_tcp = parsed.protocol == TCP;
    let (error, answer, drop) = match task.kind {
        Kind::NoServer if is_tcp => {
            return reset(packet, &parsed, Counter::ResetNoServer, Counter::DropNoServer);
        }
        // Its record may be on the way from another table: the packet is repeated.
        Kind::NoFlow if tables.globals().is_some_and(|globals| globals.is_moving()) => {
            return Outcome::drop(Counter::DropNoFlow);
        }
        Kind::NoFlow if is_tcp => return reset(packet, &parsed, Counter::ResetNoFlow, Counter::DropNoFlow),
        Kind::NoServer => (F::UNREACHABLE, Counter::AnswerNoServer, Counter::DropNoServer),
        Kind::TooBig => (F::too_big(task.value), Counter::AnswerTooBig, Counter::DropTooBig),
        Kind::Expired => (F::EXPIRED, Counter::AnswerTtl, Counter::DropTtl),
        Kind::NoFlow => return Outcome::drop(Counter::DropNoFlow),
        Kind::Request | Kind::Open | Kind::Opened | Kind::Reply | Kind::Icmp => {
            return Outcome::drop(Counter::DropTables);
        }
    };
    match report(packet, tables, &parsed, error) {
        Some(()) => Outcome::transmit(answer),
        None => Outcome::drop(drop),
    }
}

/// Type, code, and what follows the checksum of an ICMP error.
#[derive(Clone, Copy)]
pub(crate) struct Error {
    kind: u8,
    code: u8,
    rest: u32,
}

/// The errors of an IP version.
pub(crate) trait Errors: Ip {
    /// Nobody takes packets for the port: there is no server.
    const UNREACHABLE: Error;
    const EXPIRED: Error;

    fn too_big(mtu: u32) -> Error;
    /// What the checksum of a message covers beside the message.
    fn pseudo(source: Self::Address, destination: Self::Address, length: u32) -> Sum;
}

impl Errors for V4 {
    const UNREACHABLE: Error = Error { kind: 3, code: 3, rest: 0 };
    const EXPIRED: Error = Error { kind: 11, code: 0, rest: 0 };

    #[inline(always)]
    fn too_big(mtu: u32) -> Error {
        Error { kind: 3, code: 4, rest: mtu }
    }

    #[inline(always)]
    fn pseudo(_: Be32, _: Be32, _: u32) -> Sum {
        Sum::default()
    }
}

impl Errors for V6 {
    const UNREACHABLE: Error = Error { kind: 1, code: 4, rest: 0 };
    const EXPIRED: Error = Error { kind: 3, code: 0, rest: 0 };

    #[inline(always)]
    fn too_big(mtu: u32) -> Error {
        Error { kind: 2, code: 0, rest: mtu }
    }

    #[inline(always)]
    fn pseudo(source: Self::Address, destination: Self::Address, length: u32) -> Sum {
        V6::sum(V6::sum(Sum::default(), source), destination)
            .add32(Be32::new(length))
            .add16(Be16::new(V6::ICMP as u16))
    }
}

/// Sends a packet's beginning back in an ICMP error. None: it may not be answered, or cannot. IPv4 packets that may be
/// fragmented are no exception: nobody here fragments them, and their sender can.
#[inline(always)]
fn report<F: Errors>(
    packet: &mut impl Packet,
    tables: &impl Tables,
    parsed: &Parsed<F>,
    error: Error,
) -> Option<()> {
    let l3 = parsed.l3;
    let arrival = link::arrival(packet, l3)?;
    let mut frame = packet.frame();
    let answerable = parsed.part != Part::Later
        && !frame.at::<Ethernet>(0)?.source.is_multicast()
        && F::is_unicast(parsed.tuple.source)
        && tables.may_answer(tables.now());
    if !answerable {
        return None;
    }
    // The header, and enough behind it to name the flow.
    let quote = ((parsed.l4 - parsed.l3 + size_of::<Icmp>()) as u32).min(QUOTE_MAX);
    packet.grow((F::LENGTH + size_of::<Icmp>()) as i32)?;
    let mut frame = packet.frame();
    link::write(&mut frame, arrival.peer_mac, arrival.own_mac, arrival.tags, F::ETHERTYPE)?;
    *frame.at::<F::Header>(l3)? = F::fresh(Fresh {
        source: parsed.tuple.destination,
        destination: parsed.tuple.source,
        protocol: F::ICMP,
        traffic_class: 0,
        payload: (size_of::<Icmp>() as u32 + quote) as u16,
    });
    let mut message =
        Icmp { kind: error.kind, code: error.code, checksum: Be16(0), rest: Be32::new(error.rest) };
    let sum = F::pseudo(parsed.tuple.destination, parsed.tuple.source, size_of::<Icmp>() as u32 + quote)
        .add16(Be16(u16::from_ne_bytes([message.kind, message.code])))
        .add32(message.rest);
    let l4 = l3 + F::LENGTH;
    message.checksum = sum_words(&mut frame, l4 + size_of::<Icmp>(), quote, sum)?.field();
    *frame.at::<Icmp>(l4)? = message;
    packet.truncate((l4 + size_of::<Icmp>()) as u32 + quote)
}

#[inline(always)]
fn sum_words(frame: &mut Frame<'_>, start: usize, length: u32, sum: Sum) -> Option<Sum> {
    let mut sum = sum;
    for word in 0..QUOTE_MAX / 4 {
        if word * 4 >= length {
            break;
        }
        sum = sum.add32(frame.at::<Word32>(start + word as usize * 4)?.0);
    }
    Some(sum)
}

/// A multiple of four; IPv4 with all its options needs 68.
const QUOTE_MAX: u32 = 96;

/// Turns the packet into its own refusal. A RST is never answered.
#[inline(always)]
fn reset<F: Ip>(packet: &mut impl Packet, parsed: &Parsed<F>, reset: Counter, drop: Counter) -> Outcome {
    match refuse(packet, parsed) {
        Some(()) => Outcome::transmit(reset),
        None => Outcome::drop(drop),
    }
}

#[inline(always)]
fn refuse<F: Ip>(packet: &mut impl Packet, parsed: &Parsed<F>) -> Option<()> {
    if parsed.part != Part::Whole {
        return None;
    }
    let mut frame = packet.frame();
    let tcp = *frame.at::<Tcp>(parsed.l4)?;
    let ethernet = frame.at::<Ethernet>(0)?;
    let (from, to) = (ethernet.source, ethernet.destination);
    if tcp.flags & TCP_RST != 0 || from.is_multicast() || !F::is_unicast(parsed.tuple.source) {
        return None;
    }
    ethernet.destination = from;
    ethernet.source = to;
    let l3 = parsed.l3;
    *frame.at::<F::Header>(l3)? = F::fresh(Fresh {
        source: parsed.tuple.destination,
        destination: parsed.tuple.source,
        protocol: TCP,
        traffic_class: 0,
        payload: size_of::<Tcp>() as u16,
    });
    *frame.at::<Tcp>(l3 + F::LENGTH)? = refusal(parsed, &tcp);
    packet.truncate((l3 + F::LENGTH + size_of::<Tcp>()) as u32)
}

#[inline(always)]
fn refusal<F: Ip>(parsed: &Parsed<F>, asked: &Tcp) -> Tcp {
    let (sequence, acknowledgment, flags) = if asked.flags & TCP_ACK != 0 {
        (asked.acknowledgment, Be32(0), TCP_RST)
    } else {
        let next = asked.sequence.get().wrapping_add(segment_length(parsed, asked));
        (Be32(0), Be32::new(next), TCP_RST | TCP_ACK)
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
    tcp.checksum = F::sum(F::sum(Sum::default(), parsed.tuple.source), parsed.tuple.destination)
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
fn segment_length<F: Family>(parsed: &Parsed<F>, asked: &Tcp) -> u32 {
    let headers = (parsed.l4 - parsed.l3) as u32 + (asked.data_offset >> 4) as u32 * 4;
    let data = parsed.length.wrapping_sub(headers);
    data + (asked.flags & TCP_SYN != 0) as u32 + (asked.flags & TCP_FIN != 0) as u32
}
