//! Echo requests to services' addresses, answered; to others, passed.

use lb_common::{
    counter::Counter::{AnswerEcho, DropMalformed, PassIcmp, PassProtocol},
    entry::{Mode, Rule},
    flow::Ticks,
    net::{Family as _, TCP, V4, V6},
    slot::{ServerId, Slot},
};
use lb_user::pure::config::network::{Family, Network};

use super::{
    Case,
    host::ANSWERS_PER_TICK,
    packet::{Datagram, Extension, Fragment, Icmp, Transport},
    shape::udp,
    world::{FRONT, SERVICE, World, ends},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let groups =
        Family::ALL.map(|family| [answered(family, now), passed(family, now), wildcards(family, now)]);
    groups.into_iter().flatten().flatten().collect()
}

/// From the client to the services' address.
pub(super) fn ping(family: Family) -> Datagram {
    let kind = if family == Family::V4 { 8 } else { 128 };
    let transport = Transport::Icmp(Icmp { kind, code: 0, rest: 0x0102_0304 });
    Datagram { transport, dont_fragment: false, ..udp(b"are you there?").of(family) }
}

pub(super) fn pong(ping: &Datagram) -> Datagram {
    let Transport::Icmp(icmp) = ping.transport else { panic!("a ping is ICMP") };
    let kind = if ping.source.is_ipv4() { 0 } else { 129 };
    Datagram {
        to: ping.from,
        from: ping.to,
        ttl: 64,
        transport: Transport::Icmp(Icmp { kind, ..icmp }),
        ..ping.ends(ping.destination, ping.source)
    }
}

fn answered(family: Family, now: Ticks) -> Vec<Case> {
    let world = |mode| World::new(mode, now);
    let ping = ping(family);
    let mut over = Datagram { options: vec![1; 8], ..ping.clone() };
    over.extensions = vec![Extension::options(0, 1), Extension::options(60, 2)];
    let table = [
        ("a ping", world(Mode::Dsr), ping.clone()),
        ("a ping of a nat service", world(Mode::Nat), ping.clone()),
        ("an empty ping", world(Mode::Ipip), Datagram { payload: vec![], ..ping.clone() }),
        (
            "an empty ping in a padded frame",
            world(Mode::Gue),
            Datagram { payload: vec![], ..ping.clone() }.padded(),
        ),
        ("an odd number of bytes", world(Mode::Dsr), Datagram { payload: vec![7; 33], ..ping.clone() }),
        ("a time to live of 1", world(Mode::Dsr), Datagram { ttl: 1, ..ping.clone() }),
        (
            "a code",
            world(Mode::Dsr),
            Datagram { transport: Transport::Icmp(Icmp { code: 3, ..icmp(&ping) }), ..ping.clone() },
        ),
        ("options or extension headers", world(Mode::Dsr), over),
        ("a jumbo frame", world(Mode::Dsr), Datagram { payload: vec![0x6a; 8_000], ..ping.clone() }),
        ("no server is left", world(Mode::Dsr).slots(Slot::settled(ServerId::NONE)), ping.clone()),
        ("no icmp error may be sent", World { answered: ANSWERS_PER_TICK, ..world(Mode::Dsr) }, ping),
    ];
    let cases = table.into_iter().map(|(name, world, asked)| {
        let name = format!("echo over {}: {name}, answered", family.name());
        Case::new(&name, world, &asked).leaves(FRONT, AnswerEcho, &pong(&asked))
    });
    cases.collect()
}

fn passed(family: Family, now: Ticks) -> Vec<Case> {
    let dsr = || World::new(Mode::Dsr, now);
    let ping = ping(family);
    let kind = |kind| Datagram { transport: Transport::Icmp(Icmp { kind, ..icmp(&ping) }), ..ping.clone() };
    let name = |what: &str| format!("echo over {}: {what}", family.name());
    let target = super::world::peer(ends(family).servers[0]).target;
    let part = |fragment| Datagram { fragment, payload: vec![1; 64], ..ping.clone() };
    let (reply, others): (u8, &[u8]) = match family {
        Family::V4 => (0, &[4, 5, 9, 10, 13, 17, 42, 255]),
        Family::V6 => (129, &[0, 5, 100, 127, 133, 134, 135, 136, 137, 255]),
    };
    let mut short = ping.bytes();
    short.pop();
    let mut tiny = ping.bytes();
    match family {
        Family::V4 => tiny[16..18].copy_from_slice(&27u16.to_be_bytes()),
        Family::V6 => tiny[18..20].copy_from_slice(&7u16.to_be_bytes()),
    }
    let mut cases = vec![
        Case::bytes(&name("a ping shorter than its header"), dsr(), tiny).drops(DropMalformed),
        Case::new(&name("a ping to somebody else"), dsr(), &Datagram { destination: target, ..ping.clone() })
            .passes(PassIcmp),
        Case::new(&name("a ping without any service"), dsr().bare(), &ping).passes(PassIcmp),
        Case::new(&name("an answer"), dsr(), &kind(reply)).passes(PassIcmp),
        Case::new(&name("the first fragment of a ping"), dsr(), &part(Fragment::First(32)))
            .passes(PassProtocol),
        Case::new(
            &name("a later fragment of a ping"),
            dsr(),
            &Datagram { transport: Transport::Rest(ping.protocol()), ..part(Fragment::Later(4)) },
        )
        .passes(PassProtocol),
        Case::bytes(&name("a ping cut short"), dsr(), short).drops(DropMalformed),
        Case::new(
            &name("a ping from a group"),
            dsr(),
            &Datagram { from: [3, 0, 0, 0, 0, 1], ..ping.clone() },
        )
        .drops(DropMalformed),
    ];
    for &other in others {
        let name = name(&format!("icmp of type {other}"));
        cases.push(Case::new(&name, dsr(), &kind(other)).passes(PassIcmp));
    }
    cases
}

/// A network of addresses that belong to a service.
fn wildcards(family: Family, now: Ticks) -> Vec<Case> {
    let ping = ping(family);
    let protocol = if family == Family::V4 { V4::ICMP } else { V6::ICMP };
    let length = if family == Family::V4 { 24 } else { 64 };
    let around = Network::around(ping.destination.ip(), length).expect("shorter than an address");
    let tcp = Rule { protocol: TCP, first: 1, last: u16::MAX, service: SERVICE };
    let vip = Rule { protocol, first: 0, last: 0, service: SERVICE };
    let world = |rules: &[Rule]| World::new(Mode::Dsr, now).bare().rules(around, rules);
    let name = |what: &str| format!("echo over {}: {what}", family.name());
    vec![
        Case::new(&name("a ping to an address in a service's network, answered"), world(&[tcp, vip]), &ping)
            .leaves(FRONT, AnswerEcho, &pong(&ping)),
        Case::new(&name("a ping to a network whose addresses are no service's"), world(&[tcp]), &ping)
            .passes(PassIcmp),
    ]
}

fn icmp(ping: &Datagram) -> Icmp {
    let Transport::Icmp(icmp) = ping.transport else { panic!("a ping is ICMP") };
    icmp
}
