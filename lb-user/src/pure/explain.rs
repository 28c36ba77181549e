//! Which server a connection gets, and why: the same words and rules as the kernel program's.
//!
//! Takes what stands in the live tables; must not know how they are read.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    str::FromStr,
};

use lb_common::{
    entry::{Mode, Server, Service, ServiceKey},
    flow::{self, FlowKey, FlowView, NAT_REQUEST, Ticks, Tuple, nat_idle_ticks, nat_port, nat_source_index},
    hash::{self, FlowTuple, HashKey},
    net::{Be16, Be32, TCP},
    slot::{ServerId, Slot},
};

use super::{
    config::model::Protocol,
    snapshot::{Snapshot, interface_name, mac},
    state::number,
    status::{Decision, Explanation, InterfaceStatus, RecordStatus, SlotStatus},
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

/// The live tables.
pub trait Live {
    fn hash_key(&self) -> HashKey;
    fn nat_source(&self, index: u32) -> Option<Ipv4Addr>;
    fn service(&self, key: ServiceKey) -> Option<Service>;
    fn slot(&self, index: u32) -> Option<Slot>;
    fn server(&self, id: ServerId) -> Option<Server>;
    fn flow(&self, key: &FlowKey) -> Option<FlowView>;
    fn now(&self) -> Ticks;
}

pub fn explain(
    live: &impl Live,
    snapshot: &Snapshot,
    interfaces: &[InterfaceStatus],
    connection: Connection,
) -> Explanation {
    let Connection { client, vip, protocol } = connection;
    let mut explanation = Explanation {
        client: client.to_string(),
        vip: vip.to_string(),
        protocol: protocol.name().to_owned(),
        service: None,
        forward: None,
        slot: None,
        recorded: None,
        new: passes(),
        established: passes(),
    };
    // The tables hold services of one family.
    let (SocketAddr::V4(client), SocketAddr::V4(vip)) = (client, vip) else { return explanation };
    let key = ServiceKey::new((*vip.ip()).into(), Be16::new(vip.port()), number(protocol));
    let Some(service) = live.service(key) else { return explanation };
    let tuple = Tuple {
        source: (*client.ip()).into(),
        destination: (*vip.ip()).into(),
        source_port: Be16::new(client.port()),
        destination_port: Be16::new(vip.port()),
    };
    let view = Case { live, snapshot, interfaces, service, tuple, protocol: number(protocol) };
    view.fill(&mut explanation);
    explanation
}

fn passes() -> Decision {
    Decision {
        server: None,
        reason: "no service has this address, port and protocol".to_owned(),
        sent: "passes to the kernel untouched".to_owned(),
    }
}

struct Case<'a, L> {
    live: &'a L,
    snapshot: &'a Snapshot,
    interfaces: &'a [InterfaceStatus],
    service: Service,
    tuple: Tuple,
    protocol: u8,
}

impl<L: Live> Case<'_, L> {
    fn fill(&self, explanation: &mut Explanation) {
        let named = self.snapshot.services.iter().find(|service| service.id == self.service.id);
        explanation.service = Some(named.map_or_else(|| format!("#{}", self.service.id), |s| s.name.clone()));
        let nat = self.service.mode == Mode::Nat;
        explanation.forward = Some(if nat { "nat" } else { "dsr" }.to_owned());

        let index = self.hash() & self.service.ring_mask;
        let slot = self.live.slot(self.service.ring_base + index).unwrap_or_default();
        explanation.slot = Some(SlotStatus {
            index,
            current: self.server_name(slot.current()),
            base: self.server_name(slot.base()),
            lookup: slot.lookup(),
        });
        let record = self.record(nat || slot.lookup());
        explanation.recorded = record.map(|record| RecordStatus {
            server: self.server_name(ServerId(record.server)).unwrap_or_default(),
            idle_ms: u64::from(self.live.now().since(record.seen)) * MS_PER_TICK,
            nat_source: (record.state & NAT_REQUEST != 0)
                .then(|| endpoint(record.rewrite.source, record.rewrite.source_port)),
        });
        let base_lives = self.live.server(slot.base()).is_some_and(|server| server.hop.lives);
        let new = slot.owner(self.protocol == TCP, base_lives);
        explanation.new = self.decision(new, &why(slot, new, self.protocol == TCP, base_lives));
        explanation.established = if nat && self.protocol == TCP {
            Decision {
                server: None,
                reason: "nat records every connection: no server knows one without a record".to_owned(),
                sent: "answered with a tcp reset".to_owned(),
            }
        } else {
            let established = slot.owner(false, base_lives);
            self.decision(established, &why(slot, established, false, base_lives))
        };
    }

    fn hash(&self) -> u32 {
        let tuple = FlowTuple::<lb_common::net::V4> {
            source: self.tuple.source,
            source_port: self.tuple.source_port,
            destination_port: self.tuple.destination_port,
        };
        hash::flow(self.live.hash_key(), tuple)
    }

    /// The record that decides, as the program would find it: live, and of a server that lives.
    fn record(&self, looked_up: bool) -> Option<FlowView> {
        let key = FlowKey::new(self.tuple, self.protocol);
        let record = self.live.flow(&key).filter(|_| looked_up)?;
        let lives = self.live.server(ServerId(record.server)).is_some_and(|server| server.hop.lives);
        let (silent, idle) = if record.state & NAT_REQUEST == 0 {
            let idle = flow::idle_ticks(record.state, self.service.idle_ticks);
            (self.live.now().since(record.seen), idle)
        } else {
            let twin = self.live.flow(&key.twin(record.rewrite))?;
            let silent = self.live.now().since(record.seen).min(self.live.now().since(twin.seen));
            (silent, nat_idle_ticks(record.state, twin.state, self.service.idle_ticks))
        };
        (lives && silent < idle).then_some(record)
    }

    fn decision(&self, id: ServerId, reason: &str) -> Decision {
        let sent = match self.live.server(id).filter(|_| !id.is_none()) {
            None if self.service.reset && self.protocol == TCP => "answered with a tcp reset".to_owned(),
            None => "dropped".to_owned(),
            Some(server) if !server.hop.resolved => {
                "dropped: the mac address of the server's next hop is not known".to_owned()
            }
            Some(server) => self.header(&server),
        };
        Decision { server: self.server_name(id), reason: reason.to_owned(), sent }
    }

    fn header(&self, server: &Server) -> String {
        let interface = interface_name(self.interfaces, server.hop.interface);
        let macs = format!("{} > {}", mac(server.hop.source_mac.bytes()), mac(server.hop.mac.bytes()));
        let ends = match self.service.mode {
            Mode::Dsr | Mode::Ipip | Mode::Gue | Mode::Gateway => format!(
                "{} > {}, ttl less one",
                endpoint(self.tuple.source, self.tuple.source_port),
                endpoint(self.tuple.destination, self.tuple.destination_port)
            ),
            Mode::Nat => format!(
                "{} (or the next free port) > {}, ttl less one",
                self.first_nat_source(server),
                SocketAddr::new(server.address, server.port.get()).to_string()
            ),
        };
        format!("out of {interface}: {macs}, {ends}")
    }

    /// The source a new flow tries first.
    fn first_nat_source(&self, server: &Server) -> String {
        if server.nat_count == 0 {
            return "no nat source address".to_owned();
        }
        let hash = hash::again(self.hash());
        let index = u32::from(server.nat_first) + nat_source_index(hash, server.nat_count.into());
        match self.live.nat_source(index) {
            Some(address) => endpoint(address.into(), nat_port(hash, 0)),
            None => "no nat source address".to_owned(),
        }
    }

    fn server_name(&self, id: ServerId) -> Option<String> {
        if id.is_none() {
            return None;
        }
        let found = self.snapshot.server(id).map(|(_, server)| server.name.clone());
        Some(found.unwrap_or_else(|| format!("#{} (no longer configured)", id.0)))
    }
}

fn why(slot: Slot, chosen: ServerId, opening: bool, base_lives: bool) -> String {
    let reason = if chosen.is_none() {
        "the service has no usable server"
    } else if !slot.lookup() {
        "the slot is settled: every packet goes to its server"
    } else if opening {
        "the slot has moved: new connections go to its current server"
    } else if base_lives {
        "the slot has moved: connections without a record stay with its base server"
    } else {
        "the slot has moved and its base server is down: its current server takes over"
    };
    reason.to_owned()
}

fn endpoint(address: Be32, port: Be16) -> String {
    SocketAddrV4::new(address.into(), port.get()).to_string()
}

const MS_PER_TICK: u64 = (1 << flow::TICK_SHIFT) / 1_000_000;

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
