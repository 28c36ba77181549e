use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::{
    io::{
        testbed::in_namespaces,
        vrrp::testing::{Link, MAC, ip, until},
    },
    pure::vrrp::frame::{ArpForm, arp_probe, gratuitous_arp, neighbour_probe, unsolicited_advertisement},
};

const V4: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 100);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 0x100);

/// Up to the claim of `last`.
fn claims(frames: &mut Frames, last: IpAddr) -> Vec<IpAddr> {
    let mut heard = Vec::new();
    let fd = frames.as_fd().try_clone_to_owned().unwrap();
    until(&fd, || {
        let take = |claim: Claim| {
            assert_eq!(claim.mac, MAC);
            heard.push(claim.address);
        };
        frames.receive(take).unwrap();
        heard.contains(&last).then_some(())
    });
    heard
}

#[test]
fn claims_of_our_addresses_are_heard_and_no_others() {
    in_namespaces(async |bed| {
        let link = Link::new(&bed).await;
        let mut v4 = Frames::open(link.index, Family::V4).unwrap();
        let mut v6 = Frames::open(link.index, Family::V6).unwrap();
        let addresses = BTreeSet::from([V4.into(), V6.into(), ip("10.79.0.200"), ip("fd79::200")]);
        for frames in [&mut v4, &mut v6] {
            frames.hear(addresses.clone()).unwrap();
        }
        link.inject(&arp_probe(MAC, V4));
        link.inject(&gratuitous_arp(ArpForm::Request, MAC, Ipv4Addr::new(10, 79, 0, 101)));
        link.inject(&gratuitous_arp(ArpForm::Request, MAC, V4));
        link.inject(&gratuitous_arp(ArpForm::Reply, MAC, Ipv4Addr::new(10, 79, 0, 200)));
        assert_eq!(claims(&mut v4, ip("10.79.0.200")), [V4.into(), ip("10.79.0.200")]);

        link.inject(&neighbour_probe(MAC, V6));
        // The same last four bytes, which is as far as the kernel compares.
        link.inject(&unsolicited_advertisement(MAC, "fd80::100".parse().unwrap(), false));
        link.inject(&unsolicited_advertisement(MAC, V6, false));
        link.inject(&unsolicited_advertisement(MAC, "fd79::200".parse().unwrap(), true));
        assert_eq!(claims(&mut v6, ip("fd79::200")), [IpAddr::from(V6), ip("fd79::200")]);
    });
}

#[test]
fn thousands_of_addresses_are_heard() {
    in_namespaces(async |bed| {
        let link = Link::new(&bed).await;
        for count in [1, 1_900, 5_000] {
            let mut frames = Frames::open(link.index, Family::V4).unwrap();
            let addresses: Vec<_> = (1..=count).map(|n| Ipv4Addr::from_bits(0x0a4f_1000 + n)).collect();
            frames.hear(addresses.iter().map(|address| (*address).into()).collect()).unwrap();
            let last = *addresses.last().unwrap();
            link.inject(&gratuitous_arp(ArpForm::Request, MAC, V4));
            link.inject(&gratuitous_arp(ArpForm::Request, MAC, last));
            assert_eq!(claims(&mut frames, last.into()), [IpAddr::from(last)]);
        }
    });
}

#[test]
fn frames_leave_by_their_interface() {
    in_namespaces(async |bed| {
        let link = Link::new(&bed).await;
        for (family, frame) in [
            (Family::V4, gratuitous_arp(ArpForm::Reply, MAC, V4)),
            (Family::V6, unsolicited_advertisement(MAC, V6, true)),
        ] {
            let frames = Frames::open(link.index, family).unwrap();
            frames.send(&frame).unwrap();
            link.sniff(|seen| seen == frame);
        }
        let error = Frames::open(9_999, Family::V4).map(drop).unwrap_err().to_string();
        let start = "cannot open the packet socket of interface 9999: bind it to its interface: ";
        assert!(error.starts_with(start), "{error}");
    });
}
