//! What readers see: the serialized forms that the admin socket sends and the command line shows.
//!
//! Not the model: fields are added here, never renamed, and hold plain values with their units.

mod vrrp;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::vrrp::{
    GroupStatus, PeerRouterStatus, PeerStatus, RouterCounters, RouterStatus, SenderStatus, TimersStatus,
    TrackedStatus, VrrpStatus,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node: String,
    pub version: String,
    pub pid: u32,
    pub uptime_s: u64,
    pub datapath: DatapathStatus,
    pub services: Vec<ServiceStatus>,
    /// What an operator should look at, one sentence each.
    pub warnings: Vec<String>,
    /// What is in force and not in the configuration file, one sentence each.
    #[serde(default)]
    pub changes: Vec<String>,
    #[serde(default)]
    pub vrrp: VrrpStatus,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatapathStatus {
    pub interfaces: Vec<InterfaceStatus>,
    /// Records in the flow table at the last complete sweep.
    pub flows: u64,
    pub flows_max: u64,
    /// Complete sweeps over the flow table since the daemon started.
    #[serde(default)]
    pub sweeps: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    pub name: String,
    pub index: u32,
    /// native | generic
    pub mode: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    /// "10.0.5.96:80/tcp", "[2001:db8::/64]:8000-8999/udp", "10.0.5.0/24:any/tcp": one per network and protocol.
    pub addresses: Vec<String>,
    /// nat | gateway | dsr | ipip | gue
    pub forward: String,
    /// maglev | source | roundrobin | leastconn
    pub balance: String,
    /// "80", "8000-8999", "any"
    #[serde(default)]
    pub ports: String,
    /// Of each ring.
    pub slots: u32,
    /// Slots of all rings whose flows are looked up because their server changed.
    pub slots_unsettled: u32,
    #[serde(default)]
    pub rings: Vec<RingStatus>,
    pub servers_usable: u32,
    /// Fewer servers are usable than the panic threshold wants: all are used.
    #[serde(default)]
    pub panic: bool,
    pub traffic: Traffic,
    pub servers: Vec<ServerStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingStatus {
    /// IPv4 | IPv6; absent where one ring serves both.
    pub family: Option<String>,
    pub slots: u32,
    pub slots_unsettled: u32,
    /// Slots that nobody takes: no server of this family is usable.
    pub slots_empty: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    pub name: String,
    /// "10.0.5.91:8888", or without a port where a packet keeps its own.
    pub address: String,
    pub weight: u16,
    /// Takes connections only while no other server can.
    #[serde(default)]
    pub backup: bool,
    /// up | going down | down | going up | held | unchecked | no-check
    pub health: String,
    /// What an operator or an agent wants of it: ready | drain | maint
    #[serde(default)]
    pub admin: String,
    /// Why it is in this state: the last check's result.
    pub detail: String,
    /// Slots that new connections take to this server.
    pub slots: u32,
    /// Slots whose older connections belong to it.
    #[serde(default)]
    pub slots_base: u32,
    /// Records that name it, at the last complete sweep.
    #[serde(default)]
    pub flows: u64,
    /// The next hop's MAC address; absent while it is unresolved.
    pub neighbour: Option<String>,
    /// The interface packets leave through; absent without a route.
    pub interface: Option<String>,
    /// Bytes of the longest IP packet on the way to it, an outer header included.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// VLAN tags that frames to it carry, outermost first.
    #[serde(default)]
    pub vlans: Vec<u16>,
    /// Why packets cannot reach it.
    #[serde(default)]
    pub unreachable: Option<String>,
    pub traffic: Traffic,
}

/// What another configuration would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanStatus {
    /// Of the slots of all services.
    pub percent_moved: f64,
    pub services: Vec<ServicePlan>,
    /// What ends or moves connections of servers that live, one sentence each: refused unless forced.
    pub breaks: Vec<String>,
    /// What goes on purpose, and the connections with it.
    #[serde(default)]
    pub ends: Vec<String>,
    /// What changes only when the daemon starts again.
    pub next_start: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServicePlan {
    pub name: String,
    /// new | changed | unchanged | removed
    pub change: String,
    /// Of all its rings.
    pub slots: u32,
    /// Slots that give new connections to another server.
    pub slots_moved: u32,
    pub percent_moved: f64,
    /// Recorded now.
    pub flows: u64,
    pub servers_added: Vec<String>,
    pub servers_removed: Vec<String>,
    /// "web1: weight 3 to 5"
    pub servers_changed: Vec<String>,
}

/// The answer to a change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// What was done.
    pub done: String,
    pub plan: PlanStatus,
    /// What an operator should know of it, one sentence each.
    pub warnings: Vec<String>,
}

/// Client to server direction, since the state was first pinned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub packets: u64,
    /// IP total length.
    pub bytes: u64,
    /// TCP SYNs (a retransmission counts again), UDP flows where they are recorded.
    pub connections: u64,
}

/// One change of state: what the stream of events, `steelyard events` and a webhook get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventStatus {
    /// RFC 3339, in UTC, with microseconds; no two events of a daemon share it.
    pub time: String,
    pub node: String,
    /// "server-down", "reloaded", ...: docs/notices.md lists them.
    pub kind: String,
    /// info | warning
    pub level: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// A virtual router, or a group of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// operator | agent
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// All of it in one sentence.
    pub text: String,
}

/// Counter name to packets: every way a packet left the program.
pub type Counters = BTreeMap<String, u64>;

/// The answer to `explain`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub client: String,
    pub vip: String,
    pub protocol: String,
    /// The interface that the packets are taken to arrive on.
    #[serde(default)]
    pub arrival: Option<String>,
    /// Absent when no service has this address, port and protocol: such packets pass to the kernel.
    pub service: Option<String>,
    /// How the service was found: "address and port", or the network and the ports.
    #[serde(default)]
    pub found: Option<String>,
    pub forward: Option<String>,
    #[serde(default)]
    pub balance: Option<String>,
    /// Whether the client may use the service, and by which network.
    #[serde(default)]
    pub access: Option<String>,
    /// Index of the slot within the service's ring, and what it holds.
    pub slot: Option<SlotStatus>,
    /// The record that decides for exactly this connection.
    pub recorded: Option<RecordStatus>,
    /// What happens to the first packet of a new connection.
    pub new: Decision,
    /// What happens to a later packet of a connection, recorded or not; of UDP the same.
    pub established: Decision,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotStatus {
    pub index: u32,
    /// Server for new connections.
    pub current: Option<String>,
    /// Server that owns the connections nobody recorded.
    pub base: Option<String>,
    /// Whether records are looked up.
    pub lookup: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordStatus {
    pub server: String,
    pub idle_ms: u64,
    /// opening | established | closing | reset
    #[serde(default)]
    pub state: String,
    /// It stands for all connections of the client.
    #[serde(default)]
    pub of_client: bool,
    /// "10.0.5.93:1024" where the record owns a NAT source port.
    pub nat_source: Option<String>,
    /// Where `nat` and `gateway` send to.
    #[serde(default)]
    pub nat_destination: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub server: Option<String>,
    /// Why this one.
    pub reason: String,
    /// The header that would be sent, or what happens instead.
    pub sent: String,
    /// The counter of the way out.
    #[serde(default)]
    pub verdict: String,
    /// transmit | redirect | pass | drop
    #[serde(default)]
    pub action: String,
    /// Of a packet that goes to a server.
    #[serde(default)]
    pub header: Option<HeaderStatus>,
    /// Bytes of the client's longest IP packet that fits the way to the server.
    #[serde(default)]
    pub packet_max: Option<u32>,
    /// What else the program counted, and what it could not try.
    #[serde(default)]
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderStatus {
    pub interface: String,
    pub source_mac: String,
    pub destination_mac: String,
    /// Outermost first.
    pub vlans: Vec<u16>,
    /// Of `ipip` and `gue`.
    pub outer: Option<OuterStatus>,
    /// "192.0.2.1:40000"
    pub source: String,
    pub destination: String,
    pub ttl: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OuterStatus {
    /// With the UDP ports of `gue`.
    pub source: String,
    pub destination: String,
    pub ttl: u8,
}

/// The answer to `flows`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// Recorded; a pair of records counts once. More than are shown when there are very many.
    pub total: u64,
    /// Sorted by service address, protocol and client.
    pub flows: Vec<FlowStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// Absent when it is no longer configured.
    pub service: Option<String>,
    /// "192.0.2.1:40000", or without a port in the record of a client.
    pub client: String,
    pub vip: String,
    /// The record is a client's: it stands for all its connections with the service.
    pub all_ports: bool,
    pub protocol: String,
    pub server: String,
    /// opening | established | closing | reset
    pub state: String,
    pub idle_s: u64,
    /// What the client's packets become with `nat` and `gateway`.
    pub rewritten: Option<EndsStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndsStatus {
    pub source: String,
    pub destination: String,
}
