//! `nat`: within a TCP connection that has no record, or none that counts. Refused, and never recorded.

use lb_common::{
    counter::Counter::{DropNoFlow, ForwardNatRequest, ResetNoFlow},
    entry::Mode,
    flow::{
        CLOSED_TICKS, CLOSING_TICKS, FIN, NAT_REPLY, NAT_REQUEST, OPENING, OPENING_TICKS, RESET_TICKS, RST,
        Ticks,
    },
    net::TCP,
    slot::{ServerId, Slot},
};

use super::{
    Case,
    nat::{candidate, pair, translated},
    packet::Datagram,
    pairs::aged,
    refused::refusal,
    shape::{ack, fin, rst, tcp},
    world::{A, B, BACK, CLIENT, FRONT, Half, Pair, TARGET_A, TCP_IDLE, WEB, World, flow_key, record},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups = [unknown(now), dropped(now), worlds(now), void(now), halves(now)];
    groups.into_iter().flatten().collect()
}

/// Nothing is known of the flow.
fn unknown(now: Ticks) -> Vec<Case> {
    let table = [
        ("an ACK", tcp(&[], |header| header.ack = true)),
        ("data", ack()),
        ("a FIN", tcp(&[], |header| header.fin = true)),
        ("a FIN and ACK", fin()),
        ("a FIN with data", tcp(b"bye", |header| header.fin = true)),
        ("a SYN and ACK", tcp(&[], |header| (header.syn, header.ack) = (true, true))),
        ("no flag at all", tcp(b"odd", |_| ())),
        ("a frame of 60 bytes", tcp(&[], |header| header.ack = true).padded()),
        ("a full segment", tcp(&[7; 1_460], |header| header.psh = true)),
        ("a time to live of 2", Datagram { ttl: 2, ..ack() }),
        ("from a server", Datagram { source: TARGET_A, ..ack() }),
    ];
    table
        .into_iter()
        .map(|(name, packet)| refused(name, World::new(Mode::Nat, now), &packet).flows([]))
        .collect()
}

/// A RST is never answered, nor is a group.
fn dropped(now: Ticks) -> Vec<Case> {
    let table = [
        ("a RST", rst()),
        ("a RST and ACK", tcp(&[], |header| (header.rst, header.ack) = (true, true))),
        ("a RST and FIN", tcp(&[], |header| (header.rst, header.fin) = (true, true))),
        ("data from a group", Datagram { from: [3, 0, 0, 0, 0, 1], ..ack() }),
    ];
    let gone = aged(WEB, [(RST, RESET_TICKS), (0, RESET_TICKS)], now);
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(name, packet)| {
            Case::new(&format!("nat, no flow: {name}, dropped"), World::new(Mode::Nat, now), &packet)
                .drops(DropNoFlow)
                .flows([])
        })
        .collect();
    cases.push(
        Case::new(
            "nat, no flow: a RST of a void pair, dropped",
            World::new(Mode::Nat, now).pair(gone),
            &rst(),
        )
        .drops(DropNoFlow)
        .flows([]),
    );
    cases
}

/// Neither slot nor service nor table is asked.
fn worlds(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let other = Pair { client: TARGET_A, nat: candidate(TARGET_A, WEB, 0), ..pair(A, WEB, now) };
    let full = nat().full_but(0);
    let half_open = nat().strangers(8, OPENING_TICKS - 1, OPENING);
    let table = [
        ("an unsettled slot", nat().slots(Slot::new(B, A, true))),
        ("a slot without a server", nat().slots(Slot::settled(ServerId::NONE))),
        ("a service that drops what has no server", nat().services(|service| service.reset = false)),
        ("a dead server", nat().dead(A)),
        ("the flow of another client", nat().pair(other)),
        ("a full flow table", full),
        ("a flow table full of half-open flows", half_open),
    ];
    table
        .into_iter()
        .map(|(name, world)| {
            let flows = world.flows.clone();
            refused(name, world, &ack()).flows(flows)
        })
        .collect()
}

/// The pair no longer counts: both halves go.
fn void(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let table = [
        ("both sides silent for the idle time", nat(), [(0, TCP_IDLE), (0, TCP_IDLE)]),
        ("opening for 60 s", nat(), [(OPENING, OPENING_TICKS), (OPENING, OPENING_TICKS)]),
        ("closing for too long", nat(), [(FIN, CLOSING_TICKS), (0, CLOSING_TICKS)]),
        ("closed for too long", nat(), [(FIN, CLOSED_TICKS), (FIN, CLOSED_TICKS)]),
        ("reset for too long", nat(), [(RST, RESET_TICKS), (0, RESET_TICKS)]),
        ("its server died", nat().dead(A), [(0, 1), (0, 1)]),
        ("its server died, the table is full", nat().dead(A), [(0, 1), (0, 1)]),
    ];
    table
        .into_iter()
        .map(|(name, world, halves)| {
            let world = world.pair(aged(WEB, halves, now));
            let world = if name.ends_with("full") { world.full_but(0) } else { world };
            let strangers: Vec<_> = world.flows[2..].to_vec();
            refused(&format!("a void pair, {name}"), world, &ack()).flows(strangers)
        })
        .collect()
}

/// Records that are no pair of the client's.
fn halves(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let [request, reply] = aged(WEB, [(OPENING, 4), (OPENING, 3)], now).records();
    let direct = (flow_key(CLIENT, WEB, TCP), record(A, now, 0));
    let one_half = aged(WEB, [(0, 4), (0, 3)], now);
    let [standing, _] = one_half.records();
    let [stamped, _] = Pair { request: Half::new(now, NAT_REQUEST), ..one_half }.records();
    vec![
        refused("a half-open request's half alone", nat().flow(request.0, request.1), &ack()).flows([]),
        refused("a reply's half alone", nat().flow(reply.0, reply.1), &ack()).flows([reply]),
        refused("a record made while the service was dsr", nat().flow(direct.0, direct.1), &ack()).flows([]),
        refused(
            "a reply's record under the request's key",
            nat().flow(direct.0, record(A, now, NAT_REPLY)),
            &ack(),
        )
        .flows([]),
        Case::new(
            "nat: a confirmed request's half alone does not ask for the other",
            nat().flow(standing.0, standing.1),
            &ack(),
        )
        .leaves(BACK, ForwardNatRequest, &translated(&ack(), &one_half))
        .serves(A, 0)
        .flows([stamped]),
    ]
}

fn refused(name: &str, world: World, packet: &Datagram) -> Case {
    Case::new(&format!("nat, no flow: {name}, refused"), world, packet).leaves(
        FRONT,
        ResetNoFlow,
        &refusal(packet),
    )
}
