//! The tables, with the semantics of the kernel's maps: arrays hold a zero entry in every place within
//! their bounds.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use lb_common::{
    counter::{Counter, TrafficCounts},
    entry::{Globals, Server, ServerEntry, Service, ServiceEntry, ServiceKey, first_bucket},
    flow::{Flow, FlowKey, FlowView, Ticks},
    flow_table::{self, FlowMemory, Tags, WAYS},
    hash::{self, HashKey},
    limits::{PROBES_MAX, SERVERS_MAX, SERVICE_BUCKETS},
    net::Be32,
    slot::{ServerId, Slot},
};
use lb_ebpf::{Outcome, Tables};

pub struct HostTables {
    globals: Globals,
    services: HashMap<u32, ServiceEntry>,
    ring: HashMap<u32, Slot>,
    ring_slots: u32,
    servers: HashMap<u32, ServerEntry>,
    /// What stands in every other place of their arrays.
    unused: (ServiceEntry, ServerEntry),
    flows: Flows,
    counters: RefCell<BTreeMap<Counter, u64>>,
    traffic: RefCell<BTreeMap<ServerId, TrafficCounts>>,
    now: Ticks,
}

struct Flows {
    tags: Vec<Tags>,
    records: Vec<Flow>,
}

impl HostTables {
    pub fn new(now: Ticks, flows: u32, ring_slots: u32) -> Self {
        let buckets = flow_table::buckets(flows);
        HostTables {
            globals: Globals::default(),
            services: HashMap::new(),
            ring: HashMap::new(),
            ring_slots,
            servers: HashMap::new(),
            unused: Default::default(),
            flows: Flows {
                tags: (0..buckets).map(|_| Tags::default()).collect(),
                records: (0..buckets * WAYS).map(|_| Flow::default()).collect(),
            },
            counters: RefCell::default(),
            traffic: RefCell::default(),
            now,
        }
    }

    pub fn set_now(&mut self, now: Ticks) {
        self.now = now;
    }

    pub fn set_hash_key(&mut self, key: HashKey) {
        for (word, value) in self.globals.hash_key.iter().zip(key.0) {
            word.set(value);
        }
    }

    pub fn set_nat_sources(&mut self, sources: &[Ipv4Addr]) {
        let addresses = sources.iter().map(|&source| Be32::from(source));
        let filter = addresses.clone().fold(0, |bits, address| bits | hash::address_bit(address));
        self.globals.nat_filter.set(filter);
        for (word, address) in self.globals.nat_sources.iter().zip(addresses) {
            word.set(address.0.into());
        }
    }

    pub fn set_server(&mut self, id: ServerId, server: Server) {
        self.servers.entry(id.0).or_default().store(server);
    }

    pub fn set_slot(&mut self, index: u32, slot: Slot) {
        self.ring.insert(index, slot);
    }

    /// In the first bucket that is not in use; a key finds none only when all its buckets are taken.
    pub fn set_service(&mut self, key: ServiceKey, service: Service) {
        let standing = |index: u32| self.services.get(&index).map_or(0, |entry| entry.key.get());
        let place = buckets(key)
            .find(|&index| standing(index) == key.0)
            .or_else(|| buckets(key).find(|&index| !ServiceKey(standing(index)).is_used()));
        let place = place.unwrap_or_else(|| panic!("no bucket left for {key:?}"));
        let entry = self.services.entry(place).or_default();
        entry.store(service);
        entry.key.set(key.0);
    }

    pub fn remove_service(&mut self, key: ServiceKey) {
        for entry in self.services.values().filter(|entry| entry.key.get() == key.0) {
            entry.key.set(ServiceKey::REMOVED.0);
        }
    }

    pub fn remove_server(&mut self, id: ServerId) {
        self.servers.remove(&id.0);
    }

    /// Puts a record where there is room.
    pub fn record(&self, key: &FlowKey, view: FlowView) {
        let inserted = flow_table::insert(self, key, &view);
        assert_eq!(inserted, Ok(()), "{key:?}");
    }

    /// Counts a way out, as whoever takes an outcome does.
    pub fn count_outcome(&self, outcome: Outcome) {
        self.count(Counter::ALL[outcome.counter()]);
    }

    pub fn counters(&self) -> BTreeMap<Counter, u64> {
        self.counters.borrow().clone()
    }

    pub fn traffic(&self) -> BTreeMap<ServerId, TrafficCounts> {
        self.traffic.borrow().clone()
    }

    /// Every tag must have its record, and every record its tag.
    pub fn flows(&self) -> BTreeMap<FlowKey, FlowView> {
        let ways = self.flows.tags.iter().flat_map(|tags| (0..WAYS).map(|way| tags.is_used(way)));
        let mut flows = BTreeMap::new();
        for (used, flow) in ways.zip(&self.flows.records) {
            let key = flow.key();
            assert_eq!(key.is_some(), used, "a tag or a record stands alone: {flow:?}");
            if let Some(key) = key {
                assert!(flows.insert(key, flow.view()).is_none(), "{key:?} stands twice");
            }
        }
        flows
    }
}

impl FlowMemory for HostTables {
    fn flow_buckets(&self) -> u32 {
        self.flows.tags.len() as u32
    }

    fn flow_seed(&self) -> u64 {
        SEED
    }

    fn flow_tags(&self, bucket: u32) -> Option<&Tags> {
        self.flows.tags.get(bucket as usize)
    }

    fn flow_record(&self, index: u32) -> Option<&Flow> {
        self.flows.records.get(index as usize)
    }
}

impl Tables for HostTables {
    fn globals(&self) -> Option<&Globals> {
        Some(&self.globals)
    }

    fn service_bucket(&self, index: u32) -> Option<&ServiceEntry> {
        (index < SERVICE_BUCKETS).then(|| self.services.get(&index).unwrap_or(&self.unused.0))
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        (index < self.ring_slots).then(|| self.ring.get(&index).copied().unwrap_or_default())
    }

    fn server(&self, id: ServerId) -> Option<&ServerEntry> {
        (id.0 < SERVERS_MAX).then(|| self.servers.get(&id.0).unwrap_or(&self.unused.1))
    }

    fn now(&self) -> Ticks {
        self.now
    }

    fn count(&self, counter: Counter) {
        *self.counters.borrow_mut().entry(counter).or_default() += 1;
    }

    fn count_server(&self, id: ServerId, bytes: u32, opening: bool) {
        let mut traffic = self.traffic.borrow_mut();
        let counts = traffic.entry(id).or_default();
        counts.packets += 1;
        counts.bytes += u64::from(bytes);
        counts.connections += u64::from(opening);
    }
}

const SEED: u64 = 0x0123_4567_89ab_cdef;

fn buckets(key: ServiceKey) -> impl Iterator<Item = u32> {
    let first = first_bucket(key);
    (0..PROBES_MAX).map(move |probe| first.wrapping_add(probe) & (SERVICE_BUCKETS - 1))
}
