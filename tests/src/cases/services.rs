//! The service table: keys that share buckets, buckets whose key was removed.

use std::net::{Ipv4Addr, SocketAddr};

use lb_common::{
    counter::Counter::{ForwardDsr, PassNoService},
    entry::{Mode, ServiceKey},
    flow::Ticks,
    limits::{PROBES_MAX, SERVICE_BUCKETS},
    net::{Be16, TCP},
};

use super::{
    Case,
    packet::Datagram,
    shape::syn,
    world::{A, A_MAC, BACK, BACK_MAC, SERVICE, World, key},
};

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let crowd = crowd(7, PROBES_MAX as usize + 1);
    let (wanted, others) = crowd.split_last().expect("a crowd has members");
    let at_end = self::crowd(SERVICE_BUCKETS - 1, 3);
    let packet = Datagram { destination: *wanted, ..syn() };
    let found = |name: &str, world: World, destination: SocketAddr| {
        let packet = Datagram { destination, ..syn() };
        Case::new(name, world, &packet).leaves(BACK, ForwardDsr, &packet.hop(A_MAC, BACK_MAC)).serves(A, 1)
    };
    vec![
        found("services: behind one of the same bucket", with(now, &[others[0], *wanted], &[]), *wanted),
        found(
            "services: in the last bucket that is looked at",
            with(now, &[&others[1..], &[*wanted]].concat(), &[]),
            *wanted,
        ),
        found("services: behind a removed one", with(now, &[others[1], *wanted], &others[..1]), *wanted),
        found(
            "services: behind as many removed ones as are looked at",
            with(now, &[*others.last().expect("a crowd has members"), *wanted], &others[..14]),
            *wanted,
        ),
        found("services: around the end of the table", with(now, &at_end, &[]), at_end[2]),
        Case::new("services: absent behind one of the same bucket", with(now, &others[..1], &[]), &packet)
            .passes(PassNoService),
        Case::new("services: absent in a full neighbourhood", with(now, others, &[]), &packet)
            .passes(PassNoService),
        Case::new("services: absent behind removed ones alone", with(now, &[], others), &packet)
            .passes(PassNoService),
    ]
}

/// These services over TCP, on the ring of the web service, after others were removed.
fn with(now: Ticks, services: &[SocketAddr], removed: &[SocketAddr]) -> World {
    let mut world = World::new(Mode::Dsr, now);
    world.tables.services.clear();
    for &vip in services {
        world.tables.services.insert(key(vip, TCP), SERVICE);
    }
    world.removed = removed.iter().map(|&vip| key(vip, TCP)).collect();
    world
}

/// Addresses whose keys begin at `bucket`, in the order in which a plan writes them.
fn crowd(bucket: u32, size: usize) -> Vec<SocketAddr> {
    let mut keys: Vec<ServiceKey> = (0..=u16::MAX)
        .flat_map(|port| (100..130).map(move |net| (net, port)))
        .map(|(net, port)| ServiceKey::new(Ipv4Addr::new(203, 0, net, 1).into(), Be16::new(port), TCP))
        .filter(|key| key.first_bucket() & (SERVICE_BUCKETS - 1) == bucket)
        .take(size)
        .collect();
    assert_eq!(keys.len(), size, "twenty keys fall on a bucket on average");
    keys.sort();
    keys.iter().map(|key| SocketAddr::new(Ipv4Addr::from(key.address()).into(), key.port().get())).collect()
}
