//! What IPv4 and IPv6 do differently: headers, what stands between them and the transport, checksums.

use lb_common::{
    counter::Counter,
    net::{Be16, Be32, Family, IPIP, IPV6, TCP, UDP, V4, V6},
};

use crate::{
    checksum::Sum,
    forward::Outcome,
    frame::{Frame, Header},
    header::{
        DESTINATION_OPTIONS, DONT_FRAGMENT, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Extension, FRAGMENT,
        FRAGMENT_OFFSET, Fragment, HOP_BY_HOP, Ipv4, Ipv6, MORE_FRAGMENTS, ROUTING, V6_FRAGMENT_OFFSET,
        V6_MORE_FRAGMENTS, VERSION_IHL_20,
    },
};

/// Which part of a datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    Whole = 0,
    /// With the transport header.
    First = 1,
    Later = 2,
}

/// The fixed fields of a header.
#[derive(Clone, Copy)]
pub(crate) struct Fields<F: Family> {
    pub source: F::Address,
    pub destination: F::Address,
    /// Of the whole packet, in bytes.
    pub length: u32,
    pub protocol: u8,
    pub ttl: u8,
    /// Nothing between this header and a TCP or UDP header, and no fragment.
    pub is_simple: bool,
}

/// What the headers up to the transport say.
#[derive(Clone, Copy)]
pub(crate) struct Walked {
    pub protocol: u8,
    pub part: Part,
    /// Offset of the transport header in the frame.
    pub l4: usize,
    /// Of the datagram.
    pub id: u32,
}

/// A header to be written.
#[derive(Clone, Copy)]
pub(crate) struct Fresh<F: Family> {
    pub source: F::Address,
    pub destination: F::Address,
    pub protocol: u8,
    pub traffic_class: u8,
    /// Bytes behind the header.
    pub payload: u16,
}

/// Of every header this program makes.
pub(crate) const TTL: u8 = 64;

pub(crate) trait Ip: Family {
    type Header: Header;
    const LENGTH: usize = size_of::<Self::Header>();
    const ETHERTYPE: Be16;
    /// The protocol number of such a packet in another header.
    const NUMBER: u8;

    /// None: not a header of this version.
    fn fields(header: &Self::Header) -> Option<Fields<Self>>;
    fn traffic_class(header: &Self::Header) -> u8;
    /// Goes over options and extension headers to the transport.
    fn walk(frame: &mut Frame<'_>, l3: usize) -> Result<Walked, Outcome>;

    /// The same for a packet quoted in an error: where its transport header begins. None: it has none.
    fn quoted_l4(frame: &mut Frame<'_>, l3: usize) -> Option<usize>;

    fn fresh(header: Fresh<Self>) -> Self::Header;
    /// One hop less to live.
    fn hop(header: &mut Self::Header);
    fn set_ttl(header: &mut Self::Header, ttl: u8);
    fn set_ends(header: &mut Self::Header, source: Self::Address, destination: Self::Address);

    /// Whether an answer to the address reaches one machine.
    fn is_unicast(address: Self::Address) -> bool;
    fn sum(sum: Sum, address: Self::Address) -> Sum;
    fn exchange(sum: Sum, old: Self::Address, new: Self::Address) -> Sum;
}

impl Ip for V4 {
    type Header = Ipv4;
    const ETHERTYPE: Be16 = ETHERTYPE_IPV4;
    const NUMBER: u8 = IPIP;

    #[inline(always)]
    fn fields(ip: &Ipv4) -> Option<Fields<V4>> {
        if ip.version_ihl < VERSION_IHL_20 || ip.version_ihl > VERSION_IHL_60 {
            return None;
        }
        let [ttl, protocol] = ip.ttl_protocol;
        let fragment = ip.fragment.0 & (MORE_FRAGMENTS.0 | FRAGMENT_OFFSET.0) != 0;
        Some(Fields {
            source: ip.source,
            destination: ip.destination,
            length: ip.total_length.get() as u32,
            protocol,
            ttl,
            is_simple: ip.version_ihl == VERSION_IHL_20 && !fragment && is_transport(protocol),
        })
    }

    #[inline(always)]
    fn traffic_class(ip: &Ipv4) -> u8 {
        ip.tos
    }

    #[inline(always)]
    fn walk(frame: &mut Frame<'_>, l3: usize) -> Result<Walked, Outcome> {
        let ip = frame.at::<Ipv4>(l3).ok_or(TRUNCATED)?;
        let offset = ip.fragment.0 & FRAGMENT_OFFSET.0;
        let part = if offset != 0 {
            Part::Later
        } else if ip.fragment.0 & MORE_FRAGMENTS.0 != 0 {
            Part::First
        } else {
            Part::Whole
        };
        let [_, protocol] = ip.ttl_protocol;
        let length = (ip.version_ihl & 0xf) as usize * 4;
        Ok(Walked { protocol, part, l4: l3 + length, id: ip.id.0 as u32 })
    }

    #[inline(always)]
    fn quoted_l4(frame: &mut Frame<'_>, l3: usize) -> Option<usize> {
        let ip = frame.at::<Ipv4>(l3)?;
        let [_, protocol] = ip.ttl_protocol;
        let first = ip.fragment.0 & FRAGMENT_OFFSET.0 == 0;
        (first && is_transport(protocol)).then_some(l3 + (ip.version_ihl & 0xf) as usize * 4)
    }

    #[inline(always)]
    fn fresh(fresh: Fresh<V4>) -> Ipv4 {
        let mut ip = Ipv4 {
            version_ihl: VERSION_IHL_20,
            tos: fresh.traffic_class,
            total_length: Be16::new(size_of::<Ipv4>() as u16 + fresh.payload),
            // RFC 6864: what cannot be fragmented needs no identification.
            id: Be16(0),
            fragment: DONT_FRAGMENT,
            ttl_protocol: [TTL, fresh.protocol],
            checksum: Be16(0),
            source: fresh.source,
            destination: fresh.destination,
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
    fn hop(ip: &mut Ipv4) {
        let [ttl, _] = ip.ttl_protocol;
        V4::set_ttl(ip, ttl.wrapping_sub(1));
    }

    #[inline(always)]
    fn set_ttl(ip: &mut Ipv4, ttl: u8) {
        let [old_ttl, protocol] = ip.ttl_protocol;
        let old = Be16(u16::from_ne_bytes([old_ttl, protocol]));
        let new = Be16(u16::from_ne_bytes([ttl, protocol]));
        ip.ttl_protocol = [ttl, protocol];
        ip.checksum = Sum::of_field(ip.checksum).replace16(old, new).field();
    }

    #[inline(always)]
    fn set_ends(ip: &mut Ipv4, source: Be32, destination: Be32) {
        let sum =
            Sum::of_field(ip.checksum).replace32(ip.source, source).replace32(ip.destination, destination);
        ip.source = source;
        ip.destination = destination;
        ip.checksum = sum.field();
    }

    #[inline(always)]
    fn is_unicast(address: Be32) -> bool {
        let first = address.get() >> 24;
        first != 0 && first < 224
    }

    #[inline(always)]
    fn sum(sum: Sum, address: Be32) -> Sum {
        sum.add32(address)
    }

    #[inline(always)]
    fn exchange(sum: Sum, old: Be32, new: Be32) -> Sum {
        sum.replace32(old, new)
    }
}

impl Ip for V6 {
    type Header = Ipv6;
    const ETHERTYPE: Be16 = ETHERTYPE_IPV6;
    const NUMBER: u8 = IPV6;

    #[inline(always)]
    fn fields(ip: &Ipv6) -> Option<Fields<V6>> {
        if ip.version_class_flow.0 & VERSION_MASK.0 != VERSION_6.0 {
            return None;
        }
        Some(Fields {
            source: ip.source,
            destination: ip.destination,
            length: size_of::<Ipv6>() as u32 + ip.payload_length.get() as u32,
            protocol: ip.next_header,
            ttl: ip.hop_limit,
            is_simple: is_transport(ip.next_header),
        })
    }

    #[inline(always)]
    fn traffic_class(ip: &Ipv6) -> u8 {
        (ip.version_class_flow.get() >> 20) as u8
    }

    #[inline(always)]
    fn walk(frame: &mut Frame<'_>, l3: usize) -> Result<Walked, Outcome> {
        let ip = frame.at::<Ipv6>(l3).ok_or(TRUNCATED)?;
        let mut next = ip.next_header;
        let mut l4 = l3 + size_of::<Ipv6>();
        for _ in 0..EXTENSIONS_MAX {
            match next {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                    let extension = frame.at::<Extension>(l4).ok_or(TRUNCATED)?;
                    next = extension.next_header;
                    l4 += (extension.length as usize + 1) * 8;
                }
                FRAGMENT => {
                    let &mut Fragment { next_header, offset_more, id, .. } =
                        frame.at::<Fragment>(l4).ok_or(TRUNCATED)?;
                    let part = if offset_more.0 & V6_FRAGMENT_OFFSET.0 != 0 {
                        Part::Later
                    } else if offset_more.0 & V6_MORE_FRAGMENTS.0 != 0 {
                        Part::First
                    } else {
                        Part::Whole
                    };
                    // Nothing but the destination options for the end may follow, and those are rare enough to pass.
                    let l4 = l4 + size_of::<Fragment>();
                    return Ok(Walked { protocol: next_header, part, l4, id: id.0 });
                }
                _ => return Ok(Walked { protocol: next, part: Part::Whole, l4, id: 0 }),
            }
        }
        Err(Outcome::pass(Counter::PassExtensions))
    }

    #[inline(always)]
    fn quoted_l4(frame: &mut Frame<'_>, l3: usize) -> Option<usize> {
        let ip = frame.at::<Ipv6>(l3)?;
        is_transport(ip.next_header).then_some(l3 + size_of::<Ipv6>())
    }

    #[inline(always)]
    fn fresh(fresh: Fresh<V6>) -> Ipv6 {
        Ipv6 {
            version_class_flow: Be32::new(6 << 28 | (fresh.traffic_class as u32) << 20),
            payload_length: Be16::new(fresh.payload),
            next_header: fresh.protocol,
            hop_limit: TTL,
            source: fresh.source,
            destination: fresh.destination,
        }
    }

    #[inline(always)]
    fn hop(ip: &mut Ipv6) {
        ip.hop_limit = ip.hop_limit.wrapping_sub(1);
    }

    #[inline(always)]
    fn set_ttl(ip: &mut Ipv6, ttl: u8) {
        ip.hop_limit = ttl;
    }

    #[inline(always)]
    fn set_ends(ip: &mut Ipv6, source: Self::Address, destination: Self::Address) {
        ip.source = source;
        ip.destination = destination;
    }

    #[inline(always)]
    fn is_unicast(address: Self::Address) -> bool {
        address.0 != [0, 0] && address.0[0].to_be() >> 56 != 0xff
    }

    #[inline(always)]
    fn sum(sum: Sum, address: Self::Address) -> Sum {
        sum.add128(address)
    }

    #[inline(always)]
    fn exchange(sum: Sum, old: Self::Address, new: Self::Address) -> Sum {
        sum.replace128(old, new)
    }
}

#[inline(always)]
fn is_transport(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP
}

const TRUNCATED: Outcome = Outcome::pass(Counter::PassTruncated);
const VERSION_IHL_60: u8 = 0x4f;
const VERSION_MASK: Be32 = Be32::new(0xf000_0000);
const VERSION_6: Be32 = Be32::new(0x6000_0000);
/// A fragment header among them. Real packets have at most two or three (RFC 8504, section 5.3, allows a limit).
const EXTENSIONS_MAX: u32 = 6;
