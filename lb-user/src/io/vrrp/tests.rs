//! What routers hold in a real kernel, in namespaces of the test's own.

use std::{collections::BTreeSet, net::IpAddr, os::fd::AsFd, process::Command};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    addresses::{Addresses, Shortfall},
    links::{Change, Links, News},
    macvlan::{Macvlan, Macvlans},
};
use crate::{
    io::testbed::in_namespaces,
    pure::{
        config::{
            model::vrrp::{Address, Route, Rule, Vrrp},
            network::Network,
        },
        vrrp::node::{Estate, Link, RouterId},
    },
};

const ROUTER: RouterId = RouterId(1);

/// In the namespace of the test.
fn ip(line: &str) -> String {
    let done = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn address(text: &str) -> Address {
    let (address, prefix) = text.split_once('/').unwrap();
    Address {
        address: address.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
        dev: None,
        label: None,
        scope: None,
        broadcast: None,
    }
}

fn network(text: &str) -> Network {
    let (address, length) = text.split_once('/').unwrap();
    Network::around(address.parse().unwrap(), length.parse().unwrap()).unwrap()
}

fn route(to: &str, via: Option<&str>, table: Option<u32>) -> Route {
    let via = via.map(|via| via.parse().unwrap());
    Route { to: network(to), via, dev: None, src: None, table, metric: None, scope: None }
}

fn estate(addresses: &[&str]) -> Estate {
    let addresses = addresses.iter().map(|text| address(text)).collect();
    Estate { interface: "near0".to_owned(), addresses, ..Estate::default() }
}

fn shown() -> Vec<String> {
    let lines = ip("-o addr show dev near0");
    let word = |line: &str| line.split_whitespace().nth(3).unwrap().to_owned();
    lines.lines().map(word).filter(|word| !word.starts_with("fe80")).collect()
}

/// The deadline of the test is not reached while this blocks: it has one of its own.
fn until_announced(links: &Links) {
    let ready =
        poll(&mut [PollFd::new(links.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10_000_u16)).unwrap();
    assert!(ready > 0, "the kernel announced nothing");
}

/// Reads what the kernel announces until it is as wanted.
fn hear(links: &mut Links, addresses: &Addresses, wanted: impl Fn(&News) -> bool) -> News {
    loop {
        let news = links.read(addresses).unwrap();
        if wanted(&news) {
            return news;
        }
        until_announced(links);
    }
}

#[test]
fn an_estate_is_made_changed_and_taken_away() {
    in_namespaces(async |_| {
        let before = shown();
        let mut addresses = Addresses::new().unwrap();
        let mut wanted = estate(&["10.77.0.96/24", "10.99.0.1/32", "fd77::96/64", "fd99::1/128"]);
        wanted.addresses[0].label = Some("near0:vip".to_owned());
        wanted.addresses[0].broadcast = Some([10, 77, 0, 255].into());
        wanted.routes = vec![
            route("198.51.100.0/24", Some("10.77.0.2"), None),
            route("2001:db8::/32", Some("fd77::2"), Some(100)),
            route("203.0.113.0/24", None, Some(100)),
        ];
        wanted.rules = vec![Rule {
            from: Some(network("10.99.0.1/32")),
            to: None,
            iif: None,
            table: 100,
            priority: Some(1_000),
        }];
        assert_eq!(addresses.install(ROUTER, &wanted).unwrap(), Shortfall::default());
        assert_eq!(shown().len(), before.len() + 4);
        let all = ip("addr show dev near0");
        assert!(all.contains("brd 10.77.0.255 scope global secondary near0:vip"), "{all}");
        assert!(all.contains("fd99::1/128 scope global nodad deprecated"), "{all}");
        assert!(ip("route show").contains("198.51.100.0/24 via 10.77.0.2 dev near0 proto 83"));
        assert!(ip("-6 route show table 100").contains("2001:db8::/32 via fd77::2 dev near0 proto 83"));
        assert!(ip("rule show").contains("from 10.99.0.1 lookup 100 proto 83"), "{}", ip("rule show"));
        assert_eq!(addresses.verify().unwrap(), []);

        // The same again changes nothing; less takes the rest away.
        assert_eq!(addresses.install(ROUTER, &wanted).unwrap(), Shortfall::default());
        wanted.addresses.truncate(1);
        wanted.addresses[0].label = None;
        wanted.rules.clear();
        wanted.routes.truncate(1);
        assert_eq!(addresses.install(ROUTER, &wanted).unwrap(), Shortfall::default());
        assert!(shown().contains(&"10.77.0.96/24".to_owned()));
        assert!(!ip("addr show dev near0").contains("near0:vip"));
        assert!(!ip("rule show").contains("proto 83"));
        assert_eq!(addresses.verify().unwrap(), []);

        assert_eq!(addresses.install(ROUTER, &estate(&[])).unwrap(), Shortfall::default());
        assert_eq!(shown(), before);
        assert!(!ip("route show").contains("proto 83"));
    });
}

#[test]
fn what_others_put_there_is_never_removed() {
    in_namespaces(async |_| {
        ip("addr add 10.77.0.96/24 dev near0");
        let mut addresses = Addresses::new().unwrap();
        let foreign = vec!["address 10.77.0.96/24 on near0".to_owned()];
        let told = addresses.install(ROUTER, &estate(&["10.77.0.96/24"])).unwrap();
        assert_eq!(told, Shortfall { foreign, failed: Vec::new() });
        addresses.install(ROUTER, &estate(&[])).unwrap();
        assert!(shown().contains(&"10.77.0.96/24".to_owned()));
        assert_eq!(addresses.remove_leftovers(&Vrrp::default()).unwrap(), Vec::<String>::new());
        assert!(shown().contains(&"10.77.0.96/24".to_owned()));
    });
}

/// The first of a prefix was the virtual one: the host's own address stays.
#[test]
fn the_end_of_a_virtual_address_spares_others_of_its_prefix() {
    in_namespaces(async |_| {
        let mut addresses = Addresses::new().unwrap();
        addresses.install(ROUTER, &estate(&["10.88.0.96/24"])).unwrap();
        ip("addr add 10.88.0.1/24 dev near0");
        addresses.install(ROUTER, &estate(&[])).unwrap();
        assert!(shown().contains(&"10.88.0.1/24".to_owned()), "{:?}", shown());
        assert!(!shown().contains(&"10.88.0.96/24".to_owned()));
    });
}

#[test]
fn leftovers_are_known_by_their_mark() {
    in_namespaces(async |_| {
        let before = shown();
        let mut killed = Addresses::new().unwrap();
        let mut wanted = estate(&["10.77.0.96/24", "fd77::96/64"]);
        wanted.routes = vec![route("203.0.113.0/24", None, None)];
        killed.install(ROUTER, &wanted).unwrap();
        drop(killed);

        let mut next = Addresses::new().unwrap();
        let mut removed = next.remove_leftovers(&Vrrp::default()).unwrap();
        removed.sort();
        assert_eq!(removed, ["10.77.0.96/24", "a route", "fd77::96/64"]);
        assert_eq!(shown(), before);
    });
}

/// Wherever it was not taken away at the start: it is ours, not somebody else's.
#[test]
fn a_leftover_that_is_wanted_is_taken_over() {
    in_namespaces(async |_| {
        let before = shown();
        let mut wanted = estate(&["10.77.0.96/24"]);
        wanted.routes = vec![route("203.0.113.0/24", None, None)];
        Addresses::new().unwrap().install(ROUTER, &wanted).unwrap();
        let mut next = Addresses::new().unwrap();
        assert_eq!(next.install(ROUTER, &wanted).unwrap(), Shortfall::default());
        next.install(ROUTER, &estate(&[])).unwrap();
        assert_eq!(shown(), before);
        assert!(!ip("route show").contains("proto 83"));
    });
}

#[test]
fn what_cannot_be_added_is_told() {
    in_namespaces(async |_| {
        let mut addresses = Addresses::new().unwrap();
        let mut wanted = estate(&["10.77.0.96/24"]);
        wanted.addresses[0].dev = Some("none0".to_owned());
        wanted.routes = vec![route("198.51.100.0/24", Some("192.0.2.1"), None)];
        let told = addresses.install(ROUTER, &wanted).unwrap();
        assert_eq!(told.failed[0], "there is no interface none0");
        assert!(told.failed[1].starts_with("cannot add route to 198.51.100.0/24: Network is unreachable"));
    });
}

#[test]
fn a_removal_behind_our_back_is_noticed_and_our_own_is_not() {
    in_namespaces(async |_| {
        let (mut addresses, mut links) = (Addresses::new().unwrap(), Links::new().unwrap());
        links.follow(BTreeSet::from(["near0".to_owned()])).unwrap();
        let wanted = estate(&["10.77.0.96/24", "fd77::96/64"]);
        addresses.install(ROUTER, &wanted).unwrap();
        ip("addr del fd77::96/64 dev near0");
        hear(&mut links, &addresses, |news| news.suspicious);
        let lost = vec!["address fd77::96/64 on near0".to_owned()];
        assert_eq!(addresses.verify().unwrap(), [(ROUTER, lost)]);
        assert_eq!(addresses.verify().unwrap(), []);
        // It is told once, and what is left is all that is held until it is installed again.
        assert_eq!(addresses.install(ROUTER, &wanted).unwrap(), Shortfall::default());
        assert!(shown().contains(&"fd77::96/64".to_owned()));

        addresses.install(ROUTER, &estate(&[])).unwrap();
        ip("addr add 10.77.0.55/24 dev near0");
        let mut suspicious = false;
        loop {
            let news = links.read(&addresses).unwrap();
            suspicious |= news.suspicious;
            if !news.changes.is_empty() {
                break;
            }
            until_announced(&links);
        }
        assert!(!suspicious);
    });
}

#[test]
fn links_come_go_and_change() {
    in_namespaces(async |_| {
        let (addresses, mut links) = (Addresses::new().unwrap(), Links::new().unwrap());
        let names = ["near0", "later0"].map(str::to_owned);
        let first = links.follow(BTreeSet::from(names)).unwrap();
        let Change::Link(near) = &first[1] else { panic!("{first:?}") };
        assert_eq!(first[0], Change::Gone { name: "later0".to_owned(), index: None });
        let has = |link: &Link, text: &str| {
            link.addresses.iter().any(|(address, _)| *address == text.parse::<IpAddr>().unwrap())
        };
        assert!(near.is_up && has(near, "10.77.0.1") && has(near, "fd77::1"), "{near:?}");

        ip("link add later0 type veth peer name peer0");
        let is = |news: &News, test: &dyn Fn(&Link) -> bool| {
            news.changes.iter().any(|change| matches!(change, Change::Link(link) if test(link)))
        };
        hear(&mut links, &addresses, |news| is(news, &|link| link.name == "later0" && !link.is_up));
        ip("link set peer0 up");
        ip("link set later0 up");
        hear(&mut links, &addresses, |news| is(news, &|link| link.name == "later0" && link.is_up));
        ip("addr add 10.66.0.1/24 dev later0");
        hear(&mut links, &addresses, |news| is(news, &|link| has(link, "10.66.0.1")));
        ip("link set later0 down");
        hear(&mut links, &addresses, |news| is(news, &|link| !link.is_up));
        ip("link set later0 name other0");
        let gone = |news: &News| matches!(news.changes[..], [Change::Gone { index: Some(_), .. }]);
        hear(&mut links, &addresses, gone);
        ip("link set other0 name later0");
        hear(&mut links, &addresses, |news| is(news, &|link| link.name == "later0"));
        ip("link del later0");
        hear(&mut links, &addresses, gone);
    });
}

/// It keeps its addresses, and would answer for them while another node has them.
#[test]
fn an_interface_that_was_renamed_keeps_nothing_of_ours() {
    in_namespaces(async |_| {
        let mut addresses = Addresses::new().unwrap();
        addresses.install(ROUTER, &estate(&["10.77.0.96/24", "fd77::96/64"])).unwrap();
        let index = nix::net::if_::if_nametoindex("near0").unwrap();
        ip("link set near0 down");
        ip("link set near0 name other0");
        ip("link set other0 up");
        assert_eq!(addresses.forget_interface(index).unwrap(), [ROUTER]);
        let left = ip("addr show dev other0");
        assert!(left.contains("10.77.0.1/24") && !left.contains("10.77.0.96"), "{left}");
        assert!(!left.contains("fd77::96"), "{left}");
        assert_eq!(addresses.forget_interface(index).unwrap(), []);
    });
}

#[test]
fn a_device_is_made_marked_and_taken_away() {
    in_namespaces(async |_| {
        let mac = [0, 0, 0x5e, 0, 1, 51];
        let named = |name: &str| Macvlan { name: name.to_owned(), base: "near0".to_owned(), mac };
        let there = || ip("-br link show type macvlan");
        let ignore = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/near0/arp_ignore");
        let before = ignore().ok();
        let mut macvlans = Macvlans::new().unwrap();
        assert_eq!(macvlans.reconcile(&[named("vrrp.51")]).unwrap(), Vec::<String>::new());
        assert_ne!(ignore().ok(), before);
        macvlans.remove_all().unwrap();
        assert_eq!(ignore().ok(), before);
        let late = Macvlan { base: "none0".to_owned(), ..named("late.51") };
        let twice = [named("vrrp.51"), named("vrrp.51"), late];
        let told = macvlans.reconcile(&twice).unwrap();
        assert_eq!(told, ["two virtual routers want a device vrrp.51: give one a name"]);
        assert!(there().contains("vrrp.51@near0") && there().contains("00:00:5e:00:01:33"), "{}", there());
        assert!(!ip("addr show dev vrrp.51").contains("fe80"));
        // The next start removes what this one leaves, and no device of somebody else.
        drop(macvlans);
        ip("link add link near0 name vrrp.52 type macvlan");
        let mut next = Macvlans::new().unwrap();
        assert!(!there().contains("vrrp.51"), "{}", there());
        let told = next.reconcile(&[named("vrrp.52"), named("vrrp.53")]).unwrap();
        assert!(told[0].contains("there is one that is not ours"), "{told:?}");
        assert!(there().contains("vrrp.53"));
        next.remove_all().unwrap();
        assert!(there().contains("vrrp.52") && !there().contains("vrrp.53"), "{}", there());
    });
}
