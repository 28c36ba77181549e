//! VLAN tags: those of arrival go, those of the way come, and what returns to the client has its own again.

use lb_common::{
    counter::Counter::{
        self, AnswerEcho, AnswerTtl, ForwardDsr, ForwardGatewayReply, ForwardNatReply, PassNotIp,
    },
    entry::Mode,
    flow::Ticks,
    slot::{ServerId, Slot},
};
use lb_user::pure::config::network::Family;

use super::{
    Case,
    echo::{ping, pong},
    every_mode,
    expected::expired,
    modes::Way,
    nat::answer,
    packet::Datagram,
    refused::refusal,
    shape::{ack, syn, udp},
    world::{A, A_MAC, BACK, BACK_MAC, FRONT, Half, Pair, World},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups = [requests(now), replies(now), moved(now), answers(now), odd(now)];
    groups.into_iter().flatten().collect()
}

/// Priority and id; the outer one first.
const NONE: (&str, &[u16]) = ("no tag", &[]);
const ONE: (&str, &[u16]) = ("one tag", &[0x2064]);
const TWO: (&str, &[u16]) = ("two tags", &[0x0ffe, 0xe001]);
const OTHER: (&str, &[u16]) = ("another tag", &[0x0007]);
const OTHERS: (&str, &[u16]) = ("two other tags", &[0x0003, 0x2005]);

fn requests(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        for (arrival, own) in [NONE, ONE, TWO] {
            for (egress, tags) in [NONE, OTHER, OTHERS] {
                if own.is_empty() && tags.is_empty() {
                    continue;
                }
                for (name, packet) in [("a SYN", syn()), ("data", ack())] {
                    let packet = packet.of(way.vip).tagged(own);
                    let pair = way.pair(&packet, now).tagged(own);
                    let world = way.world(now).behind(tags);
                    let new = way.mode.rewrites() && packet.is_syn();
                    let world = if way.mode.rewrites() && !new { world.pair(pair) } else { world };
                    let what = format!("{}: {name} with {arrival}, out with {egress}", way.name());
                    let case = Case::new(&what, world, &packet)
                        .leaves(BACK, way.counter(), &way.sent(&packet, now).tagged(tags))
                        .serves(way.first(), packet.is_syn().into());
                    cases.push(if new { case.records(pair.records()) } else { case });
                }
            }
        }
    }
    cases
}

fn replies(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all().into_iter().filter(|way| way.mode.rewrites()) {
        let counter = if way.mode == Mode::Nat { ForwardNatReply } else { ForwardGatewayReply };
        for (arrival, own) in [NONE, OTHER, OTHERS] {
            for (client, tags) in [NONE, ONE, TWO] {
                for (name, packet) in [("data", ack()), ("a datagram", udp(b"answer"))] {
                    let packet = packet.of(way.vip);
                    let pair = way.pair(&packet, now).tagged(tags);
                    let (sent, got) = answer(&packet, &pair);
                    let what =
                        format!("{}, reply: {name} with {arrival}, to a client with {client}", way.name());
                    cases.push(
                        Case::new(&what, way.world(now).pair(pair), &sent.tagged(own)).from(BACK).leaves(
                            FRONT,
                            counter,
                            &got.tagged(tags),
                        ),
                    );
                }
            }
        }
    }
    cases
}

/// The client's packets come with other tags: replies follow them.
fn moved(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all().into_iter().filter(|way| way.mode.rewrites()) {
        let packet = ack().of(way.vip);
        for (arrival, own) in [NONE, OTHER, OTHERS] {
            let before = way.pair(&packet, now).tagged(ONE.1);
            let packet = packet.tagged(own);
            cases.push(
                Case::new(
                    &format!("{}: a client's new tags are learned, {arrival}", way.name()),
                    way.world(now).pair(before),
                    &packet,
                )
                .leaves(BACK, way.counter(), &way.sent(&packet, now))
                .serves(way.first(), 0)
                .keeps(before.tagged(own).records()),
            );
        }
    }
    cases
}

/// What the program answers itself keeps the tags.
fn answers(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for (mode, family) in every_mode() {
        let word = format!("{mode:?} over {}", family.name()).to_lowercase();
        for (name, tags) in [ONE, TWO] {
            let first = syn().of(family).tagged(tags);
            let old = Datagram { ttl: 1, ..ack().of(family).tagged(tags) };
            let none = World::new(mode, now).slots(Slot::settled(ServerId::NONE));
            cases.extend([
                Case::new(&format!("{word}: refused with {name}"), none, &first).leaves(
                    FRONT,
                    Counter::ResetNoServer,
                    &refusal(&first),
                ),
                Case::new(&format!("{word}: too old with {name}"), World::new(mode, now), &old).leaves(
                    FRONT,
                    AnswerTtl,
                    &expired(&old),
                ),
            ]);
        }
    }
    for family in Family::ALL {
        for (name, tags) in [ONE, TWO] {
            let asked = ping(family).tagged(tags);
            let name = format!("echo over {} with {name}", family.name());
            let world = World::new(Mode::Dsr, now);
            cases.push(Case::new(&name, world, &asked).leaves(FRONT, AnswerEcho, &pong(&asked)));
        }
    }
    cases
}

fn odd(now: Ticks) -> Vec<Case> {
    let dsr = || World::new(Mode::Dsr, now);
    let sent = syn().hop(A_MAC, BACK_MAC);
    let forwarded = |name: &str, bytes: Vec<u8>| {
        let mut case = Case::new(name, dsr(), &syn()).leaves(BACK, ForwardDsr, &sent).serves(A, 1);
        case.packet = bytes;
        case
    };
    let typed = |tags: &[u16], at: usize, ether_type: [u8; 2]| {
        let mut bytes = syn().tagged(tags).bytes();
        bytes[at..at + 2].copy_from_slice(&ether_type);
        bytes
    };
    let mut three = syn().tagged(&[1, 2]).bytes();
    three.splice(12..12, [0x88, 0xa8, 0, 9]);
    let half = Half::new(now, lb_common::flow::NAT_REQUEST);
    let pair = Way { mode: Mode::Nat, vip: Family::V4, server: Family::V4 }.pair(&ack(), now);
    let drop_eligible = Pair { request: half, ..pair }.tagged(&[0x2064]);
    let eligible = ack().tagged(&[0x3064]);
    vec![
        forwarded("vlan: a service tag alone", typed(&[5], 12, [0x88, 0xa8])),
        forwarded("vlan: two customer tags", typed(&[5, 6], 12, [0x81, 0])),
        forwarded("vlan: two service tags", typed(&[5, 6], 16, [0x88, 0xa8])),
        forwarded("vlan: a priority tag", syn().tagged(&[0xe000]).bytes()),
        Case::bytes("vlan: three tags", dsr(), three).passes(PassNotIp),
        Case::bytes("vlan: arp in a tag", dsr(), typed(&[5], 16, [8, 6])).passes(PassNotIp),
        Case::bytes("vlan: the other family's type in a tag", dsr(), typed(&[5], 16, [0x86, 0xdd]))
            .passes(PassNotIp),
        Case::new(
            "vlan: a mark to be dropped first is not kept",
            World::new(Mode::Nat, now).pair(drop_eligible),
            &eligible,
        )
        .leaves(
            BACK,
            Counter::ForwardNatRequest,
            &Way::sent(Way { mode: Mode::Nat, vip: Family::V4, server: Family::V4 }, &eligible, now),
        )
        .serves(A, 0),
    ]
}
