//! From bytes to the fields that decide.

use lb_common::{
    counter::Counter,
    entry::ServiceKey,
    flow::{FlowKey, Tuple},
    net::{TCP, UDP},
};

use crate::{
    forward::Outcome,
    frame::Frame,
    header::{
        ETHERTYPE_IPV4, Ethernet, FRAGMENT_MASK, IPV4_OFFSET, Ipv4, L4_OFFSET, Ports, TCP_ACK, TCP_SYN, Tcp,
        Udp, VERSION_IHL_20,
    },
};

/// Enough of a packet to tell whether it is for us.
#[derive(Clone, Copy)]
pub(crate) struct Parsed {
    pub tuple: Tuple,
    pub protocol: u8,
    pub total_length: u16,
    pub ttl: u8,
}

impl Parsed {
    #[inline(always)]
    pub(crate) fn service_key(&self) -> ServiceKey {
        ServiceKey::new(self.tuple.destination, self.tuple.destination_port, self.protocol)
    }

    #[inline(always)]
    pub(crate) fn flow_key(&self) -> FlowKey {
        FlowKey::new(self.tuple, self.protocol)
    }
}

/// Reads the headers of an unfragmented TCP or UDP packet over IPv4; anything else passes, with its reason.
#[inline(always)]
pub(crate) fn parse(frame: &mut Frame<'_>) -> Result<Parsed, Outcome> {
    const TRUNCATED: Outcome = Outcome::pass(Counter::PassTruncated);
    let ethernet = *frame.at::<Ethernet>(0).ok_or(TRUNCATED)?;
    if ethernet.ethertype != ETHERTYPE_IPV4 {
        return Err(Outcome::pass(Counter::PassNotIpv4));
    }
    // Flooded to many: another balancer would forward it a second time.
    if ethernet.destination.is_multicast() {
        return Err(Outcome::pass(Counter::PassMulticast));
    }
    let ip = *frame.at::<Ipv4>(IPV4_OFFSET).ok_or(TRUNCATED)?;
    if ip.version_ihl != VERSION_IHL_20 {
        let options = ip.version_ihl > VERSION_IHL_20 && ip.version_ihl < 0x50;
        return Err(Outcome::pass(if options { Counter::PassOptions } else { Counter::PassNotIpv4 }));
    }
    let [ttl, protocol] = ip.ttl_protocol;
    if protocol != TCP && protocol != UDP {
        return Err(Outcome::pass(Counter::PassProtocol));
    }
    if ip.fragment.0 & FRAGMENT_MASK.0 != 0 {
        return Err(Outcome::pass(Counter::PassFragment));
    }
    let ports = *frame.at::<Ports>(L4_OFFSET).ok_or(TRUNCATED)?;
    Ok(Parsed {
        tuple: Tuple {
            source: ip.source,
            destination: ip.destination,
            source_port: ports.source,
            destination_port: ports.destination,
        },
        protocol,
        total_length: ip.total_length.get(),
        ttl,
    })
}

/// What the transport header adds, once a packet is known to be ours.
#[derive(Clone, Copy)]
pub(crate) struct Transport {
    /// TCP flags; 0 for UDP.
    pub flags: u8,
}

impl Transport {
    /// The first packet of a TCP connection.
    #[inline(always)]
    pub(crate) fn is_syn(self) -> bool {
        self.flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }
}

/// Checks a packet of ours: lengths that agree with each other, and a time to live that survives a hop.
#[inline(always)]
pub(crate) fn transport(frame: &mut Frame<'_>, parsed: &Parsed) -> Result<Transport, Outcome> {
    const MALFORMED: Outcome = Outcome::drop(Counter::DropMalformed);
    let total = parsed.total_length as u32;
    if total + IPV4_OFFSET as u32 > frame.len() {
        return Err(MALFORMED);
    }
    let flags = if parsed.protocol == TCP {
        let tcp = frame.at::<Tcp>(L4_OFFSET).ok_or(MALFORMED)?;
        let header = (tcp.data_offset >> 4) as u32 * 4;
        if header < size_of::<Tcp>() as u32 || IPV4_LENGTH + header > total {
            return Err(MALFORMED);
        }
        tcp.flags
    } else {
        let udp = frame.at::<Udp>(L4_OFFSET).ok_or(MALFORMED)?;
        let length = udp.length.get() as u32;
        if length < size_of::<Udp>() as u32 || IPV4_LENGTH + length > total {
            return Err(MALFORMED);
        }
        0
    };
    if parsed.ttl <= 1 {
        return Err(Outcome::drop(Counter::DropTtl));
    }
    Ok(Transport { flags })
}

const IPV4_LENGTH: u32 = size_of::<Ipv4>() as u32;
