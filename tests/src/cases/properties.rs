//! Properties of the packet path that hold for any packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::TcpHeader;
use lb_common::{
    counter::Counter,
    entry::Mode,
    flow::{OPENING, OPENING_TICKS, Ticks},
    flow_table::WAYS,
    slot::{ServerId, Slot},
};
use lb_ebpf::{Action, forward};
use lb_user::pure::config::network::Family;
use proptest::{collection::vec, prelude::*};

use super::{
    checksum::{self, Checksums},
    expected::delivered,
    host::{HostPacket, HostTables},
    nat::{answer, candidate, pair, translated},
    on_host::tables,
    packet::{Datagram, Extension, Transport},
    refused::refusal,
    shape::{ack, syn, udp},
    world::{A, A6, B, BACK, FRONT, Pair, World, ends},
};

proptest! {
    #[test]
    fn modes_without_records_keep_the_packet(packet in datagram(), mode in 0..3usize) {
        let mode = [Mode::Dsr, Mode::Ipip, Mode::Gue][mode];
        let (action, sent) = send(&tables(&World::new(mode, NOW)), &packet.bytes(), FRONT);
        let [server, _] = ends(Family::of(packet.source.ip())).servers;
        prop_assert_eq!(action, Action::Redirect(BACK));
        prop_assert_eq!(sent, delivered(&packet, mode, server).bytes());
    }

    /// The expected bytes carry checksums summed up anew.
    #[test]
    fn rewritten_and_back_restores_the_ends(packet in datagram(), reply in datagram(), gateway in any::<bool>()) {
        let mode = if gateway { Mode::Gateway } else { Mode::Nat };
        let tables = tables(&World::new(mode, NOW));
        open(&tables, &packet);
        let (client, vip) = (packet.source, packet.destination);
        let [server, _] = ends(Family::of(vip.ip())).servers;
        let nat = if gateway { client } else { candidate(client, vip, 0) };
        let pair = Pair { client, nat, ..pair(server, vip, NOW) };
        let (action, sent) = send(&tables, &packet.bytes(), FRONT);
        prop_assert_eq!(action, Action::Redirect(BACK));
        prop_assert_eq!(sent, translated(&packet, &pair).bytes());

        let family = Family::of(vip.ip());
        let reply = Datagram { transport: like(&packet, &reply), ..reply.of(family) };
        let (told, heard) = answer(&reply, &pair);
        prop_assert_eq!((heard.source, heard.destination), (packet.destination, packet.source));
        let (action, sent) = send(&tables, &told.bytes(), BACK);
        prop_assert_eq!(action, Action::Redirect(FRONT));
        prop_assert_eq!(sent, Datagram { tags: packet.tags.clone(), ..heard }.bytes());
    }

    #[test]
    fn nat_records_nothing_but_what_opens(packet in datagram()) {
        let Transport::Tcp(header) = &packet.transport else { return Ok(()) };
        prop_assume!(!header.syn || header.ack);
        let tables = tables(&World::new(Mode::Nat, NOW));
        let (action, sent) = send(&tables, &packet.bytes(), FRONT);
        let answerable = match packet.source.ip() {
            IpAddr::V4(source) => !matches!(source.octets()[0], 0 | 224..),
            IpAddr::V6(source) => !source.is_unspecified() && !source.is_multicast(),
        };
        if header.rst || !answerable {
            prop_assert_eq!(action, Action::Drop);
        } else {
            prop_assert_eq!(action, Action::Transmit);
            prop_assert_eq!(sent, refusal(&packet).bytes());
        }
        prop_assert!(tables.records().is_empty());
        prop_assert!(tables.traffic().is_empty());
    }

    #[test]
    fn nobody_forwards_what_is_for_a_group(packet in datagram(), to in any::<[u8; 6]>(), world in 0..WORLDS) {
        let packet = Datagram { to: [to[0] | 1, to[1], to[2], to[3], to[4], to[5]], ..packet };
        let world = worlds(world);
        let tables = tables(&world);
        let (action, sent) = send(&tables, &packet.bytes(), FRONT);
        prop_assert_eq!(action, Action::Pass);
        prop_assert_eq!(sent, packet.bytes());
        prop_assert_eq!(tables.records(), world.flows.into_iter().collect());
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..200), world in 0..WORLDS) {
        judge(&bytes, world)?;
    }

    #[test]
    fn any_damage_is_survived(
        packet in datagram(),
        damage in vec((0..60usize, any::<u8>()), 0..4),
        cut in prop_oneof![Just(usize::MAX), 0..120usize],
        world in 0..WORLDS,
    ) {
        let mut bytes = packet.bytes();
        for (place, value) in damage {
            let length = bytes.len();
            bytes[place % length] = value;
        }
        bytes.truncate(cut);
        judge(&bytes, world)?;
    }
}

/// What holds for every packet, whole or not.
fn judge(bytes: &[u8], world: usize) -> Result<(), TestCaseError> {
    let tables = tables(&worlds(world));
    let (action, sent) = send(&tables, bytes, FRONT);
    let counters = tables.counters();
    if ANSWERS.iter().any(|counter| counters.contains_key(counter)) {
        prop_assert_eq!(action, Action::Transmit);
        let found = Checksums::of(&sent).map(|found| (found.ip, found.transport));
        prop_assert_eq!(found, Some((true, checksum::Transport::Right)));
        return Ok(());
    }
    match action {
        Action::Pass => prop_assert_eq!(&sent, bytes),
        Action::Drop => {}
        Action::Transmit | Action::Redirect(_) => {
            prop_assert_eq!(Checksums::of(&sent), Checksums::of(bytes));
        }
        Action::Next(stage) => prop_assert!(false, "ended in stage {}", stage),
    }
    Ok(())
}

const ANSWERS: [Counter; 5] = [
    Counter::ResetNoServer,
    Counter::ResetNoFlow,
    Counter::AnswerNoServer,
    Counter::AnswerTooBig,
    Counter::AnswerTtl,
];

/// Makes the pair of a TCP flow; a datagram makes its own.
fn open(tables: &HostTables, packet: &Datagram) {
    if let Transport::Tcp(_) = packet.transport {
        let first = Datagram { transport: syn().transport, ..packet.clone() };
        let (action, _) = send(tables, &first.bytes(), FRONT);
        assert_eq!(action, Action::Redirect(BACK), "a SYN opens a flow");
    }
}

fn send(tables: &HostTables, bytes: &[u8], interface: u32) -> (Action, Vec<u8>) {
    let mut packet = HostPacket::new(bytes, interface, 0xa5);
    let outcome = forward(&mut packet, tables);
    tables.count_outcome(outcome);
    assert!(packet.stayed_within(), "wrote outside the packet");
    (outcome.action(), packet.bytes())
}

fn worlds(index: usize) -> World {
    let world = |mode| World::new(mode, NOW);
    match index {
        0 => world(Mode::Dsr),
        1 => world(Mode::Nat),
        2 => world(Mode::Dsr).slots(Slot::new(B, A, true)),
        3 => world(Mode::Nat).slots(Slot::new(B, A, true)),
        4 => world(Mode::Dsr).slots(Slot::settled(ServerId::NONE)),
        5 => world(Mode::Nat).full_but(1),
        6 => world(Mode::Ipip),
        7 => world(Mode::Gue).slots(Slot::new(A6, A, true)),
        8 => world(Mode::Gateway),
        9 => world(Mode::Dsr).slots(Slot::new(B, A, true)).strangers(WAYS, OPENING_TICKS, OPENING),
        _ => world(Mode::Nat).strangers(WAYS, OPENING_TICKS, OPENING),
    }
}

/// A whole packet for one of the services, from anybody.
fn datagram() -> impl Strategy<Value = Datagram> {
    let ip = (any::<[u8; 16]>(), any::<u16>(), 2..=u8::MAX, any::<u8>(), any::<u16>(), any::<bool>());
    let shape = (
        transport(),
        vec(any::<u8>(), 0..300),
        0..8usize,
        vec(0..0x1000u16, 0..3),
        0..10usize,
        any::<bool>(),
    );
    (ip, shape).prop_map(|(ip, shape)| {
        let (address, port, ttl, traffic_class, identification, is_v6) = ip;
        let (transport, payload, padding, tags, words, dont_fragment) = shape;
        let packet = if let Transport::Tcp(_) = transport { ack() } else { udp(&[]) };
        let family = if is_v6 { Family::V6 } else { Family::V4 };
        let packet = packet.of(family);
        let address = match family {
            Family::V4 => Ipv4Addr::from_octets([address[0], address[1], address[2], address[3]]).into(),
            Family::V6 => Ipv6Addr::from_octets(address).into(),
        };
        Datagram {
            source: SocketAddr::new(address, port),
            tags,
            ttl,
            traffic_class,
            identification: identification.into(),
            dont_fragment,
            options: vec![1; words * 4],
            extensions: (0..words / 2).map(|units| Extension::options(60, units as u8 + 1)).collect(),
            transport,
            payload,
            padding: vec![0xee; padding],
            ..packet
        }
    })
}

fn transport() -> impl Strategy<Value = Transport> {
    let tcp = (any::<[bool; 8]>(), any::<[u32; 2]>(), any::<[u16; 2]>(), 0..11usize).prop_map(
        |(flags, [sequence_number, acknowledgment_number], [window_size, urgent_pointer], words)| {
            let [fin, syn, rst, psh, ack, urg, ece, cwr] = flags;
            let mut header = TcpHeader {
                sequence_number,
                acknowledgment_number,
                window_size,
                urgent_pointer,
                fin,
                syn,
                rst,
                psh,
                ack,
                urg,
                ece,
                cwr,
                ..TcpHeader::default()
            };
            header.set_options_raw(&vec![1; words * 4]).expect("at most forty bytes of options");
            Transport::Tcp(Box::new(header))
        },
    );
    prop_oneof![4 => tcp, 3 => Just(Transport::Udp), 1 => Just(Transport::UdpWithoutChecksum)]
}

/// The transport of `reply` where it is of the same protocol as `packet`, else that of `packet`.
fn like(packet: &Datagram, reply: &Datagram) -> Transport {
    let is_tcp = |datagram: &Datagram| matches!(datagram.transport, Transport::Tcp(_));
    let same = is_tcp(packet) == is_tcp(reply);
    if same { reply.transport.clone() } else { packet.transport.clone() }
}

const NOW: Ticks = Ticks(100_000);
const WORLDS: usize = 11;
