//! Packets of an input: valid ones of every shape, damaged or not, answers to those sent before, or any bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::TcpHeader;
use lb_ebpf::Outcome;

use super::{
    network::{BACK, CLIENT4, CLIENT6, FRONT, NAMES, VIP4, VIP6, WEB},
    packet::{Datagram, Extension, Fragment, Icmp, Transport},
};

pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Zero when there are no more.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(self.0.len().min(count));
        self.0 = rest;
        taken.to_vec()
    }

    /// A frame and the interface it arrives on.
    pub fn packet(&mut self, sent: &[(Outcome, Vec<u8>)]) -> (Vec<u8>, u32) {
        let kind = self.byte();
        let damage = self.byte();
        let damage = self.bytes(usize::from(damage & 3) * 2);
        let last = sent.last().map(|(_, frame)| frame.as_slice()).unwrap_or_default();
        let (mut frame, interface) = match kind & 7 {
            0..=2 => (self.request(kind).bytes(), FRONT),
            3 => (answer(last).unwrap_or_default(), BACK),
            4 => (self.error(last).unwrap_or_default(), BACK),
            5 => (self.error(last).unwrap_or_default(), FRONT),
            6 => (self.ping().bytes(), FRONT),
            _ => {
                let length = self.byte();
                (self.bytes(length.into()), FRONT)
            }
        };
        for pair in damage.chunks_exact(2) {
            if let Some(byte) = frame.get_mut(usize::from(pair[0])) {
                *byte ^= pair[1];
            } else {
                frame.truncate(pair[1].into());
            }
        }
        (frame, interface)
    }

    /// From a client to a service. `kind`: tcp or udp, and flags.
    fn request(&mut self, kind: u8) -> Datagram {
        let (client, shape, length) = (self.byte(), self.byte(), self.byte());
        let is_v6 = client & 1 != 0;
        let is_udp = kind & 3 == 1;
        let port = if is_udp { NAMES } else { WEB };
        let (source, destination) = ends(is_v6, client >> 1, port);
        let flags = kind >> 3;
        let transport = match (is_udp, shape >> 6) {
            (true, 3) => Transport::UdpWithoutChecksum,
            (true, _) => Transport::Udp,
            (false, with_mss) => Transport::Tcp(Box::new(tcp(flags, with_mss))),
        };
        let payload = self.bytes(length.into());
        let fragment = match shape & 7 {
            6 => Fragment::First(payload.len() / 2),
            7 => Fragment::Later(u16::from(length)),
            5 if is_v6 => Fragment::Atomic,
            _ => Fragment::Whole,
        };
        let transport = match fragment {
            Fragment::Later(_) => Transport::Rest(if is_udp { 17 } else { 6 }),
            _ => transport,
        };
        Datagram {
            tags: (0..shape >> 3 & 3).take(2).map(|tag| 100 + u16::from(tag)).collect(),
            options: if shape & 7 == 1 { vec![1; 8] } else { Vec::new() },
            extensions: if shape & 7 == 1 {
                vec![Extension::options(60, 1), Extension::routing(2)]
            } else {
                Vec::new()
            },
            dont_fragment: shape & 32 == 0,
            identification: u32::from(client),
            fragment,
            transport,
            payload,
            ..frame(source, destination)
        }
    }

    fn ping(&mut self) -> Datagram {
        let (client, length) = (self.byte(), self.byte());
        let is_v6 = client & 1 != 0;
        let (source, destination) = ends(is_v6, client >> 1, 0);
        let kind = if is_v6 { 128 } else { 8 };
        Datagram {
            transport: Transport::Icmp(Icmp { kind, code: 0, rest: 7 }),
            payload: self.bytes(length.into()),
            ..frame(source, destination)
        }
    }

    /// A router's about the last packet that was sent.
    fn error(&mut self, about: &[u8]) -> Option<Vec<u8>> {
        let (kind, length) = (self.byte(), self.byte());
        let packet = about.get(l3(about)?..)?;
        let quote = packet.get(..packet.len().min(28 + usize::from(length)))?.to_vec();
        let (router, destination): (IpAddr, IpAddr) = match quote.first()? >> 4 {
            4 => (Ipv4Addr::new(198, 51, 100, 1).into(), address4(&quote, 12)?),
            6 => (Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into(), address6(&quote, 8)?),
            _ => return None,
        };
        let kinds = if router.is_ipv4() { [3, 11, 12, 5] } else { [1, 2, 3, 4] };
        let icmp = Icmp { kind: kinds[usize::from(kind & 3)], code: kind >> 5, rest: 1_280 };
        let error = Datagram {
            transport: Transport::Icmp(icmp),
            payload: quote,
            ..frame(SocketAddr::new(router, 0), SocketAddr::new(destination, 0))
        };
        Some(error.bytes())
    }
}

fn tcp(flags: u8, with_mss: u8) -> TcpHeader {
    let bit = |n: u32| flags >> n & 1 != 0;
    let (syn, ack, fin, rst) = (bit(0), bit(1), bit(2), bit(3));
    let mut header =
        TcpHeader { sequence_number: 7, window_size: 512, syn, ack, fin, rst, ..TcpHeader::default() };
    let options: &[u8] = match with_mss {
        1 => &[2, 4, 5, 180],
        2 => &[1, 2, 4, 5, 180, 1, 1, 1],
        _ => &[],
    };
    header.set_options_raw(options).expect("eight bytes of options fit a header");
    header
}

fn frame(source: SocketAddr, destination: SocketAddr) -> Datagram {
    Datagram { to: [2, 0, 0, 0, 1, 2], from: [2, 0, 0, 0, 1, 1], source, destination, ..Datagram::empty() }
}

/// One of sixteen clients with four ports each, and a service.
fn ends(is_v6: bool, client: u8, port: u16) -> (SocketAddr, SocketAddr) {
    let (host, source_port) = (u16::from(client >> 2 & 15), 1_000 + u16::from(client & 3));
    let (source, vip): (IpAddr, IpAddr) = match is_v6 {
        true => (Ipv6Addr::from_bits(CLIENT6.to_bits() | u128::from(host)).into(), VIP6.into()),
        false => (Ipv4Addr::from_bits(CLIENT4.to_bits() | u32::from(host)).into(), VIP4.into()),
    };
    (SocketAddr::new(source, source_port), SocketAddr::new(vip, port))
}

/// A frame with its ends exchanged, which leaves all checksums as they are. None for what is too short.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let l3 = l3(frame)?;
    let (source, length, l4) = match frame.get(l3)? >> 4 {
        4 => (l3 + 12, 4, l3 + usize::from(frame[l3] & 0xf) * 4),
        _ => (l3 + 8, 16, l3 + 40),
    };
    let mut answer = frame.to_vec();
    for (first, second, length) in [(0, 6, 6), (source, source + length, length), (l4, l4 + 2, 2)] {
        let (a, b) = (frame.get(first..first + length)?, frame.get(second..second + length)?);
        answer[second..second + length].copy_from_slice(a);
        answer[first..first + length].copy_from_slice(b);
    }
    Some(answer)
}

/// Where the IP header stands.
fn l3(frame: &[u8]) -> Option<usize> {
    let mut l3 = 14;
    while let [0x81, 0] | [0x88, 0xa8] = frame.get(l3 - 2..l3)? {
        l3 += 4;
    }
    Some(l3)
}

fn address4(packet: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

fn address6(packet: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}
