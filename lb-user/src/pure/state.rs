//! What the daemon knows, and what the kernel's tables should hold because of it.
//!
//! ```text
//! Config ─┐
//! checks ─┼─► State ─► plan: desired Tables ─ diff ─► Steps
//! reach  ─┤      └───► snapshot
//! sweep  ─┘
//! ```
//!
//! Must not know how an event arrives or a step is carried out.

mod drift;
mod entries;
mod rings;
mod way;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_common::{
    entry::{self, Hop, Mode, Server},
    flow::Ticks,
    hash::HashKey,
    limits::NAT_SOURCES_MAX,
    net::{Be16, TCP},
    slot::{ServerId, Slot},
};
use siphasher::sip::SipHasher24;

pub use self::entries::number;
use self::entries::{client_ticks, idle_ticks};
pub(in crate::pure) use self::{
    entries::{keys, rules},
    rings::Ring,
};
use super::{
    config::{
        model::{self, Balance, Config, Forward, Protocol, check::Check},
        network::{Family, shown},
    },
    health::{Change, Health},
    hop::Reach,
    ids::{ServerIds, ServerKey},
    notice::Notice,
    place::{self, Place, PlaceError},
    plan::{Step, Tables, diff},
    report::{Outcome, Report},
};

/// What the daemon starts from.
pub struct Start<'a> {
    pub config: Config,
    /// The content of the cluster secret; empty when none is set.
    pub secret: &'a [u8],
    /// What an earlier daemon left in the tables.
    pub pinned: Tables,
    /// Slots of the ring map.
    pub ring_slots: u32,
}

pub struct State {
    pub(super) config: Config,
    hash_key: HashKey,
    seed: u64,
    attached: BTreeSet<u32>,
    /// In the order of `config.services`.
    pub(super) services: Vec<ServiceState>,
    pub(super) servers: BTreeMap<ServerId, ServerState>,
    ids: ServerIds,
    by_address: BTreeMap<IpAddr, BTreeSet<ServerId>>,
    pub(super) reaches: BTreeMap<IpAddr, Reach>,
    nat_sources: Vec<IpAddr>,
    /// Servers that are gone and that the last round found nowhere.
    unnamed: BTreeSet<ServerId>,
    /// What the tables hold once the last plan is carried out.
    pub(super) installed: Tables,
    pub(super) flows: u64,
    now: Ticks,
    /// When the kernel last had no room for a record.
    refused: Option<Ticks>,
    /// Something the tables depend on has changed since the last plan.
    stale: bool,
}

pub(super) struct ServiceState {
    pub(super) place: Place,
    /// In the order of the configuration's servers.
    pub(super) servers: Vec<ServerId>,
    /// In the order of `model::Service::rings`.
    pub(super) rings: Vec<Ring>,
}

pub(super) struct ServerState {
    pub(super) address: SocketAddr,
    /// Id of its service, and the service's position in the configuration unless it is gone.
    service: u32,
    index: Option<usize>,
    /// Position among the servers of its service. None: no longer in the configuration; the server is kept,
    /// and checked, while a slot or a record names it.
    position: Option<usize>,
    pub(super) health: Health,
    pub(super) detail: String,
    /// As it was pinned: its way at layer 2 is used until netlink knows better.
    pinned: Option<Server>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Checked {
        server: ServerId,
        report: Report,
    },
    Reached {
        address: IpAddr,
        reach: Reach,
    },
    /// A round over the flow table ended: the records that stay, and the servers they name.
    Swept {
        records: u64,
        named: BTreeSet<ServerId>,
    },
}

/// A check to run again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckTask {
    pub server: ServerId,
    pub service_name: String,
    pub server_name: String,
    pub target: SocketAddr,
    pub check: Arc<Check>,
}

impl State {
    pub fn new(start: Start<'_>) -> Result<Self, PlaceError> {
        let Start { config, secret, pinned, ring_slots } = start;
        let places = place::assign(&config, &pinned, ring_slots)?;
        let mut state = State {
            hash_key: HashKey([derive(secret, 0), derive(secret, 1)]),
            seed: derive(secret, 2),
            attached: BTreeSet::new(),
            services: Vec::new(),
            servers: BTreeMap::new(),
            ids: ServerIds::default(),
            by_address: BTreeMap::new(),
            reaches: BTreeMap::new(),
            nat_sources: way::nat_sources(&config.datapath, &pinned.nat_sources)
                .ok_or(PlaceError::NatSources(pinned.nat_sources.len()))?,
            unnamed: BTreeSet::new(),
            flows: 0,
            now: Ticks::default(),
            refused: None,
            stale: true,
            installed: pinned,
            config,
        };
        state.adopt_servers(&places);
        for (index, place) in places.into_iter().enumerate() {
            let servers = state.enter_servers(index, place.id)?;
            let rings = vec![Ring::default(); place.rings.len()];
            state.services.push(ServiceState { place, servers, rings });
        }
        for (&id, server) in &state.servers {
            state.by_address.entry(server.address.ip()).or_default().insert(id);
        }
        Ok(state)
    }

    /// Every pinned server keeps its id; those the configuration still has are claimed by `enter_servers`.
    fn adopt_servers(&mut self, places: &[Place]) {
        let by_id: BTreeMap<_, _> =
            places.iter().enumerate().map(|(index, place)| (place.id, index)).collect();
        for (&id, server) in &self.installed.servers {
            let address = SocketAddr::new(server.address, server.port.get());
            self.ids.adopt(id, ServerKey { service: server.service, address });
            let index = by_id.get(&server.service).copied();
            let check = index.map(|index| &self.config.services[index].check);
            let known = ServerState {
                address,
                service: server.service,
                index,
                position: None,
                health: Health::adopted(check, server.hop.lives),
                detail: "as before the restart".to_owned(),
                pinned: Some(*server),
            };
            self.servers.insert(id, known);
        }
    }

    fn enter_servers(&mut self, index: usize, service: u32) -> Result<Vec<ServerId>, PlaceError> {
        let configured = &self.config.services[index];
        let mut ids = Vec::with_capacity(configured.servers.len());
        for (position, server) in configured.servers.iter().enumerate() {
            let address = server.address;
            let id = self.ids.get_or_insert(ServerKey { service, address }).ok_or(PlaceError::Servers)?;
            let known = self.servers.entry(id).or_insert_with(|| ServerState {
                address,
                service,
                index: Some(index),
                position: None,
                health: Health::new(&configured.check),
                detail: "not checked yet".to_owned(),
                pinned: None,
            });
            known.position = Some(position);
            if configured.check.kind.is_none() {
                known.detail = "counts as up".to_owned();
            }
            ids.push(id);
        }
        Ok(ids)
    }

    /// Takes an event in; `plan` says what follows from it.
    pub fn handle(&mut self, event: Event) -> Option<Notice> {
        match event {
            Event::Checked { server, report } => self.checked(server, &report),
            Event::Reached { address, reach } => self.reached(address, reach),
            Event::Swept { records, named } => {
                self.flows = records;
                self.release(&named);
                None
            }
        }
    }

    fn checked(&mut self, server: ServerId, report: &Report) -> Option<Notice> {
        let known = self.servers.get_mut(&server)?;
        let detail = report.to_string();
        let before = std::mem::replace(&mut known.detail, detail.clone());
        let passed = match &report.outcome {
            Outcome::Passed | Outcome::Advised(_) => true,
            Outcome::Failed(_) => false,
            Outcome::NotRun(_) => {
                return (before != detail).then(|| Notice::NotChecked { server: self.name(server), detail });
            }
        };
        let change = known.health.handle(passed)?;
        self.stale = true;
        let server = self.name(server);
        Some(match change {
            Change::WentUp => Notice::Up { server, detail },
            Change::WentDown => Notice::Down { server, detail },
        })
    }

    fn reached(&mut self, address: IpAddr, reach: Reach) -> Option<Notice> {
        let before = self.reaches.insert(address, reach);
        self.stale |= before != Some(reach);
        if matches!(reach, Reach::Hop(hop) if hop.neighbour.is_some()) {
            // From here on netlink knows better than what was pinned.
            for id in self.by_address.get(&address).into_iter().flatten() {
                if let Some(server) = self.servers.get_mut(id) {
                    server.pinned = None;
                }
            }
        }
        if let Reach::Hop(hop) = reach
            && self.is_for_nat(address)
            && way::configured(&self.config.datapath, Family::of(hop.source)).next().is_none()
            && !hop.source.is_unspecified()
            && !self.nat_sources.contains(&hop.source)
            && self.nat_sources.len() < NAT_SOURCES_MAX
        {
            self.nat_sources.push(hop.source);
        }
        let reason = way::unreachable(Some(&reach))?;
        // A neighbour that nobody has asked for yet is no news; the caller tells who did not answer at all.
        let first = before.is_none() && matches!(reach, Reach::Hop(_));
        let known = before.is_some_and(|before| way::unreachable(Some(&before)) == Some(reason));
        (!first && !known).then(|| Notice::Unreachable { server: self.servers_at(address), reason })
    }

    /// Whether an address is that of a server of `nat`, whose packets need a source of ours.
    fn is_for_nat(&self, address: IpAddr) -> bool {
        let nat = |id: &ServerId| {
            let index = self.servers.get(id).and_then(|server| server.index);
            index.is_some_and(|index| self.config.services[index].forward == Forward::Nat)
        };
        self.by_address.get(&address).is_some_and(|ids| ids.iter().any(nat))
    }

    /// A server that is gone from the configuration, from every slot and from every live record is forgotten.
    fn release(&mut self, named: &BTreeSet<ServerId>) {
        let gone = |server: &ServerState| server.position.is_none();
        if !self.servers.values().any(gone) {
            return;
        }
        let slots = self.installed.rings.values().flat_map(|ring| ring.iter());
        let in_slots: BTreeSet<_> = slots.flat_map(|slot| [slot.current(), slot.base()]).collect();
        let kept = |id: &ServerId, server: &ServerState| {
            !gone(server) || named.contains(id) || in_slots.contains(id)
        };
        let unnamed: BTreeSet<_> =
            self.servers.iter().filter(|(id, server)| !kept(id, server)).map(|(&id, _)| id).collect();
        // A packet may record a server behind the round that is about to end: two rounds must agree.
        let released: Vec<_> = unnamed.intersection(&self.unnamed).copied().collect();
        self.unnamed = unnamed;
        for id in released {
            if let Some(server) = self.servers.remove(&id)
                && let Some(others) = self.by_address.get_mut(&server.address.ip())
            {
                others.remove(&id);
            }
            self.ids.release(id);
            self.stale = true;
        }
    }

    /// "service/server" for messages.
    pub fn name(&self, id: ServerId) -> String {
        let Some(server) = self.servers.get(&id) else { return format!("server {}", id.0) };
        let service = server.index.map(|index| &self.config.services[index]);
        match (service, server.position) {
            (Some(service), Some(position)) => format!("{}/{}", service.name, service.servers[position].name),
            (Some(service), None) => {
                format!("{}/{} (no longer configured)", service.name, shown(server.address))
            }
            (None, _) => format!("{} (no longer configured)", shown(server.address)),
        }
    }

    /// The servers with an address, for messages.
    pub fn servers_at(&self, address: IpAddr) -> String {
        let names: Vec<_> =
            self.by_address.get(&address).into_iter().flatten().map(|&id| self.name(id)).collect();
        format!("{address} ({})", names.join(", "))
    }

    /// Whether a plan would find anything to do.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// The steps towards what the tables should hold now. The caller carries all of them out.
    pub fn plan(&mut self) -> Vec<Step> {
        if !std::mem::take(&mut self.stale) {
            return Vec::new();
        }
        let rings: Vec<_> = (0..self.services.len()).map(|index| self.rings(index)).collect();
        let desired = self.desired(rings);
        debug_assert_eq!(desired.dangling(), None);
        let steps = diff(&self.installed, &desired);
        self.installed = desired;
        steps
    }

    /// Servers that are gone from the configuration, by their service's id.
    pub(super) fn leaving(&self) -> BTreeMap<u32, Vec<ServerId>> {
        let mut leaving: BTreeMap<u32, Vec<ServerId>> = BTreeMap::new();
        for (&id, server) in self.servers.iter().filter(|(_, server)| server.position.is_none()) {
            leaving.entry(server.service).or_default().push(id);
        }
        leaving
    }

    /// The program now runs on an interface, and packets may leave through it.
    pub fn attach(&mut self, interface: u32) {
        self.stale |= self.attached.insert(interface);
    }

    /// An interface is gone, and with it the program and its place among the devices.
    pub fn detached(&mut self, interface: u32) {
        self.attached.remove(&interface);
        self.stale |= self.installed.devices.remove(&interface);
    }

    /// A step that could not be carried out is planned again.
    pub fn failed(&mut self, step: &Step) {
        let tables = &mut self.installed;
        match step {
            Step::AddDevice(index) => drop(tables.devices.remove(index)),
            Step::SetServer(id, _) => drop(tables.servers.remove(id)),
            Step::SetSlots(base, _) => drop(tables.rings.remove(base)),
            Step::SetAccess(service, network, _) => drop(tables.access.remove(&(*service, *network))),
            Step::SetService(key, _) => drop(tables.services.remove(key)),
            Step::SetWildcards(network, _) => drop(tables.wildcards.remove(network)),
            Step::SetHashKey(_)
            | Step::SetNatSources(_)
            | Step::AddGateway(_)
            | Step::RemoveWildcards(_)
            | Step::RemoveService(_)
            | Step::RemoveAccess(..)
            | Step::RemoveRing(_)
            | Step::RemoveServer(_)
            | Step::RemoveDevice(_)
            | Step::RemoveGateway(_) => return,
        }
        self.stale = true;
    }

    /// `rings`: the slots of every service's rings.
    fn desired(&self, rings: Vec<Vec<Arc<Vec<Slot>>>>) -> Tables {
        let mut tables = Tables {
            hash_key: self.hash_key,
            nat_sources: self.nat_sources.clone(),
            devices: self.attached.clone(),
            servers: self.servers.iter().map(|(&id, server)| (id, self.server(server))).collect(),
            gateways: self.gateways().collect(),
            ..Tables::default()
        };
        let hops = tables.servers.values().map(|server| server.hop).filter(|hop| hop.resolved);
        tables.devices.extend(hops.map(|hop| hop.interface));
        let mut own = entries::Rules::new();
        for ((service, configured), rings) in self.services.iter().zip(&self.config.services).zip(rings) {
            tables.rings.extend(service.place.rings.iter().copied().zip(rings));
            entries::enter(&mut tables, &mut own, &service.place, configured);
        }
        tables.wildcards = entries::flatten(own);
        tables
    }

    fn gateways(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let gateway = |server: &&ServerState| {
            server.index.is_some_and(|index| self.config.services[index].forward == Forward::Gateway)
        };
        self.servers.values().filter(gateway).map(|server| server.address.ip())
    }

    fn server(&self, server: &ServerState) -> Server {
        let (nat_first, nat_count) = self.nat_range(server);
        let configured = server.index.zip(server.position);
        Server {
            hop: Hop { lives: server.lives(), ..self.hop(server) },
            nat_first,
            nat_count,
            address: server.address.ip(),
            port: Be16::new(server.address.port()),
            weight: configured
                .map_or(0, |(index, position)| self.config.services[index].servers[position].weight),
            service: server.service,
            outer_source: self.outer_source(server),
        }
    }

    /// The addresses whose reach the plan needs.
    pub fn targets(&self) -> BTreeSet<IpAddr> {
        self.servers.values().map(|server| server.address.ip()).collect()
    }

    /// The checks the configuration asks for, and those of servers it no longer has.
    pub fn checks(&self) -> Vec<CheckTask> {
        let checks: Vec<_> =
            self.config.services.iter().map(|service| Arc::new(service.check.clone())).collect();
        let task = |(&server, known): (&ServerId, &ServerState)| {
            let index = known.index?;
            let check = Arc::clone(&checks[index]);
            // A server that is gone may have had no port of its own: nothing to connect to.
            let port = check.port.or(Some(known.address.port()).filter(|&port| port != 0))?;
            let target = SocketAddr::new(check.address.unwrap_or(known.address.ip()), port);
            let service = &self.config.services[index];
            let server_name = match known.position {
                Some(position) => service.servers[position].name.clone(),
                None => shown(known.address),
            };
            let service_name = service.name.clone();
            (!check.kind.is_none()).then_some(CheckTask { server, service_name, server_name, target, check })
        };
        self.servers.iter().filter_map(task).collect()
    }

    /// What a start changes that breaks connections, one sentence each.
    pub fn breaks(&self) -> Vec<String> {
        let pinned = &self.installed;
        let mut breaks = Vec::new();
        if !pinned.services.is_empty() && pinned.hash_key != self.hash_key {
            breaks.push(
                "the cluster secret differs from the one in force: connections that need no record move to other servers"
                    .to_owned(),
            );
        }
        for (state, service) in self.services.iter().zip(&self.config.services) {
            let moved = |(family, &base)| {
                place::standing(service, family, pinned).is_some_and(|old| old.ring_base != base)
            };
            let standing = |family| place::standing(service, family, pinned);
            let mode = entries::mode(service.forward);
            let mut before = service.rings().into_iter().filter_map(standing);
            if let Some(old) = before.next() {
                breaks.extend(broken(service, mode, &old));
            }
            let mut rings = service.rings().into_iter().zip(&state.place.rings);
            if !service.records_all() && rings.any(moved) {
                breaks.push(format!(
                    "the ring of service {} gets another size: its connections move to other servers",
                    service.name
                ));
            }
        }
        breaks
    }

    /// Ticks without a daemon after which packets pass to the kernel; None: never.
    pub fn patience(&self) -> Option<u32> {
        self.config.datapath.watchdog.map(entries::ticks)
    }

    /// The servers whose connections the program compares, and whether those are recorded in pairs.
    pub fn counted(&self) -> impl Iterator<Item = (ServerId, bool)> + '_ {
        self.servers.iter().filter_map(|(&id, server)| {
            let service = &self.config.services[server.index?];
            let in_pairs = matches!(service.forward, Forward::Nat | Forward::Gateway);
            (service.balance == Balance::LeastConn).then_some((id, in_pairs))
        })
    }

    /// Idle time, in ticks, of a server's flows, or of its clients' records; None when its service is gone.
    pub fn idle_ticks(&self, id: ServerId, protocol: u8, of_client: bool) -> Option<u32> {
        let service = &self.config.services[self.servers.get(&id)?.index?];
        let protocol = if protocol == TCP { Protocol::Tcp } else { Protocol::Udp };
        Some(if of_client { client_ticks(service) } else { idle_ticks(service, protocol) })
    }
}

impl ServerState {
    /// Not marked down: its records count, and with a weight it takes new connections.
    fn lives(&self) -> bool {
        self.health.usable()
    }
}

/// What became of the connections of a service that was another one before.
fn broken(service: &model::Service, mode: Mode, old: &entry::Service) -> Option<String> {
    let name = &service.name;
    if mode != old.mode && (mode.rewrites() || old.mode.rewrites()) {
        return Some(format!("service {name} forwards in another way than before: its connections end"));
    }
    (!mode.rewrites() && service.by_client() != old.by_client).then(|| {
        let now = if service.by_client() { "address alone" } else { "address and port" };
        format!("service {name} goes by the client's {now} now: its connections move to other servers")
    })
}

/// Independent values from the cluster secret, equal on every node and in every version.
fn derive(secret: &[u8], purpose: u64) -> u64 {
    SipHasher24::new_with_keys(purpose, DERIVATION).hash(secret)
}

const DERIVATION: u64 = u64::from_be_bytes(*b"steelyrd");

#[cfg(test)]
mod tests;
