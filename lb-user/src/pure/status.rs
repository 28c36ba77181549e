//! What readers see: the serialized forms that the admin socket sends and the command line shows.
//!
//! Not the model: fields are added here, never renamed, and hold plain values with their units.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatapathStatus {
    pub interfaces: Vec<InterfaceStatus>,
    /// Records in the flow table at the last complete sweep.
    pub flows: u64,
    pub flows_max: u64,
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
    pub slots: u32,
    /// Slots whose flows are looked up because their server changed.
    pub slots_unsettled: u32,
    pub servers_usable: u32,
    pub traffic: Traffic,
    pub servers: Vec<ServerStatus>,
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
    /// up | down | unchecked | no-check
    pub health: String,
    /// Why it is in this state: the last check's result.
    pub detail: String,
    /// Slots that new connections take to this server.
    pub slots: u32,
    /// The next hop's MAC address; absent while it is unresolved.
    pub neighbour: Option<String>,
    /// The interface packets leave through; absent without a route.
    pub interface: Option<String>,
    pub traffic: Traffic,
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

/// Counter name to packets: every way a packet left the program.
pub type Counters = BTreeMap<String, u64>;

/// The answer to `explain`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub client: String,
    pub vip: String,
    pub protocol: String,
    /// Absent when no service has this address, port and protocol: such packets pass to the kernel.
    pub service: Option<String>,
    pub forward: Option<String>,
    /// Index of the slot within the service's ring, and what it holds.
    pub slot: Option<SlotStatus>,
    /// The live record of exactly this connection.
    pub recorded: Option<RecordStatus>,
    /// What happens to the first packet of a new connection.
    pub new: Decision,
    /// What happens to a later packet of a connection that nobody recorded.
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
    /// "10.0.5.93:1024" where the record owns a NAT source port.
    pub nat_source: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub server: Option<String>,
    /// Why this one.
    pub reason: String,
    /// The header that would be sent, or what happens instead.
    pub sent: String,
}
