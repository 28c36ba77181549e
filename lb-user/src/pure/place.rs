//! Where a service stands in the tables: its id, and its stretch of the ring map. Both outlive a restart.

use std::collections::BTreeMap;

use lb_common::limits::{RING_SLOTS_MAX, RING_SLOTS_MIN};

use super::{
    config::model::{Config, Service},
    ids::free_service_id,
    plan::Tables,
    state::keys,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub id: u32,
    /// First slot in the ring map.
    pub ring_base: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error(
        "the rings of all services need {needed} slots, the pinned ring map has {capacity}: \
         run `steelyard detach` (it ends the flows that are recorded), then start again"
    )]
    Ring { needed: u32, capacity: u32 },
    #[error("too many services: no id is free until the flows of removed ones have ended")]
    Services,
    #[error("too many servers: no id is free until the flows of removed ones have ended")]
    Servers,
}

/// Slots the ring map is made with: twice what is configured, so that services can be added.
pub fn ring_slots(config: &Config) -> u32 {
    let needed: u32 = config.services.iter().map(|service| service.slots).sum();
    needed.saturating_mul(2).next_power_of_two().clamp(RING_SLOTS_MIN, RING_SLOTS_MAX)
}

/// A place for every configured service; one that is pinned under the same address, port and protocol keeps
/// its own, as long as its ring has the same size.
pub fn assign(config: &Config, pinned: &Tables, capacity: u32) -> Result<Vec<Place>, PlaceError> {
    let kept: Vec<_> = config.services.iter().map(|service| keep(service, pinned)).collect();
    let mut taken = Taken::new(&kept, config, pinned);
    kept.into_iter()
        .zip(&config.services)
        .map(|(kept, service)| match kept {
            Some(place) if taken.claim(place) => Ok(place),
            _ => taken.new_place(service, config, capacity),
        })
        .collect()
}

fn keep(service: &Service, pinned: &Tables) -> Option<Place> {
    let found = keys(service).find_map(|(key, _)| pinned.services.get(&key))?;
    (found.ring_mask == service.slots - 1).then_some(Place { id: found.id, ring_base: found.ring_base })
}

struct Taken {
    ids: Vec<u32>,
    /// First slot to length.
    rings: BTreeMap<u32, u32>,
    claimed: Vec<Place>,
}

impl Taken {
    /// Pinned ids stay taken, also of services that are gone: their servers may still be named by records.
    /// Pinned rings stay taken when a service keeps them.
    fn new(kept: &[Option<Place>], config: &Config, pinned: &Tables) -> Self {
        let named = pinned.servers.values().map(|server| server.service);
        let ids = pinned.services.values().map(|service| service.id).chain(named).collect();
        let kept = kept.iter().zip(&config.services);
        let rings = kept.filter_map(|(place, service)| place.map(|place| (place.ring_base, service.slots)));
        Taken { ids, rings: rings.collect(), claimed: Vec::new() }
    }

    /// Two services that were one cannot both keep its place.
    fn claim(&mut self, place: Place) -> bool {
        let free =
            self.claimed.iter().all(|other| other.id != place.id && other.ring_base != place.ring_base);
        if free {
            self.claimed.push(place);
        }
        free
    }

    fn new_place(&mut self, service: &Service, config: &Config, capacity: u32) -> Result<Place, PlaceError> {
        let id = free_service_id(self.ids.iter().copied()).ok_or(PlaceError::Services)?;
        let ring_base = self.gap(service.slots, capacity).ok_or_else(|| PlaceError::Ring {
            needed: config.services.iter().map(|service| service.slots).sum(),
            capacity,
        })?;
        self.ids.push(id);
        self.rings.insert(ring_base, service.slots);
        let place = Place { id, ring_base };
        self.claimed.push(place);
        Ok(place)
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
