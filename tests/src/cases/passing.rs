//! Not for us, or not to be judged here: the packet passes, untouched.

use std::net::SocketAddr;

use etherparse::{EtherType, IpNumber};
use lb_common::{
    counter::Counter::{
        self, DropMalformed, PassIcmp, PassMulticast, PassNoService, PassNotIp, PassProtocol, PassTruncated,
    },
    entry::Mode,
    flow::Ticks,
    slot::{ServerId, Slot},
};

use super::{
    Case,
    nat::{answer, pair},
    packet::{Datagram, Fragment, Transport, arp},
    shape::{ack, rst, syn, tcp, udp},
    world::{A, NAMES, WEB, World, key, v4},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups = [strangers(now), to_many(now), other_packets(now), odd_headers(now), cut(now)];
    groups.into_iter().flatten().collect()
}

/// Whole packets that no service wants.
fn strangers(now: Ticks) -> Vec<Case> {
    let dsr = || World::new(Mode::Dsr, now);
    let to = |destination| Datagram { destination, ..syn() };
    let mut bare = dsr();
    bare.tables.services.clear();
    let mut gone = dsr();
    gone.tables.services.clear();
    gone.removed.push(key(WEB, 6));
    let mut cases = vec![
        Case::new("no service at all", bare, &syn()),
        Case::new("a service that was removed", gone, &syn()),
        Case::new("another port", dsr(), &to(SocketAddr::new(WEB.ip(), 81))),
        Case::new("port 0", dsr(), &to(SocketAddr::new(WEB.ip(), 0))),
        Case::new("another address", dsr(), &to(v4([203, 0, 113, 81], 80))),
        Case::new("another protocol: udp for tcp", dsr(), &Datagram { destination: WEB, ..udp(b"quic") }),
        Case::new("another protocol: tcp for udp", dsr(), &to(NAMES)),
        Case::new("from a service", dsr(), &syn().ends(WEB, super::world::CLIENT)),
        Case::new(
            "a time to live of 1, for somebody else",
            dsr(),
            &Datagram { ttl: 1, ..to(v4([127, 0, 0, 1], 80)) },
        ),
    ];
    for case in &mut cases {
        case.expected.counters.insert(PassNoService, 1);
    }
    cases
}

/// Frames for a group of machines, whatever they carry: each of them has a copy.
fn to_many(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    let groups = [
        ("everybody", [0xff; 6]),
        ("an ip group", [0x01, 0, 0x5e, 0, 0, 0x12]),
        ("a group of local meaning", [0x03, 0, 0, 0, 0, 1]),
    ];
    let flow = pair(A, WEB, now);
    let (reply, _) = answer(&ack(), &flow);
    let packets = [
        ("a SYN", syn()),
        ("data", ack()),
        ("a RST", rst()),
        ("udp", udp(b"query")),
        ("a reply", reply),
        ("tcp for nobody", syn().ends(WEB, SocketAddr::new(WEB.ip(), 81))),
        ("a time to live of 1", Datagram { ttl: 1, ..syn() }),
        ("a fragment", Datagram { fragment: Fragment::First(32), dont_fragment: false, ..udp(&[1; 64]) }),
    ];
    for (group, to) in groups {
        for (name, packet) in &packets {
            let packet = Datagram { to, ..packet.clone() };
            for (mode, word) in [(Mode::Dsr, "dsr"), (Mode::Nat, "nat")] {
                let world = World::new(mode, now).pair(flow);
                let name = format!("to {group}, {word}: {name}");
                cases.push(Case::new(&name, world, &packet).passes(PassMulticast));
            }
        }
    }
    let all = Datagram { to: [0xff; 6], ..syn() };
    let none = World::new(Mode::Nat, now).slots(Slot::settled(ServerId::NONE));
    let ether_type = |ether_type| [all.link(ether_type).as_slice(), &all.bytes()[14..]].concat();
    let bare = World::new(Mode::Dsr, now);
    cases.extend([
        Case::new("to everybody, of a service without a server", none, &all).passes(PassMulticast),
        Case::bytes(
            "to everybody, an ethernet header of ipv4 alone",
            bare.clone(),
            all.link(EtherType::IPV4),
        )
        .passes(PassMulticast),
        Case::bytes("to everybody, an ethernet header cut short", bare.clone(), all.bytes()[..13].to_vec())
            .passes(PassTruncated),
        Case::bytes("to everybody, of the other family's type", bare.clone(), ether_type(EtherType::IPV6))
            .passes(PassMulticast),
        Case::bytes("to everybody, not ip", bare, ether_type(EtherType::ARP)).passes(PassNotIp),
    ]);
    cases
}

fn other_packets(now: Ticks) -> Vec<Case> {
    let dsr = || World::new(Mode::Dsr, now);
    let typed = |ether_type: EtherType, behind: &[u8]| [syn().link(ether_type).as_slice(), behind].concat();
    let ip = &syn().bytes()[14..];
    let table = [
        ("an arp request for the service", arp([203, 0, 113, 80].into()), PassNotIp),
        ("ipv6 of an unknown protocol", typed(EtherType::IPV6, &[0x60; 40]), PassProtocol),
        ("ipv6 of another version", typed(EtherType::IPV6, &[0x50; 40]), PassNotIp),
        ("ipv4 of type 0x86dd", typed(EtherType::IPV6, ip), PassNotIp),
        ("mpls", typed(EtherType(0x8847), &[&[0, 0, 0x11, 0x40], ip].concat()), PassNotIp),
        ("a length instead of a type", typed(EtherType(46), ip), PassNotIp),
        ("icmp that is neither echo nor error", protocol(IpNumber::ICMP), PassIcmp),
        ("gre", protocol(IpNumber::GRE), PassProtocol),
        ("ip in ip", protocol(IpNumber::IPV4), PassProtocol),
        ("sctp", protocol(IpNumber::SCTP), PassProtocol),
        ("vrrp", protocol(IpNumber(112)), PassProtocol),
        ("protocol 0", protocol(IpNumber(0)), PassProtocol),
    ];
    each(table, dsr)
}

fn odd_headers(now: Ticks) -> Vec<Case> {
    let dsr = || World::new(Mode::Dsr, now);
    let table = [
        ("a header shorter than itself", first_byte(0x44), PassNotIp),
        ("no header length", first_byte(0x40), PassNotIp),
        ("ip version 5", first_byte(0x55), PassNotIp),
        ("ip version 6 of type 0x0800", first_byte(0x65), PassNotIp),
        ("ip version 0", first_byte(0x05), PassNotIp),
    ];
    each(table, dsr)
}

/// Every length a frame can be cut to within its headers, for a service and for nobody.
fn cut(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    let stranger = SocketAddr::new(WEB.ip(), 81);
    for (name, packet) in [
        ("tcp", tcp(&[], |header| header.syn = true)),
        ("udp", udp(&[])),
        ("other tcp", syn().ends(WEB, stranger)),
    ] {
        let whole = packet.bytes();
        for length in 0..whole.len() {
            let mode = if length % 2 == 0 { Mode::Dsr } else { Mode::Nat };
            let world = World::new(mode, now);
            let case = Case::bytes(&format!("{name} cut to {length} bytes"), world, whole[..length].to_vec());
            cases.push(match length {
                0..PORTS_END => case.passes(PassTruncated),
                _ if packet.destination == stranger => case.passes(PassNoService),
                _ => case.drops(DropMalformed),
            });
        }
    }
    cases
}

fn each<const N: usize>(table: [(&str, Vec<u8>, Counter); N], world: impl Fn() -> World) -> Vec<Case> {
    table
        .into_iter()
        .map(|(name, bytes, counter)| Case::bytes(name, world(), bytes).passes(counter))
        .collect()
}

/// An IP packet to the service's address, of another protocol.
fn protocol(protocol: IpNumber) -> Vec<u8> {
    let other = Datagram { transport: Transport::Rest(protocol.0), ..syn() };
    [syn().link(EtherType::IPV4), other.ip(20), syn().bytes()[34..].to_vec()].concat()
}

/// Version and header length of a SYN to the service; there is room for any options.
fn first_byte(byte: u8) -> Vec<u8> {
    let mut bytes = tcp(&[1; 40], |header| header.syn = true).bytes();
    bytes[14] = byte;
    bytes
}

const PORTS_END: usize = 14 + 20 + 4;
