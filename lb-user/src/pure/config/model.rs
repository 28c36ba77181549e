//! What a configuration means: every value checked, every default filled in, every reference resolved.
//!
//! Owns the types the rest of the program reads. Must not know TOML, files or positions: those end in
//! `raw` and `error`.

pub mod check;
pub mod vrrp;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use self::{check::Check, vrrp::Vrrp};
use super::network::{Family, Network, Ports};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub global: Global,
    pub cluster: Cluster,
    pub datapath: Datapath,
    pub log: Log,
    pub notify: Notify,
    /// In the order of the file; names are unique. Where two could take the same packet, one is more specific:
    /// the longer prefix wins, then the narrower range of ports.
    pub services: Vec<Service>,
    pub vrrp: Vrrp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// None: the host name.
    pub node: Option<String>,
    pub admin_socket: PathBuf,
    /// Directory of what must outlive the daemon and is in no configuration.
    pub state: PathBuf,
}

/// Who is told of changes, beside the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// A program and its arguments; empty: none.
    pub command: Vec<String>,
    /// The URL, http or https, that events are posted to.
    pub webhook: Option<String>,
    pub mail: Option<Mail>,
    /// Of one delivery.
    pub timeout: Duration,
    /// Deliveries of each kind in a minute; what is more is summed up.
    pub per_minute: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Host, and port where it is not 25.
    pub server: String,
    pub from: String,
    pub to: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub secret: Secret,
    /// The other nodes; empty: this node stands alone, or beside others' routers only.
    pub peers: Vec<IpAddr>,
    /// UDP, of heartbeats; what is replicated comes on the next one.
    pub port: u16,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Without a heartbeat for so long a peer is gone.
    pub patience: Duration,
}

/// Seeds the flow hash; the same on every node of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Unset,
    Inline(String),
    /// Read by the caller; the content without its final newline is the secret.
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datapath {
    /// Where XDP is attached; at least one when there are services.
    pub interfaces: Vec<String>,
    pub mode: XdpMode,
    /// Records in the flow table; a NAT flow takes two.
    pub flows: u32,
    /// Source addresses for `forward = "nat"`; none of a family: the address the route to the server prefers.
    pub nat_source: Vec<IpAddr>,
    /// Directory on bpffs that holds the pinned maps and links.
    pub pin: PathBuf,
    /// So long after the last sign of a daemon packets pass to the kernel. None: forwarding goes on.
    pub watchdog: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// Native, else generic with a warning.
    Auto,
    Native,
    Generic,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// error | warn | info | debug | trace
    pub level: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    /// At least one, no duplicates.
    pub addresses: Vec<Network>,
    pub ports: Ports,
    /// One or both; TCP first.
    pub protocols: Vec<Protocol>,
    pub forward: Forward,
    pub balance: Balance,
    /// One client address stays on one server until it was silent this long. None: each connection for itself.
    pub persistence: Option<Duration>,
    /// A power of two, `SLOTS_MIN..=SLOTS_MAX` of `lb_common::limits`.
    pub slots: u32,
    pub idle: IdleTimeout,
    /// The most that SYNs may announce.
    pub mss: Option<u16>,
    pub no_server: NoServer,
    pub access: Access,
    pub check: Check,
    /// From a server's recovery until it takes its whole share.
    pub slow_start: Option<Duration>,
    /// Percent of the servers: with fewer usable ones, all are used. 0: never.
    pub panic: u8,
    pub damping: Option<Damping>,
    /// Connections in a row that a server of `nat` or `gateway` refuses or leaves unanswered before it is checked out
    /// of turn. 0: never; so it is in the other modes.
    pub suspect_after: u32,
    /// Addresses with ports are unique within a service, and so are names.
    pub servers: Vec<Server>,
}

/// A server that changed too often stays down for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damping {
    /// Times that it went down.
    pub changes: u32,
    pub within: Duration,
    pub hold: Duration,
}

/// How long a recorded flow may be silent before its record is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleTimeout {
    pub tcp: Duration,
    pub udp: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// Destination and source rewritten; replies come back through the balancer.
    Nat,
    /// Destination rewritten; servers route their replies through the balancer.
    Gateway,
    /// Destination MAC rewritten, the VIP kept; the server answers the client itself.
    Dsr,
    /// The packet within another IP packet to the server, which opens it and answers the client itself.
    Ipip,
    /// The same within UDP.
    Gue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Weighted consistent hashing of the connection.
    Maglev,
    /// The same of the client's address alone.
    Source,
    /// New connections in turn, by weight.
    RoundRobin,
    /// The fewest connections by weight, among a few drawn in turn.
    LeastConn,
}

/// What a client gets when a service has no usable server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoServer {
    Reset,
    Drop,
}

/// Client networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Empty: everyone.
    pub allow: Vec<Network>,
    /// Wins, however long the prefixes are.
    pub deny: Vec<Network>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub name: String,
    /// Port 0: a packet keeps the port it came with.
    pub address: SocketAddr,
    /// 0 takes no new connections.
    pub weight: u16,
    /// Takes connections only while no other server can.
    pub backup: bool,
    /// As an operator set it while the daemon ran; a file says nothing of it.
    pub admin: Admin,
}

/// What an operator, or an agent, wants of a server, whatever its checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Admin {
    #[default]
    Ready,
    /// Its connections go on; it takes no new ones.
    Drain,
    /// Nothing is sent to it.
    Maintenance,
}

impl std::fmt::Debug for Secret {
    /// Never the secret itself: debug output ends in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Secret::Unset => f.write_str("Unset"),
            Secret::Inline(_) => f.write_str("Inline(..)"),
            Secret::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl Forward {
    pub fn name(self) -> &'static str {
        match self {
            Forward::Nat => "nat",
            Forward::Gateway => "gateway",
            Forward::Dsr => "dsr",
            Forward::Ipip => "ipip",
            Forward::Gue => "gue",
        }
    }

    /// The packet arrives at the server as the client sent it, so its port cannot change.
    pub fn keeps_port(self) -> bool {
        match self {
            Forward::Nat | Forward::Gateway => false,
            Forward::Dsr | Forward::Ipip | Forward::Gue => true,
        }
    }

    /// The packet stays in its family: a server serves the service's addresses of its own family only.
    pub fn keeps_family(self) -> bool {
        match self {
            Forward::Nat | Forward::Gateway | Forward::Dsr => true,
            Forward::Ipip | Forward::Gue => false,
        }
    }
}

impl Admin {
    pub fn name(self) -> &'static str {
        match self {
            Admin::Ready => "ready",
            Admin::Drain => "drain",
            Admin::Maintenance => "maint",
        }
    }
}

impl Balance {
    pub fn name(self) -> &'static str {
        match self {
            Balance::Maglev => "maglev",
            Balance::Source => "source",
            Balance::RoundRobin => "roundrobin",
            Balance::LeastConn => "leastconn",
        }
    }

    /// Whether the client's address and port say which server a connection has: else only its record does.
    pub fn is_hash(self) -> bool {
        match self {
            Balance::Maglev | Balance::Source => true,
            Balance::RoundRobin | Balance::LeastConn => false,
        }
    }
}

impl Service {
    pub fn has(&self, family: Family) -> bool {
        self.addresses.iter().any(|network| network.family() == family)
    }

    /// One for each family of its addresses where packets stay in their family, else one for all (`None`).
    pub fn rings(&self) -> Vec<Option<Family>> {
        if !self.forward.keeps_family() {
            return vec![None];
        }
        Family::ALL.into_iter().filter(|&family| self.has(family)).map(Some).collect()
    }

    /// Whether the client's address alone says which server takes a connection.
    pub fn by_client(&self) -> bool {
        self.balance == Balance::Source || self.persistence.is_some()
    }

    /// Whether every connection is recorded, not only those whose server may have changed.
    pub fn records_all(&self) -> bool {
        !self.balance.is_hash() || self.forward == Forward::Nat && !self.by_client()
    }
}

impl Access {
    /// Whether every client of a family may connect.
    pub fn is_open(&self, family: Family) -> bool {
        let of_family = |network: &&Network| network.family() == family;
        let all = |network: &Network| network.length() == 0;
        (self.allow.is_empty() || self.allow.iter().filter(of_family).any(all))
            && !self.deny.iter().any(|network| of_family(&network))
    }
}
