use etherparse::{
    ArpHardwareId, ArpOperation, EtherType, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice,
};
use proptest::prelude::*;

use super::*;

const MAC: Mac = [0, 0, 0x5e, 0, 1, 51];
const V4: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 100);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0x1234, 0x5678);

/// By an independent parser.
fn sliced(frame: &[u8]) -> SlicedPacket<'_> {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let header = packet.link.as_ref().and_then(|link| link.to_header()).and_then(|link| link.ethernet2());
    assert_eq!(header.unwrap().source, MAC);
    packet
}

fn destination(frame: &[u8]) -> Mac {
    *frame.first_chunk().unwrap()
}

fn check_arp(frame: &[u8], operation: ArpOperation, sender: Ipv4Addr, target_mac: Mac) {
    let packet = sliced(frame);
    let Some(NetSlice::Arp(arp)) = &packet.net else { panic!("{packet:?}") };
    assert_eq!((arp.hw_addr_type(), arp.proto_addr_type()), (ArpHardwareId::ETHERNET, EtherType::IPV4));
    assert_eq!(arp.operation(), operation);
    assert_eq!((arp.sender_hw_addr(), arp.sender_protocol_addr()), (&MAC[..], &sender.octets()[..]));
    assert_eq!((arp.target_hw_addr(), arp.target_protocol_addr()), (&target_mac[..], &V4.octets()[..]));
    assert_eq!(destination(frame), BROADCAST);
    assert_eq!(frame.len(), 42);
}

#[test]
fn gratuitous_arp_is_what_others_learn_from() {
    for (form, operation) in
        [(ArpForm::Request, ArpOperation::REQUEST), (ArpForm::Reply, ArpOperation::REPLY)]
    {
        let frame = gratuitous_arp(form, MAC, V4);
        check_arp(&frame, operation, V4, BROADCAST);
        assert_eq!(claim(&frame), Some(Claim { address: V4.into(), mac: MAC }));
    }
}

#[test]
fn a_probe_claims_nothing() {
    let frame = arp_probe(MAC, V4);
    check_arp(&frame, ArpOperation::REQUEST, Ipv4Addr::UNSPECIFIED, [0; 6]);
    assert_eq!(claim(&frame), None);
    assert_eq!(claim(&neighbour_probe(MAC, V6)), None);
}

/// Returns its type, source, destination and what follows the first eight bytes.
fn check_icmpv6(frame: &[u8]) -> (Icmpv6Type, Ipv6Addr, Ipv6Addr, Vec<u8>) {
    let packet = sliced(frame);
    let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("{packet:?}") };
    let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("{packet:?}") };
    let header = ip.header();
    assert_eq!(header.hop_limit(), 255);
    let (source, destination) = (header.source(), header.destination());
    assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(source, destination, icmp.payload()).unwrap());
    (icmp.icmp_type(), header.source_addr(), header.destination_addr(), icmp.payload().to_vec())
}

#[test]
fn an_unsolicited_advertisement_overrides() {
    for is_router in [false, true] {
        let frame = unsolicited_advertisement(MAC, V6, is_router);
        let (kind, source, group, payload) = check_icmpv6(&frame);
        let Icmpv6Type::NeighborAdvertisement(header) = kind else { panic!("{kind:?}") };
        assert_eq!((header.router, header.solicited, header.r#override), (is_router, false, true));
        assert_eq!((source, group), (V6, ALL_NODES));
        assert_eq!(payload, [&V6.octets()[..], &[2, 1], &MAC].concat());
        assert_eq!(destination(&frame), [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame.len(), FRAME_MAX);
        assert_eq!(claim(&frame), Some(Claim { address: V6.into(), mac: MAC }));
    }
}

#[test]
fn a_neighbour_probe_asks_the_solicited_node() {
    let frame = neighbour_probe(MAC, V6);
    let (kind, source, group, payload) = check_icmpv6(&frame);
    assert_eq!(kind, Icmpv6Type::NeighborSolicitation);
    assert_eq!((source, group), (Ipv6Addr::UNSPECIFIED, "ff02::1:ff34:5678".parse().unwrap()));
    assert_eq!(payload, V6.octets());
    assert_eq!(destination(&frame), [0x33, 0x33, 0xff, 0x34, 0x56, 0x78]);
}

#[test]
fn a_claim_needs_a_whole_frame_of_this_link() {
    let advertisement = unsolicited_advertisement(MAC, V6, false);
    let arp = gratuitous_arp(ArpForm::Request, MAC, V4);
    for (name, frame, at, value) in [
        ("other ethertype", &arp, 13, 0x00),
        ("other hardware", &arp, 15, 6),
        ("reverse arp", &arp, 21, 3),
        ("forwarded", &advertisement, 21, 254),
        ("a solicitation", &advertisement, 54, 135),
        ("checksum", &advertisement, 56, advertisement[56] ^ 1),
        ("longer than the frame", &advertisement, 19, 33),
    ] {
        let mut frame = frame.clone();
        frame[at] = value;
        assert_eq!(claim(&frame), None, "{name}");
    }
    for frame in [arp, advertisement] {
        for length in 0..frame.len() {
            assert_eq!(claim(&frame[..length]), None, "{length} bytes");
        }
        let padded = [&frame[..], &[0; 18]].concat();
        assert!(claim(&padded).is_some(), "ethernet fills short frames up");
    }
}

proptest! {
    #[test]
    fn no_frame_is_too_strange(frame: Vec<u8>, is_arp: bool) {
        let _ = claim(&frame);
        let kind: [u8; 2] = if is_arp { [8, 6] } else { [0x86, 0xdd] };
        let _ = claim(&[&[0; 12], &kind[..], &frame].concat());
    }
}
