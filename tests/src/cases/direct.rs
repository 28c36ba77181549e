//! `dsr` over settled slots: no record is looked at or made.

use std::net::SocketAddr;

use lb_common::{
    counter::Counter::ForwardDsr,
    entry::Mode,
    flow::Ticks,
    limits::SLOTS_MIN,
    net::{TCP, UDP},
    slot::Slot,
};

use super::{
    Case, expected,
    packet::{Datagram, Transport},
    shape::{ack, fin, rst, syn, tcp, udp},
    world::{
        A, A_MAC, B, B_MAC, BACK, BACK_MAC, CLIENT, FRONT, FRONT_MAC, NAMES, TARGET_A, WEB, World, flow_key,
        record,
    },
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let dsr = || World::new(Mode::Dsr, now);
    let packets = [
        ("a SYN", syn(), 1),
        ("a SYN and ACK, which opens nothing", tcp(&[], |header| (header.syn, header.ack) = (true, true)), 0),
        ("data", ack(), 0),
        ("a FIN", fin(), 0),
        ("a RST", rst(), 0),
        ("tcp options", tcp(b"x", |header| options(header, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])), 0),
        ("a full segment", tcp(&[0x5a; 1_460], |header| header.ack = true), 0),
        ("a time to live of 2", Datagram { ttl: 2, ..ack() }, 0),
        ("a time to live of 255", Datagram { ttl: 255, ..ack() }, 0),
        ("a time to live of 1 more than a carry", Datagram { ttl: 1 + 1, identification: 0, ..ack() }, 0),
        ("a code point", Datagram { traffic_class: 46 << 2, ..ack() }, 0),
        ("leave to fragment", Datagram { dont_fragment: false, ..ack() }, 0),
        ("a frame of 60 bytes", syn().padded(), 1),
        ("noise behind the packet", Datagram { padding: vec![0xee; 7], ..ack() }, 0),
        ("the address of the service as its source", Datagram { source: WEB, ..syn() }, 1),
        ("a server as its client", Datagram { source: TARGET_A, ..syn() }, 1),
        ("source port 0", Datagram { source: SocketAddr::new(CLIENT.ip(), 0), ..syn() }, 1),
        ("a name query", udp(b"query"), 0),
        ("an empty datagram", udp(&[]), 0),
        ("an odd number of bytes", udp(&[0xff; 33]), 0),
        ("no udp checksum", Datagram { transport: Transport::UdpWithoutChecksum, ..udp(b"query") }, 0),
    ];
    let mut cases = Vec::new();
    for (name, packet, connections) in packets {
        cases.push(
            Case::new(&format!("dsr, one arm: {name}"), dsr().one_arm(), &packet)
                .leaves(FRONT, ForwardDsr, &packet.hop(A_MAC, FRONT_MAC))
                .serves(A, connections),
        );
        cases.push(
            Case::new(&format!("dsr, two arms: {name}"), dsr(), &packet)
                .leaves(BACK, ForwardDsr, &packet.hop(A_MAC, BACK_MAC))
                .serves(A, connections),
        );
    }
    cases.extend(choices(now));
    cases
}

fn choices(now: Ticks) -> [Case; 5] {
    let dsr = || World::new(Mode::Dsr, now);
    let slot = web_slot(CLIENT);
    let one_slot = dsr().slot(slot, Slot::settled(B));
    let other_slots = dsr().slots(Slot::settled(B)).slot(slot, Slot::settled(A));
    [
        Case::new("dsr: the hash finds the one slot of server B", one_slot, &syn())
            .leaves(BACK, ForwardDsr, &syn().hop(B_MAC, BACK_MAC))
            .serves(B, 1),
        Case::new("dsr: the hash finds the one slot of server A", other_slots, &syn())
            .leaves(BACK, ForwardDsr, &syn().hop(A_MAC, BACK_MAC))
            .serves(A, 1),
        Case::new(
            "dsr: a settled slot asks no record",
            dsr().flow(flow_key(CLIENT, WEB, TCP), record(B, now, 0)),
            &ack(),
        )
        .leaves(BACK, ForwardDsr, &ack().hop(A_MAC, BACK_MAC))
        .serves(A, 0),
        Case::new("dsr: a request from the servers' side goes back there", dsr(), &syn())
            .from(BACK)
            .leaves(BACK, ForwardDsr, &syn().hop(A_MAC, BACK_MAC))
            .serves(A, 1),
        Case::new(
            "dsr: a full flow table is no obstacle",
            dsr().flow(flow_key(CLIENT, NAMES, UDP), record(B, now, 0)).full_but(0),
            &udp(b"query"),
        )
        .leaves(BACK, ForwardDsr, &udp(b"query").hop(A_MAC, BACK_MAC))
        .serves(A, 0),
    ]
}

fn web_slot(client: SocketAddr) -> usize {
    (expected::hash(client, WEB) & (SLOTS_MIN - 1)) as usize
}

fn options(header: &mut etherparse::TcpHeader, options: &[u8]) {
    header.ack = true;
    header.set_options_raw(options).expect("twelve bytes of options fit a header");
}
