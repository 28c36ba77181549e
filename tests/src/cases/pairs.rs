//! `nat`: the life of a recorded pair.

use std::net::SocketAddr;

use lb_common::{
    counter::Counter::{
        AnswerTtl, DropMalformed, DropNatPorts, FlowRecorded, ForwardNatReply, ForwardNatRequest,
    },
    entry::Mode,
    flow::{
        CLOSED_TICKS, CLOSING_TICKS, FIN, NAT_REPLY, NAT_REQUEST, OPENING, OPENING_TICKS, RESET_TICKS, RST,
        Ticks,
    },
    net::TCP,
    slot::Slot,
};

use super::{
    Case,
    expected::expired,
    host::records::{Record, Rewrite},
    modes::Way,
    nat::{answer, candidate, pair, translated},
    packet::Datagram,
    shape::{ack, fin, rst, syn, tcp, udp},
    world::{
        A, B, BACK, CLIENT, FRONT, Half, NAMES, Pair, TCP_IDLE, UDP_IDLE, WEB, World, ago, flow_key, record,
    },
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups: [Vec<Case>; 7] =
        [kept(now), renewed(now), marked(now), unconfirmed(now), learned(now), odd(now), orphans(now)];
    groups.into_iter().flatten().collect()
}

/// States and ages, in ticks, of the request's and the reply's half.
pub(super) type Halves = [(u32, u32); 2];

pub(super) fn aged(vip: SocketAddr, halves: Halves, now: Ticks) -> Pair {
    let [(request, request_age), (reply, reply_age)] = halves;
    Pair {
        request: Half::new(ago(now, request_age), NAT_REQUEST | request),
        reply: Half::new(ago(now, reply_age), NAT_REPLY | reply),
        ..pair(A, vip, now)
    }
}

/// The packet finds the pair, stamps the request's half, and leaves by it.
fn kept(now: Ticks) -> Vec<Case> {
    let moved = || World::new(Mode::Nat, now).slots(Slot::settled(B));
    let table = [
        ("a second packet", ack(), [(0, 0), (0, 0)], [0, 0]),
        ("a later packet stamps it", ack(), [(0, 100), (0, 90)], [0, 0]),
        ("a packet after the SYN confirms both halves", ack(), [(OPENING, 2), (OPENING, 1)], [0, 0]),
        ("a FIN after the SYN confirms both halves", fin(), [(OPENING, 2), (OPENING, 1)], [FIN, 0]),
        ("a RST after the SYN confirms both halves", rst(), [(OPENING, 2), (OPENING, 1)], [RST, 0]),
        (
            "the server's FIN stays when the client confirms",
            ack(),
            [(OPENING, 2), (OPENING | FIN, 1)],
            [0, FIN],
        ),
        ("confirmed in the other half already", ack(), [(OPENING, 2), (0, 1)], [0, 0]),
        ("a SYN sent again", syn(), [(OPENING, 8), (OPENING, 8)], [OPENING; 2]),
        (
            "a SYN sent again, the reply is silent",
            syn(),
            [(OPENING, 8), (OPENING, OPENING_TICKS)],
            [OPENING; 2],
        ),
        ("a SYN into a living connection", syn(), [(0, 8), (0, 8)], [0, 0]),
        ("at its last tick", ack(), [(0, TCP_IDLE - 1), (0, TCP_IDLE + 5)], [0, 0]),
        ("only the server spoke lately", ack(), [(0, TCP_IDLE + 5), (0, 3)], [0, 0]),
        ("opening at its last tick", ack(), [(OPENING, OPENING_TICKS - 1), (OPENING, OPENING_TICKS)], [0, 0]),
        ("closing at its last tick", ack(), [(FIN, CLOSING_TICKS - 1), (0, CLOSING_TICKS)], [FIN, 0]),
        ("closed at its last tick", ack(), [(FIN, CLOSED_TICKS - 1), (FIN, CLOSED_TICKS)], [FIN, FIN]),
        ("reset at its last tick", ack(), [(RST, RESET_TICKS - 1), (0, RESET_TICKS)], [RST, 0]),
    ];
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(name, packet, halves, [request, reply])| {
            let before = aged(WEB, halves, now);
            let after = aged(WEB, [(request, 0), (reply, halves[1].1)], now);
            let syn = u64::from(packet.bytes()[TCP_FLAGS] & 0x12 == 2);
            Case::new(&format!("nat, pair stays: {name}"), moved().pair(before), &packet)
                .leaves(BACK, ForwardNatRequest, &translated(&packet, &after))
                .serves(A, syn)
                .keeps(after.records())
        })
        .collect();
    let before = aged(NAMES, [(0, UDP_IDLE - 1), (0, UDP_IDLE - 1)], now);
    let after = Pair { request: Half::new(now, NAT_REQUEST), ..before };
    cases.push(
        Case::new("nat, pair stays: udp at its last tick", moved().pair(before), &udp(b"again"))
            .leaves(BACK, ForwardNatRequest, &translated(&udp(b"again"), &after))
            .serves(A, 0)
            .keeps(after.records()),
    );
    cases
}

/// The pair no longer counts: both halves go, and a SYN opens a flow with server B.
fn renewed(now: Ticks) -> Vec<Case> {
    let moved = || World::new(Mode::Nat, now).slots(Slot::settled(B));
    let table = [
        ("a SYN after the idle time", moved(), [(0, TCP_IDLE), (0, TCP_IDLE)]),
        ("a SYN after opening for 60 s", moved(), [(OPENING, OPENING_TICKS), (OPENING, OPENING_TICKS)]),
        ("a SYN over a closed flow", moved(), [(FIN, 1), (FIN, 1)]),
        ("a SYN over a flow the client closed", moved(), [(FIN, 1), (0, 1)]),
        ("a SYN over a flow the server closed", moved(), [(0, 1), (FIN, 1)]),
        ("a SYN over a flow the client reset", moved(), [(RST, 1), (0, 1)]),
        ("a SYN over a flow the server refused", moved(), [(OPENING, 1), (OPENING | RST, 1)]),
        ("its server died", moved().dead(A), [(0, 1), (0, 1)]),
        ("its server died before it answered", moved().dead(A), [(OPENING, 1), (OPENING, 1)]),
        ("a full table has the room of the old one", moved().dead(A), [(0, 1), (0, 1)]),
    ];
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(name, world, halves)| {
            let world = world.pair(aged(WEB, halves, now));
            let world = if name.starts_with("a full") { world.full_but(0) } else { world };
            let strangers: Vec<_> = world.flows[2..].to_vec();
            let after = pair(B, WEB, now).opening();
            Case::new(&format!("nat, pair anew: {name}"), world, &syn())
                .leaves(BACK, ForwardNatRequest, &translated(&syn(), &after))
                .serves(B, 1)
                .flows(strangers)
                .records(after.records())
        })
        .collect();
    let old = aged(NAMES, [(0, UDP_IDLE), (0, UDP_IDLE)], now);
    let after = pair(B, NAMES, now);
    cases.push(
        Case::new("nat, pair anew: udp silent for the idle time", moved().pair(old), &udp(b"again"))
            .leaves(BACK, ForwardNatRequest, &translated(&udp(b"again"), &after))
            .serves(B, 1)
            .flows(after.records())
            .counts(FlowRecorded),
    );
    cases
}

/// FIN and RST, each in the half of its direction.
fn marked(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let both = tcp(&[], |header| (header.fin, header.rst) = (true, true));
    let mut cases = Vec::new();
    for (name, packet, bits) in [("FIN", fin(), FIN), ("RST", rst(), RST), ("FIN and RST", both, FIN | RST)] {
        let before = aged(WEB, [(0, 4), (0, 3)], now);
        let closed = Pair { request: Half::new(now, NAT_REQUEST | bits), ..before };
        cases.push(
            Case::new(&format!("nat: the client's {name} is marked"), nat().pair(before), &packet)
                .leaves(BACK, ForwardNatRequest, &translated(&packet, &before))
                .serves(A, 0)
                .keeps(closed.records()),
        );
        let (sent, got) = answer(&packet, &before);
        let closed = Pair { reply: Half::new(now, NAT_REPLY | bits), ..before };
        cases.push(
            Case::new(&format!("nat: the server's {name} is marked"), nat().pair(before), &sent)
                .from(BACK)
                .leaves(FRONT, ForwardNatReply, &got)
                .keeps(closed.records()),
        );
    }
    cases
}

/// What the server sends before the client confirms leaves both halves half open.
fn unconfirmed(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let synack = tcp(&[], |header| (header.syn, header.ack) = (true, true));
    let table = [
        ("SYN and ACK", synack, OPENING),
        ("data", ack(), OPENING),
        ("RST", rst(), OPENING | RST),
        ("FIN", fin(), OPENING | FIN),
    ];
    table
        .into_iter()
        .map(|(name, packet, state)| {
            let before = aged(WEB, [(OPENING, 9), (OPENING, 8)], now);
            let after = Pair { reply: Half::new(now, NAT_REPLY | state), ..before };
            let (sent, got) = answer(&packet, &before);
            Case::new(&format!("nat, reply: the server's {name} confirms nothing"), nat().pair(before), &sent)
                .from(BACK)
                .leaves(FRONT, ForwardNatReply, &got)
                .keeps(after.records())
        })
        .collect()
}

/// The client's packets come by another way: replies follow them.
fn learned(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let before = aged(WEB, [(0, 4), (0, 3)], now);
    let other_mac = [2, 0, 0, 0, 9, 9];
    let ways = [
        ("MAC", Datagram { from: other_mac, ..ack() }, FRONT),
        ("address of ours", Datagram { to: other_mac, ..ack() }, FRONT),
        ("interface", ack(), BACK),
    ];
    let mut cases = vec![confirmed_elsewhere(now)];
    for (name, packet, interface) in ways {
        let at = |seen, state| Half {
            interface,
            peer_mac: packet.from,
            own_mac: packet.to,
            ..Half::new(seen, state)
        };
        let after = Pair { request: at(now, NAT_REQUEST), reply: at(ago(now, 3), NAT_REPLY), ..before };
        cases.push(
            Case::new(&format!("nat: a new {name} of the client is learned"), nat().pair(before), &packet)
                .from(interface)
                .leaves(BACK, ForwardNatRequest, &translated(&packet, &before))
                .serves(A, 0)
                .keeps(after.records()),
        );
        let (sent, got) = answer(&ack(), &after);
        let stamped = Pair { reply: at(now, NAT_REPLY), ..after };
        cases.push(
            Case::new(&format!("nat, reply: to the client's new {name}"), nat().pair(after), &sent)
                .from(BACK)
                .leaves(interface, ForwardNatReply, &got)
                .keeps(stamped.records()),
        );
    }
    cases
}

/// The reply's half learns the way and loses its mark, and keeps its stamp.
fn confirmed_elsewhere(now: Ticks) -> Case {
    let packet = Datagram { from: [2, 0, 0, 0, 9, 9], ..ack() };
    let before = aged(WEB, [(OPENING, 4), (OPENING, 3)], now);
    let half = |seen, state| Half { peer_mac: packet.from, ..Half::new(seen, state) };
    let after = Pair { request: half(now, NAT_REQUEST), reply: half(ago(now, 3), NAT_REPLY), ..before };
    Case::new(
        "nat: a new way of the client is learned as it confirms",
        World::new(Mode::Nat, now).pair(before),
        &packet,
    )
    .leaves(BACK, ForwardNatRequest, &translated(&packet, &before))
    .serves(A, 0)
    .keeps(after.records())
}

fn odd(now: Ticks) -> Vec<Case> {
    let nat = || World::new(Mode::Nat, now);
    let before = aged(WEB, [(0, 4), (0, 3)], now);
    let [request, reply] = before.records();
    let fresh = pair(A, WEB, now).opening();
    let second = Pair { nat: candidate(CLIENT, WEB, 1), ..fresh };
    let (sent, _) = answer(&ack(), &before);
    let mut short = sent.bytes();
    short.pop();
    let dsr = flow_key(CLIENT, WEB, TCP);
    vec![
        Case::new(
            "nat: a request's half alone is no flow for a SYN",
            nat().flow(request.0, request.1),
            &syn(),
        )
        .leaves(BACK, ForwardNatRequest, &translated(&syn(), &fresh))
        .serves(A, 1)
        .records(fresh.records()),
        Case::new("nat: a reply's half alone holds its port", nat().flow(reply.0, reply.1), &syn())
            .leaves(BACK, ForwardNatRequest, &translated(&syn(), &second))
            .serves(A, 1)
            .records(second.records()),
        Case::new("nat: a record made while the service was dsr", nat().flow(dsr, record(A, now, 0)), &syn())
            .leaves(BACK, ForwardNatRequest, &translated(&syn(), &fresh))
            .serves(A, 1)
            .records(fresh.records()),
        Case::new(
            "nat, reply: its time to live ends here",
            nat().pair(before),
            &Datagram { ttl: 1, ..sent.clone() },
        )
        .from(BACK)
        .leaves(BACK, AnswerTtl, &expired(&Datagram { ttl: 1, ..sent.clone() })),
        Case::bytes("nat, reply: cut short", nat().pair(before), short).from(BACK).drops(DropMalformed),
        Case::new("nat: a void pair gives its port back", nat().pair(before).dead(A), &syn())
            .leaves(BACK, ForwardNatRequest, &translated(&syn(), &fresh))
            .serves(A, 1)
            .records(fresh.records()),
    ]
}

const TCP_FLAGS: usize = 14 + 20 + 13;

/// `gateway` cannot look for another port: a half that outlived the other serves again, one of another flow does not.
fn orphans(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all().into_iter().filter(|way| way.mode == Mode::Gateway) {
        let packet = syn().of(way.vip);
        let [_, (key, reply)] = way.pair(&packet, now).records();
        for (name, state, age) in
            [("young", 0, 1), ("that saw a FIN", FIN, 900), ("long silent", 0, TCP_IDLE)]
        {
            let old = Record { seen: ago(now, age), state: NAT_REPLY | state, ..reply };
            let name = format!("a reply's half {name} is taken up again");
            cases.push(way.forwards(&name, way.world(now).flow(key, old), &packet, now));
        }
        let rewrite = reply.rewrite.expect("a half");
        let elsewhere = SocketAddr::new(rewrite.source.ip(), rewrite.source.port() + 1);
        let other = Record { rewrite: Some(Rewrite { source: elsewhere, ..rewrite }), ..reply };
        let name = format!("{}: another flow would look the same to the server", way.name());
        cases.push(Case::new(&name, way.world(now).flow(key, other), &packet).drops(DropNatPorts));
    }
    cases
}
