//! What a configuration means: every value checked, every default filled in, every reference resolved.
//!
//! Owns the types the rest of the program reads. Must not know TOML, files or positions: those end in
//! `raw` and `error`.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub global: Global,
    pub cluster: Cluster,
    pub datapath: Datapath,
    pub log: Log,
    /// In the order of the file; names are unique, and no two hold the same address, port and protocol.
    pub services: Vec<Service>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// None: the host name.
    pub node: Option<String>,
    pub admin_socket: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub secret: Secret,
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
    /// Source addresses for `forward = "nat"`; empty: the address the route to the server prefers.
    pub nat_source: Vec<Ipv4Addr>,
    /// Directory on bpffs that holds the pinned maps and links.
    pub pin: PathBuf,
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
    pub addresses: Vec<Ipv4Addr>,
    pub port: u16,
    /// One or both; TCP first.
    pub protocols: Vec<Protocol>,
    pub forward: Forward,
    /// A power of two, `SLOTS_MIN..=SLOTS_MAX` of `lb_common::limits`.
    pub slots: u32,
    pub idle: IdleTimeout,
    pub no_server: NoServer,
    pub check: Check,
    /// Addresses with ports are unique within a service, and so are names.
    pub servers: Vec<Server>,
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
    /// Destination MAC rewritten, the VIP kept; the server answers the client itself.
    Dsr,
}

/// What a client gets when a service has no usable server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoServer {
    Reset,
    Drop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub name: String,
    /// With `Forward::Dsr` the port is the service's.
    pub address: SocketAddrV4,
    /// 0 takes no new connections.
    pub weight: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    pub kind: CheckKind,
    /// From the start of one check to the start of the next.
    pub interval: Duration,
    /// Never longer than `interval`.
    pub timeout: Duration,
    /// Successes in a row that bring a server up; at least 1.
    pub rise: u32,
    /// Failures in a row that take it down; at least 1.
    pub fall: u32,
    /// None: the server's own port.
    pub port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// The server always counts as up.
    None,
    Tcp,
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
            Forward::Dsr => "dsr",
        }
    }
}
