//! The slots of each service: who they are given to, and when a base follows its current server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_common::{
    entry::Scheduler,
    flow::Ticks,
    slot::{ServerId, Slot},
};

use super::{
    ServerState, State,
    entries::{client_ticks, idle_ticks},
};
use crate::pure::{
    config::{
        model::{self, Balance, Forward},
        network::Family,
    },
    place,
    plan::Tables,
    ring::{self, Member},
};

/// One ring of a service.
#[derive(Debug, Clone, Default)]
pub(in crate::pure) struct Ring {
    members: Vec<Member>,
    /// As it is installed.
    pub(in crate::pure) slots: SlotCounts,
    /// Slots whose base is not their current server, and since when.
    moved: BTreeMap<u32, Ticks>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::pure) struct SlotCounts {
    pub(in crate::pure) unsettled: u32,
    pub(in crate::pure) current: BTreeMap<ServerId, u32>,
}

/// Which connections have no record, and which records a slot does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    /// Every flow has a record: what has none is new, and no slot needs a history.
    Recorded,
    /// As above, of a service that follows no hash: what an earlier hash placed is its slot's base's.
    Inherited { by_hash: bool },
    /// What has no record is its slot's.
    Kept,
    /// As above, after a scheduler whose records may name any server in any slot.
    Scattered,
}

impl History {
    fn of(service: &model::Service, family: Option<Family>, pinned: &Tables) -> History {
        let before = place::standing(service, family, pinned).map(|standing| standing.scheduler);
        if service.forward == Forward::Nat && !service.by_client() {
            return History::Recorded;
        }
        match (service.balance.is_hash(), before) {
            (false, before) => History::Inherited { by_hash: before == Some(Scheduler::Ring) },
            (true, None | Some(Scheduler::Ring)) => History::Kept,
            (true, Some(Scheduler::RoundRobin | Scheduler::LeastConn)) => History::Scattered,
        }
    }

    fn give(self, slot: Slot, wanted: ServerId, base_lives: bool, due: bool) -> Slot {
        let given = slot.given_to(wanted, base_lives);
        match self {
            History::Recorded => Slot::settled(wanted),
            History::Inherited { by_hash } => {
                let owed = slot.base() != slot.current() && !due;
                if by_hash || owed { given } else { Slot::settled(wanted) }
            }
            History::Kept if due => given.rebased(),
            History::Kept => given,
            History::Scattered => Slot::new(given.current(), given.base(), true),
        }
    }
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
        let due = |service: usize, ring: usize| !self.due(service, ring).is_empty();
        let rings = |service: usize| (0..self.services[service].rings.len()).map(move |ring| (service, ring));
        self.stale |= (0..self.services.len()).flat_map(rings).any(|(service, ring)| due(service, ring));
    }

    /// Slots whose base is due to follow.
    fn due(&self, index: usize, ring: usize) -> BTreeSet<u32> {
        let moved = &self.services[index].rings[ring].moved;
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
        if service.by_client() {
            return client_ticks(service);
        }
        service.protocols.iter().map(|&protocol| idle_ticks(service, protocol)).max().unwrap_or(0)
    }

    /// The slots of each ring that a service should have: those it has, unless its members have changed or a
    /// base is due to follow.
    pub(super) fn rings(&mut self, index: usize) -> Vec<Arc<Vec<Slot>>> {
        let families = self.config.services[index].rings();
        families.into_iter().enumerate().map(|(ring, family)| self.ring(index, ring, family)).collect()
    }

    fn ring(&mut self, index: usize, ring: usize, family: Option<Family>) -> Arc<Vec<Slot>> {
        let members = self.members(index, family);
        let due = self.due(index, ring);
        let configured = &self.config.services[index];
        let service = &mut self.services[index];
        let old = self.installed.rings.get(&service.place.rings[ring]);
        let state = &mut service.rings[ring];
        if let Some(old) = old
            && members == state.members
            && due.is_empty()
        {
            return Arc::clone(old);
        }
        let lives = |id| self.servers.get(&id).is_some_and(ServerState::lives);
        let history = History::of(configured, family, &self.installed);
        let given = |(position, wanted): (usize, u32)| {
            let slot = old.and_then(|ring| ring.get(position)).copied().unwrap_or_default();
            let due = due.contains(&(position as u32));
            history.give(slot, ServerId(wanted), lives(slot.base()), due)
        };
        let wanted = match configured.balance {
            Balance::Maglev | Balance::Source => ring::build(self.seed, configured.slots, &members),
            Balance::RoundRobin | Balance::LeastConn => ring::rotation(configured.slots, &members),
        };
        let slots: Vec<_> = wanted.into_iter().enumerate().map(given).collect();
        *state = Ring { slots: count(&slots), moved: moved(&slots, &state.moved, self.now), members };
        Arc::new(slots)
    }

    /// Of one family's ring, or of the ring that all servers share.
    fn members(&self, index: usize, family: Option<Family>) -> Vec<Member> {
        let configured = &self.config.services[index].servers;
        let servers = self.services[index].servers.iter().zip(configured);
        let of_ring =
            |server: &model::Server| family.is_none_or(|family| Family::of(server.address.ip()) == family);
        let member = |(id, server): (&ServerId, &model::Server)| {
            let usable = self.servers.get(id).is_some_and(ServerState::lives);
            let member = Member { id: id.0, address: server.address, weight: server.weight, usable };
            (member, server.backup)
        };
        on_duty(servers.filter(|(_, server)| of_ring(server)).map(member).collect())
    }
}

/// Backups, marked by `true`, are members only while no other can take a connection. A backup that is not
/// needed has no slot in the order of the others, so it shifts nothing.
fn on_duty(candidates: Vec<(Member, bool)>) -> Vec<Member> {
    let serves = |(member, backup): &(Member, bool)| !backup && member.usable && member.weight > 0;
    let needed = !candidates.iter().any(serves);
    candidates.into_iter().filter(|(_, backup)| needed || !backup).map(|(member, _)| member).collect()
}

fn count(slots: &[Slot]) -> SlotCounts {
    let ids = || slots.iter().map(|slot| slot.current().0);
    let (Some(first), Some(last)) = (ids().min(), ids().max()) else { return SlotCounts::default() };
    // The ids of one service lie close together: an array counts them many times faster than a map.
    let mut owned = vec![0; (last - first) as usize + 1];
    ids().for_each(|id| owned[(id - first) as usize] += 1);
    let owned = (first..).zip(owned).filter(|&(_, count)| count > 0);
    SlotCounts {
        unsettled: slots.iter().map(|slot| u32::from(slot.lookup())).sum(),
        current: owned.map(|(id, count)| (ServerId(id), count)).collect(),
    }
}

/// Keeps the time of slots that had moved before.
fn moved(slots: &[Slot], before: &BTreeMap<u32, Ticks>, now: Ticks) -> BTreeMap<u32, Ticks> {
    let away = (0u32..).zip(slots).filter(|(_, slot)| slot.lookup() && slot.base() != slot.current());
    away.map(|(position, _)| (position, before.get(&position).copied().unwrap_or(now))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Id, weight, whether it is usable, whether it is a backup.
    type Sketch = (u32, u16, bool, bool);

    #[test]
    fn backups_serve_only_when_nobody_else_can() {
        let cases: [(&str, &[Sketch], &[u32]); 7] = [
            ("all up", &[(1, 1, true, false), (2, 1, true, false), (3, 1, true, true)], &[1, 2]),
            ("one left", &[(1, 1, false, false), (2, 1, true, false), (3, 1, true, true)], &[1, 2]),
            ("none left", &[(1, 1, false, false), (2, 1, false, false), (3, 1, true, true)], &[1, 2, 3]),
            ("no weight left", &[(1, 0, true, false), (3, 1, true, true)], &[1, 3]),
            ("backup down, too", &[(1, 1, false, false), (3, 1, false, true)], &[1, 3]),
            ("nothing but backups", &[(3, 1, true, true), (4, 1, false, true)], &[3, 4]),
            ("nobody", &[], &[]),
        ];
        for (name, sketches, expected) in cases {
            let candidate = |&(id, weight, usable, backup): &Sketch| {
                let address = std::net::SocketAddr::from(([10, 0, 0, id as u8], 80));
                (Member { id, address, weight, usable }, backup)
            };
            let members = on_duty(sketches.iter().map(candidate).collect());
            let ids: Vec<u32> = members.iter().map(|member| member.id).collect();
            assert_eq!(ids, expected, "{name}");
        }
    }
}
