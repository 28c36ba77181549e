//! Runs the program over the live tables without a trace.
//!
//! A copy of the program shares the maps that it only reads, and has its own of all that it writes. What it would
//! read of those is brought there before each run: the values that all services share, whose turn it is, and the
//! records of the flow.
//!
//! ```text
//! live  services, rules, access, ring, servers, devices ──────────► copy ─► frame, action
//!       globals, turns, load, the flow's records ─ before a run ─►   │
//! own   globals, turns, load, flows, counters, traffic ◄─────────────┘
//! ```

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc};

use aya::{
    maps::{MapData, MapError, PerCpuValues, ProgramArray, lpm_trie::Key as Prefix},
    programs::{ProgramError, TestRun, TestRunOptions, Xdp},
    util::nr_cpus,
};
use lb_common::{
    counter::{COUNTS, Counter, Counts, TrafficCounts},
    entry::{DENY, Rules, Scoped, Server, ServerEntry, Service},
    flow::{FlowKey, NAT_REPLY, NAT_REQUEST, Tuple},
    flow_table::{self, FlowMemory, WAYS},
    hash::{self, FlowTuple},
    limits::NAT_PORT_TRIES,
    net::{Be16, Family, V4, V6},
    slot::{ServerId, Slot},
};

use super::{
    Parts,
    flows::now,
    list::reply,
    load::{self, LoadError, absent, chain},
    pod::PodScoped,
    tables::TableMemory,
};
use crate::pure::{
    config::model::Protocol,
    explain::{
        Action, Connection, Facts, Trace,
        packet::{Kind, packet},
    },
    plan::{Key, Verdict},
    record::Record,
    state::number,
};

#[derive(Debug, thiserror::Error)]
pub enum DryError {
    #[error("client and service must both have IPv4 addresses, or both IPv6 ones")]
    Families,
    #[error("cannot run the program on a packet of its own: {0}; see `steelyard status` for its interfaces")]
    Run(String),
    #[error("cannot read what the program did: {0}")]
    Map(#[from] MapError),
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// A copy of the program that is attached nowhere.
pub struct Dry {
    own: Parts,
    live: Arc<TableMemory>,
    /// Tail calls find the stages as long as this is held.
    _stages: ProgramArray<MapData>,
}

impl Dry {
    pub(super) fn load(maps: &Path, live: Arc<TableMemory>) -> Result<Self, LoadError> {
        let (object, stages) = load::copy(maps, FLOWS)?;
        Ok(Dry { own: Parts::of(object)?, live, _stages: stages })
    }

    /// `interface`: where the packets come in; 0: the loopback.
    pub fn explain(&mut self, connection: &Connection, interface: u32) -> Result<Facts, DryError> {
        let Connection { client, vip, .. } = *connection;
        let (source_port, destination_port) = (Be16::new(client.port()), Be16::new(vip.port()));
        match (client, vip) {
            (SocketAddr::V4(client), SocketAddr::V4(vip)) => {
                let (source, destination) = ((*client.ip()).into(), (*vip.ip()).into());
                let tuple = Tuple { source, destination, source_port, destination_port };
                self.facts::<V4>(connection, tuple, interface)
            }
            (SocketAddr::V6(client), SocketAddr::V6(vip)) => {
                let (source, destination) = ((*client.ip()).into(), (*vip.ip()).into());
                let tuple = Tuple { source, destination, source_port, destination_port };
                self.facts::<V6>(connection, tuple, interface)
            }
            _ => Err(DryError::Families),
        }
    }

    fn facts<F: Family>(
        &mut self,
        connection: &Connection,
        tuple: Tuple<F>,
        interface: u32,
    ) -> Result<Facts, DryError>
    where
        TableMemory: FlowMemory<F>,
    {
        let protocol = number(connection.protocol);
        let exact = self.live.service(Key::new(connection.vip.ip(), connection.vip.port(), protocol));
        let service = exact.or_else(|| self.rule::<F>(tuple, protocol));
        let trial = Trial { keys: keys(tuple, protocol, service.as_ref()), service, interface };
        let opening = self.run(&trial, connection, Kind::Opening)?;
        let later = match connection.protocol {
            Protocol::Tcp => Some(self.run(&trial, connection, Kind::Later)?),
            Protocol::Udp => None,
        };
        Ok(Facts {
            arrival: interface,
            service,
            is_exact: exact.is_some(),
            access: service.and_then(|service| self.access::<F>(service.id, tuple.source)),
            slot: service.and_then(|service| self.slot::<F>(&service, tuple)),
            records: trial.keys.iter().filter_map(|key| self.record(key)).collect(),
            servers: self.servers(service.as_ref()),
            opening,
            later,
        })
    }

    fn rule<F: Family>(&self, tuple: Tuple<F>, protocol: u8) -> Option<Service> {
        let rules = self.own.maps.wildcards.get(&whole::<F>(0, tuple.destination), 0).ok()?;
        let port = tuple.destination_port.get();
        let matches = |rule: &lb_common::entry::Rule| {
            rule.protocol == protocol && (rule.first..=rule.last).contains(&port)
        };
        Rules::from_words(&rules).list().find(matches).map(|rule| rule.service)
    }

    fn access<F: Family>(&self, service: u32, client: F::Address) -> Option<Verdict> {
        let value = self.own.maps.access.get(&whole::<F>(service, client), 0).ok()?;
        Some(if value == DENY { Verdict::Deny } else { Verdict::Allow })
    }

    fn slot<F: Family>(&self, service: &Service, tuple: Tuple<F>) -> Option<(u32, Slot)> {
        let Tuple { source, source_port, destination_port, .. } = tuple;
        let hashed = match service.by_client {
            true => FlowTuple { source, source_port: Be16(0), destination_port: Be16(0) },
            false => FlowTuple { source, source_port, destination_port },
        };
        let index = hash::flow::<F>(self.live.globals().hash_key(), hashed) & service.ring_mask;
        Some((index, self.live.slot(service.ring_base.wrapping_add(index))?))
    }

    fn record<F: Family>(&self, key: &FlowKey<F>) -> Option<Record>
    where
        TableMemory: FlowMemory<F>,
    {
        let (_, view) = flow_table::read(&*self.live, key)?;
        Record::new(key, &view, reply(&*self.live, key, &view), now())
    }

    /// Those of a service, gone ones that are still named included.
    fn servers(&self, service: Option<&Service>) -> BTreeMap<ServerId, Server> {
        let Some(service) = service else { return BTreeMap::new() };
        let entries = (0u32..).zip(self.live.servers.iter());
        let loaded = entries.filter_map(|(id, entry)| Some((ServerId(id), ServerEntry::load(entry)?)));
        loaded.filter(|(_, server)| server.service == service.id).collect()
    }

    /// Runs a packet until no place that it took is another flow's in the live table.
    fn run<F: Family>(
        &mut self,
        trial: &Trial<F>,
        connection: &Connection,
        kind: Kind,
    ) -> Result<Trace, DryError>
    where
        TableMemory: FlowMemory<F>,
    {
        let bytes = packet(connection, kind).ok_or(DryError::Families)?;
        let mut brought = trial.keys.clone();
        brought.extend(trial.keys.iter().filter_map(|key| twin(&*self.live, key)));
        for _ in 0..=NAT_PORT_TRIES {
            self.prepare(trial, &brought)?;
            let (action, frame) = self.once(&bytes, trial.interface)?;
            let made: Vec<_> = standing(&self.own.memory).filter(|key| !brought.contains(key)).collect();
            let taken = made.iter().copied().filter(|key| flow_table::find(&*self.live, key).is_some());
            let before = brought.len();
            brought.extend(taken);
            if brought.len() > before {
                continue;
            }
            let crowded = made.iter().any(|key| !flow_table::has_room(&*self.live, key, now()));
            let (counters, server) = (self.counters()?, self.server(trial.service.as_ref())?);
            return Ok(Trace { action, counters, server, frame, crowded });
        }
        Err(DryError::Run("its flow changes too fast".to_owned()))
    }

    /// The copy's own maps as a packet would find the live ones.
    fn prepare<F: Family>(&mut self, trial: &Trial<F>, keys: &[FlowKey<F>]) -> Result<(), DryError>
    where
        TableMemory: FlowMemory<F>,
    {
        let (own, live) = (&self.own.memory, &*self.live);
        own.globals().copy_from(live.globals());
        let standing: Vec<_> = standing::<F>(own).collect();
        standing.iter().for_each(|key| flow_table::remove(own, key));
        for key in keys {
            if let Some((_, view)) = flow_table::read(live, key) {
                // There is room for a few.
                let _ = flow_table::insert(own, key, view.seen, |index| {
                    if let Some(record) = flow_table::nat(own, index) {
                        record.fill(&view);
                    }
                });
            }
        }
        if let Some(service) = &trial.service {
            let turns = |memory: &TableMemory| memory.turns.get(service.id as usize).map(|word| word.get());
            if let (Some(place), Some(turn)) = (own.turns.get(service.id as usize), turns(live)) {
                place.set(turn);
            }
        }
        own.load.iter().zip(live.load.iter()).for_each(|(own, live)| own.set(live.get()));
        let zero = per_cpu(Counts([0; COUNTS]))?;
        self.own.counters.counts.set(0, zero, 0)?;
        Ok(())
    }

    fn once(&self, bytes: &[u8], interface: u32) -> Result<(Action, Vec<u8>), DryError> {
        let run = |error: ProgramError| DryError::Run(chain(&error));
        let mut frame = vec![0; bytes.len() + HEADERS_MAX];
        let context = context(bytes.len() as u32, interface);
        let options = TestRunOptions {
            data_in: Some(bytes),
            data_out: Some(&mut frame),
            ctx_in: Some(&context),
            repeat: 1,
            ..TestRunOptions::default()
        };
        let program = self.own.object.program(load::ENTRY).ok_or_else(|| absent(load::ENTRY))?;
        let program: &Xdp = program.try_into().map_err(run)?;
        let ran = program.test_run(options).map_err(run)?;
        frame.truncate(ran.data_size_out as usize);
        let action = match ran.return_value {
            XDP_PASS => Action::Pass,
            XDP_TX => Action::Transmit,
            XDP_REDIRECT => Action::Redirect,
            _ => Action::Drop,
        };
        Ok((action, frame))
    }

    fn counters(&self) -> Result<Vec<Counter>, DryError> {
        let per_cpu = self.own.counters.counts.get(&0, 0)?;
        let moved = |counter: &&Counter| per_cpu.iter().any(|counts| counts.0[**counter as usize] != 0);
        Ok(Counter::ALL.iter().filter(moved).copied().collect())
    }

    /// Whose traffic the run counted; the account is cleared for the next.
    fn server(&mut self, service: Option<&Service>) -> Result<Option<ServerId>, DryError> {
        let Some(service) = service else { return Ok(None) };
        let traffic = &mut self.own.counters.traffic;
        for (id, entry) in (0u32..).zip(self.live.servers.iter()) {
            if ServerEntry::load(entry).is_none_or(|server| server.service != service.id) {
                continue;
            }
            if traffic.get(&id, 0)?.iter().any(|counts| counts.packets != 0) {
                traffic.set(id, per_cpu(TrafficCounts::default())?, 0)?;
                return Ok(Some(ServerId(id)));
            }
        }
        Ok(None)
    }
}

/// A connection whose packets are run.
struct Trial<F: Family> {
    service: Option<Service>,
    /// Of the records that may decide, the connection's first.
    keys: Vec<FlowKey<F>>,
    interface: u32,
}

fn keys<F: Family>(tuple: Tuple<F>, protocol: u8, service: Option<&Service>) -> Vec<FlowKey<F>> {
    let own = FlowKey::new(tuple, protocol);
    match service {
        Some(service) if service.by_client => {
            let client = FlowKey::of_client(tuple.source, tuple.destination, protocol, service.id);
            if service.mode.rewrites() { vec![own, client] } else { vec![client] }
        }
        _ => vec![own],
    }
}

/// The other half of a pair.
fn twin<F: Family>(memory: &impl FlowMemory<F>, key: &FlowKey<F>) -> Option<FlowKey<F>> {
    let (_, view) = flow_table::read(memory, key)?;
    (view.state & (NAT_REQUEST | NAT_REPLY) != 0).then(|| key.twin(view.rewrite))
}

/// The keys of all records.
fn standing<F: Family>(memory: &impl FlowMemory<F>) -> impl Iterator<Item = FlowKey<F>> {
    (0..memory.flow_buckets() * WAYS).filter_map(|index| memory.flow_record(index)?.key())
}

fn whole<F: Family>(scope: u32, address: F::Address) -> Prefix<PodScoped> {
    Prefix::new(Scoped::bits(128, false), PodScoped(Scoped::new::<F>(scope, address)))
}

/// The same value for each CPU.
fn per_cpu<T: aya::Pod>(value: T) -> Result<PerCpuValues<T>, DryError> {
    let failed = |error: std::io::Error| DryError::Run(format!("the CPUs cannot be counted: {error}"));
    let cpus = nr_cpus().map_err(|(_, error)| failed(error))?;
    PerCpuValues::try_from(vec![value; cpus]).map_err(failed)
}

/// `struct xdp_md` of linux/bpf.h, as far as a test run may set it.
fn context(end: u32, interface: u32) -> Vec<u8> {
    let (data, meta, queue, egress) = (0, 0, 0, 0);
    let fields: [u32; 6] = [data, end, meta, interface, queue, egress];
    fields.iter().flat_map(|field| field.to_ne_bytes()).collect()
}

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// Records of the copy, each table: those of one flow, and those whose places it tries.
const FLOWS: u32 = 1_024;
/// A packet grows by less: the kernel's room for headers (XDP_PACKET_HEADROOM).
const HEADERS_MAX: usize = 256;
