//! Which server a connection gets, and why: what the program itself did with packets of it, in words.
//!
//! Takes what stands in the live tables and what a run over them showed; must not know how either came about.

pub mod packet;

use std::{collections::BTreeMap, fmt, net::SocketAddr, str::FromStr};

use lb_common::{
    counter::Counter,
    entry::{Mode, Scheduler, Server, Service},
    slot::{ServerId, Slot},
};

use super::{
    config::{model::Protocol, network::Network},
    plan::Verdict,
    record::Record,
    snapshot::{ServiceView, Snapshot, interface_name},
    status::{Decision, Explanation, HeaderStatus, InterfaceStatus, RecordStatus, SlotStatus},
};

/// A connection as an operator names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub protocol: Protocol,
}

/// The service's side of it: "10.0.5.96:80/tcp".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint(pub SocketAddr, pub Protocol);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected ADDRESS:PORT/tcp or ADDRESS:PORT/udp, such as 10.0.5.96:80/tcp")]
pub struct EndpointError;

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (address, protocol) = text.rsplit_once('/').ok_or(EndpointError)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(EndpointError),
        };
        Ok(Endpoint(address.parse().map_err(|_| EndpointError)?, protocol))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1.name())
    }
}

/// What stands in the live tables about a connection, and what the program does with packets of it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Index of the interface that the packets came in by; 0: none is attached.
    pub arrival: u32,
    pub service: Option<Service>,
    /// Found by address and port, not by a network or a range.
    pub is_exact: bool,
    /// What the longest network around the client says.
    pub access: Option<Verdict>,
    /// Index within the ring.
    pub slot: Option<(u32, Slot)>,
    /// Of the connection, then of the client; void ones among them.
    pub records: Vec<Record>,
    /// Whoever may be named.
    pub servers: BTreeMap<ServerId, Server>,
    pub opening: Trace,
    /// None: no packet differs from the first.
    pub later: Option<Trace>,
}

/// What a run of the program left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    pub action: Action,
    /// That moved.
    pub counters: Vec<Counter>,
    /// The one whose traffic was counted.
    pub server: Option<ServerId>,
    pub frame: Vec<u8>,
    /// A record was made that would find no room in the live table.
    pub crowded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Pass,
    Drop,
    /// Out of the interface it came in by.
    Transmit,
    Redirect,
}

pub fn explain(
    facts: &Facts,
    snapshot: &Snapshot,
    interfaces: &[InterfaceStatus],
    connection: &Connection,
) -> Explanation {
    let view = View { facts, snapshot, interfaces, connection };
    let opening = view.decision(&facts.opening, true);
    let established = match &facts.later {
        Some(trace) => view.decision(trace, false),
        None => opening.clone(),
    };
    let service = facts.service;
    let named = view.service();
    let name = |id: ServerId| (!id.is_none()).then(|| snapshot.server_name(id));
    Explanation {
        client: connection.client.to_string(),
        vip: connection.vip.to_string(),
        protocol: connection.protocol.name().to_owned(),
        arrival: (facts.arrival != 0).then(|| interface_name(interfaces, facts.arrival)),
        service: service.map(|service| match named {
            Some(named) => named.name.clone(),
            None => format!("#{}", service.id),
        }),
        found: service.map(|_| view.found()),
        forward: service.map(|service| mode(service.mode).to_owned()),
        balance: service.map(|service| named.map_or(balance(&service), |named| named.balance.name()).to_owned()),
        access: service.map(|service| view.access(&service)),
        slot: facts.slot.map(|(index, slot)| SlotStatus {
            index,
            current: name(slot.current()),
            base: name(slot.base()),
            lookup: slot.lookup(),
        }),
        recorded: view.record().map(|record| RecordStatus {
            server: snapshot.server_name(record.server),
            idle_ms: record.idle_ms(),
            state: record.state().to_owned(),
            of_client: record.of_client,
            nat_source: record.pair.as_ref().map(|pair| pair.source.to_string()),
            nat_destination: record.pair.as_ref().map(|pair| pair.destination.to_string()),
        }),
        new: opening,
        established,
    }
}

struct View<'a> {
    facts: &'a Facts,
    snapshot: &'a Snapshot,
    interfaces: &'a [InterfaceStatus],
    connection: &'a Connection,
}

impl View<'_> {
    fn service(&self) -> Option<&ServiceView> {
        let id = self.facts.service?.id;
        self.snapshot.services.iter().find(|service| service.id == id)
    }

    fn found(&self) -> String {
        let vip = self.connection.vip.ip();
        let around = self.service().and_then(|service| Some((service, longest(&service.addresses, vip)?)));
        match around {
            _ if self.facts.is_exact => "address and port".to_owned(),
            Some((service, network)) => format!("{network}, ports {}", service.ports),
            None => "a network or a range of ports".to_owned(),
        }
    }

    fn access(&self, service: &Service) -> String {
        if !service.access {
            return "everybody".to_owned();
        }
        let lists = self.service().map(|service| &service.access);
        let client = self.connection.client.ip();
        let verdict = if self.facts.access == Some(Verdict::Deny) { "denied" } else { "allowed" };
        let listed = lists.and_then(|lists| match verdict {
            "denied" => longest(&lists.deny, client),
            _ => longest(&lists.allow, client),
        });
        match listed {
            Some(network) => format!("{verdict}: in {network}"),
            None if verdict == "denied" => "denied: in no allowed network".to_owned(),
            None => "allowed: in no denied network".to_owned(),
        }
    }

    /// The record that decides, as the program finds it: looked up, not void, and of a server that lives.
    fn record(&self) -> Option<&Record> {
        let service = self.facts.service?;
        let looked_up = !matches!(service.scheduler, Scheduler::Ring)
            || self.facts.slot.is_some_and(|(_, slot)| slot.lookup());
        let decides = |record: &&Record| {
            let idle = if record.of_client { service.client_ticks } else { service.idle_ticks };
            let pair = service.mode.rewrites() && !record.of_client;
            record.pair.is_some() == pair
                && (pair || looked_up)
                && !record.is_void(idle)
                && self.lives(record.server)
        };
        self.facts.records.iter().find(decides)
    }

    fn lives(&self, id: ServerId) -> bool {
        self.facts.servers.get(&id).is_some_and(|server| server.hop.lives)
    }

    fn decision(&self, trace: &Trace, opening: bool) -> Decision {
        let verdict = trace.counters.iter().copied().find(|counter| !is_note(*counter));
        let help = verdict.map_or("", Counter::help).trim_end_matches('.');
        let (what, why) = help.split_once(": ").unwrap_or((help, ""));
        let header = verdict.filter(|verdict| is_forward(*verdict)).and_then(|_| self.header(trace));
        let server = trace.server.or_else(|| self.guess(verdict?, opening));
        let mut notes: Vec<String> = trace
            .counters
            .iter()
            .filter(|counter| is_note(**counter))
            .map(|counter| counter.help().trim_start_matches("Not a way out: ").trim_end_matches('.').to_owned())
            .collect();
        if trace.crowded {
            notes.push("the flow table has no room for the record: raise [datapath] flows".to_owned());
        }
        Decision {
            reason: match (trace.server, why) {
                (Some(id), _) if header.is_some() => self.why(id, opening).to_owned(),
                (_, "") => "the program counted no way out".to_owned(),
                (_, why) => why.to_owned(),
            },
            sent: match &header {
                Some(header) => sentence(header),
                None => lower(what),
            },
            verdict: verdict.map_or("", Counter::name).to_owned(),
            action: match trace.action {
                Action::Pass => "pass",
                Action::Drop => "drop",
                Action::Transmit => "transmit",
                Action::Redirect => "redirect",
            }
            .to_owned(),
            packet_max: server.and_then(|id| self.packet_max(id)),
            server: server.map(|id| self.snapshot.server_name(id)),
            header,
            notes,
        }
    }

    /// Where a packet would have gone that got no further than a server's entry.
    fn guess(&self, verdict: Counter, opening: bool) -> Option<ServerId> {
        let late = matches!(
            verdict,
            Counter::DropUnresolved
                | Counter::AnswerTooBig
                | Counter::DropTooBig
                | Counter::DropNatPorts
                | Counter::DropHeadroom
        );
        let service = self.facts.service.filter(|_| late)?;
        if let Some(record) = self.record() {
            return Some(record.server);
        }
        let (_, slot) = self.facts.slot.filter(|_| matches!(service.scheduler, Scheduler::Ring))?;
        Some(slot.owner(self.is_new(&service, opening), self.lives(slot.base())))
    }

    /// Begins something that no server knows of, as the program sees it.
    fn is_new(&self, service: &Service, opening: bool) -> bool {
        opening && self.connection.protocol == Protocol::Tcp && !service.by_client
    }

    fn why(&self, chosen: ServerId, opening: bool) -> &'static str {
        let Some(service) = self.facts.service else { return "its record names where it goes" };
        if let Some(record) = self.record().filter(|record| record.server == chosen) {
            return if record.of_client {
                "the client's record names it"
            } else {
                "the connection's record names it"
            };
        }
        let in_turn = opening || self.connection.protocol == Protocol::Udp;
        match (service.scheduler, self.facts.slot) {
            (Scheduler::RoundRobin, _) if in_turn => "it is next in turn",
            (Scheduler::LeastConn, _) if in_turn => LEAST,
            (Scheduler::RoundRobin | Scheduler::LeastConn, _) => {
                "no syn began the connection here: its slot says whose it was"
            }
            (Scheduler::Ring, Some((_, slot))) => {
                why(slot, chosen, self.is_new(&service, opening), self.lives(slot.base()))
            }
            (Scheduler::Ring, None) => "its slot lies outside the ring map",
        }
    }

    fn header(&self, trace: &Trace) -> Option<HeaderStatus> {
        let index = match trace.action {
            Action::Transmit => self.facts.arrival,
            Action::Redirect => self.facts.servers.get(&trace.server?)?.hop.interface,
            Action::Pass | Action::Drop => return None,
        };
        packet::header(&trace.frame, interface_name(self.interfaces, index))
    }

    fn packet_max(&self, id: ServerId) -> Option<u32> {
        let (server, service) = (self.facts.servers.get(&id)?, self.facts.service?);
        let ip = if server.address.is_ipv6() { IPV6_HEADER } else { IPV4_HEADER };
        let overhead = match service.mode {
            Mode::Ipip => ip,
            Mode::Gue => ip + UDP_HEADER,
            Mode::Dsr | Mode::Nat | Mode::Gateway => 0,
        };
        server.hop.resolved.then(|| u32::from(server.hop.mtu).saturating_sub(overhead))
    }
}

fn longest(networks: &[Network], address: std::net::IpAddr) -> Option<Network> {
    let around = networks.iter().copied().filter(|network| network.contains(address));
    around.max_by_key(|network| network.length())
}

fn why(slot: Slot, chosen: ServerId, opening: bool, base_lives: bool) -> &'static str {
    if !slot.lookup() {
        "the slot is settled: every packet goes to its server"
    } else if opening {
        "the slot has moved: new connections go to its current server"
    } else if base_lives && chosen == slot.base() {
        "the slot has moved: connections without a record stay with its base server"
    } else if base_lives {
        "the slot has moved: new connections go to its current server"
    } else {
        "the slot has moved and its base server is down: its current server takes over"
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Dsr => "dsr",
        Mode::Ipip => "ipip",
        Mode::Gue => "gue",
        Mode::Nat => "nat",
        Mode::Gateway => "gateway",
    }
}

fn balance(service: &Service) -> &'static str {
    match service.scheduler {
        Scheduler::Ring if service.by_client => "source",
        Scheduler::Ring => "maglev",
        Scheduler::RoundRobin => "roundrobin",
        Scheduler::LeastConn => "leastconn",
    }
}

fn is_note(counter: Counter) -> bool {
    matches!(counter, Counter::FlowRecorded | Counter::FlowUnrecorded | Counter::MssClamped)
}

fn is_forward(counter: Counter) -> bool {
    counter.name().starts_with("forward_")
}

fn sentence(header: &HeaderStatus) -> String {
    let HeaderStatus { interface, source_mac, destination_mac, source, destination, ttl, .. } = header;
    let tags: String = header.vlans.iter().map(|id| format!(", vlan {id}")).collect();
    let outer = header.outer.as_ref().map_or_else(String::new, |outer| {
        format!(", {} > {} ttl {}, within it", outer.source, outer.destination, outer.ttl)
    });
    let comma = if outer.is_empty() { "," } else { "" };
    format!(
        "out of {interface}: {source_mac} > {destination_mac}{tags}{outer}{comma} {source} > {destination} ttl {ttl}"
    )
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

const LEAST: &str = "it has the fewest connections for its weight among the next slots' servers";
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written() {
        for (text, end) in
            [("10.0.5.96:80/tcp", "10.0.5.96:80"), ("[2001:db8::96]:80/tcp", "[2001:db8::96]:80")]
        {
            let endpoint: Endpoint = text.parse().expect("valid");
            assert_eq!(endpoint, Endpoint(end.parse().expect("valid"), Protocol::Tcp));
            assert_eq!(endpoint.to_string(), text);
        }
        for wrong in ["", "10.0.5.96:80", "10.0.5.96/tcp", "10.0.5.96:80/sctp", "2001:db8::96:80/tcp"] {
            assert_eq!(wrong.parse::<Endpoint>(), Err(EndpointError), "{wrong}");
        }
    }
}
