//! Runs a case through the packet path compiled for this machine.

use lb_ebpf::forward;
use lb_user::pure::plan::Step;

use super::{
    Case, Effect,
    host::{HostPacket, HostTables},
    world::{RING_SLOTS, World},
};

/// `poison` surrounds the packet; the effect must not depend on it.
pub fn on_host(case: &Case, poison: u8) -> Effect {
    let tables = tables(&case.world);
    let mut packet = HostPacket::new(&case.packet, case.ingress, poison);
    let outcome = forward(&mut packet, &tables);
    tables.count_outcome(outcome);
    assert!(packet.stayed_within(), "{}: wrote outside the packet", case.name);
    Effect {
        action: outcome.action(),
        packet: packet.bytes(),
        counters: tables.counters(),
        flows: tables.flows(),
        traffic: tables.traffic(),
    }
}

pub(super) fn tables(world: &World) -> HostTables {
    let mut tables = HostTables::new(world.now, world.capacity, RING_SLOTS);
    for step in world.steps() {
        apply(&mut tables, &step);
    }
    for (key, view) in &world.flows {
        tables.record(key, *view);
    }
    tables
}

fn apply(tables: &mut HostTables, step: &Step) {
    match step {
        Step::SetHashKey(key) => tables.set_hash_key(*key),
        Step::SetNatSources(sources) => tables.set_nat_sources(sources),
        Step::SetServer(id, server) => tables.set_server(*id, *server),
        Step::SetSlots(base, slots) => {
            slots.iter().for_each(|&(index, slot)| tables.set_slot(base + index, slot));
        }
        Step::SetService(key, service) => tables.set_service(*key, *service),
        Step::RemoveService(key) => tables.remove_service(*key),
        // Whether the kernel may send out of an interface is not the packet path's business.
        Step::AddDevice(_) | Step::RemoveDevice(_) | Step::RemoveRing(_) => {}
        Step::RemoveServer(id) => tables.remove_server(*id),
    }
}
