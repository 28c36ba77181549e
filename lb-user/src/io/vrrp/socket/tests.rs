use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv4Options, NetSlice, PacketBuilder, SlicedPacket,
};

use super::*;
use crate::io::{
    testbed::in_namespaces,
    vrrp::testing::{Link, MAC, NEAR_MAC, OURS_V4, THEIRS_V4, ip, until},
};

const VRID: u8 = 51;

fn sockets(link: &Link, family: Family, group: bool) -> Sockets {
    let (source, address) = match family {
        Family::V4 => (OURS_V4, "224.0.0.18"),
        Family::V6 => (ip("fe80::1"), "ff02::12"),
    };
    Sockets { interface: link.index, vrid: VRID, source, group: group.then(|| ip(address)) }
}

/// A packet as it comes from the link.
fn frame(source: IpAddr, destination: IpAddr, ttl: u8, message: &[u8]) -> Vec<u8> {
    let ethernet =
        PacketBuilder::ethernet2(MAC, if destination.is_multicast() { [0xff; 6] } else { NEAR_MAC });
    let packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet.ipv4(source.octets(), destination.octets(), ttl)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), ttl)
        }
        mixed => panic!("{mixed:?}"),
    };
    let mut frame = Vec::new();
    packet.write(&mut frame, IpNumber(PROTOCOL), message).unwrap();
    frame
}

fn with_options(message: &[u8]) -> Vec<u8> {
    let mut header =
        Ipv4Header::new(message.len() as u16, 255, IpNumber(PROTOCOL), [10, 79, 0, 9], [224, 0, 0, 18])
            .unwrap();
    header.options = Ipv4Options::try_from(&[0x94, 4, 0, 0][..]).unwrap();
    header.fragment_offset = IpFragOffset::ZERO;
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(MAC, [0xff; 6]).ip(IpHeaders::Ipv4(header, Default::default()));
    packet.write(&mut frame, IpNumber(PROTOCOL), message).unwrap();
    // As Ethernet fills up what is short.
    frame.extend([0xee; 18]);
    frame
}

/// All that arrives, from all sockets, up to the first that is `last`.
fn receive_until(adverts: &mut Adverts, last: &[u8]) -> Vec<(Seen, Vec<u8>)> {
    let poller = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::empty()).unwrap();
    let ids: Vec<_> = adverts.sockets().map(|(id, _)| id).collect();
    for (id, fd) in adverts.sockets() {
        let event = nix::sys::epoll::EpollEvent::new(nix::sys::epoll::EpollFlags::EPOLLIN, id.0.into());
        poller.add(fd, event).unwrap();
    }
    let mut received = Vec::new();
    until(&poller.0, || {
        for id in &ids {
            let take = |seen: &Seen, bytes: &[u8]| received.push((*seen, bytes.to_vec()));
            adverts.receive(*id, Instant::now(), take).unwrap();
        }
        received.iter().any(|(_, bytes)| bytes == last).then_some(())
    });
    received
}

fn message(vrid: u8, text: &[u8]) -> Vec<u8> {
    [&[0x31, vrid], text].concat()
}

#[test]
fn what_arrives_is_told_with_what_ip_said() {
    in_namespaces(async |bed| {
        let link = Link::new(&bed).await;
        for (family, group, source, ours) in [
            (Family::V4, ip("224.0.0.18"), THEIRS_V4, OURS_V4),
            (Family::V6, ip("ff02::12"), ip("fe80::9"), ip("fe80::1")),
        ] {
            for is_group in [true, false] {
                let mut adverts = Adverts::new();
                adverts.open(RouterId(1), sockets(&link, family, is_group)).unwrap();
                for (destination, ttl) in [(group, 255), (group, 254), (ours, 7)] {
                    let message = message(VRID, b"an advert, as far as sockets know");
                    link.inject(&frame(source, destination, ttl, &message));
                    let received = receive_until(&mut adverts, &message);
                    let seen = Seen { interface: link.index, source, destination, ttl };
                    assert_eq!(received, [(seen, message)]);
                }
            }
        }
    });
}

#[test]
fn options_and_padding_are_no_part_of_the_message() {
    in_namespaces(async |bed| {
        let link = Link::new(&bed).await;
        let mut adverts = Adverts::new();
        adverts.open(RouterId(1), sockets(&link, Family::V4, true)).unwrap();
        let message = message(VRID, b"behind an option");
        link.inject(&with_options(&message));
        let received = receive_until(&mut adverts, &message);
        assert_eq!(received[0].0.source, THEIRS_V4);
    });
}

#[test]
fn other_vrids_are_heard_by_samples() {
    in_namespaces(async |bed| {
        let link = Link::new(&bed).await;
        for (family, source, group) in
            [(Family::V4, THEIRS_V4, ip("224.0.0.18")), (Family::V6, ip("fe80::9"), ip("ff02::12"))]
        {
            let mut adverts = Adverts::new();
            adverts.open(RouterId(1), sockets(&link, family, true)).unwrap();
            let send = |vrid: u8, n: u16| {
                link.inject(&frame(source, group, 255, &message(vrid, &n.to_be_bytes())));
            };
            (0..400).for_each(|n| send(VRID + 1, n));
            send(VRID, 0);
            let others = receive_until(&mut adverts, &message(VRID, &[0, 0])).len() - 1;
            // Of 400 every eighth: chance has no other side.
            assert!((1..300).contains(&others), "{others}");

            adverts.open(RouterId(2), Sockets { vrid: VRID + 1, ..sockets(&link, family, true) }).unwrap();
            (0..400).for_each(|n| send(VRID + 1, n));
            send(VRID, 1);
            assert_eq!(receive_until(&mut adverts, &message(VRID, &[0, 1])).len(), 401);
        }
    });
}

#[test]
fn a_flood_of_copies_is_counted_and_not_looked_at() {
    in_namespaces(async |bed| {
        let link = Link::new(&bed).await;
        let mut adverts = Adverts::new();
        adverts.open(RouterId(1), sockets(&link, Family::V4, true)).unwrap();
        let copy = frame(THEIRS_V4, ip("224.0.0.18"), 255, &message(VRID, b"again and again"));
        (0..2_000).for_each(|_| link.inject(&copy));
        let last = message(VRID, b"the last");
        link.inject(&frame(THEIRS_V4, ip("224.0.0.18"), 255, &last));
        let received = receive_until(&mut adverts, &last).len();
        assert!(received < 1_000, "{received}");
        assert_eq!(adverts.flooded() + received as u64, 2_001);
        adverts.close(RouterId(1));
        assert_eq!(adverts.flooded() + received as u64, 2_001, "what was counted stays counted");
    });
}

#[test]
fn a_turn_is_bounded() {
    in_namespaces(async |bed| {
        let link = Link::new(&bed).await;
        let mut adverts = Adverts::new();
        adverts.open(RouterId(1), sockets(&link, Family::V4, true)).unwrap();
        let group = ip("224.0.0.18");
        for n in 0..TURN as u32 + 10 {
            link.inject(&frame(THEIRS_V4, group, 255, &message(VRID, &n.to_be_bytes())));
        }
        let (id, _) = adverts.sockets().last().unwrap();
        let mut received = 0;
        assert_eq!(adverts.receive(id, Instant::now(), |_, _| received += 1).unwrap(), Rest::Maybe);
        assert_eq!(received, TURN);
        assert_eq!(adverts.receive(id, Instant::now(), |_, _| received += 1).unwrap(), Rest::Nothing);
        assert_eq!(received, TURN + 10);
    });
}

#[test]
fn adverts_leave_as_the_standards_want_them() {
    in_namespaces(async |bed| {
        let link = Link::new(&bed).await;
        for (family, group, mac) in [
            (Family::V4, ip("224.0.0.18"), [1, 0, 0x5e, 0, 0, 0x12]),
            (Family::V6, ip("ff02::12"), [0x33, 0x33, 0, 0, 0, 0x12]),
        ] {
            let mut adverts = Adverts::new();
            let sockets = sockets(&link, family, true);
            adverts.open(RouterId(1), sockets.clone()).unwrap();
            let message = message(VRID, family.name().as_bytes());
            adverts.send(RouterId(1), group, &message).unwrap();
            let frame = link.sniff(|frame| frame.ends_with(&message));
            assert_eq!(frame[..6], mac);
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let (source, destination, ttl, class) = match packet.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    let header = ip.header();
                    assert_eq!((header.protocol(), header.ihl()), (IpNumber(PROTOCOL), 5));
                    let (source, destination) = (header.source_addr(), header.destination_addr());
                    (source.into(), destination.into(), header.ttl(), header.dcp().value() << 2)
                }
                NetSlice::Ipv6(ip) => {
                    let header = ip.header();
                    assert_eq!(header.next_header(), IpNumber(PROTOCOL));
                    let (source, destination) = (header.source_addr(), header.destination_addr());
                    (source.into(), destination.into(), header.hop_limit(), header.traffic_class())
                }
                NetSlice::Arp(arp) => panic!("{arp:?}"),
            };
            let _: (IpAddr, IpAddr) = (source, destination);
            assert_eq!((source, destination, ttl, class), (sockets.source, group, 255, 0xc0));
        }
    });
}

#[test]
fn routers_share_sockets_and_the_last_one_closes_them() {
    in_namespaces(async |bed| {
        let link = Link::new(&bed).await;
        let mut adverts = Adverts::new();
        for n in 1..=200 {
            adverts
                .open(RouterId(n), Sockets { vrid: n as u8, ..sockets(&link, Family::V4, n % 2 == 0) })
                .unwrap();
        }
        assert_eq!(adverts.sockets().count(), 2);
        adverts.open(RouterId(201), sockets(&link, Family::V6, true)).unwrap();
        assert_eq!(adverts.sockets().count(), 4);
        let ids: Vec<_> = adverts.sockets().map(|(id, _)| id).collect();
        // Again, with another place: what it had before goes.
        adverts.open(RouterId(201), sockets(&link, Family::V4, true)).unwrap();
        assert_eq!(adverts.sockets().count(), 2);
        assert!(adverts.sockets().all(|(id, _)| ids.contains(&id)));
        (1..=201).for_each(|n| adverts.close(RouterId(n)));
        assert_eq!(adverts.sockets().count(), 0);
        let error = adverts.send(RouterId(1), ip("224.0.0.18"), b"").unwrap_err();
        assert_eq!(error.to_string(), "no socket of adverts is open for this router");
    });
}

#[test]
fn what_cannot_be_opened_is_named() {
    in_namespaces(async |bed| {
        let link = Link::new(&bed).await;
        let mut adverts = Adverts::new();
        let good = sockets(&link, Family::V4, true);
        for (sockets, start) in [
            (
                Sockets { source: ip("10.79.0.77"), ..good.clone() },
                "cannot open the socket of adverts of 10.79.0.77 on vrrp0: bind it to its address: ",
            ),
            (
                Sockets { interface: 9_999, ..good },
                "cannot open the socket of adverts of 224.0.0.18 on interface 9999, which is gone: find its interface: ",
            ),
        ] {
            let error = adverts.open(RouterId(1), sockets).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
            assert_eq!(adverts.sockets().count(), 0);
        }
    });
}

#[test]
fn a_header_that_lies_is_not_believed() {
    let header = |first: u8, length: u16| {
        let mut packet = vec![0; 32];
        packet[0] = first;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet
    };
    for (packet, expected) in [
        (header(0x45, 32), Some(12)),
        (header(0x45, 28), Some(8)),
        (header(0x46, 32), Some(8)),
        (header(0x45, 9_999), Some(12)),
        (header(0x4f, 32), None),
        (header(0x40, 32), Some(12)),
        (header(0x45, 3), None),
        (vec![0x45; 19], None),
    ] {
        assert_eq!(split_ipv4(1, &packet).map(|(_, bytes)| bytes.len()), expected, "{packet:?}");
    }
}
