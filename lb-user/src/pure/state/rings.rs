//! The slots of each service: who they are given to, and when a base follows its current server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_common::{
    flow::Ticks,
    slot::{ServerId, Slot},
};

use super::{ServerState, State, ticks};
use crate::pure::{
    config::model::{self, Forward, Protocol},
    ring::{self, Member},
};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::pure) struct SlotCounts {
    pub(in crate::pure) unsettled: u32,
    pub(in crate::pure) current: BTreeMap<ServerId, u32>,
}

impl State {
    /// Time passes. `refused`: the kernel had no room for a record since the last call.
    ///
    /// T after a slot moved, every living connection of its base has shown itself and is recorded, unless a
    /// record was refused: then the base follows the current server, and packets without a record are new.
    pub fn advance(&mut self, now: Ticks, refused: bool) {
        self.now = now;
        if refused {
            self.refused = Some(now);
        }
        self.stale |= (0..self.services.len()).any(|index| !self.due(index).is_empty());
    }

    /// Slots whose base is due to follow.
    fn due(&self, index: usize) -> BTreeSet<u32> {
        let moved = &self.services[index].moved;
        let idle = self.longest_idle(index);
        if moved.is_empty() || self.refused.is_some_and(|at| self.now.since(at) < idle) {
            return BTreeSet::new();
        }
        let due = moved.iter().filter(|&(_, &since)| self.now.since(since) >= idle);
        due.map(|(&position, _)| position).collect()
    }

    /// T of a service with two protocols is the longer one: a slot does not know its connections'.
    fn longest_idle(&self, index: usize) -> u32 {
        let service = &self.config.services[index];
        let of = |protocol: &Protocol| match protocol {
            Protocol::Tcp => ticks(service.idle.tcp),
            Protocol::Udp => ticks(service.idle.udp),
        };
        service.protocols.iter().map(of).max().unwrap_or(0)
    }

    /// The slots a service should have: those it has, unless its members have changed or a
    /// base is due to follow.
    pub(super) fn ring(&mut self, index: usize) -> Arc<Vec<Slot>> {
        let members = self.members(index);
        let due = self.due(index);
        let configured = &self.config.services[index];
        let service = &mut self.services[index];
        let old = self.installed.rings.get(&service.place.ring_base);
        if let Some(old) = old
            && members == service.members
            && due.is_empty()
        {
            return Arc::clone(old);
        }
        let lives = |id| self.servers.get(&id).is_some_and(ServerState::lives);
        let recorded = configured.forward == Forward::Nat;
        let given = |(position, wanted): (usize, u32)| {
            if recorded {
                // Every flow has a record: what has none is new, and no slot needs a history.
                return Slot::settled(ServerId(wanted));
            }
            let slot = old.and_then(|ring| ring.get(position)).copied().unwrap_or_default();
            let slot = slot.given_to(ServerId(wanted), lives(slot.base()));
            if due.contains(&(position as u32)) { slot.rebased() } else { slot }
        };
        let wanted = ring::build(self.seed, configured.slots, &members);
        let slots: Vec<_> = wanted.into_iter().enumerate().map(given).collect();
        service.slots = count(&slots);
        service.moved = moved(&slots, &service.moved, self.now);
        service.members = members;
        Arc::new(slots)
    }

    fn members(&self, index: usize) -> Vec<Member> {
        let servers = self.services[index].servers.iter().zip(&self.config.services[index].servers);
        let member = |(id, server): (&ServerId, &model::Server)| Member {
            id: id.0,
            address: server.address.into(),
            weight: server.weight,
            usable: self.servers.get(id).is_some_and(ServerState::lives),
        };
        servers.map(member).collect()
    }
}

fn count(slots: &[Slot]) -> SlotCounts {
    let mut counts = SlotCounts::default();
    for slot in slots {
        counts.unsettled += u32::from(slot.lookup());
        *counts.current.entry(slot.current()).or_default() += 1;
    }
    counts
}

/// Keeps the time of slots that had moved before.
fn moved(slots: &[Slot], before: &BTreeMap<u32, Ticks>, now: Ticks) -> BTreeMap<u32, Ticks> {
    let away = (0u32..).zip(slots).filter(|(_, slot)| slot.lookup() && slot.base() != slot.current());
    away.map(|(position, _)| (position, before.get(&position).copied().unwrap_or(now))).collect()
}
