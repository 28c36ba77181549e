//! The tables, with the semantics of the kernel's maps: arrays hold a zero entry in every place within
//! their bounds, the flow table has an exact capacity and never replaces.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use lb_common::{
    counter::{Counter, TrafficCounts},
    entry::{Globals, Server, ServerEntry, Service, ServiceEntry, ServiceKey, first_bucket},
    flow::{Flow, FlowKey, FlowView, Ticks},
    hash::{self, HashKey},
    limits::{NAT_PORT_TRIES, PROBES_MAX, SERVERS_MAX, SERVICE_BUCKETS},
    net::Be32,
    slot::{ServerId, Slot},
};
use lb_ebpf::{InsertError, Outcome, Tables};

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

/// A record keeps its cell when it is removed, since a packet may still hold a reference to it.
struct Flows {
    capacity: usize,
    cells: Vec<OnceCell<Flow>>,
    used: Cell<usize>,
    index: RefCell<BTreeMap<FlowKey, usize>>,
}

impl HostTables {
    /// `packets`: how many may be forwarded before the records of removed flows fill their memory.
    pub fn new(now: Ticks, flows: u32, ring_slots: u32, packets: u32) -> Self {
        let cells = flows + packets * (NAT_PORT_TRIES + 1);
        HostTables {
            globals: Globals::default(),
            services: HashMap::new(),
            ring: HashMap::new(),
            ring_slots,
            servers: HashMap::new(),
            unused: Default::default(),
            flows: Flows {
                capacity: flows as usize,
                cells: (0..cells).map(|_| OnceCell::new()).collect(),
                used: Cell::new(0),
                index: RefCell::default(),
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
        let inserted = self.insert_flow(key, &Flow::new(view));
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

    pub fn flows(&self) -> BTreeMap<FlowKey, FlowView> {
        let index = self.flows.index.borrow();
        index.iter().filter_map(|(key, &cell)| Some((*key, self.flows.cells[cell].get()?.view()))).collect()
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

    fn flow(&self, key: &FlowKey) -> Option<&Flow> {
        let cell = *self.flows.index.borrow().get(key)?;
        self.flows.cells[cell].get()
    }

    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> Result<(), InsertError> {
        let mut index = self.flows.index.borrow_mut();
        if index.contains_key(key) {
            return Err(InsertError::Exists);
        }
        if index.len() == self.flows.capacity {
            return Err(InsertError::Full);
        }
        let cell = self.flows.used.replace(self.flows.used.get() + 1);
        assert!(self.flows.cells[cell].set(Flow::new(flow.view())).is_ok(), "each cell is used once");
        index.insert(*key, cell);
        Ok(())
    }

    fn remove_flow(&self, key: &FlowKey) {
        self.flows.index.borrow_mut().remove(key);
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

fn buckets(key: ServiceKey) -> impl Iterator<Item = u32> {
    let first = first_bucket(key);
    (0..PROBES_MAX).map(move |probe| first.wrapping_add(probe) & (SERVICE_BUCKETS - 1))
}
