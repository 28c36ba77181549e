//! Packets as values, and their bytes by etherparse: nothing here comes from the packet path.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options,
    Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader, checksum::Sum16BitWords,
};

/// An Ethernet frame with an IP packet of TCP, UDP or ICMP, bare or in another one.
#[derive(Debug, Clone)]
pub struct Datagram {
    pub to: [u8; 6],
    pub from: [u8; 6],
    /// Priority and id of VLAN tags, the outer one first.
    pub tags: Vec<u16>,
    pub outer: Option<Outer>,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub ttl: u8,
    /// Code point and congestion bits.
    pub traffic_class: u8,
    pub identification: u32,
    pub dont_fragment: bool,
    /// Of an IPv4 header.
    pub options: Vec<u8>,
    /// Of an IPv6 header, before a fragment's.
    pub extensions: Vec<Extension>,
    pub fragment: Fragment,
    pub transport: Transport,
    pub payload: Vec<u8>,
    /// Bytes behind the IP packet: what fills a short frame.
    pub padding: Vec<u8>,
}

/// The header of a tunnel.
#[derive(Debug, Clone, Copy)]
pub struct Outer {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// In UDP from this port, variant 1 of generic UDP encapsulation; else IP in IP.
    pub gue_port: Option<u16>,
}

/// A header behind that of IPv6: its number, and what follows the next header's.
#[derive(Debug, Clone)]
pub struct Extension(pub u8, pub Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    /// The transport header and so many bytes of the payload.
    First(usize),
    /// Offset in units of eight bytes. Its transport is `Rest`.
    Later(u16),
    /// With a fragment header of IPv6, and whole.
    Atomic,
}

#[derive(Debug, Clone)]
pub enum Transport {
    /// Ports and checksum are filled in.
    Tcp(Box<TcpHeader>),
    Udp,
    UdpWithoutChecksum,
    Icmp(Icmp),
    /// No header of a transport: the payload of this protocol alone.
    Rest(u8),
}

#[derive(Debug, Clone, Copy)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub rest: u32,
}

impl Datagram {
    /// As the next hop gets it: other link ends, one hop less to live.
    pub fn hop(&self, to: [u8; 6], from: [u8; 6]) -> Datagram {
        Datagram { to, from, ttl: self.ttl - 1, ..self.clone() }
    }

    pub fn ends(&self, source: SocketAddr, destination: SocketAddr) -> Datagram {
        Datagram { source, destination, ..self.clone() }
    }

    pub fn tagged(&self, tags: &[u16]) -> Datagram {
        Datagram { tags: tags.to_vec(), ..self.clone() }
    }

    /// Filled up to the shortest frame that Ethernet carries.
    pub fn padded(&self) -> Datagram {
        let missing = 60usize.saturating_sub(self.bytes().len());
        Datagram { padding: vec![0; missing], ..self.clone() }
    }

    /// Of the packet, without that of a tunnel.
    pub fn total_length(&self) -> u16 {
        u16::try_from(self.packet().len()).expect("cases are built from short payloads")
    }

    pub fn is_syn(&self) -> bool {
        matches!(&self.transport, Transport::Tcp(header) if header.syn && !header.ack)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let packet = self.packet();
        let carrier = self.outer.map_or(self.source.ip(), |outer| outer.source);
        let mut bytes = self.link(if carrier.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 });
        if let Some(outer) = &self.outer {
            bytes.extend(outer.header(&packet, self.traffic_class));
        }
        bytes.extend(packet);
        bytes.extend(&self.padding);
        bytes
    }

    /// The Ethernet header and its tags, with another type behind them.
    pub fn link(&self, ether_type: EtherType) -> Vec<u8> {
        let mut types = match self.tags.len() {
            0 => vec![],
            1 => vec![EtherType::VLAN_TAGGED_FRAME],
            _ => vec![EtherType::PROVIDER_BRIDGING, EtherType::VLAN_TAGGED_FRAME],
        };
        types.push(ether_type);
        let ethernet = Ethernet2Header { destination: self.to, source: self.from, ether_type: types[0] };
        let mut bytes = ethernet.to_bytes().to_vec();
        for (tag, next) in self.tags.iter().zip(&types[1..]) {
            bytes.extend(tag.to_be_bytes());
            bytes.extend(next.0.to_be_bytes());
        }
        bytes
    }

    /// From the IP header on, without padding.
    pub fn packet(&self) -> Vec<u8> {
        let mut segment = self.segment();
        if let Fragment::First(kept) = self.fragment {
            segment.truncate(self.transport_length() + kept);
        }
        [self.ip(segment.len()), segment].concat()
    }

    /// Up to the transport.
    pub fn header_length(&self) -> usize {
        self.packet().len() - self.segment_length()
    }

    fn segment_length(&self) -> usize {
        match self.fragment {
            Fragment::First(kept) => self.transport_length() + kept,
            _ => self.transport_length() + self.payload.len(),
        }
    }

    pub fn ip(&self, segment: usize) -> Vec<u8> {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = self.ipv4(source.octets(), destination.octets(), segment);
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (first, extensions) = self.chain();
                let header = Ipv6Header {
                    payload_length: (extensions.len() + segment) as u16,
                    next_header: IpNumber(first),
                    hop_limit: self.ttl,
                    traffic_class: self.traffic_class,
                    flow_label: Ipv6FlowLabel::try_new(0).expect("zero fits"),
                    source: source.octets(),
                    destination: destination.octets(),
                };
                [header.to_bytes().to_vec(), extensions].concat()
            }
            ends => panic!("ends of two families: {ends:?}"),
        }
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4], segment: usize) -> Ipv4Header {
        let offset = if let Fragment::Later(offset) = self.fragment { offset } else { 0 };
        let options = Ipv4Options::try_from(self.options.as_slice()).expect("options fill words");
        let mut header = Ipv4Header {
            dscp: IpDscp::try_new(self.traffic_class >> 2).expect("six bits"),
            ecn: IpEcn::try_new(self.traffic_class & 3).expect("two bits"),
            total_len: (Ipv4Header::MIN_LEN + options.len() + segment) as u16,
            identification: self.identification as u16,
            dont_fragment: self.dont_fragment,
            more_fragments: matches!(self.fragment, Fragment::First(_)),
            fragment_offset: IpFragOffset::try_new(offset).expect("cases use small offsets"),
            time_to_live: self.ttl,
            protocol: IpNumber(self.protocol()),
            source,
            destination,
            options,
            ..Ipv4Header::default()
        };
        header.header_checksum = header.calc_header_checksum();
        header
    }

    /// The first next header, and all extension headers.
    fn chain(&self) -> (u8, Vec<u8>) {
        let mut headers = self.extensions.clone();
        let fragment = match self.fragment {
            Fragment::Whole => None,
            Fragment::First(_) => Some(1),
            Fragment::Later(offset) => Some(offset << 3),
            Fragment::Atomic => Some(0),
        };
        if let Some(field) = fragment {
            let [a, b] = field.to_be_bytes();
            let [c, d, e, f] = self.identification.to_be_bytes();
            headers.push(Extension(IpNumber::IPV6_FRAGMENTATION_HEADER.0, vec![0, a, b, c, d, e, f]));
        }
        let numbers = headers.iter().skip(1).map(|header| header.0).chain([self.protocol()]);
        let bytes =
            headers.iter().zip(numbers).flat_map(|(header, next)| [vec![next], header.1.clone()].concat());
        (headers.first().map_or(self.protocol(), |header| header.0), bytes.collect())
    }

    pub fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp(_) => IpNumber::TCP.0,
            Transport::Udp | Transport::UdpWithoutChecksum => IpNumber::UDP.0,
            Transport::Icmp(_) if self.source.is_ipv4() => IpNumber::ICMP.0,
            Transport::Icmp(_) => IpNumber::IPV6_ICMP.0,
            Transport::Rest(protocol) => protocol,
        }
    }

    fn transport_length(&self) -> usize {
        match &self.transport {
            Transport::Tcp(header) => header.header_len(),
            Transport::Udp | Transport::UdpWithoutChecksum | Transport::Icmp(_) => UdpHeader::LEN,
            Transport::Rest(_) => 0,
        }
    }

    /// Transport header and whole payload.
    fn segment(&self) -> Vec<u8> {
        let header = match &self.transport {
            Transport::Tcp(shape) => {
                let (source_port, destination_port) = (self.source.port(), self.destination.port());
                let mut header =
                    TcpHeader { source_port, destination_port, checksum: 0, ..(**shape).clone() };
                header.checksum = self.checksum(&header.to_bytes());
                header.to_bytes().to_vec()
            }
            Transport::Udp => {
                // A sum of zero would say that there is none (RFC 768).
                let checksum = match self.checksum(&self.udp(0)) {
                    0 => 0xffff,
                    checksum => checksum,
                };
                self.udp(checksum)
            }
            Transport::UdpWithoutChecksum => self.udp(0),
            Transport::Icmp(icmp) => icmp.header(
                match self.source {
                    SocketAddr::V4(_) => {
                        Sum16BitWords::new().add_slice(&icmp.header(0)).add_slice(&self.payload)
                    }
                    SocketAddr::V6(_) => self.sum(&icmp.header(0)),
                }
                .ones_complement()
                .to_be(),
            ),
            Transport::Rest(_) => Vec::new(),
        };
        [header, self.payload.clone()].concat()
    }

    fn udp(&self, checksum: u16) -> Vec<u8> {
        let length = (UdpHeader::LEN + self.payload.len()) as u16;
        let (source_port, destination_port) = (self.source.port(), self.destination.port());
        UdpHeader { source_port, destination_port, length, checksum }.to_bytes().to_vec()
    }

    fn checksum(&self, header: &[u8]) -> u16 {
        self.sum(header).ones_complement().to_be()
    }

    /// Of a transport header, the payload and the pseudo header.
    fn sum(&self, header: &[u8]) -> Sum16BitWords {
        let length = (header.len() + self.payload.len()) as u32;
        let mut sum = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Sum16BitWords::new().add_4bytes(source.octets()).add_4bytes(destination.octets())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Sum16BitWords::new().add_16bytes(source.octets()).add_16bytes(destination.octets())
            }
            ends => panic!("ends of two families: {ends:?}"),
        };
        sum.add_4bytes(length.to_be_bytes())
            .add_2bytes([0, self.protocol()])
            .add_slice(header)
            .add_slice(&self.payload)
    }
}

impl Icmp {
    fn header(self, checksum: u16) -> Vec<u8> {
        let [high, low] = checksum.to_be_bytes();
        [vec![self.kind, self.code, high, low], self.rest.to_be_bytes().to_vec()].concat()
    }
}

impl Outer {
    fn header(&self, inner: &[u8], traffic_class: u8) -> Vec<u8> {
        let udp = self.gue_port.map(|source_port| UdpHeader {
            source_port,
            destination_port: 6_080,
            length: (UdpHeader::LEN + inner.len()) as u16,
            checksum: 0,
        });
        let udp = udp.map(|udp| udp.to_bytes().to_vec()).unwrap_or_default();
        let carrier = Datagram {
            source: SocketAddr::new(self.source, 0),
            destination: SocketAddr::new(self.destination, 0),
            ttl: 64,
            traffic_class,
            identification: 0,
            dont_fragment: true,
            transport: Transport::Rest(match inner[0] >> 4 {
                _ if self.gue_port.is_some() => IpNumber::UDP.0,
                4 => IpNumber::IPV4.0,
                _ => IpNumber::IPV6.0,
            }),
            ..Datagram::empty()
        };
        [carrier.ip(udp.len() + inner.len()), udp].concat()
    }
}

impl Extension {
    /// Options of a hop-by-hop or destination options header, all padding, in so many times eight bytes.
    pub fn options(kind: u8, units: u8) -> Extension {
        let length = usize::from(units) * 8 - 4;
        assert!(length < 256, "the length of padding is one byte");
        Extension(kind, [vec![units - 1, 1, length as u8], vec![0; length]].concat())
    }

    /// A routing header without segments left.
    pub fn routing(units: u8) -> Extension {
        Extension(
            IpNumber::IPV6_ROUTE_HEADER.0,
            [vec![units - 1], vec![0; usize::from(units) * 8 - 2]].concat(),
        )
    }
}

impl Datagram {
    /// From nobody to nobody.
    pub fn empty() -> Datagram {
        let nobody = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Datagram {
            to: [0; 6],
            from: [0; 6],
            tags: Vec::new(),
            outer: None,
            source: nobody,
            destination: nobody,
            ttl: 64,
            traffic_class: 0,
            identification: 0,
            dont_fragment: true,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: Fragment::Whole,
            transport: Transport::Rest(IpNumber::UDP.0),
            payload: Vec::new(),
            padding: Vec::new(),
        }
    }
}

/// An ARP request for `address`: what must reach the kernel for anything else to work.
pub fn arp(address: Ipv4Addr) -> Vec<u8> {
    let mut bytes =
        Ethernet2Header { destination: [0xff; 6], source: [2, 0, 0, 0, 0, 9], ether_type: EtherType::ARP }
            .to_bytes()
            .to_vec();
    bytes.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0]);
    bytes.extend(address.octets());
    bytes
}
