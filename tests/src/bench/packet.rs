//! The packets the driver varies: what stays the same from flow to flow, and what does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use anyhow::{Context, Result, bail};
use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, VlanId};

use super::driver::{LONG, SHORT};

/// What is sent, and where to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) kind: Kind,
    pub(super) to: SocketAddr,
    /// Id of the VLAN it comes from.
    pub(super) vlan: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Syn,
    Ack,
    Udp,
}

/// Both ends of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

impl Packet {
    /// Of the client's flow `flow`, as the driver counts: a few connections of each address.
    pub(super) fn ends(self, flow: u32) -> Ends {
        let (host, port) = (flow / CONNECTIONS, FIRST_PORT + (flow % CONNECTIONS) as u16);
        let address: IpAddr = match self.to {
            SocketAddr::V4(_) => Ipv4Addr::from_bits(FIRST_CLIENT.to_bits() + host).into(),
            SocketAddr::V6(_) => Ipv6Addr::from_bits(FIRST_CLIENT_V6.to_bits() + u128::from(host)).into(),
        };
        Ends { from: SocketAddr::new(address, port), to: self.to }
    }

    /// The whole frame, checksums included: `SHORT` bytes, or `LONG` with IPv6.
    pub(super) fn frame(self, ends: Ends) -> Result<Vec<u8>> {
        let start = PacketBuilder::ethernet2(CLIENT_MAC, OWN_MAC);
        let ip = ip(ends)?;
        let length = if ends.to.is_ipv6() { LONG } else { SHORT };
        let tag = if self.vlan.is_some() { VLAN_TAG } else { 0 };
        let transport = if self.kind == Kind::Udp { UDP_HEADER } else { TCP_HEADER };
        let data = vec![0xa5; length - ETHERNET_HEADER - tag - ip.header_len() - transport];
        let packet = match self.vlan {
            Some(id) => start.single_vlan(VlanId::try_new(id)?).ip(ip),
            None => start.ip(ip),
        };
        let (from, to) = (ends.from.port(), ends.to.port());
        let mut frame = Vec::new();
        match self.kind {
            Kind::Syn => packet.tcp(from, to, SEQUENCE, WINDOW).syn().write(&mut frame, &data),
            Kind::Ack => packet.tcp(from, to, SEQUENCE, WINDOW).ack(SEQUENCE).write(&mut frame, &data),
            Kind::Udp => packet.udp(from, to).write(&mut frame, &data),
        }
        .context("cannot build the packet")?;
        Ok(frame)
    }
}

impl Ends {
    /// With zeroes for all that differs from flow to flow: the ports, and the last four bytes of the addresses.
    pub(super) fn common(self) -> Ends {
        let zeroed = |end: SocketAddr| match end {
            SocketAddr::V4(_) => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(end) => {
                let network = end.ip().to_bits() & !u128::from(u32::MAX);
                SocketAddr::new(Ipv6Addr::from_bits(network).into(), 0)
            }
        };
        Ends { from: zeroed(self.from), to: zeroed(self.to) }
    }
}

fn ip(ends: Ends) -> Result<IpHeaders> {
    // The builder writes lengths, protocol and checksum.
    let protocol = IpNumber::TCP;
    match (ends.from.ip(), ends.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = Ipv4Header::new(0, TTL, protocol, from.octets(), to.octets())?;
            Ok(IpHeaders::Ipv4(header, Default::default()))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: protocol,
                hop_limit: TTL,
                source: from.octets(),
                destination: to.octets(),
            };
            Ok(IpHeaders::Ipv6(header, Default::default()))
        }
        (from, to) => bail!("no packet goes from {from} to {to}"),
    }
}

const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const FIRST_CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc1, 0, 0, 0, 0, 0);
const FIRST_PORT: u16 = 40_000;
const CONNECTIONS: u32 = 16;

pub(super) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const TTL: u8 = 64;
const SEQUENCE: u32 = 1_000;
const WINDOW: u16 = 65_535;
const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
