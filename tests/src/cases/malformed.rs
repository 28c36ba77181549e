//! For a service, but its lengths contradict each other or it has come too far.

use lb_common::{
    counter::Counter::{DropMalformed, DropTtl, ForwardDsr, ForwardNatRequest},
    entry::Mode,
    flow::Ticks,
};

use super::{
    Case,
    nat::{pair, translated},
    packet::Datagram,
    shape::{ack, syn, tcp, udp},
    world::{A, A_MAC, BACK, BACK_MAC, NAMES, World},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for (mode, word) in [(Mode::Dsr, "dsr"), (Mode::Nat, "nat")] {
        let world = || World::new(mode, now);
        for (name, packet) in contradictions() {
            cases.push(
                Case::bytes(&format!("malformed, {word}: {name}"), world(), packet).drops(DropMalformed),
            );
        }
        for (name, packet) in [("tcp", ack()), ("udp", udp(b"query"))] {
            for ttl in [0, 1] {
                let packet = Datagram { ttl, ..packet.clone() };
                let name = format!("{word}: {name} with a time to live of {ttl}");
                cases.push(Case::new(&name, world(), &packet).drops(DropTtl));
            }
        }
    }
    cases.extend(tolerated(now));
    cases
}

fn contradictions() -> Vec<(&'static str, Vec<u8>)> {
    let tcp_with = |offset: u8| altered(tcp(&[9; 60], |header| header.ack = true), TCP_OFFSET, &[offset]);
    let udp_long = |length: u16| altered(udp(&[9; 10]), UDP_LENGTH, &length.to_be_bytes());
    let total = |packet: Datagram, length: u16| altered(packet, TOTAL_LENGTH, &length.to_be_bytes());
    vec![
        ("a total length of 0", total(ack(), 0)),
        ("a total length within the ip header", total(ack(), 19)),
        ("a total length without transport", total(ack(), 20)),
        ("a total length within the tcp header", total(ack(), 39)),
        ("a total length within the udp header", total(udp(b"query"), 27)),
        ("a total length one beyond the frame", total(syn(), 41)),
        ("the greatest total length", total(syn(), u16::MAX)),
        ("a udp total length one beyond the frame", total(udp(&[]), 29)),
        ("no tcp header length", tcp_with(0)),
        ("a tcp header shorter than itself", tcp_with(0x40)),
        ("a tcp header one word beyond the packet", altered(syn(), TCP_OFFSET, &[0x60])),
        ("a tcp header far beyond the packet", altered(syn(), TCP_OFFSET, &[0xf0])),
        ("a udp length of 0", udp_long(0)),
        ("a udp length within its header", udp_long(7)),
        ("a udp length one beyond the packet", udp_long(19)),
        ("the greatest udp length", udp_long(u16::MAX)),
    ]
}

/// Room behind a datagram within its packet is no contradiction.
fn tolerated(now: Ticks) -> [Case; 2] {
    let long = || Datagram { payload: vec![0; 12], ..udp(&[]) };
    let shorten = |packet: &Datagram| {
        // As built with eight bytes of payload, in a packet of twelve.
        let inner = Datagram { payload: vec![0; 8], ..packet.clone() }.bytes();
        let mut bytes = packet.bytes();
        bytes[UDP_LENGTH..UDP_LENGTH + 4].copy_from_slice(&inner[UDP_LENGTH..UDP_LENGTH + 4]);
        bytes
    };
    let pair = pair(A, NAMES, now);
    let case = |name: &str, mode| {
        let mut case = Case::new(name, World::new(mode, now), &long());
        case.packet = shorten(&long());
        case
    };
    let direct = long().hop(A_MAC, BACK_MAC);
    let rewritten = translated(&long(), &pair);
    let mut plain = case("dsr: a datagram shorter than its packet", Mode::Dsr)
        .leaves(BACK, ForwardDsr, &direct)
        .serves(A, 0);
    plain.expected.packet = shorten(&direct);
    let mut both = case("nat: a datagram shorter than its packet", Mode::Nat)
        .leaves(BACK, ForwardNatRequest, &rewritten)
        .serves(A, 1)
        .records(pair.records());
    both.expected.packet = shorten(&rewritten);
    [plain, both]
}

fn altered(packet: Datagram, offset: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = packet.bytes();
    bytes[offset..offset + with.len()].copy_from_slice(with);
    bytes
}

const TOTAL_LENGTH: usize = 14 + 2;
const TCP_OFFSET: usize = 14 + 20 + 12;
const UDP_LENGTH: usize = 14 + 20 + 4;
