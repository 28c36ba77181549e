//! ICMP errors about flows: they reach that flow's server, or its client, whatever quotes them.

use std::net::SocketAddr;

use lb_common::{
    counter::Counter::{
        self, DropNoServer, DropTooBig, DropTtl, DropUnresolved, ForwardIcmp, ForwardIcmpReply, PassIcmp,
        PassTruncated,
    },
    entry::{Mode, Rule, Scheduler},
    flow::Ticks,
    net::{TCP, UDP},
    slot::{ServerId, Slot},
};
use lb_user::pure::config::network::{Family, Network};

use super::{
    Case,
    expected::{self, entropy},
    modes::Way,
    packet::{Datagram, Extension, Fragment, Icmp, Outer, Transport},
    shape::{ack, tcp, udp},
    world::{
        BACK, BACK_MAC, FRONT, MTU, Pair, SERVICE, TCP_IDLE, World, ago, ends, flow_key, peer, record, v4, v6,
    },
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups = [
        direct(now),
        chosen(now),
        rewritten(now),
        contradictory(now),
        replied(now),
        passed(now),
        dropped(now),
        wildcards(now),
        cut(now),
    ];
    groups.into_iter().flatten().collect()
}

/// Who noticed: a router between the client and us, or between us and the servers.
fn router(family: Family) -> SocketAddr {
    match family {
        Family::V4 => v4([198, 51, 100, 254], 0),
        Family::V6 => v6(0xffff, 1, 0),
    }
}

/// Kinds and codes of errors.
fn kinds(family: Family) -> Vec<Icmp> {
    let error = |(kind, code, rest)| Icmp { kind, code, rest };
    let table: &[(u8, u8, u32)] = match family {
        Family::V4 => &[
            (3, 0, 0),
            (3, 1, 0),
            (3, 3, 0),
            (3, 4, 1_280),
            (3, 13, 0),
            (11, 0, 0),
            (11, 1, 0),
            (12, 0, 9 << 24),
        ],
        Family::V6 => &[(1, 0, 0), (1, 4, 0), (2, 0, 1_280), (3, 0, 0), (3, 1, 0), (4, 1, 40)],
    };
    table.iter().copied().map(error).collect()
}

/// How much of the packet is quoted behind its IP header.
#[derive(Clone, Copy)]
enum Quote {
    Bytes(usize),
    All,
}

/// An error about `about`, sent by a router to whoever sent that.
fn error(about: &Datagram, icmp: Icmp, quote: Quote) -> Datagram {
    let mut payload = about.packet();
    if let Quote::Bytes(bytes) = quote {
        payload.truncate(about.header_length() + bytes);
    }
    Datagram {
        source: router(Family::of(about.source.ip())),
        destination: about.source,
        ttl: 63,
        transport: Transport::Icmp(icmp),
        payload,
        dont_fragment: false,
        identification: 0x77,
        ..udp(&[])
    }
}

/// The error with other ends, about a packet with other ends, whose transport checksum stays where it is not known.
fn readdressed(
    error: &Datagram,
    about: &Datagram,
    changed: &Datagram,
    ends: (SocketAddr, SocketAddr),
) -> Datagram {
    let (old, mut payload) = (about.packet(), changed.packet());
    payload.truncate(error.payload.len());
    if let Transport::Tcp(_) = about.transport {
        let checksum = about.header_length() + 16..about.header_length() + 18;
        if payload.len() >= checksum.end {
            payload[checksum.clone()].copy_from_slice(&old[checksum]);
        }
    }
    Datagram { payload, ..error.ends(ends.0, ends.1) }
}

/// From the service back to the client, as the client's side has it.
fn answers(family: Family) -> [(&'static str, Datagram); 4] {
    let back = |packet: Datagram| {
        let packet = packet.of(family);
        Datagram { ttl: 3, ..packet.ends(packet.destination, packet.source) }
    };
    [
        ("tcp", back(ack())),
        ("a SYN and ACK", back(tcp(&[], |header| (header.syn, header.ack) = (true, true)))),
        ("udp", back(udp(b"answer"))),
        (
            "udp without checksum",
            back(Datagram { transport: Transport::UdpWithoutChecksum, ..udp(b"answer") }),
        ),
    ]
}

const QUOTES: [(&str, Quote); 4] = [
    ("8 bytes", Quote::Bytes(8)),
    ("4 bytes", Quote::Bytes(4)),
    ("20 bytes", Quote::Bytes(20)),
    ("all", Quote::All),
];

/// The error as the next hop of a server gets it, in a mode that keeps the ends. `about`: as quoted.
fn delivered(error: &Datagram, about: &Datagram, mode: Mode, server: ServerId) -> Datagram {
    let sent = expected::delivered(error, mode, server);
    let port = entropy(expected::hash(about.destination, about.source));
    let outer = sent.outer.map(|outer| Outer { gue_port: outer.gue_port.map(|_| port), ..outer });
    Datagram { outer, ..sent }
}

fn is_direct(way: &Way) -> bool {
    !way.mode.rewrites()
}

fn direct(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all().into_iter().filter(is_direct) {
        for (what, about) in answers(way.vip) {
            for (name, quote) in QUOTES {
                let error = error(&about, kinds(way.vip)[0], quote);
                cases.push(reaches(
                    way,
                    &format!("{what}, {name} quoted"),
                    way.world(now),
                    (&error, &about),
                    way.first(),
                ));
            }
        }
        let [(_, about), ..] = answers(way.vip);
        for icmp in kinds(way.vip) {
            let error = error(&about, icmp, Quote::Bytes(8));
            let what = format!("type {} code {}", icmp.kind, icmp.code);
            cases.push(reaches(way, &what, way.world(now), (&error, &about), way.first()));
        }
        let told = error(&about, kinds(way.vip)[0], Quote::Bytes(8));
        let padded = error(&about, kinds(way.vip)[0], Quote::Bytes(8)).padded();
        cases.push(reaches(way, "in a padded frame", way.world(now), (&padded, &about), way.first()));
        let old = Datagram { ttl: 2, ..told.clone() };
        cases.push(reaches(way, "a time to live of 2", way.world(now), (&old, &about), way.first()));
        let tagged = told.tagged(&[5, 6]);
        cases.push(reaches(way, "with tags", way.world(now), (&tagged, &about), way.first()));
        let mut case =
            reaches(way, "out with a tag", way.world(now).behind(&[9]), (&told, &about), way.first());
        case.expected.packet = delivered(&told, &about, way.mode, way.first()).tagged(&[9]).bytes();
        cases.push(case);
        if way.vip == Family::V4 {
            let about = Datagram { options: vec![1; 12], ..about.clone() };
            let error = Datagram { options: vec![1; 8], ..error(&about, kinds(way.vip)[0], Quote::Bytes(8)) };
            cases.push(reaches(
                way,
                "options in both headers",
                way.world(now),
                (&error, &about),
                way.first(),
            ));
        } else {
            let error = Datagram { extensions: vec![Extension::options(0, 1)], ..told };
            cases.push(reaches(way, "extension headers", way.world(now), (&error, &about), way.first()));
        }
    }
    cases
}

fn reaches(
    way: Way,
    what: &str,
    world: World,
    (error, about): (&Datagram, &Datagram),
    server: ServerId,
) -> Case {
    Case::new(&format!("{}, icmp error: {what}", way.name()), world, error).leaves(
        BACK,
        ForwardIcmp,
        &delivered(error, about, way.mode, server),
    )
}

/// Who the flow's server is: the slot says, or the record.
fn chosen(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all().into_iter().filter(is_direct) {
        let [first, second] = ends(way.server).servers;
        let unsettled = || way.world(now).slots(Slot::new(second, first, true));
        for (what, about, protocol) in
            [("tcp", &answers(way.vip)[0].1, TCP), ("udp", &answers(way.vip)[2].1, UDP)]
        {
            let key = flow_key(about.destination, about.source, protocol);
            let error = error(about, kinds(way.vip)[0], Quote::Bytes(8));
            let scheduled = |scheduler| {
                let world = way.world(now).services(|service| service.scheduler = scheduler);
                world.flow(key, record(second, now, 0))
            };
            let by_client = unsettled().services(|service| service.by_client = true);
            let client =
                super::world::Key::of_client(about.destination.ip(), about.source.ip(), protocol, SERVICE.id);
            let table = [
                ("settled on another", way.world(now).slots(Slot::settled(second)), second),
                ("unsettled, recorded", unsettled().flow(key, record(second, ago(now, 9), 0)), second),
                (
                    "unsettled, recorded too long ago",
                    unsettled().flow(key, record(second, ago(now, TCP_IDLE), 0)),
                    first,
                ),
                ("unsettled, not recorded", unsettled(), first),
                ("unsettled, a dead base", unsettled().dead(first), second),
                (
                    "unsettled, recorded with a dead server",
                    unsettled().dead(second).flow(key, record(second, now, 0)),
                    first,
                ),
                ("round robin, recorded", scheduled(Scheduler::RoundRobin), second),
                ("least connections, recorded", scheduled(Scheduler::LeastConn), second),
            ];
            for (name, world, server) in table {
                cases.push(reaches(way, &format!("{what}, {name}"), world, (&error, about), server));
            }
            let world = by_client.flow(client, record(second, now, 0));
            let mut case =
                reaches(way, &format!("{what}, a client's record"), world, (&error, about), second);
            let port = entropy(expected::hash(
                SocketAddr::new(about.destination.ip(), 0),
                SocketAddr::new(about.source.ip(), 0),
            ));
            let sent = delivered(&error, about, way.mode, second);
            let outer = sent.outer.map(|outer| Outer { gue_port: outer.gue_port.map(|_| port), ..outer });
            case.expected.packet = Datagram { outer, ..sent }.bytes();
            cases.push(case);
            let world = way.world(now).services(|service| service.scheduler = Scheduler::RoundRobin);
            let name = format!("{}, icmp error: {what}, round robin, not recorded", way.name());
            cases.push(Case::new(&name, world, &error).drops(DropNoServer));
        }
    }
    cases
}

/// From the client's side, about what the service sent: to the server, which knows other ends.
fn rewritten(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all().into_iter().filter(|way| way.mode.rewrites()) {
        let mut case = |what: String,
                        about: &Datagram,
                        error: &Datagram,
                        world: &dyn Fn(World) -> World,
                        tags: &[u16]| {
            let pair = pair_of(way, &about.ends(about.destination, about.source), now);
            let source = if way.mode == Mode::Nat { pair.nat } else { error.source };
            let changed =
                readdressed(error, about, &about.ends(pair.target, pair.nat), (source, pair.target));
            let sent = changed.hop(peer(way.first()).mac, BACK_MAC).tagged(tags);
            let name = format!("{}, icmp error to the server: {what}", way.name());
            cases.push(Case::new(&name, world(way.world(now)).pair(pair), error).leaves(
                BACK,
                ForwardIcmp,
                &sent,
            ));
        };
        for (what, about) in answers(way.vip) {
            for (name, quote) in QUOTES {
                let error = error(&about, kinds(way.vip)[0], quote);
                case(format!("{what}, {name} quoted"), &about, &error, &|world| world, &[]);
            }
        }
        let [(_, about), _, (_, datagram), _] = answers(way.vip);
        for icmp in kinds(way.vip) {
            let error = error(&datagram, icmp, Quote::Bytes(8));
            case(format!("type {} code {}", icmp.kind, icmp.code), &datagram, &error, &|world| world, &[]);
        }
        let told = error(&about, kinds(way.vip)[0], Quote::Bytes(8));
        case("with tags".into(), &about, &told.tagged(&[5, 6]), &|world| world, &[]);
        case("out with a tag".into(), &about, &told, &|world| world.behind(&[9]), &[9]);
        let part =
            Datagram { padding: vec![0x77; 8], ..error(&datagram, kinds(way.vip)[0], Quote::Bytes(4)) };
        case("the udp checksum would stand in the padding".into(), &datagram, &part, &|world| world, &[]);
        case("in a padded frame".into(), &about, &told.padded(), &|world| world, &[]);
        if way.vip == Family::V4 {
            let about = Datagram { options: vec![1; 12], ..about.clone() };
            let error = error(&about, kinds(way.vip)[0], Quote::All);
            case("options in the quote".into(), &about, &error, &|world| world, &[]);
        }
    }
    cases
}

/// A quoted datagram that says it is longer than the packet around it: its checksum covers what nobody has, and still
/// gets the new ends.
fn contradictory(now: Ticks) -> Vec<Case> {
    let rewriting = Way::all().into_iter().filter(|way| way.mode.rewrites());
    let case = |way: Way| {
        let [_, _, (_, about), _] = answers(way.vip);
        let pair = pair_of(way, &about.ends(about.destination, about.source), now);
        let length_at = about.header_length() + 5;
        let longer = |error: Datagram| {
            let mut payload = error.payload;
            payload[length_at] += 19;
            Datagram { payload, ..error }
        };
        let told = error(&about, kinds(way.vip)[0], Quote::All);
        let source = if way.mode == Mode::Nat { pair.nat } else { told.source };
        let changed = readdressed(&told, &about, &about.ends(pair.target, pair.nat), (source, pair.target));
        let sent = longer(changed.hop(peer(way.first()).mac, BACK_MAC));
        let name = format!("{}, icmp error: the quoted udp length is too large", way.name());
        Case::new(&name, way.world(now).pair(pair), &longer(told)).leaves(BACK, ForwardIcmp, &sent)
    };
    rewriting.map(case).collect()
}

/// From the servers' side, about what the client sent: to the client, in the service's name.
fn replied(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all().into_iter().filter(|way| way.mode.rewrites()) {
        let mut case =
            |what: String, asked: &Datagram, icmp: Icmp, quote: Quote, tags: &[u16], own: &[u16]| {
                let pair = pair_of(way, asked, now).tagged(tags);
                let asked = Datagram { ttl: 1, ..asked.clone() };
                let about = asked.ends(pair.nat, pair.target);
                let told =
                    Datagram { to: BACK_MAC, from: peer(way.first()).mac, ..error(&about, icmp, quote) };
                let changed = readdressed(&told, &about, &asked, (pair.vip, pair.client));
                let got = changed.hop(pair.reply.peer_mac, pair.reply.own_mac).tagged(tags);
                let name = format!("{}, icmp error to the client: {what}", way.name());
                cases.push(Case::new(&name, way.world(now).pair(pair), &told.tagged(own)).from(BACK).leaves(
                    FRONT,
                    ForwardIcmpReply,
                    &got,
                ));
            };
        let asked = [
            ("tcp", ack()),
            ("udp", udp(b"query")),
            ("udp without checksum", Datagram { transport: Transport::UdpWithoutChecksum, ..udp(b"query") }),
        ];
        let first = kinds(way.vip)[0];
        for (what, asked) in asked {
            for (name, quote) in QUOTES {
                case(format!("{what}, {name} quoted"), &asked.clone().of(way.vip), first, quote, &[], &[]);
            }
        }
        let query = udp(b"query").of(way.vip);
        for icmp in kinds(way.vip) {
            case(format!("type {} code {}", icmp.kind, icmp.code), &query, icmp, Quote::All, &[], &[]);
        }
        case("to a client with a tag".into(), &query, first, Quote::All, &[0x2007], &[]);
        case("from a server with tags".into(), &query, first, Quote::All, &[], &[7, 8]);
    }
    cases
}

fn pair_of(way: Way, asked: &Datagram, now: Ticks) -> Pair {
    way.pair(asked, now)
}

/// Of no flow of ours.
fn passed(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let [(_, about), _, (_, datagram), _] = answers(way.vip);
        let icmp = kinds(way.vip)[0];
        let told = |about: &Datagram| error(about, icmp, Quote::Bytes(8));
        let mut case = |what: &str, packet: &Datagram, counter: Counter| {
            let name = format!("{}, icmp error: {what}", way.name());
            cases.push(Case::new(&name, way.world(now), packet).passes(counter));
        };
        let elsewhere = peer(ends(way.vip).servers[0]).target;
        let port = |port| SocketAddr::new(about.source.ip(), port);
        case(
            "not to the sender of what it quotes",
            &Datagram { destination: elsewhere, ..told(&about) },
            PassIcmp,
        );
        case("about a packet of nobody", &told(&about.ends(elsewhere, about.destination)), PassIcmp);
        case("about another port", &told(&about.ends(port(81), about.destination)), PassIcmp);
        case(
            "about another protocol of the port",
            &told(&datagram.ends(port(80), about.destination)),
            PassIcmp,
        );
        case(
            "about a ping",
            &told(&Datagram { transport: Transport::Icmp(icmp), ..about.clone() }),
            PassIcmp,
        );
        case(
            "about no transport",
            &told(&Datagram { transport: Transport::Rest(47), payload: vec![0; 8], ..about.clone() }),
            PassIcmp,
        );
        let part =
            Datagram { fragment: Fragment::Later(9), transport: Transport::Rest(UDP), ..datagram.clone() };
        case("about a later fragment", &told(&part), PassIcmp);
        case("quoting an ip header alone", &error(&about, icmp, Quote::Bytes(0)), PassIcmp);
        case("quoting 3 bytes of the ports", &error(&about, icmp, Quote::Bytes(3)), PassIcmp);
        let garbled = Datagram { payload: vec![0x15; 48], ..told(&about) };
        case("quoting no ip header", &garbled, PassIcmp);
        case("quoting nothing", &Datagram { payload: vec![], ..told(&about) }, PassIcmp);
        let padded = error(&about, icmp, Quote::Bytes(0));
        let hidden = Datagram { padding: about.packet()[about.header_length()..].to_vec(), ..padded };
        case("quoting the ports in the padding alone", &hidden, PassIcmp);
        if way.mode.rewrites() {
            case("about a flow without a record", &told(&about), PassIcmp);
        }
    }
    cases
}

fn dropped(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let [(_, about), ..] = answers(way.vip);
        let icmp = kinds(way.vip)[0];
        let told = error(&about, icmp, Quote::Bytes(8));
        let asked = about.ends(about.destination, about.source);
        let known = || match way.mode.rewrites() {
            true => way.world(now).pair(pair_of(way, &asked, now)),
            false => way.world(now),
        };
        let name = |what: &str| format!("{}, icmp error: {what}", way.name());
        for ttl in [0, 1] {
            let old = Datagram { ttl, ..told.clone() };
            cases.push(Case::new(&name(&format!("a time to live of {ttl}")), known(), &old).drops(DropTtl));
        }
        let unresolved = known().servers(|server| server.hop.resolved = false);
        let mut case =
            Case::new(&name("the way to the server is unknown"), unresolved, &told).drops(DropUnresolved);
        if way.mode.rewrites() {
            case.expected.packet = unsent(way, &told, &about, now);
        }
        cases.push(case);
        if !way.mode.rewrites() {
            let none = way.world(now).slots(Slot::settled(ServerId::NONE));
            cases.push(Case::new(&name("no server is left"), none, &told).drops(DropNoServer));
            let long =
                Datagram { payload: [told.payload.clone(), vec![0; MTU.into()]].concat(), ..told.clone() };
            cases.push(Case::new(&name("too long for the way"), way.world(now), &long).drops(DropTooBig));
        }
    }
    cases
}

/// Rewritten, and then not sent.
fn unsent(way: Way, error: &Datagram, about: &Datagram, now: Ticks) -> Vec<u8> {
    let pair = pair_of(way, &about.ends(about.destination, about.source), now);
    let source = if way.mode == Mode::Nat { pair.nat } else { error.source };
    let changed = readdressed(error, about, &about.ends(pair.target, pair.nat), (source, pair.target));
    changed.hop(error.to, error.from).bytes()
}

/// About flows of services that are found by network and range.
fn wildcards(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all().into_iter().filter(is_direct) {
        let [(_, about), ..] = answers(way.vip);
        let around = Network::around(about.source.ip(), 16).expect("shorter than an address");
        let service = way.world(now).web(way.vip);
        let rule = Rule { protocol: TCP, first: 70, last: 90, service };
        let world = way.world(now).bare().rules(around, &[rule]);
        let error = error(&about, kinds(way.vip)[0], Quote::Bytes(8));
        cases.push(reaches(way, "about a flow of a range of ports", world, (&error, &about), way.first()));
    }
    cases
}

/// Every length that an error can be cut to.
fn cut(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let [(_, about), ..] = answers(way.vip);
        let told = error(&about, kinds(way.vip)[0], Quote::Bytes(8));
        let known = match way.mode.rewrites() {
            true => way.world(now).pair(pair_of(way, &about.ends(about.destination, about.source), now)),
            false => way.world(now),
        };
        let whole = told.bytes();
        let (l4, ports) = (14 + told.header_length(), whole.len() - 4);
        for length in 14..whole.len() {
            let name = format!("{}, icmp error: cut to {length} bytes", way.name());
            let case = Case::bytes(&name, known.clone(), whole[..length].to_vec());
            cases.push(match length {
                length if length < l4 + 8 => case.passes(PassTruncated),
                length if length < ports => case.passes(PassIcmp),
                _ => case.drops(Counter::DropMalformed),
            });
        }
    }
    cases
}
