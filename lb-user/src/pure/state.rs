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

mod configure;
mod drift;
mod entries;
mod following;
mod rings;
mod settling;
mod through;
mod usable;
mod way;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use lb_common::{
    entry::{Hop, Server},
    flow::Ticks,
    hash::HashKey,
    limits::NAT_SOURCES_MAX,
    net::{Be16, TCP},
    slot::{ServerId, Slot},
};

use self::entries::{client_ticks, idle_ticks};
use self::usable::Usage;
pub use self::{
    entries::number,
    following::{Holdings, View},
    through::{LocalAddress, Steered, Steering},
};
pub(in crate::pure) use self::{
    entries::{keys, rules},
    rings::Ring,
};
use super::{
    config::{
        model::{Admin, Balance, Config, Forward, Protocol, check::Check},
        network::{Family, shown},
    },
    health::Health,
    hop::Reach,
    ids::ServerIds,
    notice::{Notice, ServerName},
    place::Place,
    plan::{Step, Tables, diff},
    report::{Advice, AgentAdmin, Outcome, Report},
    schedule::Orders,
    settle::Survey,
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
    /// Records that the flow table has room for.
    pub flows_max: u32,
    pub now: Instant,
}

#[derive(Clone)]
pub struct State {
    pub(super) config: Config,
    /// What the daemon was started with, without its services.
    pub(super) at_start: Config,
    /// Records the flow table has room for.
    pub(super) flows_max: u32,
    hash_key: HashKey,
    seed: u64,
    /// Of the ring map.
    ring_slots: u32,
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
    pub(super) sweeps: u64,
    /// Of the last complete sweep.
    pub(super) records: BTreeMap<ServerId, u64>,
    now: Ticks,
    /// As `pass` last told.
    clock: Instant,
    /// When time alone changes something next, or sooner.
    wake: Option<Instant>,
    /// Not read yet.
    notices: Vec<Notice>,
    orders: Orders,
    /// When a flow last went without a record, by service id.
    refused: BTreeMap<u32, Ticks>,
    /// What the last round over the flow tables saw.
    survey: Survey,
    /// Where the addresses of virtual routers are.
    holdings: Holdings,
    /// The service whose slots the next round's end looks at first.
    settle_from: usize,
    /// A flow table is nearly full.
    pub(super) crowded: bool,
    /// Something the tables depend on has changed since the last plan.
    stale: bool,
}

#[derive(Clone)]
pub(super) struct ServiceState {
    pub(super) place: Place,
    /// In the order of the configuration's servers.
    pub(super) servers: Vec<ServerId>,
    /// In the order of `model::Service::rings`.
    pub(super) rings: Vec<Ring>,
    /// Too few of its servers are usable: all are used.
    pub(super) panics: bool,
}

#[derive(Clone)]
pub(super) struct ServerState {
    pub(super) address: SocketAddr,
    /// Id of its service, and the service's position in the configuration unless it is gone.
    pub(super) service: u32,
    index: Option<usize>,
    /// Position among the servers of its service. None: no longer in the configuration; the server is kept,
    /// and checked, while a slot or a record names it.
    position: Option<usize>,
    pub(super) health: Health,
    /// What an operator wants of it.
    admin: Admin,
    /// What its agent says of it.
    advice: Advice,
    pub(super) detail: String,
    usage: Usage,
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
    /// A round over the flow table ended: the records that stay, and how many name each server.
    Swept {
        records: u64,
        named: BTreeMap<ServerId, u64>,
        survey: Survey,
    },
    /// Connections that failed in a row, of each server with any, at the end of such a round.
    Failing {
        in_a_row: BTreeMap<ServerId, u32>,
    },
}

/// A check to run again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckTask {
    pub server: ServerId,
    pub service_name: String,
    pub server_name: String,
    pub target: SocketAddr,
    /// What the target stands for. None: for itself.
    pub through: Option<Steered>,
    pub check: Arc<Check>,
}

impl State {
    /// Takes an event in; `plan` says what follows from it.
    pub fn handle(&mut self, event: Event) -> Option<Notice> {
        match event {
            Event::Checked { server, report } => {
                let report = match self.silent_neighbour(server) {
                    Some(reason) => report.without_neighbour(reason),
                    None => report,
                };
                self.checked(server, &report)
            }
            Event::Reached { address, reach } => self.reached(address, reach),
            Event::Swept { records, named, survey } => {
                self.flows = records;
                self.sweeps += 1;
                self.release(&named);
                self.records = named;
                self.surveyed(survey)
            }
            Event::Failing { in_a_row } => {
                self.suspected(&in_a_row);
                None
            }
        }
    }

    fn checked(&mut self, server: ServerId, report: &Report) -> Option<Notice> {
        let known = self.servers.get_mut(&server)?;
        let detail = report.to_string();
        let before = std::mem::replace(&mut known.detail, detail.clone());
        let (passed, advice) = match &report.outcome {
            Outcome::Passed => (true, Advice::default()),
            Outcome::Advised(advice) => (advice.up != Some(false), known.advice.updated(*advice)),
            Outcome::Failed(_) => (false, known.advice),
            Outcome::NotRun(_) => {
                return (before != detail).then(|| Notice::NotChecked { server: self.name(server), detail });
            }
        };
        self.advised(server, advice);
        let change = self.count(server, passed)?;
        let notice = self.changed(server, change, detail);
        // Nobody is to be told of a server that is being worked on.
        let told = self.servers.get(&server).is_some_and(|known| known.admin() != Admin::Maintenance);
        told.then_some(notice)
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
        let reason = way::unreachable(Some(&reach)).filter(|_| self.by_address.contains_key(&address))?;
        // A neighbour that nobody has asked for yet is no news; the caller tells who did not answer at all.
        let first = before.is_none() && matches!(reach, Reach::Hop(_));
        let known = before.is_some_and(|before| way::unreachable(Some(&before)) == Some(reason));
        let servers = |ids: &BTreeSet<ServerId>| ids.iter().map(|&id| self.name(id)).collect();
        (!first && !known).then(|| Notice::Unreachable {
            address,
            servers: self.by_address.get(&address).map(servers).unwrap_or_default(),
            reason,
        })
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
    fn release(&mut self, named: &BTreeMap<ServerId, u64>) {
        let gone = |server: &ServerState| server.position.is_none();
        if !self.servers.values().any(gone) {
            return;
        }
        let slots = self.installed.rings.values().flat_map(|ring| ring.iter());
        let in_slots: BTreeSet<_> = slots.flat_map(|slot| [slot.current(), slot.base()]).collect();
        let kept = |id: &ServerId, server: &ServerState| {
            !gone(server) || named.contains_key(id) || in_slots.contains(id)
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
                if others.is_empty() {
                    self.by_address.remove(&server.address.ip());
                    self.reaches.remove(&server.address.ip());
                }
            }
            self.ids.release(id);
            self.stale = true;
        }
    }

    /// A server, for messages.
    pub fn name(&self, id: ServerId) -> ServerName {
        let Some(known) = self.servers.get(&id) else {
            return ServerName { service: None, server: format!("server {}", id.0), address: String::new() };
        };
        let address = shown(known.address);
        let service = known.index.map(|index| &self.config.services[index]);
        let server = match (service, known.position) {
            (Some(service), Some(position)) => service.servers[position].name.clone(),
            _ => format!("{address} (no longer configured)"),
        };
        ServerName { service: service.map(|service| service.name.clone()), server, address }
    }

    /// The servers with an address, for messages.
    pub fn servers_at(&self, address: IpAddr) -> String {
        let names: Vec<_> = self
            .by_address
            .get(&address)
            .into_iter()
            .flatten()
            .map(|&id| self.name(id).to_string())
            .collect();
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
        self.reconsider();
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

    /// The program no longer runs on an interface; packets may still leave through it where a server needs that.
    pub fn leave(&mut self, interface: u32) {
        self.stale |= self.attached.remove(&interface);
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
                .filter(|_| server.admin() == Admin::Ready)
                .map_or(0, |(index, position)| self.entry_weight(server, index, position)),
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
            let check = &checks[index];
            let port = through::check_port(check, known)?;
            let through = self.steered(server, known).map(|(_, steered)| steered);
            let address = check.address.filter(|_| through.is_none());
            let target = SocketAddr::new(address.unwrap_or(known.address.ip()), port);
            let check = through::bound(check, target);
            let service = &self.config.services[index];
            let server_name = match known.position {
                Some(position) => service.servers[position].name.clone(),
                None => shown(known.address),
            };
            let service_name = service.name.clone();
            let run = !check.kind.is_none();
            run.then_some(CheckTask { server, service_name, server_name, target, through, check })
        };
        self.servers.iter().filter_map(task).collect()
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
    /// Neither marked down nor in maintenance: its records count.
    fn lives(&self) -> bool {
        (self.health.usable() || self.usage.is_needed()) && self.admin() != Admin::Maintenance
    }

    /// Lives, and may take new connections if it has a weight.
    pub(super) fn usable(&self) -> bool {
        self.health.usable() && self.admin() == Admin::Ready
    }

    /// The stricter one counts of what an operator and an agent want.
    pub(super) fn admin(&self) -> Admin {
        let advised = match self.advice.admin {
            None | Some(AgentAdmin::Ready) => Admin::Ready,
            Some(AgentAdmin::Drain) => Admin::Drain,
            Some(AgentAdmin::Maintenance) => Admin::Maintenance,
        };
        self.admin.max(advised)
    }
}

#[cfg(test)]
mod tests;
