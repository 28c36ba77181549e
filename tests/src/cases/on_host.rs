//! Runs a case through the packet path compiled for this machine.

use lb_ebpf::forward;

use super::{
    Case, Effect,
    host::{HostPacket, HostTables},
    world::{RING_SLOTS, Watchdog, World, ago},
};

/// `poison` surrounds the packet; the effect must not depend on it.
pub fn on_host(case: &Case, poison: u8) -> Effect {
    let tables = tables(&case.world);
    let packet = HostPacket::new(&case.packet, case.ingress, poison);
    let mut packet = match case.headroom {
        Some(bytes) => packet.with_headroom(bytes),
        None => packet,
    };
    let outcome = forward(&mut packet, &tables);
    tables.count_outcome(outcome);
    assert!(packet.stayed_within(), "{}: wrote outside the packet", case.name);
    Effect {
        action: outcome.action(),
        packet: packet.bytes(),
        counters: tables.counters(),
        flows: tables.records(),
        fragments: tables.fragments().into_iter().collect(),
        turns: tables.all_turns(),
        refused: tables.refusals(),
        load: tables.loads(),
        traffic: tables.traffic(),
    }
}

pub(super) fn tables(world: &World) -> HostTables {
    let mut tables = HostTables::new(world.now, world.capacity, RING_SLOTS);
    for step in world.steps() {
        tables.apply(&step);
    }
    for (key, record) in &world.flows {
        tables.record(key, record);
    }
    for &(key, entry) in &world.fragments {
        tables.set_fragment(key, entry);
    }
    for (&service, &turns) in &world.turns {
        tables.set_turns(service, turns);
    }
    for (&id, &connections) in &world.load {
        tables.set_load(id, connections);
    }
    tables.set_answered(world.answered);
    if let Some(Watchdog { silent, patience }) = world.watchdog {
        tables.beat(ago(world.now, silent), patience);
    }
    tables.set_moving(world.moving);
    tables
}
