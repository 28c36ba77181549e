//! The kernel's tables as a value, and the ordered steps from one such value to another.
//!
//! Owns what may stand in the tables and in which order it may change. Must not know why it should: that is
//! `state`'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use lb_common::{
    entry::{Server, Service, ServiceKey},
    hash::HashKey,
    slot::{ServerId, Slot},
};

/// Everything the daemon writes into the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    pub hash_key: HashKey,
    /// Server entries refer to these by position.
    pub nat_sources: Vec<Ipv4Addr>,
    /// Interfaces packets may leave through.
    pub devices: BTreeSet<u32>,
    pub servers: BTreeMap<ServerId, Server>,
    /// First slot in the ring map to the slots of one service; shared, so that an unchanged ring costs nothing.
    pub rings: BTreeMap<u32, Arc<Vec<Slot>>>,
    pub services: BTreeMap<ServiceKey, Service>,
}

/// One change. The order of the variants is the order in which a plan applies them: what is referred to
/// comes before what refers to it, and goes after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    SetHashKey(HashKey),
    SetNatSources(Vec<Ipv4Addr>),
    AddDevice(u32),
    SetServer(ServerId, Server),
    /// First slot in the ring map, and the slots that differ by their index within the ring.
    SetSlots(u32, Vec<(u32, Slot)>),
    SetService(ServiceKey, Service),
    RemoveService(ServiceKey),
    RemoveRing(u32),
    RemoveServer(ServerId),
    RemoveDevice(u32),
}

/// The steps that turn `from` into `to`.
pub fn diff(from: &Tables, to: &Tables) -> Vec<Step> {
    let mut steps = Vec::new();
    if from.hash_key != to.hash_key {
        steps.push(Step::SetHashKey(to.hash_key));
    }
    if from.nat_sources != to.nat_sources {
        steps.push(Step::SetNatSources(to.nat_sources.clone()));
    }
    steps.extend(to.devices.difference(&from.devices).map(|&index| Step::AddDevice(index)));
    steps.extend(changed(&from.servers, &to.servers).map(|(&id, &server)| Step::SetServer(id, server)));
    steps.extend(to.rings.iter().filter_map(|(&base, ring)| slots(base, from.rings.get(&base), ring)));
    steps
        .extend(changed(&from.services, &to.services).map(|(&key, &service)| Step::SetService(key, service)));
    steps.extend(gone(&from.services, &to.services).map(Step::RemoveService));
    steps.extend(gone(&from.rings, &to.rings).map(Step::RemoveRing));
    steps.extend(gone(&from.servers, &to.servers).map(Step::RemoveServer));
    steps.extend(from.devices.difference(&to.devices).map(|&index| Step::RemoveDevice(index)));
    steps
}

fn changed<'a, K: Ord, V: PartialEq>(
    from: &'a BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    to.iter().filter(|(key, value)| from.get(key) != Some(value))
}

fn gone<K: Ord + Copy, V>(from: &BTreeMap<K, V>, to: &BTreeMap<K, V>) -> impl Iterator<Item = K> {
    from.keys().filter(|key| !to.contains_key(key)).copied()
}

fn slots(base: u32, from: Option<&Arc<Vec<Slot>>>, to: &Arc<Vec<Slot>>) -> Option<Step> {
    if from.is_some_and(|from| Arc::ptr_eq(from, to)) {
        return None;
    }
    let old = |index: usize| from.and_then(|ring| ring.get(index)).copied();
    let differing: Vec<_> = (0u32..)
        .zip(to.iter())
        .filter(|&(index, &slot)| old(index as usize) != Some(slot))
        .map(|(index, &slot)| (index, slot))
        .collect();
    (!differing.is_empty()).then_some(Step::SetSlots(base, differing))
}

impl Tables {
    /// What one step makes of the tables: the meaning the kernel adapter carries out.
    pub fn apply(&mut self, step: Step) {
        match step {
            Step::SetHashKey(key) => self.hash_key = key,
            Step::SetNatSources(sources) => self.nat_sources = sources,
            Step::AddDevice(index) => {
                self.devices.insert(index);
            }
            Step::SetServer(id, server) => {
                self.servers.insert(id, server);
            }
            Step::SetSlots(base, changes) => {
                let ring = Arc::make_mut(self.rings.entry(base).or_default());
                for (index, slot) in changes {
                    if ring.len() <= index as usize {
                        ring.resize(index as usize + 1, Slot::default());
                    }
                    ring[index as usize] = slot;
                }
            }
            Step::SetService(key, service) => {
                self.services.insert(key, service);
            }
            Step::RemoveService(key) => {
                self.services.remove(&key);
            }
            Step::RemoveRing(base) => {
                self.rings.remove(&base);
            }
            Step::RemoveServer(id) => {
                self.servers.remove(&id);
            }
            Step::RemoveDevice(index) => {
                self.devices.remove(&index);
            }
        }
    }

    /// What refers to something that is not there; None when all is well.
    pub fn dangling(&self) -> Option<String> {
        for (key, service) in &self.services {
            let Some(ring) = self.rings.get(&service.ring_base) else {
                return Some(format!("service {key:?} refers to the absent ring {}", service.ring_base));
            };
            if ring.len() != service.ring_mask as usize + 1 {
                return Some(format!(
                    "service {key:?} has mask {} for {} slots",
                    service.ring_mask,
                    ring.len()
                ));
            }
        }
        for (base, ring) in &self.rings {
            let named = ring.iter().flat_map(|slot| [slot.current(), slot.base()]);
            if let Some(id) = named.into_iter().find(|id| !id.is_none() && !self.servers.contains_key(id)) {
                return Some(format!("ring {base} names the absent server {id:?}"));
            }
        }
        for (id, server) in &self.servers {
            if server.hop.resolved && !self.devices.contains(&server.hop.interface) {
                return Some(format!(
                    "server {id:?} leaves through the absent device {}",
                    server.hop.interface
                ));
            }
            if usize::from(server.nat_first) + usize::from(server.nat_count) > self.nat_sources.len() {
                return Some(format!("server {id:?} uses nat sources beyond the {}", self.nat_sources.len()));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{
        entry::{Hop, Mode},
        net::{Be16, Be32, Mac, TCP},
    };
    use proptest::prelude::*;

    use super::*;

    /// Current, base, lookup.
    type SlotSketch = (u32, u32, bool);

    /// What a configuration could look like: server ids per service, and interfaces per server.
    #[derive(Debug, Clone)]
    struct Sketch {
        rings: Vec<(u32, Vec<SlotSketch>)>,
        devices: Vec<u32>,
        nat_sources: u8,
    }

    fn sketch() -> impl Strategy<Value = Sketch> {
        let slot = (0u32..6, 0u32..6, any::<bool>());
        let ring = (0u32..4, proptest::collection::vec(slot, 8));
        (proptest::collection::vec(ring, 0..4), proptest::collection::vec(1u32..4, 6), 1u8..4)
            .prop_map(|(rings, devices, nat_sources)| Sketch { rings, devices, nat_sources })
    }

    fn tables(sketch: &Sketch) -> Tables {
        let mut tables = Tables {
            nat_sources: (0..sketch.nat_sources).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect(),
            ..Tables::default()
        };
        for (service, slots) in &sketch.rings {
            let base = service * 8;
            let ring: Vec<_> =
                slots.iter().map(|&(c, b, lookup)| Slot::new(ServerId(c), ServerId(b), lookup)).collect();
            for id in ring.iter().flat_map(|slot| [slot.current(), slot.base()]).filter(|id| !id.is_none()) {
                let interface = sketch.devices[id.0 as usize];
                tables.devices.insert(interface);
                tables.servers.insert(id, server(id, interface, sketch.nat_sources));
            }
            tables.rings.insert(base, Arc::new(ring));
            let key = ServiceKey::new(Be32(*service), Be16::new(80), TCP);
            tables.services.insert(
                key,
                Service {
                    id: *service,
                    ring_base: base,
                    ring_mask: 7,
                    mode: Mode::Dsr,
                    reset: true,
                    idle_ticks: 1,
                },
            );
        }
        tables
    }

    fn server(id: ServerId, interface: u32, nat_count: u8) -> Server {
        let hop = Hop { lives: true, resolved: true, mac: Mac(1), source_mac: Mac(2), interface };
        Server { hop, nat_first: 0, nat_count, address: Be32(id.0), port: Be16(0), service: 0 }
    }

    proptest! {
        #[test]
        fn no_prefix_of_a_plan_leaves_a_dangling_reference(a in sketch(), b in sketch()) {
            let (mut now, wanted) = (tables(&a), tables(&b));
            // The list of sources is never shortened while servers refer to its tail: `state` sees to it.
            let wanted = if wanted.nat_sources.len() < now.nat_sources.len() {
                Tables { nat_sources: now.nat_sources.clone(), ..wanted }
            } else {
                wanted
            };
            prop_assert_eq!(now.dangling(), None);
            for step in diff(&now, &wanted) {
                let text = format!("{step:?}");
                now.apply(step);
                prop_assert_eq!(now.dangling(), None, "after {}", text);
            }
            prop_assert_eq!(&now, &wanted);
            prop_assert!(diff(&now, &wanted).is_empty());
        }
    }

    #[test]
    fn an_unchanged_slot_is_not_written() {
        let slot = |id| Slot::settled(ServerId(id));
        let from = Tables { rings: [(0, Arc::new(vec![slot(1), slot(2)]))].into(), ..Tables::default() };
        let to = Tables { rings: [(0, Arc::new(vec![slot(1), slot(1)]))].into(), ..Tables::default() };
        assert_eq!(diff(&from, &to), [Step::SetSlots(0, vec![(1, slot(1))])]);
    }
}
