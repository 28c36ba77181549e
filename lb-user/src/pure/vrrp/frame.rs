//! Ethernet frames that tell whose an address is, and those that hear it claimed.
//!
//! ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861). Must not know who owns what.

mod advert;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use self::advert::advert;

use super::checksum::Sum;
use crate::pure::hop::Mac;

/// Some neighbours learn from one of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArpForm {
    Request,
    Reply,
}

/// To all: `address` is at `mac`.
pub fn gratuitous_arp(form: ArpForm, mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let operation = match form {
        ArpForm::Request => ARP_REQUEST,
        ArpForm::Reply => ARP_REPLY,
    };
    arp(operation, mac, [(mac, address), (BROADCAST, address)])
}

/// Who has `address`? Says nothing of its own (RFC 5227, section 2.1.1).
pub fn arp_probe(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    arp(ARP_REQUEST, mac, [(mac, Ipv4Addr::UNSPECIFIED), ([0; 6], address)])
}

/// To all nodes: `address` is at `mac`, whatever they knew before (RFC 4861, section 7.2.6).
pub fn unsolicited_advertisement(mac: Mac, address: Ipv6Addr, is_router: bool) -> Vec<u8> {
    let flags = OVERRIDE | if is_router { ROUTER } else { 0 };
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(address.octets());
    message.extend([TARGET_LINK_LAYER, 1]);
    message.extend(mac);
    icmpv6(mac, address, ALL_NODES, message)
}

/// Who has `address`? As for duplicate address detection: of no source, and to its solicited-node group (RFC 4862).
pub fn neighbour_probe(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(address.octets());
    icmpv6(mac, Ipv6Addr::UNSPECIFIED, solicited_node(address), message)
}

/// Somebody says that it has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub address: IpAddr,
    pub mac: Mac,
}

/// Of a frame with its Ethernet header. Probes claim nothing.
pub fn claim(frame: &[u8]) -> Option<Claim> {
    let (header, payload) = frame.split_first_chunk::<ETHERNET>()?;
    match u16::from_be_bytes([header[12], header[13]]) {
        TYPE_ARP => arp_claim(payload),
        TYPE_IPV6 => advertisement_claim(payload, header),
        _ => None,
    }
}

fn arp_claim(payload: &[u8]) -> Option<Claim> {
    let (packet, _) = payload.split_first_chunk::<ARP>()?;
    let (kind, operation) = (packet.first_chunk::<6>()?, u16::from_be_bytes([packet[6], packet[7]]));
    if *kind != ARP_KIND || !matches!(operation, ARP_REQUEST | ARP_REPLY) {
        return None;
    }
    let mac = *packet[8..].first_chunk::<6>()?;
    let address = Ipv4Addr::from(*packet[14..].first_chunk::<4>()?);
    (!address.is_unspecified()).then_some(Claim { address: address.into(), mac })
}

fn advertisement_claim(payload: &[u8], ethernet: &[u8; ETHERNET]) -> Option<Claim> {
    let (header, rest) = payload.split_first_chunk::<IPV6>()?;
    let message = rest.get(..usize::from(u16::from_be_bytes([header[4], header[5]])))?;
    // Only hop limit 255 proves that it is of this link.
    if header[0] >> 4 != 6 || header[6] != ICMPV6 || header[7] != HOP_LIMIT {
        return None;
    }
    let (fixed, options) = message.split_first_chunk::<24>()?;
    if fixed[0] != NEIGHBOUR_ADVERTISEMENT || fixed[1] != 0 {
        return None;
    }
    let source = Ipv6Addr::from(*header[8..].first_chunk::<16>()?);
    let destination = Ipv6Addr::from(*header[24..].first_chunk::<16>()?);
    if !Sum::pseudo(source.into(), destination.into(), ICMPV6, message.len()).and(message).is_right() {
        return None;
    }
    let address = Ipv6Addr::from(*fixed[8..].first_chunk::<16>()?);
    let sender = *ethernet[6..].first_chunk::<6>()?;
    let mac = target_link_layer(options).unwrap_or(sender);
    (!address.is_multicast()).then_some(Claim { address: address.into(), mac })
}

/// An option's length counts units of eight bytes, and is never 0.
fn target_link_layer(mut options: &[u8]) -> Option<Mac> {
    while let Some((&[kind, units], _)) = options.split_first_chunk::<2>() {
        if units == 0 {
            return None;
        }
        let (option, rest) = options.split_at_checked(usize::from(units) * 8)?;
        if kind == TARGET_LINK_LAYER {
            return option[2..].first_chunk().copied();
        }
        options = rest;
    }
    None
}

/// Sender, then target.
fn arp(operation: u16, source: Mac, parties: [(Mac, Ipv4Addr); 2]) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, source, TYPE_ARP);
    frame.extend(ARP_KIND);
    frame.extend(operation.to_be_bytes());
    for (mac, address) in parties {
        frame.extend(mac);
        frame.extend(address.octets());
    }
    frame
}

fn icmpv6(mac: Mac, source: Ipv6Addr, group: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let sum = Sum::pseudo(source.into(), group.into(), ICMPV6, message.len()).and(&message);
    message[2..4].copy_from_slice(&sum.finish().to_be_bytes());
    let mut frame = ethernet(group_mac(group), mac, TYPE_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([ICMPV6, HOP_LIMIT]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

fn ethernet(destination: Mac, source: Mac, kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_MAX);
    frame.extend(destination);
    frame.extend(source);
    frame.extend(kind.to_be_bytes());
    frame
}

/// ff02::1:ff and the last three bytes of the address (RFC 4291, section 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// 33-33 and the last four bytes of the group (RFC 2464, section 7).
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

const BROADCAST: Mac = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ETHERNET: usize = 14;
const TYPE_ARP: u16 = 0x0806;
const TYPE_IPV6: u16 = 0x86dd;

const ARP: usize = 28;
/// Ethernet, IPv4, and the lengths of their addresses.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

const IPV6: usize = 40;
const ICMPV6: u8 = 58;
const HOP_LIMIT: u8 = 255;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;
const TARGET_LINK_LAYER: u8 = 2;

/// The longest that is built here: an advertisement with its option.
const FRAME_MAX: usize = ETHERNET + IPV6 + 24 + 8;

#[cfg(test)]
mod tests;
