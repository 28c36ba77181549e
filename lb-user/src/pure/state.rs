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

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use lb_common::{
    entry::{Hop, Mode, Server, ServiceKey},
    flow::Ticks,
    hash::HashKey,
    limits::NAT_SOURCES_MAX,
    net::{Be16, Mac, TCP, UDP},
    slot::{ServerId, Slot},
};
use siphasher::sip::SipHasher24;

use super::{
    config::model::{self, Config, Forward, NoServer, Protocol},
    health::{Change, Health},
    hop::Reach,
    ids::{ServerIds, ServerKey},
    place::{self, Place, PlaceError},
    plan::{Step, Tables, diff},
    ring::{self, Member},
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
    pub(super) reaches: BTreeMap<Ipv4Addr, Reach>,
    nat_sources: Vec<Ipv4Addr>,
    /// What the tables hold once the last plan is carried out.
    pub(super) installed: Tables,
    pub(super) flows: u64,
    /// Something the tables depend on has changed since the last plan.
    stale: bool,
}

pub(super) struct ServiceState {
    pub(super) place: Place,
    /// In the order of the configuration's servers.
    pub(super) servers: Vec<ServerId>,
    members: Vec<Member>,
    /// Of the ring as it is installed.
    pub(super) slots: SlotCounts,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SlotCounts {
    pub(super) unsettled: u32,
    pub(super) current: BTreeMap<ServerId, u32>,
}

pub(super) struct ServerState {
    pub(super) address: SocketAddrV4,
    /// Id of its service, and the service's position in the configuration unless it is gone.
    service: u32,
    index: Option<usize>,
    /// None: no longer in the configuration; kept while a slot or a record names it.
    pub(super) check: Option<Checked>,
    /// Of a server that is gone from the configuration: as it was pinned.
    lived: bool,
}

pub(super) struct Checked {
    /// Position among the servers of its service.
    position: usize,
    pub(super) health: Health,
    pub(super) detail: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Checked {
        server: ServerId,
        passed: bool,
        detail: String,
    },
    /// A check that could not be made says nothing about the server.
    NotChecked {
        server: ServerId,
        detail: String,
    },
    Reached {
        address: Ipv4Addr,
        reach: Reach,
    },
    /// A round over the flow table ended: the records that stay, and the servers they name.
    Swept {
        records: u64,
        named: BTreeSet<ServerId>,
    },
}

/// Something an operator should read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Up { server: String, detail: String },
    Down { server: String, detail: String },
    Unreachable { server: String, reason: &'static str },
    NotChecked { server: String, detail: String },
}

/// A check to run again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckTask {
    pub server: ServerId,
    pub target: SocketAddrV4,
    pub check: model::Check,
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
            reaches: BTreeMap::new(),
            nat_sources: nat_sources(&config.datapath.nat_source, &pinned.nat_sources),
            flows: 0,
            stale: true,
            installed: pinned,
            config,
        };
        state.adopt_servers(&places);
        for (index, place) in places.into_iter().enumerate() {
            let servers = state.enter_servers(index, place.id)?;
            state.services.push(ServiceState {
                place,
                servers,
                members: Vec::new(),
                slots: SlotCounts::default(),
            });
        }
        Ok(state)
    }

    /// Every pinned server keeps its id; those the configuration still has are claimed by `enter_servers`.
    fn adopt_servers(&mut self, places: &[Place]) {
        for (&id, server) in &self.installed.servers {
            let address = SocketAddrV4::new(server.address.into(), server.port.get());
            self.ids.adopt(id, ServerKey { service: server.service, address });
            let lived = server.hop.lives;
            let service = server.service;
            let index = places.iter().position(|place| place.id == service);
            self.servers.insert(id, ServerState { address, service, index, check: None, lived });
        }
    }

    fn enter_servers(&mut self, index: usize, service: u32) -> Result<Vec<ServerId>, PlaceError> {
        let configured = &self.config.services[index];
        let mut ids = Vec::with_capacity(configured.servers.len());
        for (position, server) in configured.servers.iter().enumerate() {
            let key = ServerKey { service, address: server.address };
            let id = self.ids.get_or_insert(key).ok_or(PlaceError::Servers)?;
            let pinned = self.servers.get(&id).map(|known| known.lived);
            let health = match pinned {
                Some(up) => Health::adopted(&configured.check, up),
                None => Health::new(&configured.check),
            };
            let detail = match (configured.check.kind, pinned) {
                (model::CheckKind::None, _) => "counts as up",
                (_, Some(_)) => "as before the restart",
                (_, None) => "not checked yet",
            };
            let check = Some(Checked { position, health, detail: detail.to_owned() });
            let address = server.address;
            self.servers
                .insert(id, ServerState { address, service, index: Some(index), check, lived: false });
            ids.push(id);
        }
        Ok(ids)
    }

    /// Takes an event in; `plan` says what follows from it.
    pub fn handle(&mut self, event: Event) -> Option<Notice> {
        match event {
            Event::Checked { server, passed, detail } => self.checked(server, passed, detail),
            Event::NotChecked { server, detail } => {
                let checked = self.servers.get_mut(&server)?.check.as_mut()?;
                if checked.detail == detail {
                    return None;
                }
                checked.detail.clone_from(&detail);
                Some(Notice::NotChecked { server: self.name(server), detail })
            }
            Event::Reached { address, reach } => self.reached(address, reach),
            Event::Swept { records, named } => {
                self.flows = records;
                self.release(&named);
                None
            }
        }
    }

    fn checked(&mut self, server: ServerId, passed: bool, detail: String) -> Option<Notice> {
        let checked = self.servers.get_mut(&server)?.check.as_mut()?;
        checked.detail.clone_from(&detail);
        let change = checked.health.handle(passed)?;
        self.stale = true;
        let server = self.name(server);
        Some(match change {
            Change::WentUp => Notice::Up { server, detail },
            Change::WentDown => Notice::Down { server, detail },
        })
    }

    fn reached(&mut self, address: Ipv4Addr, reach: Reach) -> Option<Notice> {
        let before = self.reaches.insert(address, reach);
        self.stale |= before != Some(reach);
        if let Reach::Hop(hop) = reach
            && self.config.datapath.nat_source.is_empty()
            && !hop.source.is_unspecified()
            && !self.nat_sources.contains(&hop.source)
            && self.nat_sources.len() < NAT_SOURCES_MAX
        {
            self.nat_sources.push(hop.source);
        }
        let reason = unreachable(Some(&reach))?;
        // A neighbour that nobody has asked for yet is no news; the caller tells who did not answer at all.
        let first = before.is_none() && matches!(reach, Reach::Hop(_));
        let known = before.is_some_and(|before| unreachable(Some(&before)) == Some(reason));
        (!first && !known).then(|| Notice::Unreachable { server: self.servers_at(address), reason })
    }

    /// A server that is gone from the configuration, from every slot and from every live record is forgotten.
    fn release(&mut self, named: &BTreeSet<ServerId>) {
        let gone: Vec<_> =
            self.servers.iter().filter(|(_, server)| server.check.is_none()).map(|(&id, _)| id).collect();
        for id in gone {
            let in_slot = |slot: &Slot| slot.current() == id || slot.base() == id;
            if !named.contains(&id) && !self.installed.rings.values().any(|ring| ring.iter().any(in_slot)) {
                self.servers.remove(&id);
                self.ids.release(id);
                self.stale = true;
            }
        }
    }

    /// "service/server" for messages.
    pub fn name(&self, id: ServerId) -> String {
        let known =
            self.servers.get(&id).and_then(|server| Some((server.index?, server.check.as_ref()?.position)));
        match known {
            Some((index, position)) => {
                let service = &self.config.services[index];
                format!("{}/{}", service.name, service.servers[position].name)
            }
            None => format!("server {}", id.0),
        }
    }

    /// The servers with an address, for messages.
    pub fn servers_at(&self, address: Ipv4Addr) -> String {
        let at = self.servers.iter().filter(|(_, server)| *server.address.ip() == address);
        let names: Vec<_> = at.map(|(&id, _)| self.name(id)).collect();
        format!("{address} ({})", names.join(", "))
    }

    /// The steps towards what the tables should hold now. The caller carries all of them out.
    pub fn plan(&mut self) -> Vec<Step> {
        if !std::mem::take(&mut self.stale) {
            return Vec::new();
        }
        let rings: Vec<_> = (0..self.services.len()).map(|index| self.ring(index)).collect();
        let desired = self.desired(rings);
        debug_assert_eq!(desired.dangling(), None);
        let steps = diff(&self.installed, &desired);
        self.installed = desired;
        steps
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
        if let Step::AddDevice(index) = step {
            self.stale |= self.installed.devices.remove(index);
        }
    }

    /// The slots a service should have: those it has, unless its members have changed.
    fn ring(&mut self, index: usize) -> Arc<Vec<Slot>> {
        let members = self.members(index);
        let configured = &self.config.services[index];
        let service = &mut self.services[index];
        let old = self.installed.rings.get(&service.place.ring_base);
        if let Some(old) = old
            && members == service.members
        {
            return Arc::clone(old);
        }
        let lives = |id| self.servers.get(&id).is_some_and(ServerState::lives);
        let given = |(position, wanted): (usize, u32)| {
            let slot = old.and_then(|ring| ring.get(position)).copied().unwrap_or_default();
            slot.given_to(ServerId(wanted), lives(slot.base()))
        };
        let wanted = ring::build(self.seed, configured.slots, &members);
        let slots: Vec<_> = wanted.into_iter().enumerate().map(given).collect();
        service.slots = count(&slots);
        service.members = members;
        Arc::new(slots)
    }

    fn members(&self, index: usize) -> Vec<Member> {
        let servers = self.services[index].servers.iter().zip(&self.config.services[index].servers);
        let member = |(id, server): (&ServerId, &model::Server)| Member {
            id: id.0,
            address: server.address.into(),
            weight: server.weight,
            usable: self.servers.get(id).is_some_and(ServerState::lives),
        };
        servers.map(member).collect()
    }

    fn desired(&self, rings: Vec<Arc<Vec<Slot>>>) -> Tables {
        let mut tables = Tables {
            hash_key: self.hash_key,
            nat_sources: self.nat_sources.clone(),
            devices: self.attached.clone(),
            servers: self.servers.iter().map(|(&id, server)| (id, self.server(server))).collect(),
            ..Tables::default()
        };
        let hops = tables.servers.values().map(|server| server.hop).filter(|hop| hop.resolved);
        tables.devices.extend(hops.map(|hop| hop.interface));
        for ((service, configured), ring) in self.services.iter().zip(&self.config.services).zip(rings) {
            tables.rings.insert(service.place.ring_base, ring);
            tables.services.extend(entries(&service.place, configured));
        }
        tables
    }

    fn server(&self, server: &ServerState) -> Server {
        let reach = self.reaches.get(server.address.ip());
        let (nat_first, nat_count) = self.nat_range(reach);
        let mut hop = hop(reach, server.lives());
        hop.resolved &= nat_count > 0 || !self.needs_source(server);
        Server {
            hop,
            nat_first,
            nat_count,
            address: (*server.address.ip()).into(),
            port: Be16::new(server.address.port()),
            service: server.service,
        }
    }

    pub(super) fn needs_source(&self, server: &ServerState) -> bool {
        server.index.is_some_and(|index| self.config.services[index].forward == Forward::Nat)
    }

    /// Why packets cannot reach a server, for people.
    pub(super) fn unreachable(&self, server: &ServerState) -> Option<&'static str> {
        let reach = self.reaches.get(server.address.ip());
        unreachable(reach).or_else(|| {
            (self.needs_source(server) && self.nat_range(reach).1 == 0)
                .then_some("no source address for nat: give its interface an address, or set nat_source")
        })
    }

    /// Configured sources serve every server; otherwise the one its route prefers.
    fn nat_range(&self, reach: Option<&Reach>) -> (u8, u8) {
        let configured = self.config.datapath.nat_source.len();
        if configured > 0 {
            return (0, configured.min(NAT_SOURCES_MAX) as u8);
        }
        let Some(Reach::Hop(hop)) = reach else { return (0, 0) };
        match self.nat_sources.iter().position(|source| *source == hop.source) {
            Some(position) => (position as u8, 1),
            None => (0, 0),
        }
    }

    /// The addresses whose reach the plan needs.
    pub fn targets(&self) -> BTreeSet<Ipv4Addr> {
        self.servers.values().map(|server| *server.address.ip()).collect()
    }

    /// The checks the configuration asks for.
    pub fn checks(&self) -> Vec<CheckTask> {
        let mut tasks = Vec::new();
        for (service, configured) in self.services.iter().zip(&self.config.services) {
            if configured.check.kind == model::CheckKind::None {
                continue;
            }
            for (&server, configured_server) in service.servers.iter().zip(&configured.servers) {
                let address = configured_server.address;
                let port = configured.check.port.unwrap_or(address.port());
                let target = SocketAddrV4::new(*address.ip(), port);
                tasks.push(CheckTask { server, target, check: configured.check });
            }
        }
        tasks
    }

    /// Idle time, in ticks, of a server's flows; None when its service is gone.
    pub fn idle_ticks(&self, id: ServerId, protocol: u8) -> Option<u32> {
        let idle = self.config.services[self.servers.get(&id)?.index?].idle;
        Some(ticks(if protocol == TCP { idle.tcp } else { idle.udp }))
    }
}

impl ServerState {
    /// Not marked down: its records count, and with a weight it takes new connections.
    fn lives(&self) -> bool {
        match &self.check {
            Some(checked) => checked.health.usable(),
            None => self.lived,
        }
    }
}

fn count(slots: &[Slot]) -> SlotCounts {
    let mut counts = SlotCounts::default();
    for slot in slots {
        counts.unsettled += u32::from(slot.lookup());
        *counts.current.entry(slot.current()).or_default() += 1;
    }
    counts
}

/// Why packets cannot reach a server, for people.
fn unreachable(reach: Option<&Reach>) -> Option<&'static str> {
    match reach {
        None => Some("its route is not looked up yet"),
        Some(Reach::NoRoute) => Some("no route leads to it: add one"),
        Some(Reach::Local) => Some("it is an address of this machine, which xdp cannot forward to"),
        Some(Reach::LinkUnusable) => Some("the interface of its route is down or not ethernet"),
        Some(Reach::Hop(hop)) if hop.neighbour.is_none() => Some("its next hop does not answer arp"),
        Some(Reach::Hop(_)) => None,
    }
}

fn hop(reach: Option<&Reach>, lives: bool) -> Hop {
    match reach {
        Some(Reach::Hop(hop)) => Hop {
            lives,
            resolved: hop.neighbour.is_some(),
            mac: hop.neighbour.map_or(Mac(0), Mac::from_bytes),
            source_mac: Mac::from_bytes(hop.interface_mac),
            interface: hop.interface,
        },
        _ => Hop { lives, resolved: false, mac: Mac(0), source_mac: Mac(0), interface: 0 },
    }
}

fn entries<'a>(
    place: &'a Place,
    service: &'a model::Service,
) -> impl Iterator<Item = (ServiceKey, lb_common::entry::Service)> + 'a {
    keys(service).map(|(key, protocol)| {
        let idle = match protocol {
            Protocol::Tcp => service.idle.tcp,
            Protocol::Udp => service.idle.udp,
        };
        let value = lb_common::entry::Service {
            id: place.id,
            ring_base: place.ring_base,
            ring_mask: service.slots - 1,
            mode: match service.forward {
                Forward::Nat => Mode::Nat,
                Forward::Dsr => Mode::Dsr,
            },
            reset: service.no_server == NoServer::Reset,
            idle_ticks: ticks(idle),
        };
        (key, value)
    })
}

/// Every key a service is found by.
pub(super) fn keys(service: &model::Service) -> impl Iterator<Item = (ServiceKey, Protocol)> + '_ {
    service.addresses.iter().flat_map(move |&address| {
        service.protocols.iter().map(move |&protocol| {
            (ServiceKey::new(address.into(), Be16::new(service.port), number(protocol)), protocol)
        })
    })
}

/// The IP protocol number.
pub fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

fn ticks(time: std::time::Duration) -> u32 {
    Ticks::in_ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// The configured sources first. The list never becomes shorter than it was: the plan changes servers after
/// it, and until then they refer to its tail.
fn nat_sources(configured: &[Ipv4Addr], pinned: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    let tail = pinned.get(configured.len()..).unwrap_or_default();
    configured.iter().chain(tail).copied().take(NAT_SOURCES_MAX).collect()
}

/// Independent values from the cluster secret, equal on every node and in every version.
fn derive(secret: &[u8], purpose: u64) -> u64 {
    SipHasher24::new_with_keys(purpose, DERIVATION).hash(secret)
}

const DERIVATION: u64 = u64::from_be_bytes(*b"steelyrd");

#[cfg(test)]
mod tests;
