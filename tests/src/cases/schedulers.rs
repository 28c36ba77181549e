//! Schedulers that are no hash, and services that keep a client with its server.

use std::net::SocketAddr;

use lb_common::{
    counter::Counter::{DropFlowsFull, FlowRecorded, ResetNoServer},
    entry::{Scheduler, Service},
    flow::{FIN, NAT_REQUEST, OPENING, RST, Ticks},
    limits::LEASTCONN_CHOICES,
    net::{TCP, UDP},
    slot::{ServerId, Slot},
};

use super::{
    Case,
    expected::{self, delivered, entropy},
    modes::Way,
    packet::{Datagram, Outer},
    refused::refusal,
    shape::{ack, fin, rst, syn, udp},
    world::{
        BACK, BACK_MAC, CLIENT_IDLE, FRONT, Half, Key, Pair, Record, SERVICE, TCP_IDLE, UDP_IDLE, World, ago,
        ends, flow_key, peer, record,
    },
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        cases.extend(in_turn(way, now));
        cases.extend(least(way, now));
        cases.extend(ended(way, now));
        cases.extend(recorded(way, now));
        cases.extend(full(way, now));
        cases.extend(by_client(way, now));
        cases.push(client_counts(way, now));
    }
    cases
}

/// First and second server in turn, in every ring.
fn alternating(way: Way, now: Ticks, scheduler: Scheduler) -> World {
    let [first, second] = ends(way.server).servers;
    let mut world = way.world(now).services(|service| service.scheduler = scheduler);
    for ring in world.tables.rings.values_mut() {
        let slots = (0..ring.len()).map(|index| Slot::settled(if index % 2 == 0 { first } else { second }));
        *ring = std::sync::Arc::new(slots.collect());
    }
    world
}

/// What a server gets, whose source port in a tunnel follows from `hash`.
fn sent(way: Way, packet: &Datagram, server: ServerId, now: Ticks) -> Datagram {
    match way.mode.rewrites() {
        true => {
            let pair = pair_with(way, packet, server, now);
            packet.ends(pair.nat, pair.target).hop(peer(server).mac, BACK_MAC)
        }
        false => delivered(packet, way.mode, server),
    }
}

fn pair_with(way: Way, packet: &Datagram, server: ServerId, now: Ticks) -> Pair {
    Pair { server, target: peer(server).target, ..way.pair(packet, now) }
}

/// A new flow of a service whose scheduler is no hash.
fn opens(way: Way, what: &str, world: World, packet: &Datagram, server: ServerId, now: Ticks) -> Case {
    let case = Case::new(&format!("{}: {what}", way.name()), world, packet).leaves(
        BACK,
        way.counter(),
        &sent(way, packet, server, now),
    );
    let is_udp = packet.protocol() == UDP;
    let case = case.serves(server, (packet.is_syn() || is_udp).into());
    if way.mode.rewrites() {
        return case.records(pair_with(way, packet, server, now).records());
    }
    let state = if packet.is_syn() { OPENING } else { 0 };
    case.records([(key(packet), record(server, now, state))])
}

fn key(packet: &Datagram) -> Key {
    flow_key(packet.source, packet.destination, packet.protocol())
}

fn in_turn(way: Way, now: Ticks) -> Vec<Case> {
    let [first, second] = ends(way.server).servers;
    let mut cases = Vec::new();
    let world = |turns| {
        let mut world = alternating(way, now, Scheduler::RoundRobin);
        world.turns = [(SERVICE.id, turns)].into();
        world
    };
    for (what, packet) in [("a SYN", syn()), ("a datagram", udp(b"query"))] {
        let packet = packet.of(way.vip);
        let mask = u64::from(SERVICE.ring_mask);
        for (turns, server) in
            [(0, first), (1, second), (2, first), (mask, second), (mask + 1, first), (u64::MAX, second)]
        {
            let what = format!("round robin, turn {turns}: {what}");
            let mut case = opens(way, &what, world(turns), &packet, server, now);
            case.expected.turns = [(SERVICE.id, turns.wrapping_add(1))].into();
            case.expected.turns.retain(|_, &mut turns| turns != 0);
            cases.push(case);
        }
    }
    let none = world(4).slots(Slot::settled(ServerId::NONE));
    let packet = syn().of(way.vip);
    let name = format!("{}: round robin without a server", way.name());
    let mut case = Case::new(&name, none, &packet).leaves(FRONT, ResetNoServer, &refusal(&packet));
    case.expected.turns = [(SERVICE.id, 5)].into();
    cases.push(case);
    cases
}

fn least(way: Way, now: Ticks) -> Vec<Case> {
    let [first, second] = ends(way.server).servers;
    let packet = syn().of(way.vip);
    let table = [
        ("of equals the first", [0, 0], [1, 1], first),
        ("the one with fewer", [3, 2], [1, 1], second),
        ("the first with fewer", [2, 3], [1, 1], first),
        ("one more is compared", [1, 0], [2, 1], first),
        ("by weight", [5, 3], [2, 1], first),
        ("by the other weight", [3, 5], [1, 2], second),
        ("one that has none of many", [1_000_000, 0], [256, 1], second),
        ("below zero counts as none", [u64::MAX, 7], [1, 1], first),
    ];
    let mut cases = Vec::new();
    for (name, load, weights, server) in table {
        let mut world = alternating(way, now, Scheduler::LeastConn);
        world.load = [(first, load[0]), (second, load[1])].into();
        world.load.retain(|_, &mut count| count != 0);
        let world = world.server(first, |server| server.weight = weights[0]);
        let world = world.server(second, |server| server.weight = weights[1]);
        let mut case = opens(way, &format!("least connections: {name}"), world, &packet, server, now);
        case.expected.turns = [(SERVICE.id, LEASTCONN_CHOICES.into())].into();
        let count = case.expected.load.entry(server).or_default();
        *count = count.wrapping_add(1);
        case.expected.load.retain(|_, &mut count| count != 0);
        cases.push(case);
    }
    cases
}

/// A connection that ends is counted once.
fn ended(way: Way, now: Ticks) -> Vec<Case> {
    let [_, second] = ends(way.server).servers;
    let mut cases = Vec::new();
    let table = [
        ("a FIN", fin(), 0, 4, 3),
        ("a RST", rst(), 0, 4, 3),
        ("data", ack(), 0, 4, 4),
        ("a second FIN", fin(), FIN, 4, 4),
        ("a RST after a FIN", rst(), FIN, 4, 4),
        ("a FIN after a RST", fin(), RST, 4, 4),
        ("a FIN, none counted", fin(), 0, 0, 0),
    ];
    for (name, packet, state, before, after) in table {
        let packet = packet.of(way.vip);
        let mut world = alternating(way, now, Scheduler::LeastConn);
        world.load = [(second, before)].into();
        world.load.retain(|_, &mut count| count != 0);
        let set = packet.ends_flow() | state;
        let pair = pair_with(way, &packet, second, now);
        let half = |bits| Half::new(now, NAT_REQUEST | bits);
        let standing = Pair { request: half(state), ..pair };
        let world = match way.mode.rewrites() {
            true => world.pair(standing),
            false => world.flow(key(&packet), record(second, now, state)),
        };
        let case = Case::new(&format!("{}: least connections, ended by {name}", way.name()), world, &packet)
            .leaves(BACK, way.counter(), &sent(way, &packet, second, now))
            .serves(second, 0);
        let mut case = match way.mode.rewrites() {
            true => case.keeps(Pair { request: half(set), ..pair }.records()),
            false => case.keeps([(key(&packet), record(second, now, set))]),
        };
        case.expected.load = [(second, after)].into();
        case.expected.load.retain(|_, &mut count| count != 0);
        cases.push(case);
    }
    cases
}

/// A flow stays where it is recorded.
fn recorded(way: Way, now: Ticks) -> Vec<Case> {
    if way.mode.rewrites() {
        return Vec::new();
    }
    let [first, second] = ends(way.server).servers;
    let mut cases = Vec::new();
    for scheduler in [Scheduler::RoundRobin, Scheduler::LeastConn] {
        let world = || alternating(way, now, scheduler);
        let name = |what: &str| format!("{}: {scheduler:?}: {what}", way.name());
        let table: [(&str, Datagram, Record, u32, u64); 5] = [
            ("data sticks", ack(), record(second, ago(now, 5), 0), 0, 0),
            ("data confirms", ack(), record(second, ago(now, 5), OPENING), 0, 0),
            ("a SYN sent again sticks", syn(), record(second, ago(now, 5), OPENING), OPENING, 1),
            ("at its last tick", ack(), record(second, ago(now, TCP_IDLE - 1), 0), 0, 0),
            ("udp sticks", udp(b"query"), record(second, ago(now, UDP_IDLE - 1), 0), 0, 0),
        ];
        for (what, packet, standing, state, opens) in table {
            let packet = packet.of(way.vip);
            cases.push(
                Case::new(&name(what), world().flow(key(&packet), standing), &packet)
                    .leaves(BACK, way.counter(), &sent(way, &packet, second, now))
                    .serves(second, opens)
                    .keeps([(key(&packet), record(second, now, state))]),
            );
        }
        // Older than any record: the slot of its hash says, on every node alike.
        let packet = ack().of(way.vip);
        let slot = expected::hash(packet.source, packet.destination) & SERVICE.ring_mask;
        let server = if slot.is_multiple_of(2) { first } else { second };
        let mut case =
            opens(way, &format!("{scheduler:?}: data without a record"), world(), &packet, server, now);
        if scheduler == Scheduler::LeastConn {
            case.expected.load = [(server, 1)].into();
        }
        cases.push(case);
        // Placed by a hash before the service went in turns.
        let base = if server == first { second } else { first };
        let moved = world().slots(Slot::new(server, base, true));
        let mut case =
            opens(way, &format!("{scheduler:?}: data of a slot's base"), moved, &packet, base, now);
        if scheduler == Scheduler::LeastConn {
            case.expected.load = [(base, 1)].into();
        }
        cases.push(case);
        let packet = udp(b"query").of(way.vip);
        let moved = world().slots(Slot::new(second, first, true));
        let name = format!("{scheduler:?}: a datagram of a slot's base");
        let mut case = opens(way, &name, moved, &packet, first, now);
        if scheduler == Scheduler::LeastConn {
            case.expected.load = [(first, 1)].into();
        }
        cases.push(case);
        let void = [
            ("a SYN over a closed flow", syn(), record(second, now, FIN)),
            ("a SYN over a flow of a dead server", syn(), record(second, now, 0)),
            ("a SYN after the idle time", syn(), record(second, ago(now, TCP_IDLE), 0)),
        ];
        for (what, packet, standing) in void {
            let packet = packet.of(way.vip);
            let world = world().flow(key(&packet), standing);
            let world = if what.contains("dead") { world.dead(second) } else { world };
            let mut case = opens(way, &format!("{scheduler:?}: {what}"), world, &packet, first, now);
            let turns = if scheduler == Scheduler::LeastConn { LEASTCONN_CHOICES.into() } else { 1 };
            case.expected.turns = [(SERVICE.id, turns)].into();
            if scheduler == Scheduler::LeastConn {
                case.expected.load = [(first, 1)].into();
            }
            cases.push(case);
        }
    }
    cases
}

/// Without room a new flow is refused: nobody would know its server.
fn full(way: Way, now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    if way.vip == lb_user::pure::config::network::Family::V6 {
        return cases;
    }
    for (scheduler, turns) in [(Scheduler::RoundRobin, 1), (Scheduler::LeastConn, LEASTCONN_CHOICES.into())] {
        for (what, packet) in [("a SYN", syn()), ("a datagram", udp(b"query"))] {
            let packet = packet.of(way.vip);
            let world = alternating(way, now, scheduler).full_but(0);
            let name = format!("{}: {scheduler:?}: {what} without room for its record", way.name());
            let mut case = Case::new(&name, world, &packet).drops(DropFlowsFull);
            case.expected.turns = [(SERVICE.id, turns)].into();
            cases.push(case);
        }
    }
    cases
}

/// `source` and `persistence`: slot and record know no ports.
fn by_client(way: Way, now: Ticks) -> Vec<Case> {
    let [first, second] = ends(way.server).servers;
    let bare = |end: SocketAddr| SocketAddr::new(end.ip(), 0);
    let hash = |packet: &Datagram| expected::hash(bare(packet.source), bare(packet.destination));
    let client_key = |packet: &Datagram| {
        Key::of_client(packet.source.ip(), packet.destination.ip(), packet.protocol(), SERVICE.id)
    };
    let client_service = |service: &mut Service| service.by_client = true;
    let mut cases = Vec::new();
    for (what, packet) in [("a SYN", syn()), ("data", ack()), ("a datagram", udp(b"query"))] {
        for port in [1, 40_000, u16::MAX] {
            let packet = packet.clone().of(way.vip);
            let packet = Datagram { source: SocketAddr::new(packet.source.ip(), port), ..packet };
            let hash = hash(&packet);
            let towards = |server| {
                let sent = sent_by_client(way, &packet, server, hash, now);
                (sent, by_client_pair(way, &packet, server, hash, now))
            };
            let mut case = |name: &str, world: World, server: ServerId, record: Option<Record>, new: bool| {
                let lost =
                    way.mode == lb_common::entry::Mode::Nat && packet.protocol() == TCP && !packet.is_syn();
                if lost {
                    return;
                }
                let (sent, pair) = towards(server);
                let name = format!("{}: by client, {name}: {what} from port {port}", way.name());
                let opens = packet.is_syn() || packet.protocol() == UDP && (new || way.mode.rewrites());
                let mut case = Case::new(&name, world, &packet)
                    .leaves(BACK, way.counter(), &sent)
                    .serves(server, opens.into())
                    .keeps(record.map(|record| (client_key(&packet), record)));
                if new {
                    case = case.counts(FlowRecorded);
                }
                if way.mode.rewrites() {
                    case = case.records(pair.records());
                }
                cases.push(case);
            };
            let one_slot = {
                let mut world = way.world(now).services(client_service);
                for ring in world.tables.rings.values_mut() {
                    let mut slots = vec![Slot::settled(first); ring.len()];
                    slots[(hash & SERVICE.ring_mask) as usize] = Slot::settled(second);
                    *ring = std::sync::Arc::new(slots);
                }
                world
            };
            case("the slot of its address", one_slot, second, None, false);
            let unsettled = || way.world(now).slots(Slot::new(second, first, true)).services(client_service);
            let standing = |age| record(second, ago(now, age), 0);
            let client = client_key(&packet);
            case(
                "recorded",
                unsettled().flow(client, standing(3)),
                second,
                Some(record(second, now, 0)),
                false,
            );
            case(
                "recorded long ago",
                unsettled().flow(client, standing(CLIENT_IDLE - 1)),
                second,
                Some(record(second, now, 0)),
                false,
            );
            case(
                "recorded too long ago",
                unsettled().flow(client, standing(CLIENT_IDLE)),
                first,
                Some(record(first, now, 0)),
                true,
            );
            case("not recorded, a SYN as any other", unsettled(), first, Some(record(first, now, 0)), true);
            case(
                "its server died",
                unsettled().dead(second).flow(client, standing(1)),
                first,
                Some(record(first, now, 0)),
                true,
            );
            case("a dead base", unsettled().dead(first), second, Some(record(second, now, 0)), true);
        }
    }
    cases
}

/// A client's first connection counts once, whatever records it makes.
fn client_counts(way: Way, now: Ticks) -> Case {
    let [first, _] = ends(way.server).servers;
    let packet = syn().of(way.vip);
    let bare = |end: SocketAddr| SocketAddr::new(end.ip(), 0);
    let hash = expected::hash(bare(packet.source), bare(packet.destination));
    let world = alternating(way, now, Scheduler::LeastConn).services(|service| service.by_client = true);
    let client = Key::of_client(packet.source.ip(), packet.destination.ip(), TCP, SERVICE.id);
    let mut case = Case::new(&format!("{}: by client, least connections: a SYN", way.name()), world, &packet)
        .leaves(BACK, way.counter(), &sent_by_client(way, &packet, first, hash, now))
        .serves(first, 1)
        .records([(client, record(first, now, 0))]);
    if way.mode.rewrites() {
        case = case.records(by_client_pair(way, &packet, first, hash, now).records());
    }
    case.expected.turns = [(SERVICE.id, LEASTCONN_CHOICES.into())].into();
    case.expected.load = [(first, 1)].into();
    case
}

fn by_client_pair(way: Way, packet: &Datagram, server: ServerId, hash: u32, now: Ticks) -> Pair {
    let pair = pair_with(way, packet, server, now);
    match way.mode {
        lb_common::entry::Mode::Nat => {
            // Another port for each of a client's flows.
            let ends = (packet.source.port().to_be() as u32) << 16 | packet.destination.port().to_be() as u32;
            let port = lb_common::flow::nat_port(lb_common::hash::again(hash ^ ends), 0).get();
            Pair { nat: SocketAddr::new(pair.nat.ip(), port), ..pair }
        }
        _ => pair,
    }
}

fn sent_by_client(way: Way, packet: &Datagram, server: ServerId, hash: u32, now: Ticks) -> Datagram {
    if way.mode.rewrites() {
        let pair = by_client_pair(way, packet, server, hash, now);
        return packet.ends(pair.nat, pair.target).hop(peer(server).mac, BACK_MAC);
    }
    let sent = delivered(packet, way.mode, server);
    let outer = sent.outer.map(|outer| Outer { gue_port: outer.gue_port.map(|_| entropy(hash)), ..outer });
    Datagram { outer, ..sent }
}
