//! Not to be opened: passes to the byte as it came.

use lb_common::decap::Counter;

use super::{
    CLIENT4, CLIENT6, Carrier, Case, MIXES, STRANGER4, STRANGER6, Tunnel, VIP4, VIP6, mix, query, query_to,
};
use crate::cases::packet::arp;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = others();
    cases.extend(strangers());
    cases.extend(kinds());
    cases.extend(outer_headers());
    cases.extend(truncated());
    cases
}

fn others() -> Vec<Case> {
    let plain = |v4: bool, protocol: u8| {
        let mut bytes = whole(v4, Carrier::Ipip);
        bytes[protocol_offset(v4)] = protocol;
        if v4 { sealed(bytes) } else { bytes }
    };
    let port = |v4: bool, at: usize| altered(whole(v4, Carrier::Gue { checksum: 0 }), at, &[0, 53]);
    let mut cases = vec![
        Case::passes("arp", arp(VIP4)[..].to_vec(), Counter::PassMulticast),
        Case::passes("an arp answer", altered(arp(VIP4), 0, &[2]), Counter::PassOther),
        Case::passes(
            "a bare ethernet header",
            whole(true, Carrier::Ipip)[..12].iter().copied().chain([0x88, 0xcc]).collect(),
            Counter::PassOther,
        ),
        Case::passes("three tags", three_tags(), Counter::PassOther),
        Case::passes("udp to another port, v4", port(true, 14 + 20 + 2), Counter::PassOther),
        Case::passes("udp to another port, v6", port(false, 14 + 40 + 2), Counter::PassOther),
    ];
    for protocol in [1, 6, 47, 50, 58, 59, 132] {
        for v4 in [true, false] {
            let name = format!("protocol {protocol}, v4 {v4}");
            cases.push(Case::passes(&name, plain(v4, protocol), Counter::PassOther));
        }
    }
    for (name, to) in
        [("broadcast", [0xff; 6]), ("multicast", [1, 0, 0x5e, 0, 0, 1]), ("multicast, v6", [0x33; 6])]
    {
        for (outer, inner) in MIXES {
            let packet = Tunnel { to, ..Tunnel::new(outer, Carrier::Ipip, query(inner)) }.bytes();
            cases.push(Case::passes(
                &format!("{name}, {}", mix(outer, inner)),
                packet,
                Counter::PassMulticast,
            ));
        }
    }
    cases
}

fn strangers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (outer, inner) in MIXES {
        let other = query_to(if inner { STRANGER4.into() } else { STRANGER6.into() });
        for carrier in [Carrier::Ipip, Carrier::Gue { checksum: 0 }, Carrier::GueHeader { words: 2 }] {
            let packet = Tunnel::new(outer, carrier, other.clone()).tagged(&[9]).bytes();
            let name = format!("{}, {carrier:?}: for nobody here", mix(outer, inner));
            cases.push(Case::passes(&name, packet, Counter::PassNoVip));
        }
        let ends = if outer { (CLIENT4.into(), VIP4.into()) } else { (CLIENT6.into(), VIP6.into()) };
        let packet = Tunnel { ends, ..Tunnel::new(outer, Carrier::Ipip, other) }.bytes();
        let name = format!("{}: the outer destination is listed, the inner is not", mix(outer, inner));
        cases.push(Case::passes(&name, packet, Counter::PassNoVip));
    }
    cases
}

fn kinds() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut kind = |name: String, packet| cases.push(Case::passes(&name, packet, Counter::PassKind));
    for v4 in [true, false] {
        let gue = 14 + if v4 { 20 } else { 40 } + 8;
        let with =
            |at: usize, bytes: &[u8]| altered(whole(v4, Carrier::GueHeader { words: 0 }), gue + at, bytes);
        for (what, at, bytes) in [
            ("a control message", 0, &[0x20][..]),
            ("version 2", 0, &[0x80]),
            ("version 3", 0, &[0xff]),
            ("carries tcp", 1, &[6]),
            ("carries nothing", 1, &[59]),
            ("a flag", 2, &[0x80, 0]),
            ("a private flag", 2, &[0, 1]),
        ] {
            kind(format!("gue, v4 {v4}: {what}"), with(at, bytes));
        }
        let inner = altered(whole(v4, Carrier::Gue { checksum: 0 }), gue, &[0x55]);
        kind(format!("gue, v4 {v4}: variant 1 with ip version 5"), inner);
        let six = Tunnel::new(v4, Carrier::GueHeader { words: 0 }, query(false)).bytes();
        kind(format!("gue, v4 {v4}: says 4, carries 6"), altered(six, gue + 1, &[4]));
        let inner = altered(whole(v4, Carrier::Ipip), gue - 8, &[0x15]);
        kind(format!("ipip, v4 {v4}: ip version 1"), inner);
        for (says, carries) in [(4, false), (41, true)] {
            let mut packet = Tunnel::new(v4, Carrier::Ipip, query(carries)).bytes();
            packet[protocol_offset(v4)] = says;
            let packet = if v4 { sealed(packet) } else { packet };
            kind(format!("ipip, v4 {v4}: protocol {says} carries the other"), packet);
        }
    }
    cases
}

fn outer_headers() -> Vec<Case> {
    let v4 = |at: usize, bytes: &[u8]| sealed(altered(whole(true, Carrier::Ipip), 14 + at, bytes));
    let v6 = |next: u8| altered(whole(false, Carrier::Gue { checksum: 0 }), 14 + 6, &[next]);
    vec![
        Case::passes("outer options", v4(0, &[0x46]), Counter::PassOptions),
        Case::passes("the longest outer options", v4(0, &[0x4f]), Counter::PassOptions),
        Case::passes("an outer header too short to be one", v4(0, &[0x44]), Counter::PassOther),
        Case::passes("ipv6 as ipv4", v4(0, &[0x65]), Counter::PassOther),
        Case::passes("a first outer fragment", v4(6, &[0x20, 0]), Counter::PassFragment),
        Case::passes("a later outer fragment", v4(6, &[0, 1]), Counter::PassFragment),
        Case::passes("an outer fragment far behind", v4(6, &[0x1f, 0xff]), Counter::PassFragment),
        Case::passes("hop-by-hop options", v6(0), Counter::PassOptions),
        Case::passes("a routing header", v6(43), Counter::PassOptions),
        Case::passes("destination options", v6(60), Counter::PassOptions),
        Case::passes("a fragment header", v6(44), Counter::PassFragment),
    ]
}

/// At every byte up to the end of the inner header.
fn truncated() -> Vec<Case> {
    let mut cases = Vec::new();
    for (outer, inner) in MIXES {
        for (carrier, tags) in [
            (Carrier::Ipip, &[][..]),
            (Carrier::Ipip, &[3, 4]),
            (Carrier::Gue { checksum: 0 }, &[]),
            (Carrier::GueHeader { words: 1 }, &[3]),
        ] {
            let tunnel = Tunnel::new(outer, carrier, query(inner)).tagged(tags);
            let header = if inner { 20 } else { 40 };
            for length in 0..tunnel.inner_offset() + header {
                let name = format!("{}, {carrier:?}, vlan {tags:?}: {length} bytes", mix(outer, inner));
                let packet = tunnel.bytes()[..length].to_vec();
                cases.push(Case::passes(&name, packet, Counter::PassTruncated));
            }
        }
    }
    cases
}

fn three_tags() -> Vec<u8> {
    let bytes = Tunnel::new(true, Carrier::Ipip, query(true)).tagged(&[1, 2]).bytes();
    [&bytes[..16], &[0x81, 0, 0, 9], &bytes[16..]].concat()
}

fn whole(v4: bool, carrier: Carrier) -> Vec<u8> {
    Tunnel::new(v4, carrier, query(true)).bytes()
}

fn protocol_offset(v4: bool) -> usize {
    14 + if v4 { 9 } else { 6 }
}

pub(super) fn altered(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

/// With the checksum of the outer IPv4 header, taken to be of 20 bytes behind a plain Ethernet header.
pub(super) fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[24..26].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&bytes[14..34]).ones_complement();
    bytes[24..26].copy_from_slice(&sum.to_ne_bytes());
    bytes
}
