//! `dsr` over slots that changed hands: records decide, then who is new.

use lb_common::{
    counter::Counter::{DropUnresolved, FlowUnrecorded, ForwardDsr, ResetNoServer},
    entry::Mode,
    flow::{OPENING, OPENING_TICKS, Ticks},
    net::{TCP, UDP},
    slot::{ServerId, Slot},
};

use super::{
    Case,
    packet::Datagram,
    refused::refusal,
    shape::{ack, syn, udp},
    world::{
        A, A_MAC, B, B_MAC, BACK, BACK_MAC, CLIENT, FRONT, NAMES, TCP_IDLE, UDP_IDLE, WEB, World, ago,
        flow_key, record,
    },
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups: [Vec<Case>; 4] = [misses(now), hits(now), void(now), full(now)];
    groups.into_iter().flatten().collect()
}

/// `current` is B, `base` is A.
fn moved(now: Ticks) -> World {
    World::new(Mode::Dsr, now).slots(Slot::new(B, A, true))
}

fn sent(case: Case, packet: &Datagram, server: ServerId, connections: u64) -> Case {
    let mac = if server == A { A_MAC } else { B_MAC };
    case.leaves(BACK, ForwardDsr, &packet.hop(mac, BACK_MAC)).serves(server, connections)
}

fn misses(now: Ticks) -> Vec<Case> {
    let web = flow_key(CLIENT, WEB, TCP);
    let names = flow_key(CLIENT, NAMES, UDP);
    let lone = |slot| World::new(Mode::Dsr, now).slots(slot);
    let table = [
        ("a SYN opens with current", moved(now), syn(), B, 1, (web, OPENING)),
        ("later packets belong to base", moved(now), ack(), A, 0, (web, 0)),
        ("later packets of a dead base go to current", moved(now).dead(A), ack(), B, 0, (web, 0)),
        ("a SYN with a dead base", moved(now).dead(A), syn(), B, 1, (web, OPENING)),
        ("no base", lone(Slot::new(B, ServerId::NONE, true)), ack(), B, 0, (web, 0)),
        ("a base outside the table", lone(Slot::new(B, ServerId(0xff_ffff), true)), ack(), B, 0, (web, 0)),
        ("no current, later packets", lone(Slot::new(ServerId::NONE, A, true)), ack(), A, 0, (web, 0)),
        ("back at base, a SYN", lone(Slot::new(A, A, true)), syn(), A, 1, (web, OPENING)),
        ("udp belongs to base", moved(now), udp(b"query"), A, 1, (names, 0)),
        ("udp with a dead base", moved(now).dead(A), udp(b"query"), B, 1, (names, 0)),
    ];
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(name, world, packet, server, connections, (key, state))| {
            let case = Case::new(&format!("unsettled: {name}"), world, &packet);
            sent(case, &packet, server, connections).records([(key, record(server, now, state))])
        })
        .collect();
    cases.push(
        Case::new("unsettled: no current, a SYN", lone(Slot::new(ServerId::NONE, A, true)), &syn()).leaves(
            FRONT,
            ResetNoServer,
            &refusal(&syn()),
        ),
    );
    cases.push(
        Case::new(
            "unsettled: recorded though the way to the server is unknown",
            moved(now).server(B, |server| server.hop.resolved = false),
            &syn(),
        )
        .drops(DropUnresolved)
        .records([(web, record(B, now, OPENING))]),
    );
    cases
}

/// A record that counts, and what the packet makes of it.
fn hits(now: Ticks) -> Vec<Case> {
    let web = flow_key(CLIENT, WEB, TCP);
    let names = flow_key(CLIENT, NAMES, UDP);
    let draining = ServerId(3);
    let table = [
        ("wins over base", ack(), web, record(B, now, 0), 0),
        ("wins over current", syn(), web, record(A, now, 0), 0),
        ("is stamped", ack(), web, record(B, ago(now, 50), 0), 0),
        ("from the future counts as fresh", ack(), web, record(B, ago(now, u32::MAX - 4), 0), 0),
        ("lives to its last tick", ack(), web, record(B, ago(now, TCP_IDLE - 1), 0), 0),
        ("is confirmed by a later packet", ack(), web, record(B, ago(now, 10), OPENING), 0),
        ("stays opening for a repeated SYN", syn(), web, record(A, ago(now, 10), OPENING), OPENING),
        ("opening, lives for 60 s", ack(), web, record(B, ago(now, OPENING_TICKS - 1), OPENING), 0),
        ("confirmed, lives beyond 60 s", ack(), web, record(B, ago(now, OPENING_TICKS + 9), 0), 0),
        ("of udp wins", udp(b"query"), names, record(B, ago(now, 5), 0), 0),
        ("of udp lives to its last tick", udp(b"query"), names, record(B, ago(now, UDP_IDLE - 1), 0), 0),
    ];
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(name, packet, key, found, state)| {
            let case =
                Case::new(&format!("unsettled: a record {name}"), moved(now).flow(key, found), &packet);
            let server = found.server;
            let opening = u64::from(is_syn(&packet));
            sent(case, &packet, server, opening).keeps([(key, record(server, now, state))])
        })
        .collect();
    let world = moved(now)
        .server(draining, |server| server.hop.interface = BACK)
        .flow(web, record(draining, ago(now, 7), 0));
    cases.push(
        Case::new("unsettled: a record of a server no slot names any more", world, &ack())
            .leaves(BACK, ForwardDsr, &ack().hop(A_MAC, BACK_MAC))
            .serves(draining, 0)
            .keeps([(web, record(draining, now, 0))]),
    );
    cases
}

/// A record that does not count is overwritten.
fn void(now: Ticks) -> Vec<Case> {
    let web = flow_key(CLIENT, WEB, TCP);
    let names = flow_key(CLIENT, NAMES, UDP);
    let gone = ServerId(0xff_ffff);
    let table = [
        ("of a dead server", moved(now).dead(B), ack(), web, record(B, now, 0), A, 0),
        ("of a dead server, before a SYN", moved(now).dead(A), syn(), web, record(A, now, 0), B, OPENING),
        ("of a server outside the table", moved(now), ack(), web, record(gone, now, 0), A, 0),
        ("of no server", moved(now), ack(), web, record(ServerId::NONE, now, 0), A, 0),
        ("that is too old", moved(now), ack(), web, record(B, ago(now, TCP_IDLE), 0), A, 0),
        ("of udp that is too old", moved(now), udp(b"q"), names, record(B, ago(now, UDP_IDLE), 0), A, 0),
        ("opening for 60 s", moved(now), ack(), web, record(B, ago(now, OPENING_TICKS), OPENING), A, 0),
        (
            "opening for 60 s, SYN",
            moved(now),
            syn(),
            web,
            record(A, ago(now, OPENING_TICKS + 1), OPENING),
            B,
            OPENING,
        ),
    ];
    table
        .into_iter()
        .map(|(name, world, packet, key, found, server, state)| {
            let case =
                Case::new(&format!("unsettled: a void record {name}"), world.flow(key, found), &packet);
            let opening = u64::from(is_syn(&packet) || key == names);
            sent(case, &packet, server, opening).records([(key, record(server, now, state))])
        })
        .collect()
}

fn full(now: Ticks) -> Vec<Case> {
    let web = flow_key(CLIENT, WEB, TCP);
    let table = [
        ("a SYN goes to base", moved(now).full_but(0), syn(), A),
        ("later packets go to base", moved(now).full_but(0), ack(), A),
        ("udp goes to base", moved(now).full_but(0), udp(b"query"), A),
        ("a SYN with a dead base goes to current", moved(now).dead(A).full_but(0), syn(), B),
    ];
    let mut cases: Vec<Case> = table
        .into_iter()
        .map(|(name, world, packet, server)| {
            let case = Case::new(&format!("unsettled, flow table full: {name}"), world, &packet);
            sent(case, &packet, server, is_syn(&packet).into()).counts(FlowUnrecorded)
        })
        .collect();
    let without_base = moved(now).slots(Slot::new(ServerId::NONE, A, true)).dead(A).full_but(0);
    cases.extend([
        Case::new("unsettled, flow table full: nobody at all", without_base, &ack()).leaves(
            FRONT,
            ResetNoServer,
            &refusal(&ack()),
        ),
        sent(
            Case::new("unsettled, flow table full: the last place", moved(now).full_but(1), &syn()),
            &syn(),
            B,
            1,
        )
        .records([(web, record(B, now, OPENING))]),
        sent(
            Case::new(
                "unsettled, flow table full: a record still counts",
                moved(now).flow(web, record(B, ago(now, 3), 0)).full_but(0),
                &ack(),
            ),
            &ack(),
            B,
            0,
        )
        .keeps([(web, record(B, now, 0))]),
        sent(
            Case::new(
                "unsettled, flow table full: a void record makes room for its successor",
                moved(now).dead(B).flow(web, record(B, now, 0)).full_but(0),
                &ack(),
            ),
            &ack(),
            A,
            0,
        )
        .records([(web, record(A, now, 0))]),
    ]);
    cases
}

fn is_syn(packet: &Datagram) -> bool {
    matches!(&packet.transport, super::packet::Transport::Tcp(header) if header.syn && !header.ack)
}
