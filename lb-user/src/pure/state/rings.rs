//! The slots of each service: who they are given to.

use std::{collections::BTreeMap, sync::Arc};

use lb_common::{
    entry::Scheduler,
    flow::Ticks,
    slot::{ServerId, Slot},
};

use super::{ServerState, State, following::followed, settling::records};
use crate::pure::{
    config::{
        model::{self, Balance, Forward},
        network::Family,
    },
    place,
    plan::Tables,
    ring::{self, Member},
    settle::{self, GRACE_TICKS, Records},
};

/// One ring of a service.
#[derive(Debug, Clone, Default)]
pub(in crate::pure) struct Ring {
    members: Vec<Member>,
    /// What it was built for; None: it is not yet.
    balance: Option<Balance>,
    /// As it is installed.
    pub(in crate::pure) slots: SlotCounts,
    /// Of each slot with lookup: when it last changed hands, or when its base followed. Empty while all are settled.
    pub(super) since: Vec<Ticks>,
    /// When slots lost lookup last: what records they have is not deleted at once.
    cleared: Option<Ticks>,
    /// The last round found slots that may go on.
    pub(super) due: bool,
    /// Base and lookup of each slot, as the node tells that has the service's connections.
    pub(super) followed: Option<Arc<Vec<Slot>>>,
}

impl Ring {
    /// The next plan builds it whatever its members are.
    pub(super) fn outdated(self) -> Ring {
        Ring { balance: None, ..self }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::pure) struct SlotCounts {
    pub(in crate::pure) unsettled: u32,
    pub(in crate::pure) current: BTreeMap<ServerId, u32>,
    pub(in crate::pure) base: BTreeMap<ServerId, u32>,
}

/// Which connections have no record, and which records a slot does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    /// Every flow has a record: what has none is new, and no slot needs a history.
    Recorded,
    /// As above, of a service that follows no hash: what an earlier hash placed is its slot's base's. `by_hash`: this
    /// plan ends the hash, and any slot may have connections without a record.
    Inherited { by_hash: bool },
    /// What has no record is its slot's.
    Kept(Records),
    /// As above, after a scheduler whose records may name any server in any slot.
    Scattered(Records),
}

/// What a slot is given with.
#[derive(Clone, Copy)]
struct Gift {
    wanted: ServerId,
    /// The server in the slot's base is not down.
    base_lives: bool,
    /// Slots without lookup may still have records.
    unswept: bool,
}

impl History {
    fn of(service: &model::Service, family: Option<Family>, pinned: &Tables) -> History {
        let before = place::standing(service, family, pinned).map(|standing| standing.scheduler);
        if service.forward == Forward::Nat && !service.by_client() {
            return History::Recorded;
        }
        match (service.balance.is_hash(), before) {
            (false, before) => History::Inherited { by_hash: before == Some(Scheduler::Ring) },
            (true, None | Some(Scheduler::Ring)) => History::Kept(records(service)),
            (true, Some(Scheduler::RoundRobin | Scheduler::LeastConn)) => {
                History::Scattered(records(service))
            }
        }
    }

    fn give(self, slot: Slot, gift: Gift) -> Slot {
        let Gift { wanted, base_lives, unswept } = gift;
        match self {
            History::Recorded => Slot::settled(wanted),
            History::Inherited { by_hash } => {
                let owes = (by_hash || slot.lookup()) && base_lives;
                if owes { Slot::new(wanted, slot.base(), true) } else { Slot::settled(wanted) }
            }
            History::Kept(Records::Always) => plain(slot.given_to(wanted, base_lives)),
            History::Kept(Records::Unsettled) => {
                let given = slot.given_to(wanted, base_lives);
                let taken = given != slot && !given.lookup();
                if taken && unswept { Slot::new(wanted, wanted, true) } else { given }
            }
            History::Scattered(records) => {
                let base = if slot.lookup() && base_lives { slot.base() } else { wanted };
                let given = Slot::new(wanted, base, true);
                if records == Records::Always { plain(given) } else { given }
            }
        }
    }

    /// Whether a slot waits anew: what it owes to whom has changed.
    fn restarts(self, before: Slot, given: Slot) -> bool {
        let owes = |slot: Slot| slot.base() != slot.current();
        match self {
            History::Inherited { by_hash: false } => !before.lookup(),
            History::Kept(_) => !before.lookup() || owes(before) != owes(given),
            History::Recorded | History::Inherited { by_hash: true } | History::Scattered(_) => true,
        }
    }
}

/// A slot beside records that everybody looks up: back at its base it owes nothing.
fn plain(slot: Slot) -> Slot {
    if slot.base() == slot.current() { Slot::settled(slot.current()) } else { slot }
}

impl State {
    /// The slots of each ring that a service should have: those it has, unless its members have changed or some may
    /// go on.
    pub(super) fn rings(&mut self, index: usize) -> Vec<Arc<Vec<Slot>>> {
        let families = self.config.services[index].rings();
        families.into_iter().enumerate().map(|(ring, family)| self.ring(index, ring, family)).collect()
    }

    fn ring(&mut self, index: usize, ring: usize, family: Option<Family>) -> Arc<Vec<Slot>> {
        let members = self.members(index, family);
        let configured = &self.config.services[index];
        let base = self.services[index].place.rings[ring];
        let old = self.installed.rings.get(&base).cloned();
        let state = &self.services[index].rings[ring];
        let lives = |id| self.servers.get(&id).is_some_and(ServerState::lives);
        // Of a server that takes nothing new, such as one that drains, the death shows only here.
        let dead_base = state.slots.base.keys().any(|&id| !id.is_none() && !lives(id));
        let same = members == state.members && state.balance == Some(configured.balance);
        let followed = state.followed.clone();
        let (slots, since, cleared) = match old {
            Some(old) if same && !state.due && !dead_base && followed.is_none() => return old,
            Some(old) if same => {
                self.passed_on(index, ring, family, &old, old.iter().map(|slot| slot.current()))
            }
            old => {
                let wanted = match configured.balance {
                    Balance::Maglev | Balance::Source => ring::build(self.seed, configured.slots, &members),
                    Balance::RoundRobin | Balance::LeastConn => ring::rotation(configured.slots, &members),
                };
                let old = old.unwrap_or_default();
                self.passed_on(index, ring, family, &old, wanted.into_iter().map(ServerId))
            }
        };
        let (slots, since) = match &followed {
            Some(view) if view.len() == slots.len() => self.following(index, &slots, view),
            _ => (slots, since),
        };
        let (counts, balance) = (count(&slots), Some(configured.balance));
        let since = if counts.unsettled > 0 { since } else { Vec::new() };
        self.services[index].rings[ring] =
            Ring { members, balance, slots: counts, since, cleared, due: false, followed };
        Arc::new(slots)
    }

    /// The slots after they went on as far as they may, and were given to whom they should; since when each waits; and
    /// when one last lost lookup.
    fn passed_on(
        &self,
        index: usize,
        ring: usize,
        family: Option<Family>,
        old: &[Slot],
        wanted: impl Iterator<Item = ServerId>,
    ) -> (Vec<Slot>, Vec<Ticks>, Option<Ticks>) {
        let history = History::of(&self.config.services[index], family, &self.installed);
        let terms = self.terms(index, self.services[index].place.rings[ring]);
        let state = &self.services[index].rings[ring];
        // What a slot waited for under another balance says nothing of what it waits for now.
        let as_before = state.balance == Some(self.config.services[index].balance);
        // An earlier daemon may have cleared slots a moment ago.
        let adopted = (state.balance.is_none() && !old.is_empty()).then_some(self.now);
        let mut cleared = state.cleared.or(adopted);
        let unswept = cleared.is_some_and(|at| terms.began.since(at) < GRACE_TICKS);
        let lives = |id| self.servers.get(&id).is_some_and(ServerState::lives);
        let mut slots = Vec::with_capacity(old.len());
        let mut since = Vec::with_capacity(old.len());
        for (position, wanted) in (0u32..).zip(wanted) {
            let before = old.get(position as usize).copied().unwrap_or_default();
            let at = state.since.get(position as usize).copied();
            let gone_on = match at {
                Some(at) if as_before => settle::next(before, at, position, &terms),
                _ => before,
            };
            let gift = Gift { wanted, base_lives: lives(gone_on.base()), unswept };
            let given = history.give(gone_on, gift);
            if before.lookup() && !given.lookup() {
                cleared = Some(self.now);
            }
            let kept = at.filter(|_| !history.restarts(before, given));
            since.push(kept.unwrap_or(self.now));
            slots.push(given);
        }
        (slots, since, cleared)
    }

    /// The slots as planned, with another node's history in place of this one's. None of them waits yet.
    fn following(&self, index: usize, planned: &[Slot], view: &[Slot]) -> (Vec<Slot>, Vec<Ticks>) {
        let lives = |id| self.servers.get(&id).is_some_and(ServerState::lives);
        let service = &self.config.services[index];
        let pairs = planned.iter().zip(view);
        let slots: Vec<_> =
            pairs.map(|(slot, &view)| followed(service, slot.current(), view, lives(view.base()))).collect();
        let since = vec![self.now; slots.len()];
        (slots, since)
    }

    /// Of one family's ring, or of the ring that all servers share.
    fn members(&self, index: usize, family: Option<Family>) -> Vec<Member> {
        let configured = &self.config.services[index].servers;
        let servers = self.services[index].servers.iter().zip(configured);
        let of_ring =
            |server: &model::Server| family.is_none_or(|family| Family::of(server.address.ip()) == family);
        let member = |(id, server): (&ServerId, &model::Server)| {
            let share = self.servers.get(id).map_or(0, |known| known.share(self.clock));
            let member = Member { id: id.0, address: server.address, weight: server.weight, share };
            (member, server.backup)
        };
        on_duty(servers.filter(|(_, server)| of_ring(server)).map(member).collect())
    }
}

/// Backups, marked by `true`, are members only while no other can take a connection. A backup that is not
/// needed has no slot in the order of the others, so it shifts nothing.
fn on_duty(candidates: Vec<(Member, bool)>) -> Vec<Member> {
    let serves = |(member, backup): &(Member, bool)| !backup && member.is_usable();
    let needed = !candidates.iter().any(serves);
    candidates.into_iter().filter(|(_, backup)| needed || !backup).map(|(member, _)| member).collect()
}

fn count(slots: &[Slot]) -> SlotCounts {
    SlotCounts {
        unsettled: slots.iter().filter(|slot| slot.lookup()).count() as u32,
        current: tally(slots.iter().map(|slot| slot.current())),
        base: tally(slots.iter().map(|slot| slot.base())),
    }
}

/// The ids of one service lie close together, and none is above `SERVERS_MAX`: an array counts them many times faster
/// than a map.
fn tally(servers: impl Iterator<Item = ServerId> + Clone) -> BTreeMap<ServerId, u32> {
    let ids = || servers.clone().map(|id| id.0);
    let (Some(first), Some(last)) = (ids().min(), ids().max()) else { return BTreeMap::new() };
    let mut counts = vec![0; (last - first) as usize + 1];
    ids().for_each(|id| counts[(id - first) as usize] += 1);
    let named = (first..).zip(counts).filter(|&(_, count)| count > 0);
    named.map(|(id, count)| (ServerId(id), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Id, weight, whether it is usable, whether it is a backup.
    type Sketch = (u32, u16, bool, bool);

    const A: ServerId = ServerId(1);
    const B: ServerId = ServerId(2);
    const C: ServerId = ServerId(3);

    /// Every rule of a change, by what the service's flows have: the slot before, who is wanted, whether the base
    /// lives; the slot after, and whether it waits anew.
    #[test]
    fn every_change_of_a_slot_with_a_history() {
        use History::{Inherited, Kept, Recorded, Scattered};
        let hash = Kept(Records::Unsettled);
        let pairs = Kept(Records::Always);
        let (settled, owes) = (Slot::settled, |current, base| Slot::new(current, base, true));
        for (name, history, before, wanted, base_lives, expected, anew) in [
            ("moves", hash, settled(A), B, true, owes(B, A), true),
            ("stays", hash, owes(B, A), B, true, owes(B, A), false),
            ("moves again while it owes", hash, owes(B, A), C, true, owes(C, A), false),
            ("is undone", hash, owes(B, A), A, true, owes(A, A), true),
            ("moves after it was undone", hash, owes(A, A), B, true, owes(B, A), true),
            ("moves after its base followed", hash, owes(B, B), C, true, owes(C, B), true),
            ("loses its base", hash, owes(B, A), B, false, owes(B, B), true),
            ("loses its base and moves", hash, owes(B, A), C, false, owes(C, C), true),
            ("gets its base back", hash, owes(B, B), A, true, owes(A, B), true),
            ("loses its server", hash, settled(A), B, false, settled(B), true),
            ("pairs, moves", pairs, settled(A), B, true, owes(B, A), true),
            ("pairs, is undone", pairs, owes(B, A), A, true, settled(A), true),
            ("pairs, loses its base", pairs, owes(B, A), B, false, settled(B), true),
            ("the hash ends", Inherited { by_hash: true }, settled(A), B, true, owes(B, A), true),
            (
                "the hash ends, same server",
                Inherited { by_hash: true },
                settled(A),
                A,
                true,
                owes(A, A),
                true,
            ),
            ("in turn, moves", Inherited { by_hash: false }, owes(A, A), B, true, owes(B, A), false),
            (
                "in turn, loses its base",
                Inherited { by_hash: false },
                owes(B, A),
                B,
                false,
                settled(B),
                false,
            ),
            ("in turn, owes nothing", Inherited { by_hash: false }, settled(A), B, true, settled(B), true),
            ("after turns", Scattered(Records::Unsettled), settled(A), B, true, owes(B, B), true),
            ("after turns, owes", Scattered(Records::Unsettled), owes(C, A), B, true, owes(B, A), true),
            ("after turns, pairs", Scattered(Records::Always), settled(A), B, true, settled(B), true),
            ("after turns, pairs, owes", Scattered(Records::Always), owes(C, A), B, true, owes(B, A), true),
            ("every flow recorded", Recorded, settled(A), B, true, settled(B), true),
        ] {
            let given = history.give(before, Gift { wanted, base_lives, unswept: false });
            assert_eq!((given, history.restarts(before, given)), (expected, anew), "{name}");
        }
        let unswept = Gift { wanted: B, base_lives: false, unswept: true };
        assert_eq!(hash.give(settled(A), unswept), owes(B, B), "records of its dead server may be left");
        assert_eq!(hash.give(settled(A), Gift { wanted: A, ..unswept }), settled(A));
    }

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
                (Member { id, address, weight, share: if usable { 100 } else { 0 } }, backup)
            };
            let members = on_duty(sketches.iter().map(candidate).collect());
            let ids: Vec<u32> = members.iter().map(|member| member.id).collect();
            assert_eq!(ids, expected, "{name}");
        }
    }
}
