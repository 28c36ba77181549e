//! A full flow table: a half-open record that nobody confirmed for a second gives way, and no other does.

use lb_common::{
    counter::Counter::{
        DropFlowsFull, FlowUnrecorded, ForwardDsr, ForwardNatReply, ForwardNatRequest, ResetNoFlow,
    },
    entry::Mode,
    flow::{FIN, NAT_REPLY, NAT_REQUEST, OPENING, OPENING_TICKS, Ticks, UNCONFIRMED},
    flow_table::WAYS,
    net::{TCP, UDP},
    slot::{ServerId, Slot},
};

use super::{
    Case,
    nat::{answer, candidate, pair, translated},
    packet::Datagram,
    refused::refusal,
    shape::{ack, syn, udp},
    world::{
        A, A_MAC, B, B_MAC, BACK, BACK_MAC, CLIENT, FRONT, Half, Key, NAMES, Pair, Record, SERVICE, TARGET_B,
        WEB, World, ago, flow_key, record,
    },
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups = [direct(now), direct_firm(now), pairs(now), pairs_firm(now), after(now), borrowed(now)];
    groups.into_iter().flatten().collect()
}

/// `current` is B, `base` is A; of eight records the last is half open and `age` ticks old.
fn moved(now: Ticks, age: u32) -> World {
    World::new(Mode::Dsr, now)
        .slots(Slot::new(B, A, true))
        .strangers(WAYS - 1, 0, 0)
        .strangers(1, age, OPENING)
}

fn sent(case: Case, packet: &Datagram, server: ServerId, connections: u64) -> Case {
    let mac = if server == A { A_MAC } else { B_MAC };
    case.leaves(BACK, ForwardDsr, &packet.hop(mac, BACK_MAC)).serves(server, connections)
}

/// Unsettled `dsr`: the half-open record gives way to the packet's.
fn direct(now: Ticks) -> Vec<Case> {
    let web = flow_key(CLIENT, WEB, TCP);
    let names = flow_key(CLIENT, NAMES, UDP);
    let table = [
        ("a SYN", EVICTABLE, syn(), B, 1, (web, OPENING)),
        ("data", EVICTABLE, ack(), A, 0, (web, 0)),
        ("udp", EVICTABLE, udp(b"query"), A, 1, (names, 0)),
        ("a SYN, much later", OPENING_TICKS + 7, syn(), B, 1, (web, OPENING)),
    ];
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(name, age, packet, server, connections, (key, state))| {
            let world = moved(now, age);
            let kept = world.flows[..WAYS as usize - 1].to_vec();
            let case = Case::new(&format!("crowded: a half-open record gives way to {name}"), world, &packet);
            sent(case, &packet, server, connections).flows(kept).records([(key, record(server, now, state))])
        })
        .collect();
    // Its flow may live, and nobody knows of it any more.
    let lone = World::new(Mode::Dsr, now).slots(Slot::new(B, A, true)).strangers(WAYS - 1, 0, 0);
    let lone = lone.strangers(1, EVICTABLE, UNCONFIRMED);
    let kept = without(&lone, WAYS as usize - 1..WAYS as usize);
    let mut stamped = sent(
        Case::new("crowded: a record that nobody confirmed gives way, and stamps its service", lone, &syn()),
        &syn(),
        B,
        1,
    )
    .flows(kept)
    .records([(web, record(B, now, OPENING))]);
    stamped.expected.refused = [(SERVICE.id, now)].into();
    cases.push(stamped);
    let flood = World::new(Mode::Dsr, now).slots(Slot::new(B, A, true)).strangers(3, 0, OPENING);
    let flood = flood.strangers(WAYS - 3, EVICTABLE, OPENING);
    let kept = without(&flood, 3..4);
    cases.push(
        sent(Case::new("crowded: of half-open records one gives way", flood, &syn()), &syn(), B, 1)
            .flows(kept)
            .records([(web, record(B, now, OPENING))]),
    );
    cases
}

/// Unsettled `dsr`: nothing gives way, and the packet goes to base.
fn direct_firm(now: Ticks) -> Vec<Case> {
    let full =
        |age, state| World::new(Mode::Dsr, now).slots(Slot::new(B, A, true)).strangers(WAYS, age, state);
    let own = (flow_key(CLIENT, WEB, TCP), record(B, ago(now, EVICTABLE), OPENING));
    let room =
        World::new(Mode::Dsr, now).slots(Slot::new(B, A, true)).strangers(WAYS - 1, EVICTABLE, OPENING);
    let table = [
        ("half-open records that are young", full(EVICTABLE - 1, OPENING)),
        ("half-open records of this moment", full(0, OPENING)),
        ("half-open records from the future", full(u32::MAX, OPENING)),
        ("confirmed records however old", full(OPENING_TICKS * 2, 0)),
        ("closed records", full(OPENING_TICKS * 2, FIN)),
    ];
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(name, world)| {
            let case = Case::new(&format!("crowded: not for a SYN, {name}"), world, &syn());
            sent(case, &syn(), A, 1).counts(FlowUnrecorded)
        })
        .collect();
    cases.extend([
        sent(Case::new("crowded: nobody gives way while there is room", room, &syn()), &syn(), B, 1)
            .records([(flow_key(CLIENT, WEB, TCP), record(B, now, OPENING))]),
        sent(
            Case::new(
                "crowded: a half-open record counts until it gave way",
                World::new(Mode::Dsr, now).slots(Slot::new(A, A, true)).flow(own.0, own.1).full_but(0),
                &ack(),
            ),
            &ack(),
            B,
            0,
        )
        .keeps([(own.0, record(B, now, 0))]),
    ]);
    cases
}

/// `nat`: a pair takes the places of half-open records.
fn pairs(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let half_open = |firm, age| nat().strangers(firm, 0, 0).strangers(WAYS - firm, age, OPENING);
    let old = other(now, EVICTABLE, OPENING);
    let one_free = nat().strangers(WAYS - 2, 0, 0).strangers(1, EVICTABLE, OPENING);
    let table = [
        ("two half-open records", half_open(WAYS - 2, EVICTABLE), WAYS - 2..WAYS, syn()),
        ("two half-open records, for udp", half_open(WAYS - 2, EVICTABLE), WAYS - 2..WAYS, udp(b"query")),
        ("the first of many half-open records", half_open(0, OPENING_TICKS + 1), 0..2, syn()),
        ("a half-open pair", nat().pair(old).full_but(0), 0..2, syn()),
        ("a half-open record and a free place", one_free, WAYS - 2..WAYS - 1, syn()),
    ];
    table
        .into_iter()
        .map(|(name, world, gone, packet)| {
            let kept = without(&world, gone.start as usize..gone.end as usize);
            let opened = opened(&packet, now);
            Case::new(&format!("crowded, nat: {name} give way"), world, &packet)
                .leaves(BACK, ForwardNatRequest, &translated(&packet, &opened))
                .serves(A, 1)
                .flows(kept)
                .records(opened.records())
        })
        .collect()
}

/// `nat`: no room for both halves.
fn pairs_firm(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let one = nat().strangers(WAYS - 1, 0, 0).strangers(1, EVICTABLE, OPENING);
    let firm = one.flows[..WAYS as usize - 1].to_vec();
    let table = [
        ("half-open records that are young", nat().strangers(WAYS, EVICTABLE - 1, OPENING)),
        ("confirmed records however old", nat().strangers(WAYS, OPENING_TICKS * 2, 0)),
        ("a young half-open pair", nat().pair(other(now, EVICTABLE - 1, OPENING)).full_but(0)),
        ("a confirmed pair", nat().pair(other(now, OPENING_TICKS * 2, 0)).full_but(0)),
    ];
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(name, world)| {
            Case::new(&format!("crowded, nat: no room, {name}"), world, &syn()).drops(DropFlowsFull)
        })
        .collect();
    cases.push(
        Case::new("crowded, nat: room for half a flow that a half-open record left", one, &syn())
            .drops(DropFlowsFull)
            .flows(firm),
    );
    cases
}

/// One half gave way: what becomes of the other.
fn after(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let half_open = Pair {
        request: Half::new(ago(now, EVICTABLE), NAT_REQUEST),
        reply: Half::new(ago(now, EVICTABLE), NAT_REPLY),
        ..pair(A, WEB, now)
    }
    .opening();
    let [request, reply] = half_open.records();
    let again = opened(&syn(), now);
    let beside = Pair { nat: candidate(CLIENT, WEB, 1), ..again };
    let (told, heard) = answer(&ack(), &half_open);
    let stamped = Pair { reply: Half::new(now, NAT_REPLY | OPENING), ..half_open };
    vec![
        Case::new(
            "crowded, nat: the SYN again, the reply's half gave way",
            nat().flow(request.0, request.1),
            &syn(),
        )
        .leaves(BACK, ForwardNatRequest, &translated(&syn(), &again))
        .serves(A, 1)
        .records(again.records()),
        Case::new(
            "crowded, nat: the SYN again, the request's half gave way",
            nat().flow(reply.0, reply.1),
            &syn(),
        )
        .leaves(BACK, ForwardNatRequest, &translated(&syn(), &beside))
        .serves(A, 1)
        .records(beside.records()),
        Case::new("crowded, nat: a reply, the request's half gave way", nat().flow(reply.0, reply.1), &told)
            .from(BACK)
            .leaves(FRONT, ForwardNatReply, &heard)
            .flows([stamped.records()[1]]),
    ]
}

/// The reply's half of `CLIENT`'s pair gave way, and its port went to another client: nobody may touch that pair.
fn borrowed(now: Ticks) -> Vec<Case> {
    let left = Pair { request: Half::new(ago(now, 9), NAT_REQUEST | OPENING), ..pair(A, WEB, now) };
    let [request, _] = left.records();
    let heir = Pair { nat: left.nat, ..other(now, 3, 0) };
    let world = || World::new(Mode::Nat, now).flow(request.0, request.1).pair(heir);
    let beside = Pair { nat: candidate(CLIENT, WEB, 1), ..opened(&syn(), now) };
    let elsewhere = Datagram { from: [2, 0, 0, 0, 9, 9], ..ack() };
    let closed = Pair { reply: Half::new(ago(now, 3), NAT_REPLY | FIN), ..heir };
    let refused = |name: &str, world: World, packet: &Datagram, pair: Pair| {
        Case::new(&format!("crowded, nat, its port is another's: {name}"), world, packet)
            .leaves(FRONT, ResetNoFlow, &refusal(packet))
            .flows(pair.records())
    };
    vec![
        refused("data is refused", world(), &ack(), heir),
        refused("a new way is not learned", world(), &elsewhere, heir),
        refused("its server died", world().dead(A), &ack(), heir),
        Case::new("crowded, nat, its port is another's: a SYN gets a port of its own", world(), &syn())
            .leaves(BACK, ForwardNatRequest, &translated(&syn(), &beside))
            .serves(A, 1)
            .flows(heir.records())
            .records(beside.records()),
        Case::new(
            "crowded, nat, its port is another's: a SYN leaves a closed flow alone",
            World::new(Mode::Nat, now).flow(request.0, request.1).pair(closed),
            &syn(),
        )
        .leaves(BACK, ForwardNatRequest, &translated(&syn(), &beside))
        .serves(A, 1)
        .flows(closed.records())
        .records(beside.records()),
    ]
}

fn opened(packet: &Datagram, now: Ticks) -> Pair {
    let pair = pair(A, packet.destination, now);
    if packet.destination == NAMES { pair } else { pair.opening() }
}

/// The pair of another client.
fn other(now: Ticks, age: u32, state: u32) -> Pair {
    let half = |bits| Half::new(ago(now, age), bits | state);
    let client = syn_of_other().source;
    Pair {
        client,
        nat: candidate(client, WEB, 0),
        request: half(NAT_REQUEST),
        reply: half(NAT_REPLY),
        ..pair(A, WEB, now)
    }
}

fn syn_of_other() -> Datagram {
    Datagram { source: TARGET_B, ..syn() }
}

/// The records of `world` but these.
fn without(world: &World, gone: std::ops::Range<usize>) -> Vec<(Key, Record)> {
    let flows = world.flows.iter().enumerate();
    flows.filter(|(index, _)| !gone.contains(index)).map(|(_, flow)| *flow).collect()
}

/// A second, in ticks: the youngest that gives way.
const EVICTABLE: u32 = Ticks::in_ms(1_000);
