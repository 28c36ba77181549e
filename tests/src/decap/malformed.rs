//! For a listed address, but lengths contradict each other or the outer checksum is wrong.

use lb_common::decap::Counter;

use super::{
    Carrier, Case, MIXES, Tunnel, mix,
    passed::{altered, sealed},
    query,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut drop = |name: String, packet| cases.push(Case::drops(&name, packet, Counter::DropMalformed));
    for (outer, inner) in MIXES {
        for carrier in [Carrier::Ipip, Carrier::Gue { checksum: 0 }, Carrier::GueHeader { words: 1 }] {
            let tunnel = Tunnel::new(outer, carrier, query(inner));
            let about = format!("malformed, {}, {carrier:?}", mix(outer, inner));
            let whole = tunnel.bytes();
            let header = if inner { 20 } else { 40 };
            for length in tunnel.inner_offset() + header..whole.len() {
                drop(format!("{about}: {length} bytes of {}", whole.len()), whole[..length].to_vec());
            }
            for (what, packet) in outer_lengths(&tunnel).into_iter().chain(inner_lengths(&tunnel)) {
                drop(format!("{about}: {what}"), packet);
            }
            if carrier != Carrier::Ipip {
                for (what, packet) in udp_lengths(&tunnel) {
                    drop(format!("{about}: {what}"), packet);
                }
            }
            if outer {
                drop(format!("{about}: outer checksum"), altered(whole.clone(), 24, &[!whole[24]]));
                drop(format!("{about}: outer time to live without its checksum"), altered(whole, 22, &[63]));
            } else {
                drop(format!("{about}: outer version"), altered(whole, 14, &[0x50]));
            }
        }
    }
    cases
}

fn outer_lengths(tunnel: &Tunnel) -> Vec<(String, Vec<u8>)> {
    let whole = tunnel.bytes();
    let v4 = tunnel.ends.0.is_ipv4();
    let right = (whole.len() - 14 - if v4 { 0 } else { 40 }) as u16;
    let set = |length: u16| {
        let packet = altered(whole.clone(), if v4 { 16 } else { 18 }, &length.to_be_bytes());
        if v4 { sealed(packet) } else { packet }
    };
    [0, 1, 19, right - 1, right + 1, u16::MAX]
        .map(|length| (format!("outer length {length}"), set(length)))
        .into()
}

fn inner_lengths(tunnel: &Tunnel) -> Vec<(String, Vec<u8>)> {
    let (whole, start) = (tunnel.bytes(), tunnel.inner_offset());
    let set = |at: usize, length: u16| altered(whole.clone(), start + at, &length.to_be_bytes());
    let length = tunnel.inner.len() as u16;
    if !tunnel.inner_is_v4() {
        let wrong = [length - 40 + 1, u16::MAX];
        return wrong.map(|length| (format!("inner length {length}"), set(4, length))).into();
    }
    let mut wrong: Vec<_> =
        [0, 19, length + 1, u16::MAX].map(|length| (format!("inner length {length}"), set(2, length))).into();
    for first in [0x40, 0x44, 0x4f] {
        wrong.push((format!("inner first byte {first:x}"), altered(whole.clone(), start, &[first])));
    }
    wrong
}

fn udp_lengths(tunnel: &Tunnel) -> Vec<(String, Vec<u8>)> {
    let whole = tunnel.bytes();
    let udp = 14 + if tunnel.ends.0.is_ipv4() { 20 } else { 40 };
    let right = (whole.len() - udp) as u16;
    let set = |length: u16| altered(whole.clone(), udp + 4, &length.to_be_bytes());
    [0, 7, 8, right - 1, right + 1, u16::MAX]
        .map(|length| (format!("udp length {length}"), set(length)))
        .into()
}
