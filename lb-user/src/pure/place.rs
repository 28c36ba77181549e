//! Where a service stands in the tables: its id, and its stretch of the ring map. Both outlive a restart.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    entry,
    limits::{RING_SLOTS_MAX, RING_SLOTS_MIN, SERVERS_MAX},
    slot::ServerId,
};

use super::{
    config::{
        model::{Config, Service},
        network::Family,
    },
    ids::free_service_id,
    plan::Tables,
    state::{keys, number, rules},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub id: u32,
    /// First slots in the ring map, in the order of `Service::rings`.
    pub rings: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error(
        "no stretch of {needed} slots is free in the ring map of {capacity}: restart the daemon, which makes it larger and \
         keeps the flows; if that does not help, run `steelyard detach` first, which ends them"
    )]
    Ring { needed: u32, capacity: u32 },
    #[error("too many services: no id is free until the flows of removed ones have ended")]
    Services,
    #[error(
        "no room for the nat sources beside the {0} that are pinned: run `steelyard detach` (it ends the flows that are \
         recorded), then start again"
    )]
    NatSources(usize),
    #[error("too many servers: no id is free until the flows of removed ones have ended")]
    Servers,
}

/// Slots the ring map is made with: twice what is configured, so that services can be added.
pub fn ring_slots(config: &Config) -> u32 {
    let needed: u32 =
        config.services.iter().map(|service| service.slots * service.rings().len() as u32).sum();
    needed.saturating_mul(2).next_power_of_two().clamp(RING_SLOTS_MIN, RING_SLOTS_MAX)
}

/// A place for every configured service. One that is pinned under the same address, port and protocol keeps its
/// id, and with it its servers' ids and records; it keeps its ring, too, if that has the same size.
pub fn assign(config: &Config, pinned: &Tables, capacity: u32) -> Result<Vec<Place>, PlaceError> {
    let mut taken = Taken::new(pinned);
    let kept: Vec<_> = config.services.iter().map(|service| taken.keep(service, pinned)).collect();
    kept.into_iter()
        .zip(&config.services)
        .map(|(kept, service)| {
            let id = match kept.id {
                Some(id) => id,
                None => taken.new_id()?,
            };
            let ring = |base: Option<u32>| match base {
                Some(base) => Ok(base),
                None => taken.new_ring(service.slots, capacity),
            };
            Ok(Place { id, rings: kept.rings.into_iter().map(ring).collect::<Result<_, _>>()? })
        })
        .collect()
}

struct Taken {
    ids: BTreeSet<u32>,
    /// First slot to length.
    rings: BTreeMap<u32, u32>,
    claimed: BTreeSet<u32>,
    claimed_rings: BTreeSet<u32>,
}

struct Kept {
    id: Option<u32>,
    /// In the order of `Service::rings`.
    rings: Vec<Option<u32>>,
}

impl Taken {
    /// Everything pinned stays taken. Ids: records may name servers of services that are gone. Rings: the
    /// program reads the ring of a service that goes until the step that takes it away.
    fn new(pinned: &Tables) -> Self {
        let named = pinned.servers.values().map(|server| server.service);
        Taken {
            ids: pinned.all_services().map(|service| service.id).chain(named).collect(),
            rings: pinned.rings.iter().map(|(&base, ring)| (base, ring.len() as u32)).collect(),
            claimed: BTreeSet::new(),
            claimed_rings: BTreeSet::new(),
        }
    }

    /// Of two services that were one, the first keeps the place.
    fn keep(&mut self, service: &Service, pinned: &Tables) -> Kept {
        let found: Vec<_> =
            service.rings().into_iter().map(|family| standing(service, family, pinned)).collect();
        let id = found.iter().flatten().map(|found| found.id).next();
        match id.filter(|&id| self.claimed.insert(id)) {
            Some(id) => {
                let families = service.rings();
                let mut base = |(found, family): (Option<entry::Service>, Option<Family>)| {
                    let found = found.filter(|found| found.id == id && found.ring_mask == service.slots - 1);
                    let base = found.map(|found| found.ring_base);
                    base.filter(|&base| holds_only(pinned, base, family) && self.claimed_rings.insert(base))
                };
                Kept { id: Some(id), rings: found.into_iter().zip(families).map(&mut base).collect() }
            }
            None => Kept { id: None, rings: vec![None; found.len()] },
        }
    }

    fn new_id(&mut self) -> Result<u32, PlaceError> {
        let id = free_service_id(self.ids.iter().copied()).ok_or(PlaceError::Services)?;
        self.ids.insert(id);
        Ok(id)
    }

    fn new_ring(&mut self, slots: u32, capacity: u32) -> Result<u32, PlaceError> {
        let base = self.gap(slots, capacity).ok_or(PlaceError::Ring { needed: slots, capacity })?;
        self.rings.insert(base, slots);
        Ok(base)
    }

    /// First fit.
    fn gap(&self, slots: u32, capacity: u32) -> Option<u32> {
        let mut start = 0;
        for (&base, &length) in &self.rings {
            if base - start >= slots {
                return Some(start);
            }
            start = base + length;
        }
        (capacity.checked_sub(start)? >= slots).then_some(start)
    }
}

/// Whether every server of a pinned ring is of the family that the ring is for; one for all takes any.
fn holds_only(pinned: &Tables, base: u32, family: Option<Family>) -> bool {
    let of_family = |id: &ServerId| {
        let server = pinned.servers.get(id);
        family.is_none_or(|family| server.is_some_and(|server| Family::of(server.address) == family))
    };
    let named = pinned.rings.get(&base).into_iter().flat_map(|ring| ring.iter());
    // Most slots name a server that others named before.
    let mut known = vec![false; SERVERS_MAX as usize];
    named.flat_map(|slot| [slot.current(), slot.base()]).filter(|id| !id.is_none()).all(|id| {
        match known.get_mut(id.0 as usize) {
            Some(known) => {
                *known = *known || of_family(&id);
                *known
            }
            None => of_family(&id),
        }
    })
}

/// What is pinned for one ring of a service, whatever the key.
pub fn standing(service: &Service, family: Option<Family>, pinned: &Tables) -> Option<entry::Service> {
    let exact = keys(service, family).find_map(|(key, _)| pinned.services.get(&key).copied());
    exact.or_else(|| {
        rules(service, family).find_map(|(network, protocol)| {
            let same = |rule: &&entry::Rule| {
                (rule.protocol, rule.first, rule.last)
                    == (number(protocol), service.ports.first, service.ports.last)
            };
            Some(pinned.wildcards.get(&network)?.iter().find(same)?.service)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::{
        config::parse,
        state::{Start, State},
        testing::an_instant,
    };

    /// Services as (last byte of the address, slots).
    fn config(services: &[(u8, u32)]) -> Config {
        let mut text = "[datapath]\ninterfaces = [\"eth0\"]\n[cluster]\nsecret = \"x\"\n".to_owned();
        for (address, slots) in services {
            text += &format!(
                "[[service]]\nname = \"s{address}\"\naddress = \"192.0.2.{address}\"\nport = 80\n\
                 forward = \"dsr\"\nslots = {slots}\nserver = [{{ name = \"a\", address = \"10.0.0.1\" }}]\n"
            );
        }
        parse("test.toml", &text).expect("valid").config
    }

    fn pinned(services: &[(u8, u32)]) -> Tables {
        let start = Start {
            config: config(services),
            secret: b"x",
            pinned: Tables::default(),
            ring_slots: 4_096,
            flows_max: 262_144,
            now: an_instant(),
        };
        let mut state = State::new(start).expect("room");
        let mut tables = Tables::default();
        state.plan().into_iter().for_each(|step| tables.apply(step));
        tables
    }

    #[test]
    fn places_across_a_restart() {
        let before = pinned(&[(1, 256), (2, 512)]);
        let place = |id, ring_base| Place { id, rings: vec![ring_base] };
        for (name, services, expected) in [
            ("unchanged", &[(1, 256), (2, 512)][..], &[place(0, 0), place(1, 256)][..]),
            ("turned round", &[(2, 512), (1, 256)], &[place(1, 256), place(0, 0)]),
            ("one gone", &[(2, 512)], &[place(1, 256)]),
            ("one added", &[(1, 256), (3, 256), (2, 512)], &[place(0, 0), place(2, 768), place(1, 256)]),
            (
                "one replaced: its ring is in use until it goes",
                &[(3, 256), (2, 512)],
                &[place(2, 768), place(1, 256)],
            ),
            ("another size: same id, another ring", &[(1, 512), (2, 512)], &[place(0, 768), place(1, 256)]),
        ] {
            assert_eq!(assign(&config(services), &before, 4_096).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn a_full_ring_map_is_refused() {
        let before = pinned(&[(1, 256), (2, 512)]);
        let full = assign(&config(&[(1, 256), (2, 512), (3, 512)]), &before, 1_024);
        assert_eq!(full, Err(PlaceError::Ring { needed: 512, capacity: 1_024 }));
    }

    #[test]
    fn the_ring_map_has_room_for_twice_the_services() {
        assert_eq!(ring_slots(&config(&[])), RING_SLOTS_MIN);
        let many: Vec<_> = (1..=100).map(|address| (address, 16_384)).collect();
        assert_eq!(ring_slots(&config(&many)), 1 << 22);
    }
}
