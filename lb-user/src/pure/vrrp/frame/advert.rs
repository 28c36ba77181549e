//! A VRRP message as a frame, with a MAC of its own: switches learn from it where the virtual MAC is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{ETHERNET, IPV6, TYPE_IPV6, ethernet, group_mac};
use crate::pure::{
    hop::Mac,
    vrrp::{checksum::Sum, codec::PROTOCOL},
};

/// To a group. None: the addresses are of different families, or the destination is no group.
pub fn advert(mac: Mac, source: IpAddr, group: IpAddr, id: u16, message: &[u8]) -> Option<Vec<u8>> {
    if !group.is_multicast() {
        return None;
    }
    let mut frame = match (source, group) {
        (IpAddr::V4(source), IpAddr::V4(group)) => ipv4(mac, source, group, id, message.len()),
        (IpAddr::V6(source), IpAddr::V6(group)) => ipv6(mac, source, group, message.len()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    frame.extend(message);
    Some(frame)
}

fn ipv4(mac: Mac, source: Ipv4Addr, group: Ipv4Addr, id: u16, length: usize) -> Vec<u8> {
    // 01-00-5E and the last 23 bits of the group (RFC 1112, section 6.4).
    let [_, a, b, c] = group.octets();
    let mut frame = ethernet([0x01, 0, 0x5e, a & 0x7f, b, c], mac, TYPE_IPV4);
    frame.extend([0x45, INTERNETWORK_CONTROL]);
    frame.extend(((IPV4 + length) as u16).to_be_bytes());
    frame.extend(id.to_be_bytes());
    frame.extend([0, 0, TTL, PROTOCOL, 0, 0]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    let sum = Sum::of(&frame[ETHERNET..]).finish();
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn ipv6(mac: Mac, source: Ipv6Addr, group: Ipv6Addr, length: usize) -> Vec<u8> {
    let mut frame = ethernet(group_mac(group), mac, TYPE_IPV6);
    frame.extend([0x60 | INTERNETWORK_CONTROL >> 4, INTERNETWORK_CONTROL << 4, 0, 0]);
    frame.extend((length as u16).to_be_bytes());
    frame.extend([PROTOCOL, TTL]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    debug_assert_eq!(frame.len(), ETHERNET + IPV6);
    frame
}

const TYPE_IPV4: u16 = 0x0800;
const IPV4: usize = 20;
const TTL: u8 = 255;
/// CS6, which network control has (RFC 4594).
const INTERNETWORK_CONTROL: u8 = 0xc0;

#[cfg(test)]
mod tests {
    use etherparse::SlicedPacket;

    use super::*;

    #[test]
    fn a_parser_that_is_not_ours_reads_it() {
        let mac = [0, 0, 0x5e, 0, 1, 51];
        for (source, group, to) in [
            ("10.98.0.1", "224.0.0.18", [1, 0, 0x5e, 0, 0, 18]),
            ("fe80::1", "ff02::12", [0x33, 0x33, 0, 0, 0, 18]),
        ] {
            let (source, group): (IpAddr, IpAddr) = (source.parse().unwrap(), group.parse().unwrap());
            let frame = advert(mac, source, group, 7, b"message!").unwrap();
            let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
            let header = sliced.link.unwrap().to_header().unwrap();
            let ethernet = header.ethernet2().unwrap();
            assert_eq!((ethernet.source, ethernet.destination), (mac, to));
            let net = sliced.net.unwrap();
            let payload = net.ip_payload_ref().unwrap();
            assert_eq!((payload.ip_number.0, payload.payload), (PROTOCOL, &b"message!"[..]));
            match net {
                etherparse::NetSlice::Ipv4(ip) => {
                    let header = ip.header().to_header();
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                    assert_eq!(
                        (IpAddr::from(header.source), IpAddr::from(header.destination)),
                        (source, group)
                    );
                    assert_eq!((header.time_to_live, header.identification), (255, 7));
                    assert_eq!(ip.header().slice()[1], 0xc0);
                }
                etherparse::NetSlice::Ipv6(ip) => {
                    let header = ip.header().to_header();
                    assert_eq!(
                        (IpAddr::from(header.source), IpAddr::from(header.destination)),
                        (source, group)
                    );
                    assert_eq!((header.hop_limit, header.traffic_class), (255, 0xc0));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn only_groups_have_a_mac_that_is_known() {
        let (source, other) = ("10.98.0.1".parse().unwrap(), "10.98.0.2".parse().unwrap());
        assert_eq!(advert([0; 6], source, other, 0, &[]), None);
    }
}
