//! The kernel's tables as a value, and the ordered steps from one such value to another.
//!
//! Owns what may stand in the tables and in which order it may change. Must not know why it should: that is
//! `state`'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lb_common::{
    entry::{Rule, Server, Service, ServiceKey},
    hash::HashKey,
    net::{Be16, V4, V6},
    slot::{ServerId, Slot},
};

use super::config::network::{Family, Network};

/// Everything the daemon writes into the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    pub hash_key: HashKey,
    /// Server entries refer to these by position.
    pub nat_sources: Vec<IpAddr>,
    /// Servers of `gateway`, whose answers are told by their source.
    pub gateways: BTreeSet<IpAddr>,
    /// Interfaces packets may leave through.
    pub devices: BTreeSet<u32>,
    pub servers: BTreeMap<ServerId, Server>,
    /// First slot in the ring map to the slots of one ring; shared, so that an unchanged ring costs nothing.
    pub rings: BTreeMap<u32, Arc<Vec<Slot>>>,
    /// What each network around a client says, by service id.
    pub access: BTreeMap<(u32, Network), Verdict>,
    pub services: BTreeMap<Key, Service>,
    /// Services that are not found by address, port and protocol, the most specific first.
    pub wildcards: BTreeMap<Network, Vec<Rule>>,
}

/// What is read back and compared at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Hash key, NAT sources and gateways.
    Shared,
    Devices,
    Servers,
    Access,
    Services,
    Wildcards,
    /// By its first slot.
    Ring(u32),
}

impl Part {
    /// In the order in which a packet refers to them, the last first.
    pub const WITHOUT_RINGS: [Part; 6] =
        [Part::Shared, Part::Devices, Part::Servers, Part::Access, Part::Services, Part::Wildcards];
}

/// A service's key in the table of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    V4(ServiceKey<V4>),
    V6(ServiceKey<V6>),
}

impl Key {
    pub fn new(address: IpAddr, port: u16, protocol: u8) -> Self {
        let port = Be16::new(port);
        match address {
            IpAddr::V4(address) => Key::V4(ServiceKey::new(address.into(), port, protocol)),
            IpAddr::V6(address) => Key::V6(ServiceKey::new(address.into(), port, protocol)),
        }
    }

    /// See `ServiceKey::of_vip`.
    pub fn of_vip(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Key::V4(ServiceKey::of_vip(address.into())),
            IpAddr::V6(address) => Key::V6(ServiceKey::of_vip(address.into())),
        }
    }

    pub fn family(self) -> Family {
        match self {
            Key::V4(_) => Family::V4,
            Key::V6(_) => Family::V6,
        }
    }
}

/// Whether a client may use a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
}

/// One change. The order of the variants is the order in which a plan applies them: what is referred to
/// comes before what refers to it, and goes after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    SetHashKey(HashKey),
    SetNatSources(Vec<IpAddr>),
    AddGateway(IpAddr),
    AddDevice(u32),
    SetServer(ServerId, Server),
    /// First slot in the ring map, and the slots that differ by their index within the ring.
    SetSlots(u32, Vec<(u32, Slot)>),
    SetAccess(u32, Network, Verdict),
    SetService(Key, Service),
    SetWildcards(Network, Vec<Rule>),
    RemoveWildcards(Network),
    RemoveService(Key),
    RemoveAccess(u32, Network),
    RemoveRing(u32),
    RemoveServer(ServerId),
    RemoveDevice(u32),
    RemoveGateway(IpAddr),
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
    steps.extend(to.gateways.difference(&from.gateways).map(|&address| Step::AddGateway(address)));
    steps.extend(to.devices.difference(&from.devices).map(|&index| Step::AddDevice(index)));
    steps.extend(changed(&from.servers, &to.servers).map(|(&id, &server)| Step::SetServer(id, server)));
    steps.extend(to.rings.iter().filter_map(|(&base, ring)| slots(base, from.rings.get(&base), ring)));
    let access = |(&(service, network), &verdict): (&(u32, Network), &Verdict)| {
        Step::SetAccess(service, network, verdict)
    };
    steps.extend(changed(&from.access, &to.access).map(access));
    steps
        .extend(changed(&from.services, &to.services).map(|(&key, &service)| Step::SetService(key, service)));
    let wildcards = |(&network, rules): (&Network, &Vec<Rule>)| Step::SetWildcards(network, rules.clone());
    steps.extend(changed(&from.wildcards, &to.wildcards).map(wildcards));
    steps.extend(gone(&from.wildcards, &to.wildcards).map(Step::RemoveWildcards));
    steps.extend(gone(&from.services, &to.services).map(Step::RemoveService));
    let access = gone(&from.access, &to.access);
    steps.extend(access.map(|(service, network)| Step::RemoveAccess(service, network)));
    steps.extend(gone(&from.rings, &to.rings).map(Step::RemoveRing));
    steps.extend(gone(&from.servers, &to.servers).map(Step::RemoveServer));
    steps.extend(from.devices.difference(&to.devices).map(|&index| Step::RemoveDevice(index)));
    steps.extend(from.gateways.difference(&to.gateways).map(|&address| Step::RemoveGateway(address)));
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
            Step::AddGateway(address) => {
                self.gateways.insert(address);
            }
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
            Step::SetAccess(service, network, verdict) => {
                self.access.insert((service, network), verdict);
            }
            Step::SetService(key, service) => {
                self.services.insert(key, service);
            }
            Step::SetWildcards(network, rules) => {
                self.wildcards.insert(network, rules);
            }
            Step::RemoveWildcards(network) => {
                self.wildcards.remove(&network);
            }
            Step::RemoveService(key) => {
                self.services.remove(&key);
            }
            Step::RemoveAccess(service, network) => {
                self.access.remove(&(service, network));
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
            Step::RemoveGateway(address) => {
                self.gateways.remove(&address);
            }
        }
    }

    /// Of every key and every rule.
    pub fn all_services(&self) -> impl Iterator<Item = &Service> {
        let rules = self.wildcards.values().flatten().map(|rule| &rule.service);
        self.services.values().chain(rules)
    }

    /// What refers to something that is not there; None when all is well.
    pub fn dangling(&self) -> Option<String> {
        let exact = self.services.iter().map(|(key, service)| (format!("service {key:?}"), *service));
        let rules = self.wildcards.iter().flat_map(|(network, rules)| {
            rules.iter().map(move |rule| (format!("rule for {network}"), rule.service))
        });
        for (name, service) in exact.chain(rules) {
            let Some(ring) = self.rings.get(&service.ring_base) else {
                return Some(format!("{name} refers to the absent ring {}", service.ring_base));
            };
            if ring.len() != service.ring_mask as usize + 1 {
                return Some(format!("{name} has mask {} for {} slots", service.ring_mask, ring.len()));
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
    use std::net::Ipv4Addr;

    use lb_common::{
        entry::{Hop, Mode, Scheduler},
        net::{Mac, TCP},
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
            nat_sources: (0..sketch.nat_sources).map(|n| Ipv4Addr::new(10, 0, 0, n).into()).collect(),
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
            let address = Ipv4Addr::from_bits(*service).into();
            let value = Service {
                id: *service,
                ring_base: base,
                ring_mask: 7,
                mode: Mode::Dsr,
                scheduler: Scheduler::Ring,
                by_client: false,
                access: true,
                reset: true,
                mss: 0,
                idle_ticks: 1,
                client_ticks: 0,
            };
            tables.services.insert(Key::new(address, 80, TCP), value);
            let rule = Rule { protocol: TCP, first: 1, last: 9, service: value };
            tables.wildcards.insert(Network::host(address), vec![rule]);
            tables.access.insert((*service, Network::host(address)), Verdict::Deny);
            tables.gateways.insert(address);
        }
        tables
    }

    fn server(id: ServerId, interface: u32, nat_count: u8) -> Server {
        let hop = Hop {
            lives: true,
            resolved: true,
            mac: Mac(1),
            source_mac: Mac(2),
            interface,
            tags: Default::default(),
            mtu: 1_500,
        };
        let address = Ipv4Addr::from_bits(id.0).into();
        Server {
            hop,
            nat_first: 0,
            nat_count,
            address,
            port: Be16(0),
            weight: 1,
            service: 0,
            outer_source: address,
        }
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
