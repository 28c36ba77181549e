//! What readers see of the state: one immutable value, published whole after every plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::slot::ServerId;

use super::{
    config::{
        model::{self, Access, Admin, Balance, Forward, NoServer, Protocol},
        network::{Family, Network, Ports, endpoint, shown},
    },
    health::UNCHECKED,
    hop::{Mac, Reach},
    lint,
    state::{Ring, ServerState, State},
    status::{
        DatapathStatus, InterfaceStatus, RingStatus, ServerStatus, ServiceStatus, Status, Traffic, VrrpStatus,
    },
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub services: Vec<ServiceView>,
    /// Records in the flow table at the end of the last round of the sweep.
    pub flows: u64,
    pub flows_max: u64,
    pub sweeps: u64,
    /// A flow table is nearly full.
    pub flows_crowded: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    pub id: u32,
    pub name: String,
    pub addresses: Vec<Network>,
    pub ports: Ports,
    pub protocols: Vec<Protocol>,
    pub forward: Forward,
    pub balance: Balance,
    pub no_server: NoServer,
    pub access: Access,
    /// Of each ring.
    pub slots: u32,
    pub rings: Vec<RingView>,
    pub servers: Vec<ServerView>,
    /// No longer configured, but named by a slot or a record.
    pub leaving: Vec<ServerId>,
    /// Too few servers are usable: all are used.
    pub panics: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingView {
    /// None: one ring serves both families.
    pub family: Option<Family>,
    pub unsettled: u32,
    /// Slots that no server takes.
    pub empty: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerView {
    pub id: ServerId,
    pub name: String,
    pub address: String,
    pub weight: u16,
    pub backup: bool,
    pub health: &'static str,
    pub admin: Admin,
    pub usable: bool,
    pub detail: String,
    /// Slots that new connections take to it.
    pub slots: u32,
    /// Slots whose older connections belong to it.
    pub slots_base: u32,
    /// Records that name it.
    pub flows: u64,
    pub neighbour: Option<Mac>,
    pub interface: Option<u32>,
    /// The address of this machine that its own connections to the server have.
    pub source: Option<IpAddr>,
    pub mtu: Option<u32>,
    /// Outermost first.
    pub vlans: Vec<u16>,
    /// Why packets cannot reach it.
    pub unreachable: Option<&'static str>,
}

/// What a status holds beside the state.
pub struct Surroundings<'a> {
    pub node: &'a str,
    pub pid: u32,
    pub uptime_s: u64,
    pub interfaces: &'a [InterfaceStatus],
    /// What the daemon wants an operator to look at.
    pub warnings: &'a [String],
    /// What is in force and not in the file.
    pub changes: &'a [String],
    pub vrrp: &'a VrrpStatus,
}

/// Where the counts of servers come from.
pub trait Counts {
    fn server(&self, id: ServerId) -> Traffic;
    /// Of servers that are gone, by service id.
    fn retired(&self, service: u32) -> Traffic;
}

impl State {
    pub fn snapshot(&self) -> Snapshot {
        let services = self.services.iter().zip(&self.config.services);
        let mut leaving = self.leaving();
        Snapshot {
            services: services
                .map(|(state, service)| {
                    let servers = state.servers.iter().zip(&service.servers);
                    ServiceView {
                        id: state.place.id,
                        name: service.name.clone(),
                        addresses: service.addresses.clone(),
                        ports: service.ports,
                        protocols: service.protocols.clone(),
                        forward: service.forward,
                        balance: service.balance,
                        no_server: service.no_server,
                        access: service.access.clone(),
                        slots: service.slots,
                        rings: service
                            .rings()
                            .into_iter()
                            .zip(&state.rings)
                            .map(|(family, ring)| RingView::new(family, ring))
                            .collect(),
                        leaving: leaving.remove(&state.place.id).unwrap_or_default(),
                        panics: state.panics,
                        servers: servers
                            .map(|(&id, server)| self.server_view(id, server, &state.rings))
                            .collect(),
                    }
                })
                .collect(),
            flows: self.flows,
            flows_max: self.flows_max.into(),
            sweeps: self.sweeps,
            flows_crowded: self.crowded,
        }
    }

    fn server_view(&self, id: ServerId, server: &model::Server, rings: &[Ring]) -> ServerView {
        let count = |of: fn(&Ring) -> &BTreeMap<ServerId, u32>| {
            rings.iter().filter_map(|ring| of(ring).get(&id)).sum()
        };
        let reach = self.reaches.get(&server.address.ip());
        let known = self.servers.get(&id);
        let hop = match reach {
            Some(Reach::Hop(hop)) => Some(hop),
            _ => None,
        };
        let progress = known.and_then(|known| self.progress(known));
        let detail = known.map(|known| known.detail.clone()).unwrap_or_default();
        ServerView {
            id,
            name: server.name.clone(),
            address: shown(server.address),
            weight: server.weight,
            backup: server.backup,
            health: known.map_or(UNCHECKED, |known| known.health.name()),
            admin: known.map_or(Admin::Ready, ServerState::admin),
            usable: known.is_some_and(ServerState::usable),
            detail: match progress {
                Some(progress) => format!("{progress}: {detail}"),
                None => detail,
            },
            slots: count(|ring| &ring.slots.current),
            slots_base: count(|ring| &ring.slots.base),
            flows: self.records.get(&id).copied().unwrap_or(0),
            neighbour: hop.and_then(|hop| hop.neighbour),
            interface: hop.map(|hop| hop.interface),
            source: hop.map(|hop| hop.source),
            mtu: hop.map(|hop| hop.mtu),
            vlans: hop.map_or_else(Vec::new, |hop| hop.tags.iter().map(|tag| tag.id).collect()),
            unreachable: known.and_then(|known| self.unreachable(known)),
        }
    }
}

impl Snapshot {
    pub fn status(&self, around: &Surroundings<'_>, counts: &impl Counts) -> Status {
        let mut warnings = around.warnings.to_vec();
        let servers = self.services.iter().flat_map(|service| &service.servers);
        let own: BTreeSet<IpAddr> = servers.filter_map(|server| server.source).collect();
        for service in &self.services {
            warnings.extend(service.warnings(&own));
        }
        if self.flows_crowded {
            warnings.push("the flow table is nearly full: raise [datapath] flows".to_owned());
        }
        warnings.extend(lint::troubles(around.vrrp));
        Status {
            node: around.node.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: around.pid,
            uptime_s: around.uptime_s,
            datapath: DatapathStatus {
                interfaces: around.interfaces.to_vec(),
                flows: self.flows,
                flows_max: self.flows_max,
                sweeps: self.sweeps,
            },
            services: self.services.iter().map(|service| service.status(around, counts)).collect(),
            warnings,
            changes: around.changes.to_vec(),
            vrrp: around.vrrp.clone(),
        }
    }

    /// Slots of all rings whose flows are looked up.
    pub fn slots_lookup(&self) -> u64 {
        let rings = self.services.iter().flat_map(|service| &service.rings);
        rings.map(|ring| u64::from(ring.unsettled)).sum()
    }

    /// The service of a server, though the server may be leaving.
    pub fn service_of(&self, id: ServerId) -> Option<&ServiceView> {
        let has = |service: &&ServiceView| {
            service.servers.iter().any(|server| server.id == id) || service.leaving.contains(&id)
        };
        self.services.iter().find(has)
    }

    pub fn server_name(&self, id: ServerId) -> String {
        let found = self.server(id).map(|(_, server)| server.name.clone());
        found.unwrap_or_else(|| format!("#{} (no longer configured)", id.0))
    }

    /// The service and server that hold an id.
    pub fn server(&self, id: ServerId) -> Option<(&ServiceView, &ServerView)> {
        self.services.iter().find_map(|service| {
            service.servers.iter().find(|server| server.id == id).map(|server| (service, server))
        })
    }
}

impl RingView {
    fn new(family: Option<Family>, ring: &Ring) -> Self {
        let empty = ring.slots.current.get(&ServerId::NONE).copied().unwrap_or(0);
        RingView { family, unsettled: ring.slots.unsettled, empty }
    }

    fn status(&self, slots: u32) -> RingStatus {
        RingStatus {
            family: self.family.map(|family| family.name().to_owned()),
            slots,
            slots_unsettled: self.unsettled,
            slots_empty: self.empty,
        }
    }
}

impl ServiceView {
    /// Servers that new connections can go to.
    pub fn usable(&self) -> usize {
        self.servers.iter().filter(|server| server.usable && server.weight > 0).count()
    }

    fn status(&self, around: &Surroundings<'_>, counts: &impl Counts) -> ServiceStatus {
        let servers: Vec<_> = self.servers.iter().map(|server| server.status(around, counts)).collect();
        let leaving = self.leaving.iter().map(|&id| counts.server(id));
        let moved =
            servers.iter().map(|server| server.traffic).chain(leaving).chain([counts.retired(self.id)]);
        ServiceStatus {
            name: self.name.clone(),
            addresses: self.endpoints(),
            forward: self.forward.name().to_owned(),
            balance: self.balance.name().to_owned(),
            ports: self.ports.to_string(),
            slots: self.slots,
            slots_unsettled: self.rings.iter().map(|ring| ring.unsettled).sum(),
            rings: self.rings.iter().map(|ring| ring.status(self.slots)).collect(),
            servers_usable: self.usable() as u32,
            traffic: moved.fold(Traffic::default(), |sum, more| Traffic {
                packets: sum.packets + more.packets,
                bytes: sum.bytes + more.bytes,
                connections: sum.connections + more.connections,
            }),
            panic: self.panics,
            servers,
        }
    }

    fn endpoints(&self) -> Vec<String> {
        let of = |&network: &Network| {
            let end = endpoint(network, self.ports);
            self.protocols
                .iter()
                .map(move |protocol| format!("{end}/{}", protocol.name()))
                .collect::<Vec<_>>()
        };
        self.addresses.iter().flat_map(of).collect()
    }

    /// `own`: addresses that this machine's connections to servers have.
    fn warnings(&self, own: &BTreeSet<IpAddr>) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.ports.single().is_none() {
            let taken = |address: &&IpAddr| self.addresses.iter().any(|network| network.contains(**address));
            warnings.extend(own.iter().filter(taken).map(|address| {
                format!(
                    "service {} takes the ports {} of {address}, this machine's own address: answers to its checks \
                     go to the servers; give the service an address of its own",
                    self.name, self.ports
                )
            }));
        }
        let usable = self.usable();
        if self.panics {
            warnings.push(format!(
                "service {}: {usable} of {} servers usable, below its panic threshold: all are used",
                self.name,
                self.servers.len()
            ));
        } else if usable == 0 {
            warnings.push(format!("service {} has no usable server", self.name));
        }
        for server in &self.servers {
            if let Some(reason) = server.unreachable {
                warnings.push(format!("{}/{} ({}): {reason}", self.name, server.name, server.address));
            }
        }
        warnings
    }
}

impl ServerView {
    fn status(&self, around: &Surroundings<'_>, counts: &impl Counts) -> ServerStatus {
        let interface = self.interface.map(|index| interface_name(around.interfaces, index));
        ServerStatus {
            name: self.name.clone(),
            address: self.address.clone(),
            weight: self.weight,
            backup: self.backup,
            health: self.health.to_owned(),
            admin: self.admin.name().to_owned(),
            detail: self.detail.clone(),
            slots: self.slots,
            slots_base: self.slots_base,
            flows: self.flows,
            neighbour: self.neighbour.map(mac),
            interface,
            mtu: self.mtu,
            vlans: self.vlans.clone(),
            unreachable: self.unreachable.map(str::to_owned),
            traffic: counts.server(self.id),
        }
    }
}

/// Interfaces the program is not attached to are named by their index.
pub fn interface_name(interfaces: &[InterfaceStatus], index: u32) -> String {
    let known = interfaces.iter().find(|interface| interface.index == index);
    known.map_or_else(|| format!("#{index}"), |interface| interface.name.clone())
}

/// "02:00:00:00:00:01"
pub fn mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
