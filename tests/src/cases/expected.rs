//! What must come of a packet, built from values: in every mode, and in answers.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    entry::Mode,
    hash::{self, FlowTuple},
    net::{Be16, Be128, V4, V6},
    slot::ServerId,
};
use lb_user::pure::config::network::Family;

use super::{
    packet::{Datagram, Icmp, Outer, Transport},
    world::{BACK_MAC, HASH_KEY, ends, peer},
};

/// What the server's next hop gets of a packet in a mode that keeps its ends.
pub(super) fn delivered(packet: &Datagram, mode: Mode, server: ServerId) -> Datagram {
    let peer = peer(server);
    let sent = Datagram { tags: Vec::new(), ..packet.hop(peer.mac, BACK_MAC) };
    let outer = |gue_port| {
        let destination = peer.target.ip();
        Some(Outer { source: ends(Family::of(destination)).own, destination, gue_port })
    };
    match mode {
        Mode::Dsr => sent,
        Mode::Ipip => Datagram { outer: outer(None), ..sent },
        Mode::Gue => {
            Datagram { outer: outer(Some(entropy(hash(packet.source, packet.destination)))), ..sent }
        }
        Mode::Nat | Mode::Gateway => panic!("{mode:?} gives the packet other ends"),
    }
}

/// Of the packets from a client to a service.
pub(super) fn hash(client: SocketAddr, vip: SocketAddr) -> u32 {
    let (source_port, destination_port) = (Be16::new(client.port()), Be16::new(vip.port()));
    match client.ip() {
        IpAddr::V4(ip) => {
            let tuple = FlowTuple::<V4> { source: ip.into(), source_port, destination_port };
            hash::flow(HASH_KEY, tuple)
        }
        IpAddr::V6(ip) => {
            let tuple = FlowTuple::<V6> { source: Be128::from(ip), source_port, destination_port };
            hash::flow(HASH_KEY, tuple)
        }
    }
}

/// Source port of generic UDP encapsulation: bits of the hash that choose no slot.
pub(super) fn entropy(hash: u32) -> u16 {
    0xc000 | (hash >> 16) as u16 & 0x3fff
}

/// An ICMP error about a packet, to its sender, in the service's name.
pub(super) fn error(about: &Datagram, icmp: Icmp) -> Datagram {
    let mut quote = about.packet();
    quote.truncate((about.header_length() + 8).min(QUOTE_MAX));
    Datagram {
        to: about.from,
        from: about.to,
        tags: about.tags.clone(),
        source: about.destination,
        destination: about.source,
        transport: Transport::Icmp(icmp),
        payload: quote,
        ..Datagram::empty()
    }
}

/// The time to live would reach zero.
pub(super) fn expired(about: &Datagram) -> Datagram {
    let kind = if about.source.is_ipv4() { 11 } else { 3 };
    error(about, Icmp { kind, code: 0, rest: 0 })
}

/// Nobody takes packets for the port.
pub(super) fn unreachable(about: &Datagram) -> Datagram {
    let (kind, code) = if about.source.is_ipv4() { (3, 3) } else { (1, 4) };
    error(about, Icmp { kind, code, rest: 0 })
}

/// Longer than the MTU of the way.
pub(super) fn too_big(about: &Datagram, mtu: u32) -> Datagram {
    let (kind, code) = if about.source.is_ipv4() { (3, 4) } else { (2, 0) };
    error(about, Icmp { kind, code, rest: mtu })
}

/// Bytes of the packet that an error quotes at most.
const QUOTE_MAX: usize = 96;
