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
        balance: service
            .map(|service| named.map_or(balance(&service), |named| named.balance.name()).to_owned()),
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
        let verdict = trace.counters.iter().copied().find(|counter| note(*counter).is_none());
        let help = verdict.map_or("", Counter::help).trim_end_matches('.');
        let (what, why) = help.split_once(": ").unwrap_or((help, ""));
        let header = verdict.filter(|verdict| is_forward(*verdict)).and_then(|_| self.header(trace));
        let server = trace.server.or_else(|| self.guess(verdict?, opening));
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
            notes: notes(trace),
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

/// What a counter says that names no way out.
fn note(counter: Counter) -> Option<&'static str> {
    match counter {
        Counter::FlowRecorded => Some("its flow gets a record"),
        Counter::FlowUnrecorded => Some("its flow finds no room for a record"),
        Counter::MssClamped => Some("its mss is lowered"),
        _ => None,
    }
}

fn notes(trace: &Trace) -> Vec<String> {
    let crowded =
        trace.crowded.then_some("the flow table is full there and may refuse it: raise [datapath] flows");
    let notes = trace.counters.iter().filter_map(|counter| note(*counter)).chain(crowded);
    notes.map(str::to_owned).collect()
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
    use lb_common::{
        entry::Hop,
        flow::{FlowKey, FlowView, Ticks, Tuple},
        net::{Be16, Be32, Mac, V4},
    };

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

    const WEB1: ServerId = ServerId(1);
    const WEB2: ServerId = ServerId(2);
    const SERVICE: Service = Service {
        id: 3,
        ring_base: 0,
        ring_mask: 255,
        mode: Mode::Ipip,
        scheduler: Scheduler::Ring,
        by_client: false,
        access: false,
        reset: true,
        mss: 0,
        idle_ticks: 100,
        client_ticks: 0,
    };

    fn connection() -> Connection {
        let client = "192.0.2.1:40000".parse().expect("valid");
        Connection { client, vip: "10.0.5.96:80".parse().expect("valid"), protocol: Protocol::Tcp }
    }

    fn server(lives: bool) -> Server {
        let hop = Hop {
            lives,
            resolved: true,
            mac: Mac(1),
            source_mac: Mac(2),
            interface: 5,
            tags: Default::default(),
            mtu: 1_500,
        };
        let address = "2001:db8::1".parse().expect("valid");
        Server {
            hop,
            nat_first: 0,
            nat_count: 0,
            address,
            port: Be16(0),
            weight: 1,
            service: SERVICE.id,
            outer_source: address,
        }
    }

    fn trace(counters: &[Counter], server: Option<ServerId>, kind: packet::Kind) -> Trace {
        let frame = packet::packet(&connection(), kind).expect("one family");
        Trace { action: Action::Redirect, counters: counters.to_vec(), server, frame, crowded: false }
    }

    /// A slot that moved from web2 to web1, and what the program did.
    fn facts(opening: Trace, later: Trace) -> Facts {
        Facts {
            arrival: 4,
            service: Some(SERVICE),
            is_exact: true,
            access: None,
            slot: Some((7, Slot::new(WEB1, WEB2, true))),
            records: Vec::new(),
            servers: [(WEB1, server(true)), (WEB2, server(true))].into(),
            opening,
            later: Some(later),
        }
    }

    fn told(facts: &Facts) -> Explanation {
        let snapshot =
            Snapshot { services: Vec::new(), flows: 0, flows_max: 0, flows_crowded: false, sweeps: 0 };
        let interface =
            |name: &str, index| InterfaceStatus { name: name.to_owned(), index, mode: "native".to_owned() };
        explain(facts, &snapshot, &[interface("eth0", 4), interface("eth1", 5)], &connection())
    }

    #[test]
    fn a_moved_slot_parts_new_connections_from_old() {
        let facts = facts(
            trace(&[Counter::ForwardIpip, Counter::FlowRecorded], Some(WEB1), packet::Kind::Opening),
            trace(&[Counter::ForwardIpip], Some(WEB2), packet::Kind::Later),
        );
        let explanation = told(&facts);
        assert_eq!(explanation.arrival.as_deref(), Some("eth0"));
        assert_eq!(explanation.new.server.as_deref(), Some("#1 (no longer configured)"));
        assert!(explanation.new.reason.contains("new connections go to its current"), "{explanation:?}");
        assert!(explanation.established.reason.contains("stay with its base"), "{explanation:?}");
        assert_eq!(
            (explanation.new.verdict.as_str(), explanation.new.packet_max),
            ("forward_ipip", Some(1_460))
        );
        assert!(explanation.new.sent.starts_with("out of eth1: "), "{explanation:?}");
        assert_eq!(explanation.new.notes, ["its flow gets a record"]);
        assert!(explanation.established.notes.is_empty());
    }

    #[test]
    fn who_is_refused_learns_where_it_would_have_gone() {
        let stop = |counter, action| Trace { action, ..trace(&[counter], None, packet::Kind::Opening) };
        for (counter, action, server, sent, reason) in [
            (Counter::DropUnresolved, Action::Drop, Some("#1"), "dropped", "the MAC address of the server"),
            (Counter::DropAccess, Action::Drop, None, "dropped", "the client may not use the service"),
            (Counter::ResetNoServer, Action::Transmit, None, "answered with a TCP RST", "no usable server"),
        ] {
            let facts = facts(stop(counter, action), stop(counter, action));
            let new = told(&facts).new;
            assert_eq!(new.server.as_deref().map(|name| &name[..2]), server, "{new:?}");
            assert!(new.sent == sent && new.reason.contains(reason) && new.header.is_none(), "{new:?}");
        }
    }

    #[test]
    fn a_packet_of_nobody_passes() {
        let stop =
            Trace { action: Action::Pass, ..trace(&[Counter::PassNoService], None, packet::Kind::Opening) };
        let nobody =
            Facts { service: None, slot: None, servers: BTreeMap::new(), ..facts(stop.clone(), stop) };
        let explanation = told(&nobody);
        assert!(explanation.service.is_none() && explanation.found.is_none() && explanation.slot.is_none());
        assert_eq!(
            (explanation.new.sent.as_str(), explanation.new.action.as_str()),
            ("passed to the kernel", "pass")
        );
    }

    #[test]
    fn a_record_decides_unless_it_is_void_or_its_server_is_down() {
        let record = |silent: u32| {
            let tuple = Tuple {
                source: Be32(1),
                destination: Be32(2),
                source_port: Be16(3),
                destination_port: Be16(4),
            };
            let view = FlowView {
                seen: Ticks(1_000 - silent),
                state: 0,
                rewrite: tuple,
                peer_mac: 0,
                own_mac: 0,
                interface: 0,
                tags: 0,
                server: WEB2.0,
                nat_source: 0,
            };
            Record::new(&FlowKey::<V4>::new(tuple, 6), &view, None, Ticks(1_000)).expect("a request")
        };
        for (name, silent, lives, decides) in
            [("young", 99, true, true), ("void", 100, true, false), ("dead server", 0, false, false)]
        {
            let run = || trace(&[Counter::ForwardIpip], Some(WEB2), packet::Kind::Later);
            let mut facts = facts(run(), run());
            facts.records.push(record(silent));
            facts.servers.insert(WEB2, server(lives));
            let explanation = told(&facts);
            assert_eq!(explanation.recorded.is_some(), decides, "{name}");
            let by_record = explanation.established.reason == "the connection's record names it";
            assert_eq!(by_record, decides, "{name}: {explanation:?}");
        }
    }
}
