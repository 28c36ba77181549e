//! Interfaces that the kernel half may not send out of: what was to leave by them is dropped, though it is
//! rewritten and recorded already.

use lb_common::{
    counter::Counter::{DropDevice, ForwardDsr},
    entry::Mode,
    flow::{NAT_REPLY, Ticks},
};

use super::{
    Case,
    nat::{answer, pair, translated},
    packet::Datagram,
    shape::{ack, syn, udp},
    world::{A, A_MAC, BACK, BACK_MAC, FRONT, FRONT_MAC, Half, Pair, WEB, World},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let to =
        |mode, interface: u32| World::new(mode, now).server(A, |server| server.hop.interface = interface);
    let without = |mode| {
        let mut world = World::new(mode, now);
        world.tables.devices.remove(&BACK);
        world
    };
    let opened = pair(A, WEB, now).opening();
    let away = Half { interface: NOWHERE, ..Half::new(now, NAT_REPLY) };
    let lost = Pair { reply: away, ..pair(A, WEB, now) };
    let (sent, got) = answer(&ack(), &lost);
    let direct = |name: &str, world: World, packet: &Datagram, opens: u64| {
        dropped(Case::new(name, world, packet), &packet.hop(A_MAC, BACK_MAC)).serves(A, opens)
    };
    vec![
        direct("dsr: out of an interface that does not exist", to(Mode::Dsr, NOWHERE), &syn(), 1),
        direct("dsr: out of interface 0", to(Mode::Dsr, 0), &udp(b"query"), 0),
        direct("dsr: out of an interface that is not entered", without(Mode::Dsr), &ack(), 0),
        dropped(
            Case::new("nat: out of an interface that is not entered", without(Mode::Nat), &syn()),
            &translated(&syn(), &opened),
        )
        .serves(A, 1)
        .records(opened.records()),
        dropped(
            Case::new(
                "nat, reply: the client's interface is gone",
                World::new(Mode::Nat, now).pair(lost),
                &sent,
            )
            .from(BACK),
            &got,
        ),
        // Transmitted, not redirected: no device is looked up.
        Case::new("dsr, one arm: the interface is not entered", bare(now), &syn())
            .leaves(FRONT, ForwardDsr, &syn().hop(A_MAC, FRONT_MAC))
            .serves(A, 1),
    ]
}

fn bare(now: Ticks) -> World {
    let mut world = World::new(Mode::Dsr, now).one_arm();
    world.tables.devices.clear();
    world
}

fn dropped(case: Case, rewritten: &Datagram) -> Case {
    let mut case = case.drops(DropDevice);
    case.expected.packet = rewritten.bytes();
    case
}

const NOWHERE: u32 = 4_242;
