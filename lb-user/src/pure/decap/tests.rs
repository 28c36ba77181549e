use super::*;

const VIP4: &str = "192.0.2.10";
const VIP6: &str = "2001:db8::10";

/// A server that has everything for both families.
fn ready() -> Facts {
    let at = |interface: &str, address: &str, prefix| Address {
        interface: interface.to_owned(),
        loopback: interface == "lo",
        address: address.parse().unwrap(),
        prefix,
    };
    Facts {
        addresses: vec![
            at("lo", "127.0.0.1", 8),
            at("eth0", "10.0.0.2", 24),
            at("lo", VIP4, 32),
            at("lo", VIP6, 128),
        ],
        all: Ipv4Settings::default(),
        loopback_without_ipv6: false,
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            mtu: 1_548,
            settings: Ipv4Settings { arp_ignore: 1, arp_announce: 2, rp_filter: 0 },
            without_ipv6: false,
        }],
    }
}

fn wanted(vips: &[&str]) -> Wanted {
    Wanted { vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(), mss: None }
}

/// What is missing after `change`, as its commands.
#[track_caller]
fn check(vips: &[&str], change: impl FnOnce(&mut Facts), expected: &[&str]) {
    let mut facts = ready();
    change(&mut facts);
    let found = findings(&facts, &wanted(vips));
    let fixes: Vec<_> = found.iter().filter_map(|finding| finding.fix.as_deref()).collect();
    assert_eq!(fixes, expected, "{found:#?}");
    assert!(found.iter().all(|finding| finding.ok == finding.fix.is_none()));
}

#[test]
fn a_ready_server_lacks_nothing() {
    check(&[VIP4, VIP6], |_| {}, &[]);
    let found = findings(&ready(), &wanted(&[VIP4, VIP6]));
    assert_eq!(found.len(), 1 + 2 + 3 + 1 + 4);
}

#[test]
fn addresses() {
    let on = |facts: &mut Facts, vip: &str, interface: &str, prefix| {
        let at = facts.addresses.iter_mut().find(|at| at.address == vip.parse::<IpAddr>().unwrap()).unwrap();
        (at.interface, at.prefix, at.loopback) = (interface.to_owned(), prefix, interface == "lo");
    };
    check(&["192.0.2.11"], |_| {}, &["ip address add 192.0.2.11/32 dev lo"]);
    check(&["2001:db8::11"], |_| {}, &["ip address add 2001:db8::11/128 dev lo"]);
    check(
        &[VIP4],
        |facts| on(facts, VIP4, "lo", 24),
        &["ip address delete 192.0.2.10/24 dev lo && ip address add 192.0.2.10/32 dev lo"],
    );
    check(
        &[VIP6],
        |facts| on(facts, VIP6, "lo", 64),
        &["ip address delete 2001:db8::10/64 dev lo && ip address add 2001:db8::10/128 dev lo"],
    );
    check(
        &[VIP4],
        |facts| on(facts, VIP4, "eth0", 32),
        &["ip address delete 192.0.2.10/32 dev eth0 && ip address add 192.0.2.10/32 dev lo"],
    );
    check(&[VIP4], |facts| on(facts, VIP4, "dummy0", 32), &[]);
    let twice = |facts: &mut Facts| {
        let at = Address { interface: "eth0".to_owned(), loopback: false, ..facts.addresses[2].clone() };
        facts.addresses.push(at);
    };
    check(&[VIP4], twice, &["ip address delete 192.0.2.10/32 dev eth0"]);
}

#[test]
fn the_loopback_may_be_an_interface_like_others() {
    let change = |facts: &mut Facts| facts.interfaces[0].name = "lo".to_owned();
    check(&[VIP4], change, &[]);
}

#[test]
fn settings_count_with_the_greater_of_two() {
    let ignore = &["sysctl -w net.ipv4.conf.eth0.arp_ignore=1"][..];
    let announce = &["sysctl -w net.ipv4.conf.eth0.arp_announce=2"][..];
    let filter = &["sysctl -w net.ipv4.conf.eth0.rp_filter=2"][..];
    let none = &[][..];
    for (all, own, expected) in [
        ((0, 0, 0), (0, 2, 0), ignore),
        ((1, 0, 0), (0, 2, 0), none),
        ((0, 0, 0), (2, 2, 0), none),
        ((0, 1, 0), (1, 0, 0), announce),
        ((0, 2, 0), (1, 0, 0), none),
        ((0, 0, 0), (1, 1, 0), announce),
        ((0, 0, 1), (1, 2, 0), filter),
        ((0, 0, 0), (1, 2, 1), filter),
        ((0, 0, 1), (1, 2, 1), filter),
        ((0, 0, 1), (1, 2, 2), none),
        ((0, 0, 2), (1, 2, 1), none),
    ] {
        let settings =
            |(arp_ignore, arp_announce, rp_filter)| Ipv4Settings { arp_ignore, arp_announce, rp_filter };
        let change = |facts: &mut Facts| {
            facts.all = settings(all);
            facts.interfaces[0].settings = settings(own);
        };
        check(&[VIP4], change, expected);
        check(&[VIP6], change, &[]);
    }
}

#[test]
fn a_dot_in_a_name_is_a_slash_for_sysctl() {
    let change = |facts: &mut Facts| {
        facts.interfaces[0].name = "eth0.5".to_owned();
        facts.interfaces[0].settings.arp_ignore = 0;
    };
    check(&[VIP4], change, &["sysctl -w net.ipv4.conf.eth0/5.arp_ignore=1"]);
}

#[test]
fn ipv6_is_needed_for_its_own_addresses() {
    let off = |facts: &mut Facts| {
        facts.loopback_without_ipv6 = true;
        facts.interfaces[0].without_ipv6 = true;
    };
    check(&[VIP4], off, &[]);
    let fixes = ["sysctl -w net.ipv6.conf.lo.disable_ipv6=0", "sysctl -w net.ipv6.conf.eth0.disable_ipv6=0"];
    check(&[VIP6], off, &fixes);
}

#[test]
fn a_full_packet_needs_room_or_a_clamp() {
    let needs = [1_520, 1_528, 1_540, 1_548];
    for mtu in [1_280, 1_500, 1_519, 1_520, 1_527, 1_528, 1_539, 1_540, 1_547, 1_548, 9_000] {
        let fixes: Vec<_> = needs
            .iter()
            .filter(|need| **need > mtu)
            .map(|need| format!("ip link set dev eth0 mtu {need}"))
            .collect();
        let fixes: Vec<_> = fixes.iter().map(String::as_str).collect();
        check(&[VIP4], |facts| facts.interfaces[0].mtu = mtu, &fixes);
    }
}

#[test]
fn the_clamp_that_is_named_is_enough() {
    for (vips, clamps) in [
        (&[VIP4][..], [1_440, 1_432, 1_420, 1_412]),
        (&[VIP6], [1_420, 1_412, 1_400, 1_392]),
        (&[VIP4, VIP6], [1_420, 1_412, 1_400, 1_392]),
    ] {
        let mut facts = ready();
        facts.interfaces[0].mtu = 1_500;
        let found = findings(&facts, &wanted(vips));
        let named: Vec<_> = found.iter().filter_map(|finding| finding.instead.clone()).collect();
        let route =
            |mss| format!("advmss of {mss} on the routes to clients: `ip route change ROUTE advmss {mss}`");
        assert_eq!(named, clamps.map(route));
        for (fitting, mss) in clamps.into_iter().enumerate() {
            for (mss, missing) in [(mss, 3 - fitting), (mss + 1, 4 - fitting)] {
                let found = findings(&facts, &Wanted { mss: Some(mss), ..wanted(vips) });
                let count = found.iter().filter(|finding| !finding.ok).count();
                assert_eq!(count, missing, "{vips:?}, mss {mss}: {found:#?}");
            }
        }
    }
}
