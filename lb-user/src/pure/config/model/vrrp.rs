//! What `[[vrrp]]`, `[[vrrp_group]]` and the things that they track mean.
//!
//! Names are the field's: RFC 9568 for the protocol, Keepalived's words where an operator knows them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use crate::pure::config::network::{Family, Network};

/// All virtual routers of this node, and what they track.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vrrp {
    /// Names are unique, and so is (interface, VRID, family).
    pub routers: Vec<Router>,
    /// Each names at least one router, and each router is in one group at the most.
    pub groups: Vec<Group>,
    /// Names are unique among the trackers of a kind.
    pub scripts: Vec<Script>,
    pub processes: Vec<Process>,
    pub files: Vec<TrackFile>,
    /// FIFOs that every change of state is written to, as Keepalived writes it.
    pub fifos: Vec<PathBuf>,
}

/// One virtual router: a VRID on an interface in a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    pub name: String,
    pub interface: String,
    /// 1 to 255.
    pub vrid: u8,
    /// Of the adverts.
    pub family: Family,
    pub version: Version,
    /// 1 to 255; 255 is the addresses' owner.
    pub priority: u8,
    pub wish: Wish,
    /// Version 2: whole seconds, 1 to 255. Version 3: 10 ms to 40.95 s in steps of 10 ms.
    pub interval: Duration,
    /// Adverts that may be missed: 3 in the RFC, 1 to 100.
    pub down_timer_adverts: u8,
    /// Those in the adverts, of `family`. May be empty.
    pub addresses: Vec<Address>,
    /// Those that move along but are in no advert, of either family.
    pub excluded: Vec<Address>,
    pub routes: Vec<Route>,
    pub rules: Vec<Rule>,
    pub preempt: Preempt,
    /// After the start, before it takes part.
    pub start_delay: Duration,
    /// Empty: multicast.
    pub unicast_peers: Vec<UnicastPeer>,
    /// Of the adverts; None: the interface's first address, link-local in IPv6.
    pub source: Option<IpAddr>,
    /// None: 224.0.0.18, ff02::12.
    pub multicast: Option<IpAddr>,
    pub auth: Auth,
    pub checksum: Checksum,
    pub address_check: AddressCheck,
    pub virtual_mac: Option<VirtualMac>,
    /// Whether the addresses answer though this node does not own them (RFC 9568, Accept_Mode).
    pub accept: bool,
    pub announce: Announce,
    pub track: Vec<Track>,
    /// Resign at once when the own priority falls below a rival's last advert, instead of being outbid.
    pub hand_over: bool,
    /// Stay in Backup while adverts for this VRID arrive that are rejected.
    pub refuse_on_mismatch: bool,
    pub notify: Hooks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// RFC 3768.
    V2,
    /// RFC 9568.
    V3,
}

/// What it would like to be at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Master,
    Backup,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub address: IpAddr,
    pub prefix: u8,
    /// None: the router's interface.
    pub dev: Option<String>,
    /// IPv4 only, at most 15 characters.
    pub label: Option<String>,
    pub scope: Option<Scope>,
    pub broadcast: Option<Ipv4Addr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Global,
    Site,
    Link,
    Host,
}

/// A route of the virtual router: there while it is Active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub to: Network,
    pub via: Option<IpAddr>,
    /// None: the router's interface, unless `via` says where.
    pub dev: Option<String>,
    pub src: Option<IpAddr>,
    /// None: main.
    pub table: Option<u32>,
    pub metric: Option<u32>,
    pub scope: Option<Scope>,
}

/// A policy rule of the virtual router: there while it is Active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub from: Option<Network>,
    pub to: Option<Network>,
    pub iif: Option<String>,
    pub table: u32,
    pub priority: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preempt {
    Never,
    /// So long after it could.
    After(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnicastPeer {
    pub address: IpAddr,
    /// What its adverts' TTL may be.
    pub ttl: (u8, u8),
}

#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    None,
    /// Version 2 only (RFC 2338, type 1): the password in clear, filled up with zeros.
    Pass([u8; 8]),
    /// A trailer behind the message, as Keepalived 2.4 sends it.
    Hmac(Hmac),
}

#[derive(Clone, PartialEq, Eq)]
pub struct Hmac {
    /// At least one, of different ids. The first signs; each verifies.
    pub keys: Vec<HmacKey>,
    pub mode: HmacMode,
}

#[derive(Clone, PartialEq, Eq)]
pub struct HmacKey {
    /// 1 to 255.
    pub id: u8,
    /// 32 to 64 bytes.
    pub key: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HmacMode {
    /// Signs, and takes signed adverts only.
    Enforce,
    /// Signs, and takes unsigned adverts, too.
    Permissive,
    /// Does not sign yet; verifies what is signed.
    ReceiveOnly,
}

/// How the checksum of IPv4 adverts of version 3 is made. Both forms are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// As the last peer's; without one yet as Keepalived and FRR do, with a pseudo header.
    Auto,
    PseudoHeader,
    /// RFC 9568.
    MessageOnly,
}

/// Whether the addresses of an advert must be those of the router. A difference is always told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressCheck {
    /// It is taken: two nodes that own some address both are worse than one that owns the wrong ones.
    Report,
    /// It is refused, unless it is of the master that sent the last one (`vrrp_skip_check_adv_addr`).
    NewMaster,
    /// It is refused, after a grace of a minute in which the other node may be reloaded, too.
    Refuse,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualMac {
    /// None: "vrrp.51", "vrrp6.51".
    pub name: Option<String>,
    /// Adverts leave through the interface below, with its own MAC.
    pub transmit_base: bool,
}

/// Gratuitous ARP and unsolicited neighbour advertisements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    /// After becoming Active, from then on.
    pub times: Vec<Duration>,
    /// A second round so long after; zero: none.
    pub delay: Duration,
    /// While Active; zero: never.
    pub refresh: Duration,
    /// Between two on one interface; zero: at once.
    pub spacing: Duration,
}

/// What becomes of a router when something that it tracks fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    pub what: Tracked,
    pub effect: Effect,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tracked {
    Interface(String),
    Script(String),
    Process(String),
    File(String),
    /// Fails while it has no usable server.
    Service(String),
    /// Fails while this node cannot forward.
    Datapath,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Fault while it fails; reversed: while it does not.
    Fault { reverse: bool },
    /// Positive: added while it succeeds. Negative: taken off while it fails. Reversed: the other way round.
    /// -253 to 253, never 0.
    Weight { weight: i16, reverse: bool },
    /// A file's: its number times this is added. -254 to 254, never 0.
    Scaled { weight: i16 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub name: String,
    /// A program and its arguments.
    pub command: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub rise: u32,
    pub fall: u32,
    /// None: the daemon's.
    pub user: Option<String>,
    /// Counts as failed until it succeeded `rise` times; else the first result decides.
    pub init_fail: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub name: String,
    /// The program's file name, or its path where it has a slash.
    pub process: String,
    /// At least so many.
    pub quorum: u32,
    /// At the most so many.
    pub quorum_max: Option<u32>,
    /// From a change of their number until it counts.
    pub delay: Duration,
}

/// A file with a number in it, or one whose presence counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackFile {
    pub name: String,
    pub path: PathBuf,
    pub interval: Duration,
}

/// Routers that change state together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub members: Vec<String>,
    pub track: Vec<Track>,
    pub notify: Hooks,
}

/// Programs that are told of changes of state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Runs with `INSTANCE|GROUP NAME STATE PRIORITY` behind its own arguments, at every change.
    pub any: Option<Hook>,
    pub master: Option<Hook>,
    pub backup: Option<Hook>,
    pub fault: Option<Hook>,
    pub stop: Option<Hook>,
    pub deleted: Option<Hook>,
    /// Active heard an advert of lower priority.
    pub lower_priority: Option<Hook>,
    /// Mail of every change to those of `[notify]`.
    pub mail: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// A program and its arguments.
    pub command: Vec<String>,
    pub user: Option<String>,
}

impl Version {
    pub fn number(self) -> u8 {
        match self {
            Version::V2 => 2,
            Version::V3 => 3,
        }
    }
}

impl Vrrp {
    /// Whether some router brings this address along.
    pub fn moves(&self, address: IpAddr) -> bool {
        self.routers.iter().any(|router| router.all_addresses().any(|own| own.address == address))
    }
}

impl Router {
    /// Those in the adverts and the others.
    pub fn all_addresses(&self) -> impl Iterator<Item = &Address> + Clone {
        self.addresses.iter().chain(&self.excluded)
    }

    /// The addresses' owner (RFC 9568, section 1.7).
    pub fn is_owner(&self) -> bool {
        self.priority == u8::MAX
    }

    /// Skew_Time by the configured priority, where adverts come `interval` apart (RFC 3768 and RFC 9568, section 6.1).
    pub fn skew(&self, interval: Duration) -> Duration {
        let unit = match self.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => interval,
        };
        unit * (256 - u32::from(self.priority)) / 256
    }

    pub fn is_unicast(&self) -> bool {
        !self.unicast_peers.is_empty()
    }

    /// Where its adverts go when they are multicast.
    pub fn group_address(&self) -> IpAddr {
        self.multicast.unwrap_or(match self.family {
            Family::V4 => Ipv4Addr::new(224, 0, 0, 18).into(),
            Family::V6 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12).into(),
        })
    }

    /// 00-00-5E-00-01-{VRID}, 00-00-5E-00-02-{VRID} (RFC 9568, section 7.3).
    pub fn virtual_router_mac(&self) -> [u8; 6] {
        let family = match self.family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        [0, 0, 0x5e, 0, family, self.vrid]
    }
}

impl fmt::Display for Tracked {
    /// "script chk_haproxy", as the status has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Tracked::Interface(name) => ("interface", name),
            Tracked::Script(name) => ("script", name),
            Tracked::Process(name) => ("process", name),
            Tracked::File(name) => ("file", name),
            Tracked::Service(name) => ("service", name),
            Tracked::Datapath => return f.write_str("datapath"),
        };
        write!(f, "{kind} {name}")
    }
}

impl fmt::Debug for Auth {
    /// Never the password: debug output ends in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Auth::None => f.write_str("None"),
            Auth::Pass(_) => f.write_str("Pass(..)"),
            Auth::Hmac(hmac) => f.debug_tuple("Hmac").field(hmac).finish(),
        }
    }
}

impl fmt::Debug for Hmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| key.id).collect();
        f.debug_struct("Hmac").field("keys", &ids).field("mode", &self.mode).finish()
    }
}
