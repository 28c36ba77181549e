//! The packets the driver varies: what stays the same from flow to flow.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};
use etherparse::PacketBuilder;

/// What the clients send, and where to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) kind: Kind,
    pub(super) to: SocketAddrV4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Syn,
    Ack,
    Udp,
}

impl Packet {
    /// The whole frame, checksums included.
    pub(super) fn frame(self, from: SocketAddrV4) -> Result<Vec<u8>> {
        let (source, destination) = (from.ip().octets(), self.to.ip().octets());
        let builder = PacketBuilder::ethernet2(CLIENT_MAC, OWN_MAC).ipv4(source, destination, TTL);
        let mut frame = Vec::new();
        match self.kind {
            Kind::Syn => {
                let tcp = builder.tcp(from.port(), self.to.port(), SEQUENCE, WINDOW).syn();
                tcp.write(&mut frame, &DATA)
            }
            Kind::Ack => {
                let tcp = builder.tcp(from.port(), self.to.port(), SEQUENCE, WINDOW).ack(SEQUENCE);
                tcp.write(&mut frame, &DATA)
            }
            Kind::Udp => builder.udp(from.port(), self.to.port()).write(&mut frame, &UDP_DATA),
        }
        .context("cannot build the packet")?;
        Ok(frame)
    }
}

/// The source of a flow, as the driver counts: a few connections of each address.
pub(super) fn client(flow: u32) -> SocketAddrV4 {
    let address = Ipv4Addr::from_bits(FIRST_CLIENT.to_bits() + flow / CONNECTIONS);
    SocketAddrV4::new(address, FIRST_PORT + (flow % CONNECTIONS) as u16)
}

const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const FIRST_PORT: u16 = 40_000;
const CONNECTIONS: u32 = 16;

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const TTL: u8 = 64;
const SEQUENCE: u32 = 1_000;
const WINDOW: u16 = 65_535;
/// Frames of 64 bytes.
const DATA: [u8; 10] = [0xa5; 10];
const UDP_DATA: [u8; 22] = [0xa5; 22];
