//! Fragments: the later ones of a datagram follow the first, which alone has the ports.

use lb_common::fragment::{FRAGMENT_TICKS, FragmentEntry, FragmentKey};
use lb_common::{
    counter::Counter::{
        AnswerTooBig, DropFragment, DropMalformed, DropTooBig, DropTtl, ForwardGatewayReply, ForwardNatReply,
        PassFragment, PassNoService,
    },
    entry::Mode,
    flow::Ticks,
    net::{Be16, Be32, Be128},
};
use lb_user::pure::config::network::Family;
use std::net::SocketAddr;

use super::{
    Case,
    expected::too_big,
    modes::Way,
    nat::answer,
    packet::{Datagram, Extension, Fragment, Transport},
    shape::{ack, tcp, udp},
    world::{BACK, FRONT, MTU, World, ago},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups = [followed(now), lost(now), nobodys(now), replies(now), answered(now), malformed(now)];
    groups.into_iter().flatten().collect()
}

/// Bytes of the payload that the first fragment carries.
const FIRST: usize = 64;

fn whole(transport: &Datagram) -> Datagram {
    Datagram { payload: (0..200).collect(), dont_fragment: false, ..transport.clone() }
}

fn first(packet: &Datagram) -> Datagram {
    Datagram { fragment: Fragment::First(FIRST), ..whole(packet) }
}

/// What follows the first.
fn later(packet: &Datagram) -> Datagram {
    let header = first(packet).packet().len() - first(packet).header_length() - FIRST;
    let offset = (header + FIRST) / 8;
    Datagram {
        fragment: Fragment::Later(offset as u16),
        transport: Transport::Rest(packet.protocol()),
        payload: whole(packet).payload[FIRST..].to_vec(),
        ..whole(packet)
    }
}

/// What is kept of a first fragment.
pub(super) fn kept(packet: &Datagram, seen: Ticks) -> (FragmentKey, FragmentEntry) {
    let id = match packet.source {
        SocketAddr::V4(_) => Be16::new(packet.identification as u16).0.into(),
        SocketAddr::V6(_) => Be32::new(packet.identification).0,
    };
    let key = FragmentKey {
        source: Be128::from_ip(packet.source.ip()).0,
        destination: Be128::from_ip(packet.destination.ip()).0,
        id,
        protocol: packet.protocol().into(),
    };
    let (source, destination) = (packet.source.port(), packet.destination.port());
    (key, FragmentEntry { source_port: Be16::new(source), destination_port: Be16::new(destination), seen })
}

/// Tcp and udp; a header with ten words, so that both end at a multiple of eight bytes.
fn shapes() -> [(&'static str, Datagram); 2] {
    let tcp = tcp(&[], |header| {
        header.ack = true;
        header.set_options_raw(&[1; 20]).expect("twenty bytes of options fit a header");
    });
    [("tcp", tcp), ("udp", udp(&[]))]
}

fn with(mut world: World, fragment: (FragmentKey, FragmentEntry)) -> World {
    world.fragments.push(fragment);
    world
}

fn followed(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        for (name, packet) in shapes() {
            let packet = Datagram { identification: 0xbeef, ..packet.of(way.vip) };
            let (first, later) = (first(&packet), later(&packet));
            let world = || way.known(&whole(&packet), now);
            let mut begun = way.forwards(&format!("the first fragment of {name}"), world(), &first, now);
            begun.expected.fragments.extend([kept(&first, now)]);
            let again = with(world(), kept(&first, ago(now, 7)));
            let mut again = way.forwards(&format!("the first fragment of {name} again"), again, &first, now);
            again.expected.fragments.extend([kept(&first, now)]);
            cases.extend([begun, again]);
            let rest = [
                ("a later fragment", later.clone(), 0),
                ("a later fragment of a moment ago", later.clone(), 3),
                ("a later fragment at its last tick", later.clone(), FRAGMENT_TICKS - 1),
                (
                    "the last fragment there can be",
                    Datagram { fragment: Fragment::Later(8_190), payload: vec![7], ..later.clone() },
                    0,
                ),
                (
                    "a later fragment in a padded frame",
                    Datagram { payload: vec![9; 8], ..later.clone() }.padded(),
                    0,
                ),
                ("a later fragment with a tag", later.tagged(&[0x2007]), 0),
            ];
            for (which, part, age) in rest {
                let world = match way.mode.rewrites() {
                    true => way.world(now).pair(way.pair(&part, now)),
                    false => way.world(now),
                };
                let world = with(world, kept(&first, ago(now, age)));
                cases.push(way.forwards(&format!("{which} of {name}"), world, &part, now));
            }
        }
    }
    cases
}

/// For a service, but of no datagram that is known.
fn lost(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let packet = Datagram { identification: 0xbeef, ..udp(&[]).of(way.vip) };
        let (first, later) = (first(&packet), later(&packet));
        let stranger = SocketAddr::new(super::world::peer(way.first()).target.ip(), 1);
        let other_client = match (stranger.ip(), packet.source.ip()) {
            (a, b) if a.is_ipv4() == b.is_ipv4() => stranger,
            _ => packet.destination,
        };
        let table = [
            ("before the first", None),
            ("after its time", Some(kept(&first, ago(now, FRAGMENT_TICKS)))),
            ("of another id", Some(kept(&Datagram { identification: 0xbeee, ..first.clone() }, now))),
            (
                "of another protocol",
                Some(kept(
                    &Datagram { destination: first.destination, ..self::first(&ack().of(way.vip)) },
                    now,
                )),
            ),
            ("of another client", Some(kept(&Datagram { source: other_client, ..first.clone() }, now))),
        ];
        for (name, fragment) in table {
            let world = match fragment {
                Some(fragment) => with(way.world(now), fragment),
                None => way.world(now),
            };
            let name = format!("{}: a later fragment {name}", way.name());
            cases.push(Case::new(&name, world, &later).drops(DropFragment));
        }
    }
    cases
}

/// Not for a service: passed, and nothing is kept.
fn nobodys(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for family in Family::ALL {
        let packet = udp(&[]).of(family);
        let elsewhere = super::world::peer(super::world::ends(family).servers[0]).target;
        let packet = Datagram { destination: elsewhere, ..packet };
        let name = |what: &str| format!("fragments over {}: {what}", family.name());
        let dsr = || World::new(Mode::Dsr, now);
        let other_port = Datagram {
            destination: SocketAddr::new(udp(&[]).of(family).destination.ip(), 54),
            ..packet.clone()
        };
        let mut stray = Case::new(&name("the first, to a port of no service"), dsr(), &first(&other_port))
            .passes(PassNoService);
        stray.expected.fragments.extend([kept(&first(&other_port), now)]);
        cases.extend([
            Case::new(&name("the first, to nobody"), dsr(), &first(&packet)).passes(PassNoService),
            Case::new(&name("a later one, to nobody"), dsr(), &later(&packet)).passes(PassFragment),
            stray,
            Case::new(&name("a later one, without any service"), dsr().bare(), &later(&packet))
                .passes(PassFragment),
            Case::new(
                &name("a later one of a datagram to no service"),
                with(dsr(), kept(&first(&other_port), now)),
                &later(&other_port),
            )
            .passes(PassNoService),
        ]);
    }
    cases
}

/// The server's answer in parts.
fn replies(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all().into_iter().filter(|way| way.mode.rewrites()) {
        let counter = if way.mode == Mode::Nat { ForwardNatReply } else { ForwardGatewayReply };
        for (name, packet) in shapes() {
            let packet = Datagram { identification: 77, ..packet.of(way.vip) };
            let pair = way.pair(&packet, now);
            let (first, first_got) = answer(&first(&packet), &pair);
            let (later, later_got) = answer(&later(&packet), &pair);
            let world = || way.world(now).pair(pair);
            let what = |which: &str| format!("{}, reply: {which} of {name}", way.name());
            let mut begun = Case::new(&what("the first fragment"), world(), &first)
                .from(BACK)
                .leaves(FRONT, counter, &first_got);
            begun.expected.fragments.extend([kept(&first, now)]);
            cases.push(begun);
            cases.push(
                Case::new(&what("a later fragment"), with(world(), kept(&first, now)), &later)
                    .from(BACK)
                    .leaves(FRONT, counter, &later_got),
            );
            cases.push(
                Case::new(&what("a later fragment before the first"), world(), &later)
                    .from(BACK)
                    .passes(PassFragment),
            );
        }
    }
    cases
}

/// Errors are about first fragments alone (RFC 1122, section 3.2.2; RFC 4443 knows no such rule, and nobody needs two).
fn answered(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let packet = Datagram { dont_fragment: true, ..udp(&[]).of(way.vip) };
        let long = |packet: Datagram| Datagram { payload: vec![1; 1_520], dont_fragment: true, ..packet };
        let first = Datagram { fragment: Fragment::First(1_496), ..long(first(&packet)) };
        let later = long(later(&packet));
        let empty = udp(&[]).of(way.vip);
        let overhead = way.sent(&empty, now).bytes().len() - empty.bytes().len();
        let world = || match way.mode.rewrites() {
            true => way.world(now).pair(way.pair(&packet, now)),
            false => way.world(now),
        };
        let mut told = Case::new(&format!("{}: the first fragment is too long", way.name()), world(), &first)
            .leaves(FRONT, AnswerTooBig, &too_big(&first, u32::from(MTU) - overhead as u32));
        told.expected.fragments.extend([kept(&first, now)]);
        cases.push(told);
        cases.push(
            Case::new(
                &format!("{}: a later fragment is too long, not answered", way.name()),
                with(world(), kept(&first, now)),
                &later,
            )
            .drops(DropTooBig),
        );
        let old = Datagram { ttl: 1, ..self::later(&packet) };
        cases.push(
            Case::new(
                &format!("{}: a later fragment is too old, not answered", way.name()),
                with(way.world(now), kept(&first, now)),
                &old,
            )
            .drops(DropTtl),
        );
    }
    cases
}

/// Fragments that no datagram is made of.
fn malformed(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let web = Datagram { payload: vec![0x55; 64], ..shapes()[0].1.clone().of(way.vip) };
        // A first fragment that ends within its TCP header (RFC 1858); the frame goes on.
        let part = Datagram { fragment: Fragment::First(0), ..web.clone() };
        for length in [8, 16] {
            let mut tiny = part.bytes();
            let header = part.header_length();
            match way.vip {
                Family::V4 => tiny[16..18].copy_from_slice(&(header as u16 + length).to_be_bytes()),
                Family::V6 => tiny[18..20].copy_from_slice(&(header as u16 - 40 + length).to_be_bytes()),
            }
            let mut case = Case::bytes(
                &format!("{}: a first fragment of {length} bytes of tcp", way.name()),
                way.world(now),
                tiny,
            )
            .drops(DropMalformed);
            case.expected.fragments.extend([kept(&web, now)]);
            cases.push(case);
        }
        let later = later(&udp(&[]).of(way.vip));
        let mut short = later.bytes();
        match way.vip {
            Family::V4 => short[16..18].copy_from_slice(&19u16.to_be_bytes()),
            Family::V6 => short[18..20].copy_from_slice(&7u16.to_be_bytes()),
        }
        let known = with(way.world(now), kept(&later, now));
        let name = format!("{}: a later fragment shorter than its headers", way.name());
        cases.push(Case::bytes(&name, known.clone(), short).drops(DropMalformed));
        let mut cut = later.bytes();
        cut.pop();
        let name = format!("{}: a later fragment longer than its frame", way.name());
        cases.push(Case::bytes(&name, known, cut).drops(DropMalformed));
        if way.vip == Family::V6 {
            let mut hidden = first(&udp(&[]).of(way.vip));
            hidden.transport = Transport::Rest(60);
            hidden.payload = vec![17; 200];
            let name = format!("{}: options behind a fragment header, passed", way.name());
            cases.push(
                Case::new(&name, way.world(now), &hidden).passes(lb_common::counter::Counter::PassProtocol),
            );
            let many = Datagram {
                extensions: (0..5).map(|_| Extension::options(60, 1)).collect(),
                ..first(&udp(&[]).of(way.vip))
            };
            let mut case = way.forwards(
                "a first fragment behind as many headers as are walked over",
                way.known(&many, now),
                &many,
                now,
            );
            case.expected.fragments.extend([kept(&many, now)]);
            cases.push(case);
        }
    }
    cases
}
