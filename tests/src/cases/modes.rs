//! Every mode over both families, to servers of both where the mode allows it.

use std::net::SocketAddr;

use lb_common::{
    counter::Counter::{
        self, DropHeadroom, ForwardDsr, ForwardGatewayReply, ForwardGatewayRequest, ForwardGue, ForwardIpip,
        ForwardNatReply, ForwardNatRequest, PassNoService, PassProtocol,
    },
    entry::Mode,
    flow::Ticks,
    net::Be16,
    slot::{ServerId, Slot},
};
use lb_user::pure::config::network::Family;

use super::{
    Case,
    expected::delivered,
    nat::{answer, pair, translated},
    packet::{Datagram, Extension, Fragment, Outer, Transport},
    shape::{ack, fin, rst, syn, tcp, udp},
    world::{BACK, CLIENT_MAC, FRONT, FRONT_MAC, Pair, World, ends},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups = [direct(now), rewritten(now), own_ports(now), looped(now), jumbo(now), cramped(now)];
    groups.into_iter().flatten().collect()
}

/// A mode, the family of the service and that of its servers.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) mode: Mode,
    pub(super) vip: Family,
    pub(super) server: Family,
}

impl Way {
    pub(super) fn all() -> Vec<Way> {
        let mut ways = Vec::new();
        for mode in super::MODES {
            for vip in Family::ALL {
                for server in Family::ALL {
                    if server == vip || matches!(mode, Mode::Ipip | Mode::Gue) {
                        ways.push(Way { mode, vip, server });
                    }
                }
            }
        }
        ways
    }

    pub(super) fn name(self) -> String {
        let digit = |family| if family == Family::V4 { 4 } else { 6 };
        format!("{:?} {}in{}", self.mode, digit(self.vip), digit(self.server)).to_lowercase()
    }

    /// The first server of its family gets everything.
    pub(super) fn world(self, now: Ticks) -> World {
        World::new(self.mode, now).slots(Slot::settled(self.first()))
    }

    pub(super) fn first(self) -> ServerId {
        ends(self.server).servers[0]
    }

    pub(super) fn counter(self) -> Counter {
        match self.mode {
            Mode::Dsr => ForwardDsr,
            Mode::Ipip => ForwardIpip,
            Mode::Gue => ForwardGue,
            Mode::Nat => ForwardNatRequest,
            Mode::Gateway => ForwardGatewayRequest,
        }
    }

    /// The pair of the flow, as a first packet leaves it.
    pub(super) fn pair(self, packet: &Datagram, now: Ticks) -> Pair {
        let fresh = pair(self.first(), packet.destination, now);
        let fresh = Pair { client: packet.source, ..fresh };
        let fresh = if self.mode == Mode::Gateway { Pair { nat: packet.source, ..fresh } } else { fresh };
        let fresh = fresh.tagged(&packet.tags);
        if packet.is_syn() { fresh.opening() } else { fresh }
    }

    /// What the server's next hop gets.
    pub(super) fn sent(self, packet: &Datagram, now: Ticks) -> Datagram {
        match self.mode {
            Mode::Nat | Mode::Gateway => translated(packet, &self.pair(packet, now)),
            mode => delivered(packet, mode, self.first()),
        }
    }

    /// A world in which the packet's flow is known, where that is needed.
    pub(super) fn known(self, packet: &Datagram, now: Ticks) -> World {
        let world = self.world(now);
        if !self.mode.rewrites() || packet.is_syn() {
            return world;
        }
        world.pair(self.pair(packet, now))
    }

    /// The packet goes to the first server of a world in which its flow is known.
    pub(super) fn forwards(self, what: &str, world: World, packet: &Datagram, now: Ticks) -> Case {
        let opens = u64::from(packet.is_syn());
        let case = Case::new(&format!("{}: {what}", self.name()), world, packet)
            .leaves(BACK, self.counter(), &self.sent(packet, now))
            .serves(self.first(), opens);
        let mut pair = self.pair(packet, now);
        match self.mode.rewrites() {
            true if packet.is_syn() => case.records(pair.records()),
            true => {
                pair.request.state |= packet.ends_flow();
                case.keeps(pair.records())
            }
            false => case,
        }
    }
}

fn direct(now: Ticks) -> Vec<Case> {
    let packets = [
        ("a SYN", syn()),
        ("data", ack()),
        ("a FIN", fin()),
        ("a RST", rst()),
        ("a datagram", udp(b"query")),
        ("an empty datagram", udp(&[])),
        ("an odd number of bytes", udp(&[7; 33])),
        ("no udp checksum", Datagram { transport: Transport::UdpWithoutChecksum, ..udp(b"query") }),
        ("a time to live of 2", Datagram { ttl: 2, ..ack() }),
        ("a code point and congestion bits", Datagram { traffic_class: 0xb9, ..ack() }),
        ("leave to fragment", Datagram { dont_fragment: false, ..ack() }),
        ("as many bytes as fit a tunnel", tcp(&[3; 1_380], |header| header.ack = true)),
    ];
    let mut cases = Vec::new();
    for way in Way::all() {
        for (name, packet) in &packets {
            let packet = packet.clone().of(way.vip);
            cases.push(way.forwards(name, way.known(&packet, now), &packet, now));
        }
        for (name, packet) in [("a SYN", syn()), ("a datagram", udp(&[]))] {
            let packet = packet.of(way.vip).padded();
            let name = format!("{name} in a padded frame");
            cases.push(way.forwards(&name, way.known(&packet, now), &packet, now));
        }
        cases.extend(headers(way, now));
        let packet = ack().of(way.vip);
        let unresolved = way.known(&packet, now).servers(|server| server.hop.resolved = false);
        cases.push(
            Case::new(&format!("{}: the way to the server is unknown", way.name()), unresolved, &packet)
                .drops(Counter::DropUnresolved),
        );
    }
    cases
}

/// What stands between the IP header and the transport.
fn headers(way: Way, now: Ticks) -> Vec<Case> {
    let headers: Vec<(&str, Datagram)> = match way.vip {
        Family::V4 => [
            ("one word of ip options", 1),
            ("three words of ip options", 3),
            ("all ip options there can be", 10),
        ]
        .map(|(name, words)| (name, Datagram { options: vec![1; words * 4], ..ack() }))
        .into(),
        Family::V6 => {
            let chain = |kinds: &[u8]| kinds.iter().map(|&kind| Extension::options(kind, 1)).collect();
            let with = |extensions| Datagram { extensions, ..ack() };
            vec![
                ("hop-by-hop options", with(chain(&[0]))),
                ("destination options", with(chain(&[60]))),
                ("a routing header", with(vec![Extension::routing(3)])),
                ("long destination options", with(vec![Extension::options(60, 30)])),
                (
                    "one of each extension header",
                    with([chain(&[0, 60]), vec![Extension::routing(1)]].concat()),
                ),
                ("as many extension headers as are walked over", with(chain(&[0, 60, 43, 60, 60]))),
                ("an atomic fragment", Datagram { fragment: Fragment::Atomic, ..ack() }),
            ]
        }
    };
    let cases = headers.into_iter().map(|(name, packet)| {
        let packet = packet.of(way.vip);
        way.forwards(name, way.known(&packet, now), &packet, now)
    });
    cases.collect()
}

/// Replies of both modes that rewrite.
fn rewritten(now: Ticks) -> Vec<Case> {
    let synack = tcp(&[], |header| (header.syn, header.ack) = (true, true));
    let packets = [
        ("a SYN and ACK", synack),
        ("data", ack()),
        ("a datagram", udp(b"answer")),
        ("no udp checksum", Datagram { transport: Transport::UdpWithoutChecksum, ..udp(b"answer") }),
        ("a time to live of 2", Datagram { ttl: 2, ..ack() }),
    ];
    let mut cases = Vec::new();
    for way in Way::all().into_iter().filter(|way| way.mode.rewrites()) {
        for (name, packet) in &packets {
            let packet = packet.clone().of(way.vip);
            cases.push(replied(way, name, way.world(now), &packet, now));
            cases.push(replied(
                way,
                &format!("{name} in a padded frame"),
                way.world(now),
                &packet.padded(),
                now,
            ));
        }
        let packet = ack().of(way.vip);
        let (sent, _) = answer(&packet, &way.pair(&packet, now));
        cases.push(
            Case::new(&format!("{}, reply: of no flow", way.name()), way.world(now), &sent)
                .from(BACK)
                .passes(Counter::PassNoFlow),
        );
    }
    cases
}

/// What the server of a known flow sends reaches the client.
fn replied(way: Way, what: &str, world: World, packet: &Datagram, now: Ticks) -> Case {
    let pair = way.pair(packet, now);
    let (sent, got) = answer(packet, &pair);
    let counter = if way.mode == Mode::Nat { ForwardNatReply } else { ForwardGatewayReply };
    Case::new(&format!("{}, reply: {what}", way.name()), world.pair(pair), &sent)
        .from(BACK)
        .leaves(FRONT, counter, &got)
}

/// A server without a port of its own takes packets on theirs.
fn own_ports(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all().into_iter().filter(|way| way.mode.rewrites()) {
        for (name, packet) in [("a SYN", syn()), ("a datagram", udp(b"query"))] {
            let packet = packet.of(way.vip);
            let world = way.world(now).servers(|server| server.port = Be16(0));
            let pair = way.pair(&packet, now);
            let target = SocketAddr::new(pair.target.ip(), packet.destination.port());
            let pair = Pair { target, ..pair };
            cases.push(
                Case::new(&format!("{}: {name} keeps its port", way.name()), world, &packet)
                    .leaves(BACK, way.counter(), &translated(&packet, &pair))
                    .serves(way.first(), 1)
                    .records(pair.records()),
            );
        }
    }
    cases
}

/// A packet that we sent into a tunnel comes back, addressed to a service: not opened, not sent again.
fn looped(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let (Mode::Ipip | Mode::Gue) = way.mode else { continue };
        let vip = ends(way.server).web.ip();
        let ours = way.sent(&ack().of(way.vip), now);
        let outer = ours.outer.map(|outer| Outer { destination: vip, ..outer });
        let looped = Datagram { outer, to: FRONT_MAC, from: CLIENT_MAC, ..ours };
        let counter = if way.mode == Mode::Ipip { PassProtocol } else { PassNoService };
        let case =
            Case::new(&format!("{}: a packet of ours, to a service", way.name()), way.world(now), &looped);
        cases.push(case.passes(counter));
    }
    cases
}

/// Longer than a page: only the headers lie in one piece.
fn jumbo(now: Ticks) -> Vec<Case> {
    let cases = Way::all().into_iter().map(|way| {
        let packet = tcp(&[0x6a; 8_000], |header| header.ack = true).of(way.vip);
        let world = way.known(&packet, now).servers(|server| server.hop.mtu = 9_000);
        way.forwards("a jumbo frame", world, &packet, now)
    });
    cases.collect()
}

/// No room in front of the packet for what must stand there.
fn cramped(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let (Mode::Ipip | Mode::Gue) = way.mode else { continue };
        let packet = ack().of(way.vip);
        let room = way.sent(&packet, now).bytes().len() - packet.bytes().len();
        let mut enough = way.forwards("just enough headroom", way.world(now), &packet, now);
        enough.headroom = Some(room.next_multiple_of(4));
        let mut less = Case::new(&format!("{}: too little headroom", way.name()), way.world(now), &packet)
            .drops(DropHeadroom);
        less.headroom = Some(room.next_multiple_of(4) - 8);
        less.expected.packet = Datagram { ttl: packet.ttl - 1, ..packet }.bytes();
        cases.extend([enough, less]);
    }
    cases
}
