//! Encapsulated packets as values, and their bytes by etherparse: nothing here comes from the packet path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, SingleVlanHeader, UdpHeader,
    VlanId,
};

/// A frame as a balancer sends it to a server.
#[derive(Debug, Clone)]
pub struct Tunnel {
    pub to: [u8; 6],
    pub from: [u8; 6],
    /// VLANs, the outermost first.
    pub tags: Vec<u16>,
    /// Both of one family.
    pub ends: (IpAddr, IpAddr),
    pub carrier: Carrier,
    /// An IP packet.
    pub inner: Vec<u8>,
    /// Behind the outer packet: what fills a short frame.
    pub padding: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Ipip,
    /// Variant 1, with this UDP checksum.
    Gue {
        checksum: u16,
    },
    /// Variant 0, with so many words behind its four bytes.
    GueHeader {
        words: u8,
    },
}

impl Tunnel {
    /// Over IPv4 or IPv6.
    pub fn new(v4: bool, carrier: Carrier, inner: Vec<u8>) -> Tunnel {
        let ends: (IpAddr, IpAddr) =
            if v4 { (BALANCER4.into(), SERVER4.into()) } else { (BALANCER6.into(), SERVER6.into()) };
        let (to, from) = (SERVER_MAC, BALANCER_MAC);
        Tunnel { to, from, tags: Vec::new(), ends, carrier, inner, padding: Vec::new() }
    }

    pub fn tagged(self, tags: &[u16]) -> Tunnel {
        Tunnel { tags: tags.to_vec(), ..self }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let ethertype = if self.ends.0.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let payload = self.payload();
        let mut bytes = self.link(ethertype);
        match self.ends {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4Header {
                    dont_fragment: true,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..ipv4(payload.len(), self.protocol())
                };
                header.header_checksum = header.calc_header_checksum();
                bytes.extend(header.to_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    payload_length: short(payload.len()),
                    next_header: self.protocol(),
                    hop_limit: 64,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                bytes.extend(header.to_bytes());
            }
            ends => panic!("{ends:?} are of two families"),
        }
        bytes.extend(payload);
        bytes.extend(&self.padding);
        bytes
    }

    /// As the local stack gets it: the link header in front of what was inside.
    pub fn opened(&self) -> Vec<u8> {
        let ethertype = if self.inner_is_v4() { EtherType::IPV4 } else { EtherType::IPV6 };
        [&self.link(ethertype)[..], &self.inner, &self.padding].concat()
    }

    /// Offset of the inner packet.
    pub fn inner_offset(&self) -> usize {
        self.bytes().len() - self.padding.len() - self.inner.len()
    }

    /// Offset of the outer IP header.
    pub fn outer_offset(&self) -> usize {
        self.link(EtherType::IPV4).len()
    }

    pub fn inner_is_v4(&self) -> bool {
        self.inner[0] >> 4 == 4
    }

    fn protocol(&self) -> IpNumber {
        match self.carrier {
            Carrier::Ipip => self.inner_protocol(),
            Carrier::Gue { .. } | Carrier::GueHeader { .. } => IpNumber::UDP,
        }
    }

    fn inner_protocol(&self) -> IpNumber {
        if self.inner_is_v4() { IpNumber::IPV4 } else { IpNumber::IPV6 }
    }

    /// What the outer IP header carries.
    fn payload(&self) -> Vec<u8> {
        let (gue, checksum) = match self.carrier {
            Carrier::Ipip => return self.inner.clone(),
            Carrier::Gue { checksum } => (Vec::new(), checksum),
            Carrier::GueHeader { words } => {
                let mut gue = vec![words, self.inner_protocol().0, 0, 0];
                gue.resize(4 + usize::from(words) * 4, 0xee);
                (gue, 0)
            }
        };
        let length = short(UdpHeader::LEN + gue.len() + self.inner.len());
        let udp = UdpHeader { source_port: GUE_SOURCE, destination_port: GUE_PORT, length, checksum };
        [&udp.to_bytes()[..], &gue, &self.inner].concat()
    }

    fn link(&self, ethertype: EtherType) -> Vec<u8> {
        let mut types: Vec<_> = self.tags.iter().map(|_| EtherType::VLAN_TAGGED_FRAME).collect();
        if types.len() > 1 {
            types[0] = EtherType::PROVIDER_BRIDGING;
        }
        types.push(ethertype);
        let header = Ethernet2Header { destination: self.to, source: self.from, ether_type: types[0] };
        let mut bytes = header.to_bytes().to_vec();
        for (tag, ether_type) in self.tags.iter().zip(&types[1..]) {
            let vlan_id = VlanId::try_new(*tag).expect("cases use small VLAN numbers");
            let tag = SingleVlanHeader { vlan_id, ether_type: *ether_type, ..SingleVlanHeader::default() };
            bytes.extend(tag.to_bytes());
        }
        bytes
    }
}

/// A UDP packet from a client to a service.
pub fn datagram(client: SocketAddr, service: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let builder = match (client.ip(), service.ip()) {
        (IpAddr::V4(client), IpAddr::V4(service)) => {
            PacketBuilder::ipv4(client.octets(), service.octets(), 61)
        }
        (IpAddr::V6(client), IpAddr::V6(service)) => {
            PacketBuilder::ipv6(client.octets(), service.octets(), 61)
        }
        ends => panic!("{ends:?} are of two families"),
    };
    let mut bytes = Vec::new();
    let built = builder.udp(client.port(), service.port()).write(&mut bytes, payload);
    built.expect("a vector takes all that is written");
    bytes
}

/// An IPv4 header without addresses and checksum.
pub(super) fn ipv4(payload: usize, protocol: IpNumber) -> Ipv4Header {
    let total_len = short(Ipv4Header::MIN_LEN + payload);
    Ipv4Header { total_len, time_to_live: 64, protocol, ..Ipv4Header::default() }
}

fn short(length: usize) -> u16 {
    u16::try_from(length).expect("cases are built from short payloads")
}

pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const BALANCER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const BALANCER4: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 1);
pub const SERVER4: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 2);
pub const BALANCER6: Ipv6Addr = Ipv6Addr::new(0xfd77, 9, 0, 0, 0, 0, 0, 1);
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd77, 9, 0, 0, 0, 0, 0, 2);

const GUE_SOURCE: u16 = 49_152 + 1_234;
const GUE_PORT: u16 = 6_080;
