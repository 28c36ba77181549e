//! ICMP errors of our own: what is too long for the way, or too old; what is never answered, and how often.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::{
    counter::Counter::{
        self, AnswerNoServer, AnswerTooBig, AnswerTtl, DropNoServer, DropTooBig, DropTtl, ResetNoServer,
    },
    entry::Mode,
    flow::Ticks,
    slot::{ServerId, Slot},
};
use lb_user::pure::config::network::Family;

use super::{
    Case,
    expected::{expired, too_big, unreachable},
    host::ANSWERS_PER_TICK,
    modes::Way,
    nat::answer,
    packet::{Datagram, Extension, Fragment, Transport},
    refused::refusal,
    shape::{ack, syn, tcp, udp},
    world::{BACK, FRONT, MTU, World},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups = [long(now), old(now), never(now), budget(now), replies(now)];
    groups.into_iter().flatten().collect()
}

/// Longer than what a server's way takes.
fn long(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let empty = tcp(&[], |header| header.ack = true).of(way.vip);
        let overhead = way.sent(&empty, now).bytes().len() - empty.bytes().len();
        let room = usize::from(MTU) - overhead;
        let sized = |more: usize| {
            let payload = room + more - usize::from(empty.total_length());
            Datagram { payload: vec![0x11; payload], ..empty.clone() }
        };
        let answered = |what: &str, packet: &Datagram| {
            Case::new(&format!("{}: {what}", way.name()), way.known(packet, now), packet).leaves(
                FRONT,
                AnswerTooBig,
                &too_big(packet, room as u32),
            )
        };
        cases.push(way.forwards("just short enough", way.known(&sized(0), now), &sized(0), now));
        cases.push(answered("one byte too long", &sized(1)));
        cases.push(answered("a jumbo frame too long", &sized(6_000)));
        cases.push(answered("too long with a tag", &sized(9).tagged(&[7])));
        let open = Datagram { dont_fragment: false, ..sized(1) };
        cases.push(match way.vip {
            // Nobody here fragments: the sender has to know.
            Family::V4 => answered("one byte too long, and may be fragmented", &open),
            Family::V6 => answered(
                "one byte too long, in an atomic fragment",
                &Datagram { fragment: Fragment::Atomic, payload: sized(0).payload, ..open },
            ),
        });
        let datagram = Datagram { payload: vec![1; room], ..udp(&[]).of(way.vip) };
        cases.push(answered("a datagram too long", &datagram));
    }
    cases
}

/// What expires here is told to its sender, with as much as names the flow.
fn old(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let shapes: Vec<(&str, Datagram)> = match way.vip {
            Family::V4 => vec![("options", Datagram { options: vec![1; 40], ..ack() })],
            Family::V6 => vec![
                ("extension headers", Datagram { extensions: vec![Extension::options(60, 2)], ..ack() }),
                (
                    "more headers than are quoted",
                    Datagram { extensions: vec![Extension::options(60, 20)], ..ack() },
                ),
                ("an atomic fragment", Datagram { fragment: Fragment::Atomic, ..ack() }),
            ],
        };
        let common = [
            ("an empty datagram", udp(&[])),
            ("a SYN", syn()),
            ("a jumbo frame", tcp(&[1; 8_000], |header| header.ack = true)),
            ("a padded frame", tcp(&[], |header| header.ack = true).padded()),
            ("a code point", Datagram { traffic_class: 0xb8, ..ack() }),
        ];
        for (name, packet) in common.into_iter().chain(shapes) {
            let packet = Datagram { ttl: 1, ..packet.of(way.vip) };
            let name = format!("{}: too old, {name}", way.name());
            cases.push(Case::new(&name, way.world(now), &packet).leaves(FRONT, AnswerTtl, &expired(&packet)));
        }
        let jumbo = tcp(&[1; 8_000], |header| header.ack = true).of(way.vip);
        let none = way.world(now).slots(Slot::settled(ServerId::NONE));
        if way.mode != Mode::Nat {
            let name = format!("{}: a jumbo frame refused", way.name());
            cases.push(Case::new(&name, none, &jumbo).leaves(FRONT, ResetNoServer, &refusal(&jumbo)));
        }
    }
    cases
}

/// About whom no error is sent.
fn never(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let old = Datagram { ttl: 1, ..udp(b"query").of(way.vip) };
        let long = Datagram { payload: vec![1; 1_500], ..udp(&[]).of(way.vip) };
        let from = |packet: &Datagram, source| Datagram { source, ..packet.clone() };
        for source in crowds(way.vip) {
            let case = |what: &str, world: World, packet: &Datagram, counter| {
                let name = format!("{}: {what} of {}, not answered", way.name(), packet.source.ip());
                Case::new(&name, world, packet).drops(counter)
            };
            let none = way.world(now).slots(Slot::settled(ServerId::NONE));
            cases.push(case("an old packet", way.world(now), &from(&old, source), DropTtl));
            cases.push(case(
                "a query without a server",
                none,
                &from(&udp(b"x").of(way.vip), source),
                DropNoServer,
            ));
            if !way.mode.rewrites() {
                cases.push(case("a long packet", way.world(now), &from(&long, source), DropTooBig));
            }
        }
        for (what, packet, counter) in
            [("an old packet", &old, DropTtl), ("a long packet", &long, DropTooBig)]
        {
            let packet = Datagram { from: [3, 0, 0, 0, 0, 1], ..packet.clone() };
            let pair = way.pair(&packet, now);
            let pair = super::world::Pair {
                request: super::world::Half { peer_mac: packet.from, ..pair.request },
                reply: super::world::Half { peer_mac: packet.from, ..pair.reply },
                ..pair
            };
            let world = if way.mode.rewrites() { way.world(now).pair(pair) } else { way.world(now) };
            let name = format!("{}: {what} from a group's MAC, not answered", way.name());
            cases.push(Case::new(&name, world, &packet).drops(counter));
        }
    }
    cases
}

/// Addresses that are nobody's or many's.
fn crowds(family: Family) -> Vec<SocketAddr> {
    let v4 = |octets: [u8; 4]| IpAddr::V4(Ipv4Addr::from(octets));
    let v6 = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().expect("an address"));
    let addresses = match family {
        Family::V4 => {
            vec![v4([0; 4]), v4([0, 1, 2, 3]), v4([224, 0, 0, 1]), v4([239, 1, 2, 3]), v4([255; 4])]
        }
        Family::V6 => vec![v6("::"), v6("ff02::1"), v6("ff0e::1234")],
    };
    addresses.into_iter().map(|address| SocketAddr::new(address, 40_000)).collect()
}

/// Only so many errors in a moment; a RST and an echo are no errors.
fn budget(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let old = Datagram { ttl: 1, ..udp(b"query").of(way.vip) };
        let long = tcp(&[1; 1_460], |header| header.ack = true).of(way.vip);
        let long = Datagram { payload: vec![1; 1_461], ..long };
        let query = udp(b"query").of(way.vip);
        let none = |world: World| world.slots(Slot::settled(ServerId::NONE));
        let overhead = way.sent(&query, now).bytes().len() - query.bytes().len();
        let mtu = u32::from(MTU) - overhead as u32;
        let table: [(&str, World, Datagram, Datagram, Counter, Counter); 3] = [
            ("an old packet", way.world(now), old.clone(), expired(&old), AnswerTtl, DropTtl),
            (
                "a long packet",
                way.known(&long, now),
                long.clone(),
                too_big(&long, mtu),
                AnswerTooBig,
                DropTooBig,
            ),
            (
                "no server",
                none(way.world(now)),
                query.clone(),
                unreachable(&query),
                AnswerNoServer,
                DropNoServer,
            ),
        ];
        for (what, world, packet, answer, answered, dropped) in table {
            let at = |count| World { answered: count, ..world.clone() };
            let name = |which: &str| format!("{}: {what}, {which}", way.name());
            cases.push(
                Case::new(&name("the last that is answered"), at(ANSWERS_PER_TICK - 1), &packet)
                    .leaves(FRONT, answered, &answer),
            );
            cases.push(Case::new(&name("one answer too many"), at(ANSWERS_PER_TICK), &packet).drops(dropped));
        }
    }
    let refused = World { answered: ANSWERS_PER_TICK, ..World::new(Mode::Dsr, now) };
    cases.push(
        Case::new("a RST is no ICMP error", refused.slots(Slot::settled(ServerId::NONE)), &syn()).leaves(
            FRONT,
            ResetNoServer,
            &refusal(&syn()),
        ),
    );
    cases
}

/// Replies that expire here are told to the server, in the name of the address it answered: with `gateway` that is the
/// client's, and nothing is said.
fn replies(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all().into_iter().filter(|way| way.mode.rewrites()) {
        for (name, packet) in [
            ("tcp", ack()),
            ("udp", udp(b"answer")),
            ("no udp checksum", Datagram { transport: Transport::UdpWithoutChecksum, ..udp(b"x") }),
        ] {
            let packet = packet.of(way.vip);
            let pair = way.pair(&packet, now);
            let (sent, _) = answer(&packet, &pair);
            let old = Datagram { ttl: 1, ..sent };
            let name = format!("{}, reply: too old, {name}", way.name());
            let case = Case::new(&name, way.world(now).pair(pair), &old).from(BACK);
            cases.push(match way.mode {
                Mode::Gateway => case.drops(DropTtl),
                _ => case.leaves(BACK, AnswerTtl, &expired(&old)),
            });
        }
    }
    cases
}
