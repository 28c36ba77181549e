//! From bytes to the fields that decide.

use lb_common::{
    counter::Counter,
    entry::ServiceKey,
    flow::{FlowKey, Tuple},
    net::{Be16, Family, TCP},
};

use crate::{
    forward::Outcome,
    frame::{Frame, confine},
    header::{ETHERTYPE_QINQ, ETHERTYPE_VLAN, Ethernet, L3_OFFSET, Ports, TCP_ACK, TCP_SYN, Tcp, Udp, Vlan},
    ip::{Ip, Part},
    tables::Packet,
};

/// What decides about a packet.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Parsed<F: Family> {
    pub(crate) tuple: Tuple<F>,
    /// Offsets of the IP header and of the transport header.
    pub(crate) l3: usize,
    pub(crate) l4: usize,
    /// IP total length.
    pub(crate) length: u32,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    /// TCP flags; 0 for anything else.
    pub(crate) flags: u8,
    pub(crate) part: Part,
}

impl<F: Family> Parsed<F> {
    #[inline(always)]
    pub(crate) fn service_key(&self) -> ServiceKey<F> {
        ServiceKey::new(self.tuple.destination, self.tuple.destination_port, self.protocol)
    }

    #[inline(always)]
    pub(crate) fn flow_key(&self) -> FlowKey<F> {
        FlowKey::new(self.tuple, self.protocol)
    }

    /// The first packet of a TCP connection.
    #[inline(always)]
    pub(crate) fn is_syn(&self) -> bool {
        self.flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }

    /// As it comes from memory: with offsets that the verifier can follow.
    #[inline(always)]
    pub(crate) fn confined(self) -> Self {
        Parsed { l3: confine::<L3_MASK>(self.l3), l4: confine::<L4_MASK>(self.l4), ..self }
    }
}

/// Two VLAN tags at most.
const L3_MASK: u32 = 0x1f;
/// Room for all extension headers that are walked over.
const L4_MASK: u32 = 0x3fff;

/// Reads a packet without tags, options, extension headers or fragmentation, where all offsets are constants.
/// None: a packet of another kind.
#[inline(always)]
pub(crate) fn simple<F: Ip>(frame: &mut Frame<'_>) -> Option<Parsed<F>> {
    let fields = F::fields(frame.at::<F::Header>(L3_OFFSET)?)?;
    if !fields.is_simple {
        return None;
    }
    let l4 = L3_OFFSET + F::LENGTH;
    let ports = *frame.at::<Ports>(l4)?;
    Some(Parsed {
        tuple: Tuple {
            source: fields.source,
            destination: fields.destination,
            source_port: ports.source,
            destination_port: ports.destination,
        },
        l3: L3_OFFSET,
        l4,
        length: fields.length,
        protocol: fields.protocol,
        ttl: fields.ttl,
        flags: 0,
        part: Part::Whole,
    })
}

/// The packet's type, and where its IP header stands behind VLAN tags.
#[inline(always)]
pub(crate) fn link(frame: &mut Frame<'_>) -> Result<(Be16, usize), Outcome> {
    let mut ethertype = frame.at::<Ethernet>(0).ok_or(TRUNCATED)?.ethertype;
    let mut l3 = L3_OFFSET;
    for _ in 0..2 {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
            break;
        }
        ethertype = frame.at::<Vlan>(l3).ok_or(TRUNCATED)?.ethertype;
        l3 += size_of::<Vlan>();
    }
    Ok((ethertype, l3))
}

/// Reads a packet of any kind up to its transport header, ports not included. The id is the datagram's.
#[inline(always)]
pub(crate) fn full<F: Ip>(frame: &mut Frame<'_>, l3: usize) -> Result<(Parsed<F>, u32), Outcome> {
    let header = frame.at::<F::Header>(l3).ok_or(TRUNCATED)?;
    let fields = F::fields(header).ok_or(Outcome::pass(Counter::PassNotIp))?;
    let walked = F::walk(frame, l3)?;
    let parsed = Parsed {
        tuple: Tuple {
            source: fields.source,
            destination: fields.destination,
            source_port: Be16(0),
            destination_port: Be16(0),
        },
        l3,
        l4: walked.l4,
        length: fields.length,
        protocol: walked.protocol,
        ttl: fields.ttl,
        flags: 0,
        part: walked.part,
    };
    Ok((parsed, walked.id))
}

/// What keeps a packet of ours from being forwarded.
#[derive(Clone, Copy)]
pub(crate) enum Unfit {
    Malformed,
    /// The time to live would reach zero.
    Expired,
}

/// Checks a packet of ours: lengths that agree with each other, and a time to live that survives a hop. Returns
/// the TCP flags.
#[inline(always)]
pub(crate) fn transport<F: Ip>(packet: &mut impl Packet, parsed: &Parsed<F>) -> Result<u8, Unfit> {
    let end = parsed.length + parsed.l3 as u32;
    // Asked in this order, since a frame in one piece, which almost all are, needs no helper call.
    if end > packet.frame().len() && end > packet.length() {
        return Err(Unfit::Malformed);
    }
    let mut frame = packet.frame();
    let before = (parsed.l4 - parsed.l3) as u32;
    if before > parsed.length {
        return Err(Unfit::Malformed);
    }
    // A first fragment need not hold more than the fixed header: less would hide what is checked (RFC 1858).
    let room = parsed.length - before;
    let flags = match parsed.part {
        Part::Later => 0,
        part if parsed.protocol == TCP => {
            let tcp = frame.at::<Tcp>(parsed.l4).ok_or(Unfit::Malformed)?;
            let header = (tcp.data_offset >> 4) as u32 * 4;
            let needed = if matches!(part, Part::Whole) { header } else { size_of::<Tcp>() as u32 };
            if header < size_of::<Tcp>() as u32 || needed > room {
                return Err(Unfit::Malformed);
            }
            tcp.flags
        }
        part => {
            let udp = frame.at::<Udp>(parsed.l4).ok_or(Unfit::Malformed)?;
            let length = udp.length.get() as u32;
            let needed = if matches!(part, Part::Whole) { length } else { size_of::<Udp>() as u32 };
            if length < size_of::<Udp>() as u32 || needed > room {
                return Err(Unfit::Malformed);
            }
            0
        }
    };
    if parsed.ttl <= 1 {
        return Err(Unfit::Expired);
    }
    Ok(flags)
}

const TRUNCATED: Outcome = Outcome::pass(Counter::PassTruncated);
