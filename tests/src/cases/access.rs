//! Who may use a service: the longest network around the client says.

use std::net::IpAddr;

use lb_common::{
    counter::Counter::{DropAccess, DropMalformed},
    flow::Ticks,
};
use lb_user::pure::{
    config::network::{Family, Network},
    plan::Verdict::{self, Allow, Deny},
};

use super::{
    Case,
    modes::Way,
    packet::{Datagram, Fragment},
    shape::{ack, syn, udp},
    world::{World, ends},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::all() {
        let client = ends(way.vip).client.ip();
        for (name, lists, verdict) in lists(client) {
            let world = |world: World| {
                let world = world.services(|service| service.access = true);
                lists.iter().fold(world, |world, &(network, verdict)| world.access(network, verdict))
            };
            for (what, packet) in [("a SYN", syn()), ("a datagram", udp(b"query"))] {
                let packet = packet.of(way.vip);
                let what = format!("access: {what}, {name}");
                cases.push(match verdict {
                    Allow => way.forwards(&what, world(way.known(&packet, now)), &packet, now),
                    Deny => denied(way, &what, world(way.known(&packet, now)), &packet),
                });
            }
        }
        cases.extend(order(way, client, now));
    }
    cases
}

fn denied(way: Way, what: &str, world: World, packet: &Datagram) -> Case {
    Case::new(&format!("{}: {what}", way.name()), world, packet).drops(DropAccess)
}

type Lists = Vec<(Network, Verdict)>;

/// What stands for the networks around a client, and what becomes of it.
fn lists(client: IpAddr) -> Vec<(&'static str, Lists, Verdict)> {
    let bits = Family::of(client).bits();
    let around = |less: u8| Network::around(client, bits - less).expect("shorter than an address");
    let everybody = Network::around(client, 0).expect("the whole family");
    let beside = match client {
        IpAddr::V4(address) => Network::host(IpAddr::V4((address.to_bits() ^ 1).into())),
        IpAddr::V6(address) => Network::host(IpAddr::V6((address.to_bits() ^ 1).into())),
    };
    vec![
        ("nothing found", vec![(beside, Deny)], Allow),
        ("no network at all", vec![], Allow),
        ("the client denied", vec![(around(0), Deny)], Deny),
        ("its network denied", vec![(around(8), Deny)], Deny),
        ("everybody denied", vec![(everybody, Deny)], Deny),
        ("the client allowed alone", vec![(everybody, Deny), (around(0), Allow)], Allow),
        ("a neighbour allowed alone", vec![(everybody, Deny), (beside, Allow)], Deny),
        ("its network allowed alone", vec![(everybody, Deny), (around(8), Allow)], Allow),
        (
            "denied within what is allowed",
            vec![(everybody, Deny), (around(8), Allow), (around(3), Deny)],
            Deny,
        ),
        (
            "allowed within what is denied within what is allowed",
            vec![(around(16), Allow), (around(8), Deny), (around(1), Allow)],
            Allow,
        ),
        ("a network of one bit less", vec![(around(1), Deny)], Deny),
    ]
}

/// What comes before the list, and what comes after.
fn order(way: Way, client: IpAddr, now: Ticks) -> Vec<Case> {
    let deny = |world: World| world.access(Network::host(client), Deny);
    let established = ack().of(way.vip);
    let old = Datagram { ttl: 1, ..syn().of(way.vip) };
    let mut odd = syn().of(way.vip).bytes();
    odd.pop();
    let mut unasked = way.known(&established, now);
    unasked.tables.access.insert((super::world::SERVICE.id, Network::host(client)), Deny);
    let mut elsewhere = way.known(&established, now).services(|service| service.access = true);
    elsewhere.tables.access.insert((2, Network::host(client)), Deny);
    let allowed = way.world(now).access(Network::host(client), Allow);
    let first = Datagram {
        fragment: Fragment::First(8),
        payload: vec![1; 32],
        dont_fragment: false,
        ..udp(&[]).of(way.vip)
    };
    let mut part = denied(way, "access: the first fragment, denied", deny(way.world(now)), &first);
    part.expected.fragments.extend([super::fragments::kept(&first, now)]);
    vec![
        part,
        denied(way, "access: within a connection, denied", deny(way.known(&established, now)), &established),
        denied(way, "access: with a tag, denied", deny(way.world(now)), &syn().of(way.vip).tagged(&[9])),
        denied(way, "access: too old and denied, not answered", deny(way.world(now)), &old),
        Case::bytes(
            &format!("{}: access: denied before it is judged", way.name()),
            deny(way.world(now)),
            odd.clone(),
        )
        .drops(DropAccess),
        Case::bytes(&format!("{}: access: judged when allowed", way.name()), allowed, odd)
            .drops(DropMalformed),
        way.forwards("access: a list that the service does not ask", unasked, &established, now),
        way.forwards("access: the list of another service", elsewhere, &established, now),
    ]
}
