//! `nat`: which source a flow gets, what goes out, what comes back.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    counter::Counter::{
        DropFlowsFull, DropNatPorts, DropTables, DropUnresolved, FlowRecorded, ForwardNatReply,
        ForwardNatRequest, PassNoFlow, PassNoService,
    },
    entry::Mode,
    flow::{NAT_REPLY, NAT_REQUEST, Ticks, nat_port, nat_source_index},
    hash,
    limits::{NAT_PORT_TRIES, NAT_SOURCES_MAX},
    net::{TCP, UDP},
    slot::{ServerId, Slot},
};
use lb_user::pure::config::network::Family;

use super::{
    Case, expected,
    packet::{Datagram, Transport},
    shape::{ack, syn, tcp, udp},
    world::{
        A, A_MAC, B, BACK, BACK_MAC, CLIENT, FRONT, FRONT_MAC, Half, NAMES, NAT_SOURCES, Pair, TARGET_A,
        TARGET_B, WEB, World, ends, flow_key, peer, record, v4,
    },
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups = [
        opened(now),
        ports(now),
        service_ports(now),
        sources(now),
        bounds(now),
        replies(now),
        checksums(now),
    ];
    groups.into_iter().flatten().collect()
}

/// The source a new flow of `client` gets at its `attempt`, where servers use one NAT source.
pub(super) fn candidate(client: SocketAddr, vip: SocketAddr, attempt: u32) -> SocketAddr {
    let source = ends(Family::of(client.ip())).nat_sources[0];
    SocketAddr::new(source, nat_port(again(client, vip), attempt).get())
}

/// The pair of the flow from the client of the service's family, as it stands after its first packet.
pub(super) fn pair(server: ServerId, vip: SocketAddr, now: Ticks) -> Pair {
    let client = ends(Family::of(vip.ip())).client;
    Pair {
        client,
        vip,
        nat: candidate(client, vip, 0),
        target: peer(server).target,
        protocol: if vip.port() == NAMES.port() { UDP } else { TCP },
        server,
        request: Half::new(now, NAT_REQUEST),
        reply: Half::new(now, NAT_REPLY),
    }
}

/// What `packet` becomes on its way to the server of `pair`.
pub(super) fn translated(packet: &Datagram, pair: &Pair) -> Datagram {
    Datagram { tags: Vec::new(), ..packet.ends(pair.nat, pair.target).hop(peer(pair.server).mac, BACK_MAC) }
}

/// `packet` as the server of `pair` sends it, and as the client gets it.
pub(super) fn answer(packet: &Datagram, pair: &Pair) -> (Datagram, Datagram) {
    let sent = Datagram { to: BACK_MAC, from: peer(pair.server).mac, ..packet.ends(pair.target, pair.nat) };
    let got = sent.ends(pair.vip, pair.client).hop(pair.reply.peer_mac, pair.reply.own_mac);
    (sent, got)
}

fn opened(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let moved = || nat().slots(Slot::new(B, A, true));
    let new = |packet: &Datagram, source| Datagram { source, ..packet.clone() };
    let table = [
        ("a SYN", nat(), syn(), A),
        ("udp", nat(), udp(b"query"), A),
        ("a SYN with options", nat(), tcp(b"x", options), A),
        ("a frame of 60 bytes", nat(), syn().padded(), A),
        ("a time to live of 2", nat(), Datagram { ttl: 2, ..syn() }, A),
        ("an unsettled slot: a SYN opens with current", moved(), syn(), B),
        ("an unsettled slot: udp opens with current", moved(), udp(b"query"), B),
        ("an unsettled slot: no base", nat().slots(Slot::new(B, ServerId::NONE, true)), udp(b"query"), B),
        ("an unsettled slot: a dead base", moved().dead(A), udp(b"query"), B),
        ("an unsettled slot asks no life", moved().dead(B), udp(b"query"), B),
        ("a settled slot asks no life", nat().dead(A), syn(), A),
        ("a settled slot asks no base", nat().slots(Slot::new(B, A, false)), syn(), B),
        ("a server that is its own client", nat(), new(&syn(), TARGET_A), A),
        ("the service's address as the source", nat(), new(&syn(), WEB), A),
    ];
    table
        .into_iter()
        .map(|(name, world, packet, server)| {
            let vip = packet.destination;
            let pair = Pair {
                client: packet.source,
                nat: candidate(packet.source, vip, 0),
                ..pair(server, vip, now)
            };
            let pair = if vip == NAMES { pair } else { pair.opening() };
            Case::new(&format!("nat, new flow: {name}"), world, &packet)
                .leaves(BACK, ForwardNatRequest, &translated(&packet, &pair))
                .serves(server, 1)
                .records(pair.records())
        })
        .collect()
}

fn ports(now: Ticks) -> Vec<Case> {
    let taken = |count: u32| {
        (0..count).fold(World::new(Mode::Nat, now), |world, attempt| {
            let nat = candidate(CLIENT, WEB, attempt);
            world.flow(flow_key(TARGET_A, nat, TCP), record(A, now, NAT_REPLY))
        })
    };
    let found =
        |name: &str, before: u32| opens(name, taken(before), &syn(), candidate(CLIENT, WEB, before), now);
    let other_server = World::new(Mode::Nat, now)
        .flow(flow_key(TARGET_B, candidate(CLIENT, WEB, 0), TCP), record(B, now, NAT_REPLY));
    vec![
        found("nat: the first port is taken", 1),
        found("nat: all ports but the last are taken", NAT_PORT_TRIES - 1),
        Case::new("nat: all ports are taken", taken(NAT_PORT_TRIES), &syn()).drops(DropNatPorts),
        opens(
            "nat: a port towards another server is free",
            other_server,
            &syn(),
            candidate(CLIENT, WEB, 0),
            now,
        ),
    ]
}

/// A NAT source may be the address of services, too: what comes to their ports is no reply.
fn service_ports(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let port = |attempt| candidate(CLIENT, WEB, attempt);
    let standing = |count: u32| (0..count).fold(nat(), |world, attempt| world.service(port(attempt), TCP));
    let elsewhere = SocketAddr::new(NAT_SOURCES[1], port(0).port());
    let beside = SocketAddr::new(NAT_SOURCES[0], port(0).port() + 1);
    let taken = (flow_key(TARGET_A, port(1), TCP), record(A, now, NAT_REPLY));
    let query = udp(b"query");
    let names = |attempt| candidate(CLIENT, NAMES, attempt);
    vec![
        opens("nat: a service's port is skipped", standing(1), &syn(), port(1), now),
        opens(
            "nat: all ports but the last are services'",
            standing(NAT_PORT_TRIES - 1),
            &syn(),
            port(NAT_PORT_TRIES - 1),
            now,
        ),
        Case::new("nat: all ports are services'", standing(NAT_PORT_TRIES), &syn()).drops(DropNatPorts),
        opens(
            "nat: a service's port, then a taken one",
            standing(1).flow(taken.0, taken.1),
            &syn(),
            port(2),
            now,
        ),
        opens(
            "nat: the port of a service of another protocol is free",
            nat().service(port(0), UDP),
            &syn(),
            port(0),
            now,
        ),
        opens(
            "nat: the port of a service of another address is free",
            nat().service(elsewhere, TCP),
            &syn(),
            port(0),
            now,
        ),
        opens("nat: the port beside a service's is free", nat().service(beside, TCP), &syn(), port(0), now),
        opens("nat: a udp service's port is skipped", nat().service(names(0), UDP), &query, names(1), now),
        opens(
            "nat: the port of a tcp service is free for udp",
            nat().service(names(0), TCP),
            &query,
            names(0),
            now,
        ),
    ]
}

/// The first packet of `CLIENT`'s flow, which gets the source `nat`.
fn opens(name: &str, world: World, packet: &Datagram, nat: SocketAddr, now: Ticks) -> Case {
    let pair = Pair { nat, ..pair(A, packet.destination, now) };
    let pair = if packet.destination == NAMES { pair } else { pair.opening() };
    Case::new(name, world, packet)
        .leaves(BACK, ForwardNatRequest, &translated(packet, &pair))
        .serves(A, 1)
        .records(pair.records())
}

fn sources(now: Ticks) -> Vec<Case> {
    let nat = |first: u8, count: u8| {
        World::new(Mode::Nat, now).server(A, |server| (server.nat_first, server.nat_count) = (first, count))
    };
    let case = |name: &str, world: World, client: SocketAddr, source: IpAddr| {
        let packet = Datagram { source: client, ..syn() };
        let nat = SocketAddr::new(source, nat_port(again(client, WEB), 0).get());
        let pair = Pair { client, nat, ..pair(A, WEB, now) }.opening();
        Case::new(name, world, &packet)
            .leaves(BACK, ForwardNatRequest, &translated(&packet, &pair))
            .serves(A, 1)
            .records(pair.records())
    };
    vec![
        case("nat: the second source alone", nat(1, 1), CLIENT, NAT_SOURCES[1]),
        case("nat: two sources, a client of the first", nat(0, 2), client_of_source(0), NAT_SOURCES[0]),
        case("nat: two sources, a client of the second", nat(0, 2), client_of_source(1), NAT_SOURCES[1]),
        Case::new("nat: a source outside the table", nat(NAT_SOURCES_MAX as u8, 1), &syn()).drops(DropTables),
    ]
}

fn bounds(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let unresolved = nat().server(A, |server| server.hop.resolved = false);
    let opened = pair(A, WEB, now).opening();
    vec![
        Case::new("nat, one arm: a SYN goes back where it came from", nat().one_arm(), &syn())
            .leaves(FRONT, ForwardNatRequest, &syn().ends(opened.nat, TARGET_A).hop(A_MAC, FRONT_MAC))
            .serves(A, 1)
            .records(opened.records()),
        Case::new("nat: no room for a flow", nat().full_but(0), &syn()).drops(DropFlowsFull),
        Case::new("nat: room for half a flow", nat().full_but(1), &syn()).drops(DropFlowsFull),
        Case::new("nat: room for one flow", nat().full_but(2), &syn())
            .leaves(BACK, ForwardNatRequest, &translated(&syn(), &opened))
            .serves(A, 1)
            .records(opened.records()),
        Case::new("nat: no room for a datagram's flow", nat().full_but(1), &udp(b"query"))
            .drops(DropFlowsFull),
        Case::new("nat: the way to the server is unknown", unresolved, &syn())
            .drops(DropUnresolved)
            .records(opened.records()),
    ]
}

fn replies(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let mut cases = Vec::new();
    let synack = tcp(&[], |header| (header.syn, header.ack) = (true, true));
    let replies = [
        ("a SYN and ACK", synack.padded(), WEB),
        ("data", tcp(&[0x61; 1_460], |header| header.ack = true), WEB),
        ("options", tcp(b"x", options), WEB),
        ("udp", udp(b"answer"), NAMES),
        ("no udp checksum", Datagram { transport: Transport::UdpWithoutChecksum, ..udp(b"answer") }, NAMES),
    ];
    for (name, packet, vip) in replies {
        let pair = pair(A, vip, now);
        let (sent, got) = answer(&packet, &pair);
        cases.push(Case::new(&format!("nat, reply: {name}"), nat().pair(pair), &sent).from(BACK).leaves(
            FRONT,
            ForwardNatReply,
            &got,
        ));
        cases.push(
            Case::new(&format!("nat, reply, one arm: {name}"), nat().one_arm().pair(pair), &sent).leaves(
                FRONT,
                ForwardNatReply,
                &got,
            ),
        );
    }
    cases.extend(strays(now));
    cases
}

/// To a NAT source, or nearly.
fn strays(now: Ticks) -> [Case; 4] {
    let nat = || World::new(Mode::Nat, now);
    let (sent, _) = answer(&ack(), &pair(A, WEB, now));
    let elsewhere = v4([10, 0, 0, 99], 2_000);
    let request = flow_key(TARGET_A, pair(A, WEB, now).nat, TCP);
    let late = pair(A, WEB, now);
    let (to_late, got) = answer(&ack(), &late);
    [
        Case::new("to a NAT source, of no flow", nat(), &sent).from(BACK).passes(PassNoFlow),
        Case::new("to an address of nobody", nat(), &sent.ends(TARGET_A, elsewhere))
            .from(BACK)
            .passes(PassNoService),
        Case::new(
            "to a NAT source, and the record is no reply's",
            nat().flow(request, record(A, now, NAT_REQUEST)),
            &sent,
        )
        .from(BACK)
        .passes(PassNoFlow),
        Case::new("nat, reply: of a server that died meanwhile", nat().dead(A).pair(late), &to_late)
            .from(BACK)
            .leaves(FRONT, ForwardNatReply, &got),
    ]
}

fn checksums(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let pair = pair(A, NAMES, now);
    let without = Datagram { transport: Transport::UdpWithoutChecksum, ..udp(b"query") };
    let asked = vanishing(|payload| (udp(payload), translated(&udp(payload), &pair)));
    let told = vanishing(|payload| answer(&udp(payload), &pair));
    let recorded = |case: Case| case.serves(A, 1).counts(FlowRecorded).keeps(pair.records());
    vec![
        recorded(Case::new("nat: a datagram without checksum stays without", nat(), &without).leaves(
            BACK,
            ForwardNatRequest,
            &translated(&without, &pair),
        )),
        recorded(Case::new("nat: a udp checksum that becomes 0 is sent as all ones", nat(), &asked).leaves(
            BACK,
            ForwardNatRequest,
            &translated(&asked, &pair),
        )),
        Case::new("nat, reply: a udp checksum that becomes 0 is sent as all ones", nat().pair(pair), &told)
            .from(BACK)
            .leaves(FRONT, ForwardNatReply, &answer(&udp(&told.payload), &pair).1),
    ]
}

/// The packet that arrives, such that the one that leaves sums up to nothing. `packets` makes both of a payload.
fn vanishing(packets: impl Fn(&[u8]) -> (Datagram, Datagram)) -> Datagram {
    let checksum = |packet: &Datagram| [packet.bytes()[UDP_CHECKSUM], packet.bytes()[UDP_CHECKSUM + 1]];
    let (_, leaving) = packets(&[0, 0]);
    let (arriving, leaving) = packets(&checksum(&leaving));
    assert_eq!(checksum(&leaving), [0xff; 2], "adding the complement of a sum leaves all ones");
    assert_ne!(checksum(&arriving), [0xff; 2], "only what leaves is special");
    arriving
}

fn options(header: &mut etherparse::TcpHeader) {
    header.syn = true;
    header.set_options_raw(&[2, 4, 5, 180]).expect("four bytes of options fit a header");
}

fn client_of_source(index: u32) -> SocketAddr {
    (40_000..41_000)
        .map(|port| SocketAddr::new(CLIENT.ip(), port))
        .find(|&client| nat_source_index(again(client, WEB), 2) == index)
        .expect("of a thousand ports some fall on either source")
}

fn again(client: SocketAddr, vip: SocketAddr) -> u32 {
    hash::again(expected::hash(client, vip))
}

const UDP_CHECKSUM: usize = 14 + 20 + 6;
