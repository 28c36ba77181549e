//! The packets that `explain` sends into the program, and the headers of what comes out.

use std::net::SocketAddr;

use etherparse::{
    IpNumber, LinkSlice, NetSlice, PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice,
};
use lb_common::net::GUE_PORT;

use super::Connection;
use crate::pure::{
    config::model::Protocol,
    snapshot::mac,
    status::{HeaderStatus, OuterStatus},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A SYN; the datagram of a client that nobody knows.
    Opening,
    /// An ACK.
    Later,
}

/// None: the ends are of two families.
pub fn packet(connection: &Connection, kind: Kind) -> Option<Vec<u8>> {
    let Connection { client, vip, protocol } = *connection;
    // Whoever receives it for the balancer: not a group, and more the program does not ask.
    let link = PacketBuilder::ethernet2([0x02, 0, 0, 0, 0, 1], [0x02, 0, 0, 0, 0, 2]);
    let (ip, mss) = match (client, vip) {
        (SocketAddr::V4(client), SocketAddr::V4(vip)) => {
            (link.ipv4(client.ip().octets(), vip.ip().octets(), TTL), 1_460)
        }
        (SocketAddr::V6(client), SocketAddr::V6(vip)) => {
            (link.ipv6(client.ip().octets(), vip.ip().octets(), TTL), 1_440)
        }
        _ => return None,
    };
    let mut bytes = Vec::new();
    let (from, to) = (client.port(), vip.port());
    let written = match (protocol, kind) {
        (Protocol::Udp, _) => ip.udp(from, to).write_to_vec(&mut bytes, b"steelyard"),
        (Protocol::Tcp, Kind::Opening) => ip
            .tcp(from, to, SEQUENCE, WINDOW)
            .syn()
            .options(&[TcpOptionElement::MaximumSegmentSize(mss)])
            .ok()?
            .write_to_vec(&mut bytes, &[]),
        (Protocol::Tcp, Kind::Later) => {
            ip.tcp(from, to, SEQUENCE, WINDOW).ack(SEQUENCE).write_to_vec(&mut bytes, &[])
        }
    };
    written.ok()?;
    Some(bytes)
}

const TTL: u8 = 64;
const SEQUENCE: u32 = 1;
const WINDOW: u16 = 0xffff;

/// The headers of a frame that left for a server. None: it is no such frame.
pub fn header(frame: &[u8], interface: String) -> Option<HeaderStatus> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(LinkSlice::Ethernet2(link)) = &sliced.link else { return None };
    let outer = Ends::of(&sliced)?;
    let (outer, inner) = match (&sliced.transport, sliced.ip_payload()) {
        (Some(TransportSlice::Udp(udp)), _) if udp.destination_port() == GUE_PORT => {
            match SlicedPacket::from_ip(udp.payload()) {
                Ok(inner) => (Some(outer), Ends::of(&inner)?),
                Err(_) => (None, outer),
            }
        }
        (None, Some(payload)) if [IpNumber::IPV4, IpNumber::IPV6].contains(&payload.ip_number) => {
            (Some(outer), Ends::of(&SlicedPacket::from_ip(payload.payload).ok()?)?)
        }
        _ => (None, outer),
    };
    Some(HeaderStatus {
        interface,
        source_mac: mac(link.source()),
        destination_mac: mac(link.destination()),
        vlans: sliced.vlan_ids().iter().map(|id| id.value()).collect(),
        outer: outer.map(|Ends { source, destination, ttl }| OuterStatus { source, destination, ttl }),
        source: inner.source,
        destination: inner.destination,
        ttl: inner.ttl,
    })
}

struct Ends {
    /// With a port where there is one.
    source: String,
    destination: String,
    ttl: u8,
}

impl Ends {
    fn of(packet: &SlicedPacket<'_>) -> Option<Ends> {
        let (source, destination, ttl) = match packet.net.as_ref()? {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                (header.source_addr().into(), header.destination_addr().into(), header.ttl())
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                (header.source_addr().into(), header.destination_addr().into(), header.hop_limit())
            }
            NetSlice::Arp(_) => return None,
        };
        let ports = match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
            Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
            _ => None,
        };
        let end = |address: std::net::IpAddr, port: Option<u16>| match port {
            Some(port) => SocketAddr::new(address, port).to_string(),
            None => address.to_string(),
        };
        Some(Ends {
            source: end(source, ports.map(|(source, _)| source)),
            destination: end(destination, ports.map(|(_, destination)| destination)),
            ttl,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(client: &str, vip: &str, protocol: Protocol) -> Connection {
        Connection { client: client.parse().expect("valid"), vip: vip.parse().expect("valid"), protocol }
    }

    #[test]
    fn what_is_built_is_read_back() {
        for (client, vip) in
            [("192.0.2.1:40000", "10.0.5.96:80"), ("[2001:db8::1]:40000", "[2001:db8::96]:80")]
        {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for kind in [Kind::Opening, Kind::Later] {
                    let bytes = packet(&connection(client, vip, protocol), kind).expect("one family");
                    let header = header(&bytes, "eth0".to_owned()).expect("a frame");
                    assert_eq!((header.source.as_str(), header.destination.as_str()), (client, vip));
                    assert_eq!((header.ttl, header.outer, header.vlans), (TTL, None, vec![]));
                }
            }
        }
        assert_eq!(packet(&connection("192.0.2.1:1", "[::1]:80", Protocol::Tcp), Kind::Opening), None);
    }

    #[test]
    fn outer_headers_and_tags_are_told_apart() {
        let inner = packet(&connection("192.0.2.1:40000", "10.0.5.96:80", Protocol::Tcp), Kind::Later);
        let inner = &inner.expect("one family")[14..];
        let link = || {
            let id = etherparse::VlanId::try_new(7).expect("below 4096");
            PacketBuilder::ethernet2([2; 6], [4; 6]).single_vlan(id)
        };
        let mut ipip = Vec::new();
        let outer = link().ipv6([1; 16], [2; 16], 63);
        outer.write(&mut ipip, IpNumber::IPV4, inner).expect("writing to a Vec");
        let mut gue = Vec::new();
        let outer = link().ipv4([1; 4], [2; 4], 63).udp(0xc001, GUE_PORT);
        outer.write(&mut gue, inner).expect("writing to a Vec");
        for (frame, source) in [(ipip, "101:101:101:101:101:101:101:101"), (gue, "1.1.1.1:49153")] {
            let header = header(&frame, "eth0".to_owned()).expect("a frame");
            assert_eq!((header.source.as_str(), header.ttl), ("192.0.2.1:40000", TTL));
            assert_eq!(header.vlans, [7]);
            assert_eq!(header.outer.map(|outer| (outer.source, outer.ttl)), Some((source.to_owned(), 63)));
        }
        assert_eq!(header(&[0; 13], "eth0".to_owned()), None);
    }
}
