//! For a listed address, and whole.

use std::net::SocketAddr;

use etherparse::{IpNumber, Ipv4Header};

use super::{CLIENT4, Carrier, Case, MIXES, Tunnel, VIP4, VIP6, datagram, mix, query, tunnel::ipv4};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = every_way();
    for (outer, inner) in MIXES {
        let name = |what: &str| format!("{}: {what}", mix(outer, inner));
        let tunnel = |inner| Tunnel::new(outer, Carrier::Ipip, inner);
        let short = Tunnel { padding: vec![0; 6], ..tunnel(query(inner)) };
        cases.push(Case::opens(&name("padded by ethernet"), &short));
        let excess = tunnel([query(inner), vec![7; 9]].concat());
        cases.push(Case::opens(&name("bytes behind the inner packet, within the outer"), &excess));
        for carrier in [Carrier::Ipip, Carrier::Gue { checksum: 0 }] {
            let around = |within| Tunnel { ends: vip_ends(inner), ..Tunnel::new(inner, carrier, within) };
            let inside = around(query(outer));
            let nested = tunnel(inside.bytes()[inside.outer_offset()..].to_vec());
            cases.push(Case::opens(&name(&format!("one layer only, {carrier:?} inside")), &nested));
        }
    }
    cases.extend(inner_headers());
    // More than a page: the kernel keeps the end of it apart.
    let jumbo = datagram(client6(), SocketAddr::new(VIP6.into(), 53), &[0x77; 8_000]);
    cases.push(Case::opens("a jumbo frame", &Tunnel::new(true, Carrier::Gue { checksum: 0 }, jumbo)));
    cases
}

fn every_way() -> Vec<Case> {
    let carriers = [
        Carrier::Ipip,
        Carrier::Gue { checksum: 0 },
        Carrier::Gue { checksum: 0xbeef },
        Carrier::GueHeader { words: 0 },
        Carrier::GueHeader { words: 1 },
        Carrier::GueHeader { words: 31 },
    ];
    let mut cases = Vec::new();
    for (outer, inner) in MIXES {
        for carrier in carriers {
            for tags in [&[][..], &[5], &[7, 4_094]] {
                let name = format!("{}, {carrier:?}, vlan {tags:?}", mix(outer, inner));
                cases.push(Case::opens(&name, &Tunnel::new(outer, carrier, query(inner)).tagged(tags)));
            }
        }
    }
    cases
}

/// What the local stack judges is not judged here.
fn inner_headers() -> Vec<Case> {
    let whole = query(true);
    let plain = ipv4(28, IpNumber::UDP);
    let options = Ipv4Header {
        total_len: plain.total_len + 4,
        options: [1, 1, 1, 0].into(),
        source: CLIENT4.octets(),
        destination: VIP4.octets(),
        ..plain
    };
    let with_options = [&options.to_bytes()[..], &whole[20..], &[0; 12]].concat();
    let altered = |offset: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[offset] = byte;
        bytes
    };
    [
        ("an inner packet with options", with_options),
        ("an inner packet whose checksum is wrong", altered(10, 0xff)),
        ("the first fragment of an inner packet", altered(6, 0x20)),
        ("a later fragment of an inner packet", altered(7, 0x20)),
        ("an inner packet at its last hop", altered(8, 0)),
        ("an inner packet of an unknown protocol", altered(9, 253)),
        ("an inner packet of headers alone, v6", datagram(client6(), SocketAddr::new(VIP6.into(), 1), &[])),
    ]
    .map(|(name, inner)| Case::opens(name, &Tunnel::new(true, Carrier::Ipip, inner)))
    .into()
}

fn client6() -> SocketAddr {
    SocketAddr::new(super::CLIENT6.into(), 40_000)
}

fn vip_ends(v4: bool) -> (std::net::IpAddr, std::net::IpAddr) {
    if v4 { (CLIENT4.into(), VIP4.into()) } else { (super::CLIENT6.into(), VIP6.into()) }
}
