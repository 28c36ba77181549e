//! All virtual routers of this node, as one function over what happens.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{advert::Seen, happening::Happening};
use crate::pure::{
    config::model::{
        Cluster,
        vrrp::{Address, Route, Router, Rule, Tracked, Vrrp},
    },
    status::VrrpStatus,
};

/// RFC 9568, section 6.2, and Keepalived's Fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Not yet ready, or stopped.
    Initialize,
    Backup,
    Active,
    /// Something that it tracks fails: it neither sends nor wins.
    Fault,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Initialize => "initialize",
            State::Backup => "backup",
            State::Active => "active",
            State::Fault => "fault",
        }
    }

    /// As Keepalived's notify scripts and FIFOs have it.
    pub fn keepalived_name(self) -> &'static str {
        match self {
            State::Initialize => "INIT",
            State::Backup => "BACKUP",
            State::Active => "MASTER",
            State::Fault => "FAULT",
        }
    }
}

/// What routers are made from.
#[derive(Debug, Clone)]
pub struct Settings {
    pub vrrp: Vrrp,
    pub cluster: Cluster,
    /// Of the cluster; None: no heartbeat is sent or believed.
    pub secret: Option<Vec<u8>>,
}

/// A router as adapters name it; never reused while the thread lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub u32);

pub enum Input<'a> {
    /// Nothing happened but time.
    Pass,
    /// What the clock on the wall says at `now`: at the start, and once in a while. Signed adverts carry it.
    Clock(Timestamp),
    /// At the start and at every reload that is accepted.
    Configure(Settings),
    /// Everything known of one interface; again whenever it changes.
    Link(Link),
    /// It is not there, or no longer.
    LinkGone {
        name: String,
    },
    /// A VRRP message without its IP header, with whatever follows in the same IP packet.
    Packet {
        seen: Seen,
        bytes: &'a [u8],
    },
    /// An ARP packet or neighbour advertisement that claims an address of a router. Never our own.
    Claim {
        interface: u32,
        address: IpAddr,
        mac: [u8; 6],
    },
    /// What was installed for a router is gone, and nobody here removed it.
    Removed {
        router: RouterId,
    },
    Tracked {
        what: Tracked,
        verdict: Verdict,
    },
    /// Whether this node can serve: checks have a first result, and what peers know is imported.
    Ready(bool),
    /// An operator wants another node to be Active.
    FailOver {
        router: String,
    },
    /// A heartbeat port's datagram.
    Peer {
        source: IpAddr,
        bytes: &'a [u8],
    },
    /// An adapter could not do what was wanted.
    Failed {
        router: RouterId,
        what: String,
    },
    /// Resign everywhere, hand over where somebody takes over; `Action::Stopped` when all of it is done.
    Stop,
}

/// What is known of something tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No result yet: a tracker that decides about Fault holds its router in Initialize.
    Unknown,
    Up,
    Down,
    /// A file's number.
    Number(i32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub index: u32,
    /// Administratively up with carrier.
    pub is_up: bool,
    pub mac: [u8; 6],
    /// In the kernel's order, tentative ones left out.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// In the order in which they are to be done; those of one router never overtake each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sockets for a router's adverts. Again with other values when they change.
    Open {
        router: RouterId,
        sockets: Sockets,
    },
    Close {
        router: RouterId,
    },
    /// A message without its IP header.
    Send {
        router: RouterId,
        destination: IpAddr,
        bytes: Vec<u8>,
    },
    /// Make what it has in the kernel this, no more and no less. Empty: take all of it away.
    Install {
        router: RouterId,
        estate: Arc<Estate>,
    },
    /// An Ethernet frame: gratuitous ARP, unsolicited neighbour advertisement, or a probe.
    Frame {
        router: RouterId,
        interface: u32,
        bytes: Vec<u8>,
    },
    /// To a node of the cluster.
    Tell {
        peer: IpAddr,
        bytes: Vec<u8>,
    },
    Happened(Happening),
    Stopped,
}

/// Where a router's adverts go out and come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets {
    pub interface: u32,
    /// What others send is not heard, but for samples.
    pub vrid: u8,
    /// Of the adverts.
    pub source: IpAddr,
    /// The group to join; None: unicast.
    pub group: Option<IpAddr>,
}

/// What a router has in the kernel while it is Active.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Estate {
    /// The router's interface; what has no `dev` of its own is there.
    pub interface: String,
    pub addresses: Vec<Address>,
    pub routes: Vec<Route>,
    pub rules: Vec<Rule>,
}

/// See the module.
pub struct Node {
    settings: Settings,
    routers: BTreeMap<RouterId, Router>,
    actions: Vec<Action>,
}

impl Node {
    /// Without routers, until it is configured. `seed` makes the incarnation that peers tell this start by.
    pub fn new(_now: Instant, _seed: u64) -> Node {
        let cluster = Cluster {
            secret: crate::pure::config::model::Secret::Unset,
            peers: Vec::new(),
            port: 0,
            heartbeat: Duration::ZERO,
            patience: Duration::ZERO,
        };
        Node {
            settings: Settings { vrrp: Vrrp::default(), cluster, secret: None },
            routers: BTreeMap::new(),
            actions: Vec::new(),
        }
    }

    /// Takes one thing in that happened at `now`. Deadlines that have passed are handled before it.
    pub fn handle(&mut self, _now: Instant, input: Input<'_>) {
        if let Input::Configure(settings) = input {
            self.settings = settings;
        }
    }

    /// What is to be done since it was last asked.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When `Input::Pass` is due at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// As it is configured; None: it has left.
    pub fn router(&self, id: RouterId) -> Option<&Router> {
        self.routers.get(&id)
    }

    /// What operators see.
    pub fn status(&self, _now: Instant) -> VrrpStatus {
        let _ = &self.routers;
        VrrpStatus::default()
    }
}
