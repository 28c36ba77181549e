//! Services that are found by network, range of ports and protocol.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    counter::Counter::{ForwardGatewayReply, ForwardNatReply, PassNoService},
    entry::{Mode, Rule, Service},
    flow::Ticks,
    limits::WILDCARD_RULES_MAX,
    net::{TCP, UDP},
    slot::{ServerId, Slot},
};
use lb_user::pure::config::network::{Family, Network};

use super::{
    Case,
    modes::Way,
    nat::answer,
    packet::{Datagram, Extension, Fragment},
    shape::{ack, syn, udp},
    world::{BACK, BACK_MAC, FRONT, Pair, SERVICE, World, ends, peer},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        cases.extend(found(way, now));
        cases.extend(absent(way, now));
        cases.extend(shapes(way, now));
        cases.extend(preferred(way, now));
        if way.mode.rewrites() {
            cases.extend(replies(way, now));
        }
    }
    cases
}

/// The service of the way's ring, as a rule.
fn rule(way: Way, now: Ticks, protocol: u8, ports: (u16, u16)) -> Rule {
    Rule { protocol, first: ports.0, last: ports.1, service: way.world(now).web(way.vip) }
}

fn around(way: Way, less: u8) -> Network {
    let vip = ends(way.vip).web.ip();
    Network::around(vip, Family::of(vip).bits() - less).expect("shorter than an address")
}

/// No service by address and port but these rules, on the way's world.
fn world(way: Way, now: Ticks, rules: &[(Network, Vec<Rule>)]) -> World {
    rules.iter().fold(way.world(now).bare(), |world, (network, rules)| world.rules(*network, rules))
}

fn found(way: Way, now: Ticks) -> Vec<Case> {
    let rule = |protocol, ports| rule(way, now, protocol, ports);
    let any = || vec![rule(TCP, (1, u16::MAX)), rule(UDP, (1, u16::MAX))];
    let whole = Network::around(ends(way.vip).web.ip(), 0).expect("the whole family");
    let table = [
        ("an address, any port", vec![(around(way, 0), any())]),
        ("an address, one port", vec![(around(way, 0), vec![rule(TCP, (80, 80)), rule(UDP, (53, 53))])]),
        ("at the start of a range", vec![(around(way, 0), vec![rule(TCP, (80, 90)), rule(UDP, (53, 60))])]),
        ("at the end of a range", vec![(around(way, 0), vec![rule(TCP, (1, 80)), rule(UDP, (1, 53))])]),
        ("a network", vec![(around(way, 8), any())]),
        ("a network of odd length", vec![(around(way, 13), any())]),
        ("every address", vec![(whole, any())]),
    ];
    let mut cases = Vec::new();
    for (name, rules) in table {
        for (what, packet) in [("a SYN", syn()), ("a datagram", udp(b"query"))] {
            let packet = packet.of(way.vip);
            let world = known(way, world(way, now, &rules), &packet, now);
            cases.push(way.forwards(&format!("wildcard: {name}, {what}"), world, &packet, now));
        }
    }
    let full: Vec<Rule> = (1..=WILDCARD_RULES_MAX as u16)
        .map(|number| {
            if usize::from(number) == WILDCARD_RULES_MAX {
                rule(TCP, (80, 80))
            } else {
                rule(TCP, (number, number))
            }
        })
        .collect();
    let packet = syn().of(way.vip);
    cases.push(way.forwards(
        "wildcard: the last of all rules",
        world(way, now, &[(around(way, 4), full)]),
        &packet,
        now,
    ));
    cases
}

fn known(way: Way, world: World, packet: &Datagram, now: Ticks) -> World {
    if way.mode.rewrites() && !packet.is_syn() { world.pair(way.pair(packet, now)) } else { world }
}

fn absent(way: Way, now: Ticks) -> Vec<Case> {
    let rule = |protocol, ports| rule(way, now, protocol, ports);
    let any = || vec![rule(TCP, (1, u16::MAX)), rule(UDP, (1, u16::MAX))];
    let beside = match ends(way.vip).web.ip() {
        IpAddr::V4(ip) => Network::host(IpAddr::V4((ip.to_bits() ^ 1).into())),
        IpAddr::V6(ip) => Network::host(IpAddr::V6((ip.to_bits() ^ 1).into())),
    };
    let other = if way.vip == Family::V4 { Family::V6 } else { Family::V4 };
    let table = [
        ("another address", vec![(beside, any())]),
        ("another protocol", vec![(around(way, 0), vec![rule(UDP, (1, u16::MAX))])]),
        ("below the range", vec![(around(way, 0), vec![rule(TCP, (81, 90))])]),
        ("above the range", vec![(around(way, 0), vec![rule(TCP, (70, 79))])]),
        ("no rule at all", vec![(around(way, 0), vec![])]),
        ("a network of the other family", vec![(Network::host(ends(other).web.ip()), any())]),
        (
            "the longest network decides, though a shorter one has the port",
            vec![(around(way, 8), any()), (around(way, 0), vec![rule(TCP, (81, 81))])],
        ),
    ];
    let cases = table.into_iter().map(|(name, rules)| {
        let name = format!("{}: wildcard: {name}", way.name());
        Case::new(&name, world(way, now, &rules), &syn().of(way.vip)).passes(PassNoService)
    });
    cases.collect()
}

/// Packets of other shapes find them as well.
fn shapes(way: Way, now: Ticks) -> Vec<Case> {
    let rules =
        [(around(way, 8), vec![rule(way, now, TCP, (1, u16::MAX)), rule(way, now, UDP, (1, u16::MAX))])];
    let shape = match way.vip {
        Family::V4 => ("ip options", Datagram { options: vec![1; 8], ..ack() }),
        Family::V6 => {
            ("extension headers", Datagram { extensions: vec![Extension::options(60, 1)], ..ack() })
        }
    };
    let table = [
        ("a tag", ack().tagged(&[8])),
        ("a padded frame", Datagram { payload: vec![], ..ack() }.padded()),
        shape,
    ];
    let cases = table.into_iter().map(|(name, packet)| {
        let packet = packet.of(way.vip);
        let world = known(way, world(way, now, &rules), &packet, now);
        way.forwards(&format!("wildcard: with {name}"), world, &packet, now)
    });
    let mut cases: Vec<Case> = cases.collect();
    let first = Datagram {
        fragment: Fragment::First(8),
        dont_fragment: false,
        payload: vec![1; 32],
        ..udp(&[]).of(way.vip)
    };
    let mut part = way.forwards(
        "wildcard: the first fragment",
        known(way, world(way, now, &rules), &first, now),
        &first,
        now,
    );
    part.expected.fragments.extend([super::fragments::kept(&first, now)]);
    cases.push(part);
    cases
}

/// An exact service beats a wildcard, and of wildcards the most specific one wins: its ring names the second server.
fn preferred(way: Way, now: Ticks) -> Vec<Case> {
    let [_, second] = ends(way.server).servers;
    let special = Service { id: 2, ring_base: SPECIAL, ..way.world(now).web(way.vip) };
    let special = |world: World| {
        let mut world = world;
        let ring = vec![Slot::settled(second); SERVICE.ring_mask as usize + 1];
        world.tables.rings.insert(SPECIAL, std::sync::Arc::new(ring));
        (world, special)
    };
    let general = rule(way, now, TCP, (1, u16::MAX));
    let packet = syn().of(way.vip);
    let (exact, service) = special(way.world(now));
    let mut exact = exact.rules(around(way, 8), &[general]);
    exact.tables.services.insert(super::world::key(packet.destination, TCP), service);
    let (nested, service) = special(world(way, now, &[(around(way, 8), vec![general])]));
    let nested = nested.rules(around(way, 1), &[Rule { service, ..general }]);
    let (ranges, service) = special(world(way, now, &[]));
    let narrow = Rule { first: 80, last: 81, service, ..general };
    let ranges = ranges.rules(around(way, 8), &[narrow, general]);
    [
        ("an exact service first", exact),
        ("the longest network first", nested),
        ("the first rule that matches", ranges),
    ]
    .into_iter()
    .map(|(name, world)| sent_to(way, &format!("wildcard: {name}"), world, &packet, second, now))
    .collect()
}

const SPECIAL: u32 = 5 * (SERVICE.ring_mask + 1);

/// As `Way::forwards`, to another server.
fn sent_to(way: Way, what: &str, world: World, packet: &Datagram, server: ServerId, now: Ticks) -> Case {
    let pair = Pair { server, target: peer(server).target, ..way.pair(packet, now) };
    let sent = match way.mode.rewrites() {
        true => packet.ends(pair.nat, pair.target).hop(peer(server).mac, BACK_MAC),
        false => super::expected::delivered(packet, way.mode, server),
    };
    let case = Case::new(&format!("{}: {what}", way.name()), world, packet)
        .leaves(BACK, way.counter(), &sent)
        .serves(server, packet.is_syn().into());
    if way.mode.rewrites() { case.records(pair.records()) } else { case }
}

/// A network that holds a NAT source, or a gateway's clients, does not swallow answers.
fn replies(way: Way, now: Ticks) -> Vec<Case> {
    let counter = if way.mode == Mode::Nat { ForwardNatReply } else { ForwardGatewayReply };
    let mut cases = Vec::new();
    for (what, packet) in [("tcp", ack()), ("udp", udp(b"answer"))] {
        let packet = packet.of(way.vip);
        let pair = way.pair(&packet, now);
        let (sent, got) = answer(&packet, &pair);
        let everything = Network::around(sent.destination.ip(), 0).expect("the whole family");
        let rules = [rule(way, now, TCP, (1, u16::MAX)), rule(way, now, UDP, (1, u16::MAX))];
        let world = || way.world(now).rules(everything, &rules);
        cases.push(
            Case::new(&format!("{}, reply: {what} under a wildcard", way.name()), world().pair(pair), &sent)
                .from(BACK)
                .leaves(FRONT, counter, &got),
        );
    }
    let packet = syn().of(way.vip);
    let pair = way.pair(&packet, now);
    let stray = packet.ends(pair.target, SocketAddr::new(pair.nat.ip(), 9_000));
    let everything = Network::around(stray.destination.ip(), 0).expect("the whole family");
    let world = way.world(now).rules(everything, &[rule(way, now, TCP, (1, u16::MAX))]);
    let vip = stray.destination;
    let opened = Pair { vip, client: stray.source, ..super::nat::pair(way.first(), vip, now) };
    let opened = Pair {
        nat: if way.mode == Mode::Nat { super::nat::candidate(stray.source, vip, 0) } else { stray.source },
        ..opened
    }
    .opening();
    cases.push(
        Case::new(&format!("{}: a request to a NAT source under a wildcard", way.name()), world, &stray)
            .leaves(BACK, way.counter(), &super::nat::translated(&stray, &opened))
            .serves(way.first(), 1)
            .records(opened.records()),
    );
    cases
}
