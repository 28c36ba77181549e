//! Packets as values, and their bytes by etherparse: nothing here comes from the packet path.

use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{
    EtherType, Ethernet2Header, IpDscp, IpFragOffset, IpNumber, Ipv4Header, TcpHeader, UdpHeader,
};

/// An Ethernet frame with an IPv4 packet of TCP or UDP.
#[derive(Debug, Clone)]
pub struct Datagram {
    pub to: [u8; 6],
    pub from: [u8; 6],
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
    pub ttl: u8,
    pub dscp: u8,
    pub identification: u16,
    pub dont_fragment: bool,
    pub fragment: Fragment,
    pub transport: Transport,
    pub payload: Vec<u8>,
    /// Bytes behind the IP packet: what fills a short frame.
    pub padding: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    First,
    /// Offset in units of eight bytes.
    Later(u16),
}

#[derive(Debug, Clone)]
pub enum Transport {
    /// Ports and checksum are filled in.
    Tcp(Box<TcpHeader>),
    Udp,
    UdpWithoutChecksum,
}

impl Datagram {
    /// As the next hop gets it: other link ends, one hop less to live.
    pub fn hop(&self, to: [u8; 6], from: [u8; 6]) -> Datagram {
        Datagram { to, from, ttl: self.ttl - 1, ..self.clone() }
    }

    pub fn ends(&self, source: SocketAddrV4, destination: SocketAddrV4) -> Datagram {
        Datagram { source, destination, ..self.clone() }
    }

    /// Filled up to the shortest frame that Ethernet carries.
    pub fn padded(&self) -> Datagram {
        let missing = 60usize.saturating_sub(self.bytes().len());
        Datagram { padding: vec![0; missing], ..self.clone() }
    }

    pub fn total_length(&self) -> u16 {
        let length = 20 + self.header_length() + self.payload.len();
        u16::try_from(length).expect("cases are built from short payloads")
    }

    pub fn bytes(&self) -> Vec<u8> {
        let ip = self.ip();
        let mut bytes = self.link(EtherType::IPV4);
        bytes.extend(ip.to_bytes());
        match &self.transport {
            Transport::Tcp(header) => bytes.extend(self.tcp(header, &ip).to_bytes()),
            Transport::Udp => bytes.extend(self.udp(&ip).to_bytes()),
            Transport::UdpWithoutChecksum => {
                bytes.extend(UdpHeader { checksum: 0, ..self.udp(&ip) }.to_bytes());
            }
        }
        bytes.extend(&self.payload);
        bytes.extend(&self.padding);
        bytes
    }

    /// The Ethernet header with another type.
    pub fn link(&self, ether_type: EtherType) -> Vec<u8> {
        Ethernet2Header { destination: self.to, source: self.from, ether_type }.to_bytes().to_vec()
    }

    pub fn ip(&self) -> Ipv4Header {
        let protocol = match self.transport {
            Transport::Tcp(_) => IpNumber::TCP,
            Transport::Udp | Transport::UdpWithoutChecksum => IpNumber::UDP,
        };
        let offset = if let Fragment::Later(offset) = self.fragment { offset } else { 0 };
        let mut header = Ipv4Header {
            dscp: IpDscp::try_new(self.dscp).expect("cases use code points below 64"),
            total_len: self.total_length(),
            identification: self.identification,
            dont_fragment: self.dont_fragment,
            more_fragments: self.fragment == Fragment::First,
            fragment_offset: IpFragOffset::try_new(offset).expect("cases use small offsets"),
            time_to_live: self.ttl,
            protocol,
            source: self.source.ip().octets(),
            destination: self.destination.ip().octets(),
            ..Ipv4Header::default()
        };
        header.header_checksum = header.calc_header_checksum();
        header
    }

    fn tcp(&self, shape: &TcpHeader, ip: &Ipv4Header) -> TcpHeader {
        let mut header = TcpHeader {
            source_port: self.source.port(),
            destination_port: self.destination.port(),
            ..shape.clone()
        };
        header.checksum =
            header.calc_checksum_ipv4(ip, &self.payload).expect("cases are built from short payloads");
        header
    }

    fn udp(&self, ip: &Ipv4Header) -> UdpHeader {
        UdpHeader::with_ipv4_checksum(self.source.port(), self.destination.port(), ip, &self.payload)
            .expect("cases are built from short payloads")
    }

    fn header_length(&self) -> usize {
        match &self.transport {
            Transport::Tcp(header) => header.header_len(),
            Transport::Udp | Transport::UdpWithoutChecksum => UdpHeader::LEN,
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
