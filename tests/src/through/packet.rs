//! Packets built from their ends by the book, with checksums of their own making.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, PacketBuilder};

/// Where the IP header stands.
pub const L3: usize = 14;
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const RECEIVER: [u8; 6] = [2, 0, 0, 0, 0, 2];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    /// Over IPv4, with no checksum.
    BareUdp,
}

/// An IP packet with a SYN, or with a datagram.
pub fn ip(from: SocketAddr, to: SocketAddr, ttl: u8, protocol: Protocol) -> Vec<u8> {
    let start = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), ttl),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), ttl),
        _ => panic!("{from} and {to} are of two families"),
    };
    let mut bytes = Vec::new();
    let written = match protocol {
        Protocol::Tcp => start.tcp(from.port(), to.port(), 0x1234_5678, 64_000).syn().write(&mut bytes, &[]),
        Protocol::Udp | Protocol::BareUdp => {
            start.udp(from.port(), to.port()).write(&mut bytes, b"an odd question")
        }
    };
    written.expect("a vector takes all");
    if protocol == Protocol::BareUdp {
        bytes[26..28].fill(0);
    }
    bytes
}

/// `inner` in an IP header of its own.
pub fn wrapped(from: IpAddr, to: IpAddr, protocol: u8, inner: &[u8]) -> Vec<u8> {
    let start = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("{from} and {to} are of two families"),
    };
    let mut bytes = Vec::new();
    start.write(&mut bytes, IpNumber(protocol), inner).expect("a vector takes all");
    bytes
}

/// `inner` behind a UDP header without a checksum.
pub fn in_udp(from: u16, to: u16, inner: &[u8]) -> Vec<u8> {
    let length = u16::try_from(inner.len() + 8).expect("short");
    [from, to, length, 0].iter().flat_map(|word| word.to_be_bytes()).chain(inner.iter().copied()).collect()
}

/// An ICMP error that quotes all of `quoted`.
pub fn unreachable(from: IpAddr, to: IpAddr, quoted: &[u8]) -> Vec<u8> {
    let (number, kind, code) = if from.is_ipv4() { (1, 3, 3) } else { (58, 1, 4) };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(quoted);
    let pseudo = if from.is_ipv4() { 0 } else { pseudo(from, to, number, message.len()) };
    let sum = !sum(&[&pseudo.to_be_bytes(), &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    wrapped(from, to, number, &message)
}

pub fn framed(packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&RECEIVER[..], &SENDER, &ethertype, packet].concat()
}

/// Of the innermost TCP segment or datagram in a frame: the sum of its pseudo header, and where it and its checksum
/// stand.
pub fn transport(frame: &[u8]) -> (u16, usize, usize) {
    let mut start = L3;
    loop {
        let v4 = frame[start] >> 4 == 4;
        let address = |at: usize| -> IpAddr {
            let byte = |index: usize| frame[start + at + index];
            if v4 {
                std::array::from_fn::<u8, 4, _>(byte).into()
            } else {
                std::array::from_fn::<u8, 16, _>(byte).into()
            }
        };
        let (number, length) = if v4 { (frame[start + 9], 20) } else { (frame[start + 6], 40) };
        let (from, to) = if v4 { (address(12), address(16)) } else { (address(8), address(24)) };
        start += length;
        match number {
            4 | 41 => {}
            17 if frame[start + 2..start + 4] == 6_080u16.to_be_bytes() => start += 8,
            _ => {
                let field = start + if number == 6 { 16 } else { 6 };
                return (pseudo(from, to, number, frame.len() - start), start, field);
            }
        }
    }
}

/// Folded sum of the bytes as words of the network (RFC 1071).
pub fn folded(bytes: &[u8]) -> u16 {
    sum(&[bytes])
}

fn pseudo(from: IpAddr, to: IpAddr, number: u8, length: usize) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u32::try_from(length).expect("short").to_be_bytes();
    sum(&[&octets(from), &octets(to), &length, &[0, number]])
}

/// Each part begins a word.
fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low));
    let mut sum: u64 = words.map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
