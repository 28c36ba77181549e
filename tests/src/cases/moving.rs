//! Records on their way to another table: a packet without one waits to be repeated, unless it begins something.

use lb_common::{
    counter::Counter::{DropNoFlow, ForwardDsr},
    entry::{Mode, Scheduler},
    flow::{OPENING, Ticks},
    net::TCP,
    slot::Slot,
};

use super::{
    Case,
    nat::{answer, pair},
    packet::Datagram,
    shape::{ack, syn, udp},
    world::{A, A_MAC, B, B_MAC, BACK, BACK_MAC, CLIENT, WEB, World, flow_key, record},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let world = |mode| World { moving: true, ..World::new(mode, now) };
    let unsettled = || world(Mode::Dsr).slots(Slot::new(B, A, true));
    let scheduled = || world(Mode::Dsr).services(|service| service.scheduler = Scheduler::RoundRobin);
    let inherited = || world(Mode::Gateway).slots(Slot::new(B, A, true));
    let web = flow_key(CLIENT, WEB, TCP);
    let (reply, _) = answer(&ack(), &pair(A, WEB, now));
    let waits = [
        ("dsr, unsettled", unsettled(), ack()),
        ("dsr, unsettled, udp", unsettled(), udp(b"query")),
        ("dsr, round robin", scheduled(), ack()),
        ("nat", world(Mode::Nat), ack()),
        ("nat, udp", world(Mode::Nat), udp(b"query")),
        ("gateway", inherited(), ack()),
    ];
    let mut cases: Vec<_> = waits
        .into_iter()
        .map(|(name, world, packet)| {
            Case::new(&format!("records move, {name}: it waits"), world, &packet).drops(DropNoFlow)
        })
        .collect();
    let sent = |case: Case, packet: &Datagram, mac, server, opens| {
        case.leaves(BACK, ForwardDsr, &packet.hop(mac, BACK_MAC)).serves(server, opens)
    };
    let known = unsettled().flow(web, record(B, now, 0));
    cases.extend([
        Case::new("records move, nat: a reply waits", world(Mode::Nat), &reply).from(BACK).drops(DropNoFlow),
        sent(Case::new("records move: a settled slot", world(Mode::Dsr), &ack()), &ack(), A_MAC, A, 0),
        sent(Case::new("records move: a SYN", unsettled(), &syn()), &syn(), B_MAC, B, 1)
            .records([(web, record(B, now, OPENING))]),
        sent(Case::new("records move: a record that is there", known, &ack()), &ack(), B_MAC, B, 0),
    ]);
    cases
}
