//! The tables, with the semantics of the kernel's maps: arrays hold a zero entry in every place within
//! their bounds.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use lb_common::{
    counter::{Counter, TrafficCounts},
    entry::{
        ALLOW, DENY, EMPTY, Globals, REMOVED, Rules, Scoped, ServerEntry, Service, ServiceEntry, ServiceKey,
    },
    flow::{Flow, Half, TICK_SHIFT, Ticks},
    flow_table::{self, FlowMemory, Tags, WAYS},
    fragment::{FragmentEntry, FragmentKey},
    limits::{ANSWERS_PER_SECOND, FRAGMENTS_MAX, PROBES_MAX, SERVERS_MAX, SERVICE_BUCKETS, SERVICES_MAX},
    net::{Family, V4, V6},
    slot::{ServerId, Slot},
    word::Word,
};
use lb_ebpf::{FamilyTables, Held, Outcome, Tables, forward::Task};
use lb_user::pure::plan::{self, Step, Verdict};

use super::{
    networks::Networks,
    records::{self, Key, Record},
};

pub struct HostTables {
    globals: Globals,
    v4: OfFamily<V4>,
    v6: OfFamily<V6>,
    ring: Vec<Slot>,
    servers: HashMap<u32, ServerEntry>,
    rules: Networks<Rules>,
    access: Networks<u32>,
    turns: HashMap<u32, Word>,
    /// By service id.
    refused: Vec<Word>,
    load: HashMap<u32, Word>,
    /// The least recently seen first.
    fragments: RefCell<Vec<(FragmentKey, FragmentEntry)>>,
    /// The tick in which ICMP errors were sent last, and how many.
    answers: Cell<(Ticks, u32)>,
    /// What stands in every other place of their arrays.
    unused: (ServerEntry, Word),
    counters: RefCell<BTreeMap<Counter, u64>>,
    traffic: RefCell<BTreeMap<ServerId, TrafficCounts>>,
    now: Ticks,
}

/// What each IP version has tables of its own for.
struct OfFamily<F: Family> {
    services: HashMap<u32, ServiceEntry<F>>,
    unused: ServiceEntry<F>,
    tags: Vec<Tags>,
    records: Vec<Flow<F>>,
    halves: Vec<Half<F>>,
    held: Cell<Option<Held<F>>>,
}

impl HostTables {
    /// `flows`: of each family.
    pub fn new(now: Ticks, flows: u32, ring_slots: u32) -> Self {
        let buckets = flow_table::buckets(flows);
        let globals = Globals::default();
        globals.set_flow_table(buckets, SEED);
        HostTables {
            globals,
            v4: OfFamily::new(buckets),
            v6: OfFamily::new(buckets),
            ring: vec![Slot::default(); ring_slots as usize],
            servers: HashMap::new(),
            rules: Networks::default(),
            access: Networks::default(),
            turns: HashMap::new(),
            refused: (0..SERVICES_MAX).map(|_| Word::new(0)).collect(),
            load: HashMap::new(),
            fragments: RefCell::default(),
            answers: Cell::default(),
            unused: Default::default(),
            counters: RefCell::default(),
            traffic: RefCell::default(),
            now,
        }
    }

    pub fn set_now(&mut self, now: Ticks) {
        self.now = now;
    }

    /// What the daemon's adapter does to the kernel's maps.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::SetHashKey(key) => self.globals.set_hash_key(*key),
            Step::SetNatSources(sources) => self.set_nat_sources(sources),
            Step::AddGateway(address) => self.globals.expect_replies_from(*address),
            Step::SetServer(id, server) => {
                self.load.entry(id.0).or_default();
                self.servers.entry(id.0).or_default().store(*server);
            }
            Step::SetSlots(base, slots) => {
                for &(index, slot) in slots {
                    // Outside the map there is nothing, as a reader finds.
                    if let Some(place) = self.ring.get_mut((base + index) as usize) {
                        *place = slot;
                    }
                }
            }
            Step::SetAccess(service, network, verdict) => {
                let verdict = match verdict {
                    Verdict::Allow => ALLOW,
                    Verdict::Deny => DENY,
                };
                self.access.insert(*service, *network, verdict);
            }
            Step::SetService(key, service) => {
                self.turns.entry(service.id).or_default();
                match key {
                    plan::Key::V4(key) => self.v4.set_service(*key, *service),
                    plan::Key::V6(key) => self.v6.set_service(*key, *service),
                }
            }
            Step::SetWildcards(network, rules) => {
                for rule in rules {
                    self.turns.entry(rule.service.id).or_default();
                }
                self.rules.insert(0, *network, Rules::new(rules));
                self.globals.set_wildcards(true);
            }
            Step::RemoveWildcards(network) => {
                self.rules.remove(0, *network);
                self.globals.set_wildcards(!self.rules.is_empty());
            }
            Step::RemoveService(plan::Key::V4(key)) => self.v4.remove_service(*key),
            Step::RemoveService(plan::Key::V6(key)) => self.v6.remove_service(*key),
            Step::RemoveAccess(service, network) => self.access.remove(*service, *network),
            Step::RemoveServer(id) => {
                self.servers.remove(&id.0);
            }
            // The filter only grows; whether the kernel may send out of an interface is not the packet path's business.
            Step::RemoveGateway(_) | Step::AddDevice(_) | Step::RemoveDevice(_) | Step::RemoveRing(_) => {}
        }
    }

    fn set_nat_sources(&mut self, sources: &[IpAddr]) {
        for (index, &address) in sources.iter().enumerate() {
            self.globals.set_nat_source(index, address);
            self.globals.expect_replies_to(address);
        }
    }

    /// Puts a record where there is room.
    pub fn record(&self, key: &Key, record: &Record) {
        assert_eq!(records::insert(self, key, record), Ok(()), "{key:?}");
    }

    pub fn records(&self) -> BTreeMap<Key, Record> {
        records::all(self).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn set_fragment(&self, key: FragmentKey, entry: FragmentEntry) {
        self.fragments.borrow_mut().push((key, entry));
    }

    pub fn fragments(&self) -> Vec<(FragmentKey, FragmentEntry)> {
        self.fragments.borrow().clone()
    }

    /// As if the daemon had last been alive then.
    pub fn beat(&self, at: Ticks, patience: u32) {
        self.globals.beat(at, Some(patience));
    }

    pub fn set_moving(&self, moving: bool) {
        self.globals.set_moving(moving);
    }

    /// As if so many ICMP errors had been sent in this tick.
    pub fn set_answered(&self, count: u32) {
        self.answers.set((self.now, count));
    }

    pub fn set_turns(&self, service: u32, turns: u64) {
        self.turns[&service].set(turns);
    }

    pub fn set_load(&self, id: ServerId, connections: u64) {
        self.load[&id.0].set(connections);
    }

    /// Those that are not zero.
    pub fn all_turns(&self) -> BTreeMap<u32, u64> {
        counted(&self.turns).collect()
    }

    /// When flows of each service last went without a record.
    pub fn refusals(&self) -> BTreeMap<u32, Ticks> {
        let words = (0u32..).zip(&self.refused);
        words.filter_map(|(id, word)| Some((id, Ticks::of_stamp(word.get())?))).collect()
    }

    /// Those that are not zero.
    pub fn loads(&self) -> BTreeMap<ServerId, u64> {
        counted(&self.load).map(|(id, count)| (ServerId(id), count)).collect()
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
}

impl<F: Family> OfFamily<F> {
    fn new(buckets: u32) -> Self {
        OfFamily {
            services: HashMap::new(),
            unused: ServiceEntry::default(),
            tags: (0..buckets).map(|_| Tags::default()).collect(),
            records: (0..buckets * WAYS).map(|_| Flow::default()).collect(),
            halves: (0..buckets * WAYS).map(|_| Half::default()).collect(),
            held: Cell::new(None),
        }
    }

    /// In the first bucket that is not in use; a key finds none only when all its buckets are taken.
    fn set_service(&mut self, key: ServiceKey<F>, service: Service) {
        let standing = |index: u32| self.services.get(&index).and_then(ServiceEntry::key);
        let place = buckets(key)
            .find(|&index| standing(index) == Some(key))
            .or_else(|| buckets(key).find(|&index| standing(index).is_none()));
        let place = place.unwrap_or_else(|| panic!("no bucket left for {key:?}"));
        self.services.entry(place).or_default().publish(key, service);
    }

    fn remove_service(&mut self, key: ServiceKey<F>) {
        for entry in self.services.values().filter(|entry| entry.is(key)) {
            entry.withdraw(REMOVED);
        }
    }

    fn bucket(&self, index: u32) -> Option<&ServiceEntry<F>> {
        (index < SERVICE_BUCKETS).then(|| self.services.get(&index).unwrap_or(&self.unused))
    }
}

macro_rules! family_tables {
    ($family:ty, $tables:ident) => {
        impl FlowMemory<$family> for HostTables {
            fn flow_buckets(&self) -> u32 {
                self.$tables.tags.len() as u32
            }

            fn flow_seed(&self) -> u64 {
                SEED
            }

            fn flow_tags(&self, bucket: u32) -> Option<&Tags> {
                self.$tables.tags.get(bucket as usize)
            }

            fn flow_record(&self, index: u32) -> Option<&Flow<$family>> {
                self.$tables.records.get(index as usize)
            }

            fn flow_half(&self, index: u32) -> Option<&Half<$family>> {
                self.$tables.halves.get(index as usize)
            }

            fn flow_lost(&self, server: u32, now: Ticks) {
                let service = self.servers.get(&server).map(ServerEntry::service);
                if let Some(at) = service.and_then(|service| Tables::refused(self, service)) {
                    at.set(now.stamp());
                }
            }
        }

        impl FamilyTables<$family> for HostTables {
            fn service_bucket(&self, index: u32) -> Option<&ServiceEntry<$family>> {
                self.$tables.bucket(index)
            }

            fn hold(&self, held: &Held<$family>) {
                self.$tables.held.set(Some(*held));
            }

            fn assign(&self, task: Task) {
                let mut held = self.$tables.held.get();
                if let Some(held) = &mut held {
                    held.task = task;
                }
                self.$tables.held.set(held);
            }

            fn held(&self) -> Option<Held<$family>> {
                self.$tables.held.get()
            }
        }
    };
}

family_tables!(V4, v4);
family_tables!(V6, v6);

impl Tables for HostTables {
    fn globals(&self) -> Option<&Globals> {
        Some(&self.globals)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.ring.get(index as usize).copied()
    }

    fn server(&self, id: ServerId) -> Option<&ServerEntry> {
        (id.0 < SERVERS_MAX).then(|| self.servers.get(&id.0).unwrap_or(&self.unused.0))
    }

    fn rules(&self, address: &Scoped) -> Option<&Rules> {
        self.rules.find(address)
    }

    fn access(&self, client: &Scoped) -> Option<u32> {
        self.access.find(client).copied()
    }

    fn turns(&self, service: u32) -> Option<&Word> {
        (service < SERVICES_MAX).then(|| self.turns.get(&service).unwrap_or(&self.unused.1))
    }

    fn refused(&self, service: u32) -> Option<&Word> {
        self.refused.get(service as usize)
    }

    fn load(&self, id: ServerId) -> Option<&Word> {
        (id.0 < SERVERS_MAX).then(|| self.load.get(&id.0).unwrap_or(&self.unused.1))
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        let mut fragments = self.fragments.borrow_mut();
        let place = fragments.iter().position(|(standing, _)| standing == key)?;
        let found = fragments.remove(place);
        fragments.push(found);
        Some(found.1)
    }

    fn keep_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) {
        let mut fragments = self.fragments.borrow_mut();
        fragments.retain(|(standing, _)| standing != key);
        if fragments.len() == FRAGMENTS_MAX as usize {
            fragments.remove(0);
        }
        fragments.push((*key, *entry));
    }

    fn now(&self) -> Ticks {
        self.now
    }

    fn may_answer(&self, now: Ticks) -> bool {
        let (tick, sent) = self.answers.get();
        let sent = if tick == now { sent + 1 } else { 1 };
        self.answers.set((now, sent));
        sent <= ANSWERS_PER_TICK
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
/// So that as many are sent as in a second, rounded up.
pub const ANSWERS_PER_TICK: u32 = ((ANSWERS_PER_SECOND as u64) << TICK_SHIFT).div_ceil(1_000_000_000) as u32;
const _: () = assert!(EMPTY == 0, "an unused bucket");

fn counted(words: &HashMap<u32, Word>) -> impl Iterator<Item = (u32, u64)> {
    words.iter().map(|(&id, word)| (id, word.get())).filter(|&(_, count)| count != 0)
}

fn buckets<F: Family>(key: ServiceKey<F>) -> impl Iterator<Item = u32> {
    let first = key.first_bucket();
    (0..PROBES_MAX).map(move |probe| first.wrapping_add(probe) & (SERVICE_BUCKETS - 1))
}
