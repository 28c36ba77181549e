//! For a service, but its lengths contradict each other or it has come too far.

use lb_common::{
    counter::Counter::{AnswerTtl, DropMalformed, ForwardDsr, ForwardNatRequest},
    entry::Mode,
    flow::Ticks,
};
use lb_user::pure::config::network::Family;

use super::{
    Case, every_mode,
    expected::expired,
    nat::{pair, translated},
    packet::Datagram,
    shape::{ack, syn, tcp, udp},
    world::{A, A_MAC, BACK, BACK_MAC, FRONT, NAMES, World},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for (mode, family) in every_mode() {
        let word = format!("{mode:?} over {}", family.name()).to_lowercase();
        let world = || World::new(mode, now);
        for (name, packet) in contradictions(family) {
            cases.push(
                Case::bytes(&format!("malformed, {word}: {name}"), world(), packet).drops(DropMalformed),
            );
        }
        for (name, packet) in [("tcp", ack()), ("udp", udp(b"query"))] {
            for ttl in [0, 1] {
                let packet = Datagram { ttl, ..packet.clone().of(family) };
                let name = format!("{word}: {name} with a time to live of {ttl}, answered");
                cases.push(Case::new(&name, world(), &packet).leaves(FRONT, AnswerTtl, &expired(&packet)));
            }
        }
    }
    cases.extend(tolerated(now));
    cases
}

fn contradictions(family: Family) -> Vec<(&'static str, Vec<u8>)> {
    let l4 = |packet: &Datagram| LINK + packet.header_length();
    let altered = |packet: Datagram, offset: usize, with: &[u8]| {
        let packet = packet.of(family);
        let offset = l4(&packet) + offset;
        changed(packet.bytes(), offset, with)
    };
    let tcp_with = |offset: u8| altered(tcp(&[9; 60], |header| header.ack = true), TCP_OFFSET, &[offset]);
    let udp_long = |length: u16| altered(udp(&[9; 10]), UDP_LENGTH, &length.to_be_bytes());
    // Of what stands behind a header without options.
    let total = |packet: Datagram, length: u16| {
        let bytes = packet.of(family).bytes();
        match family {
            Family::V4 => changed(bytes, TOTAL_LENGTH, &length.saturating_add(20).to_be_bytes()),
            Family::V6 => changed(bytes, PAYLOAD_LENGTH, &length.to_be_bytes()),
        }
    };
    let mut cases = vec![
        ("a length without transport", total(ack(), 0)),
        ("a length within the tcp header", total(ack(), 19)),
        ("a length within the udp header", total(udp(b"query"), 7)),
        ("a length one beyond the frame", total(syn(), 21)),
        ("the greatest length", total(syn(), u16::MAX)),
        ("a udp packet one beyond the frame", total(udp(&[]), 9)),
        ("no tcp header length", tcp_with(0)),
        ("a tcp header shorter than itself", tcp_with(0x40)),
        ("a tcp header one word beyond the packet", altered(syn(), TCP_OFFSET, &[0x60])),
        ("a tcp header far beyond the packet", altered(syn(), TCP_OFFSET, &[0xf0])),
        ("a udp length of 0", udp_long(0)),
        ("a udp length within its header", udp_long(7)),
        ("a udp length one beyond the packet", udp_long(19)),
        ("the greatest udp length", udp_long(u16::MAX)),
    ];
    if family == Family::V4 {
        cases.extend([
            ("a total length of 0", changed(ack().bytes(), TOTAL_LENGTH, &[0, 0])),
            ("a total length within the ip header", changed(ack().bytes(), TOTAL_LENGTH, &[0, 19])),
        ]);
    }
    cases
}

/// Room behind a datagram within its packet is no contradiction.
fn tolerated(now: Ticks) -> [Case; 2] {
    let long = || Datagram { payload: vec![0; 12], ..udp(&[]) };
    let shorten = |packet: &Datagram| {
        // As built with eight bytes of payload, in a packet of twelve.
        let inner = Datagram { payload: vec![0; 8], ..packet.clone() }.bytes();
        let mut bytes = packet.bytes();
        let place = LINK + 20 + UDP_LENGTH..LINK + 20 + UDP_LENGTH + 4;
        bytes[place.clone()].copy_from_slice(&inner[place]);
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

fn changed(mut bytes: Vec<u8>, offset: usize, with: &[u8]) -> Vec<u8> {
    bytes[offset..offset + with.len()].copy_from_slice(with);
    bytes
}

const LINK: usize = 14;
const TOTAL_LENGTH: usize = LINK + 2;
const PAYLOAD_LENGTH: usize = LINK + 4;
/// In their headers.
const TCP_OFFSET: usize = 12;
const UDP_LENGTH: usize = 4;
