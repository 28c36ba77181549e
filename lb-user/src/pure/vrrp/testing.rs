//! For tests: configurations, and a link on which nodes hear each other late, twice out of order, or not at all.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use super::{
    advert::Seen,
    happening::Happening,
    node::{Action, Input, Link, Node, RouterId, Settings, State},
};
use crate::pure::{
    config::{
        model::{
            Cluster, Secret,
            vrrp::{
                Address, AddressCheck, Announce, Auth, Checksum, Hooks, Preempt, Router, Version, Vrrp, Wish,
            },
        },
        network::Family,
    },
    testing::an_instant,
};

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn vip(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, 0, 100).into(),
        Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100).into(),
    }
}

pub(super) fn an_address(address: IpAddr) -> Address {
    Address { address, prefix: 24, dev: None, label: None, scope: None, broadcast: None }
}

/// Version 3, VRID 51 on eth0, priority 100, an advert each second.
pub(super) fn a_router(name: &str) -> Router {
    Router {
        name: name.to_owned(),
        interface: "eth0".to_owned(),
        vrid: 51,
        family: Family::V4,
        version: Version::V3,
        priority: 100,
        wish: Wish::Backup,
        interval: ms(1_000),
        down_timer_adverts: 3,
        addresses: vec![an_address(vip(Family::V4))],
        excluded: Vec::new(),
        routes: Vec::new(),
        rules: Vec::new(),
        preempt: Preempt::After(Duration::ZERO),
        start_delay: Duration::ZERO,
        unicast_peers: Vec::new(),
        source: None,
        multicast: None,
        auth: Auth::None,
        checksum: Checksum::Auto,
        address_check: AddressCheck::Report,
        virtual_mac: None,
        accept: true,
        announce: Announce {
            times: [0, 10, 50, 200, 1_000].map(ms).to_vec(),
            delay: Duration::ZERO,
            refresh: Duration::ZERO,
            spacing: Duration::ZERO,
        },
        track: Vec::new(),
        hand_over: true,
        refuse_on_mismatch: false,
        notify: Hooks::default(),
    }
}

pub(super) fn settings(vrrp: Vrrp) -> Settings {
    let cluster = Cluster {
        secret: Secret::Unset,
        peers: Vec::new(),
        port: 0,
        heartbeat: Duration::ZERO,
        patience: Duration::ZERO,
    };
    Settings { vrrp, cluster, secret: None }
}

pub(super) fn routers(routers: impl IntoIterator<Item = Router>) -> Settings {
    settings(Vrrp { routers: routers.into_iter().collect(), ..Vrrp::default() })
}

/// eth0 of the node `n`: 10.0.0.n, fe80::n.
pub(super) fn eth0(n: u8) -> Link {
    Link {
        name: "eth0".to_owned(),
        index: 2,
        is_up: true,
        mac: [2, 0, 0, 0, 0, n],
        addresses: vec![
            (Ipv4Addr::new(10, 0, 0, n).into(), 24),
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n.into()).into(), 64),
        ],
    }
}

/// Nodes on one link.
pub(super) struct Lan {
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) nodes: Vec<Station>,
    on_wire: BTreeMap<(Instant, u64), Packet>,
    /// Of 256 packets.
    pub(super) lost_of_256: u64,
    pub(super) delay_max: Duration,
    random: u64,
    packets: u64,
    pub(super) told: Vec<Told>,
}

pub(super) struct Told {
    pub(super) at: Duration,
    /// Of which node, and of which of its starts.
    pub(super) by: (usize, u32),
    pub(super) what: Happening,
}

pub(super) struct Station {
    pub(super) node: Node,
    pub(super) is_alive: bool,
    /// Of each router, whether anything is installed.
    pub(super) installed: BTreeMap<RouterId, bool>,
    sources: BTreeMap<RouterId, IpAddr>,
    starts: u32,
}

struct Packet {
    to: usize,
    seen: Seen,
    bytes: Vec<u8>,
}

impl Lan {
    /// Every node is ready and has its settings.
    pub(super) fn new(settings: Vec<Settings>, random: u64) -> Lan {
        let start = an_instant();
        let mut lan = Lan {
            now: start,
            start,
            nodes: Vec::new(),
            on_wire: BTreeMap::new(),
            lost_of_256: 0,
            delay_max: ms(1),
            random,
            packets: 0,
            told: Vec::new(),
        };
        for settings in settings {
            lan.nodes.push(Station::new(start, 0));
            lan.boot(lan.nodes.len() - 1, settings);
        }
        lan
    }

    /// The node starts, with nothing of before but what it has in the kernel.
    pub(super) fn boot(&mut self, n: usize, settings: Settings) {
        self.nodes[n] = Station::new(self.now, self.nodes[n].starts + 1);
        let link = eth0(n as u8 + 1);
        for input in [Input::Link(link), Input::Configure(settings), Input::Ready(true)] {
            self.input(n, input);
        }
    }

    pub(super) fn crash(&mut self, n: usize) {
        self.nodes[n].is_alive = false;
    }

    pub(super) fn input(&mut self, n: usize, input: Input<'_>) {
        self.nodes[n].node.handle(self.now, input);
        self.carry_out(n);
    }

    fn carry_out(&mut self, n: usize) {
        for action in self.nodes[n].node.take_actions() {
            match action {
                Action::Open { router, sockets } => {
                    self.nodes[n].sources.insert(router, sockets.source);
                }
                Action::Send { router, destination, bytes } => self.send(n, router, destination, &bytes),
                Action::Install { router, estate } => {
                    self.nodes[n].installed.insert(router, !estate.addresses.is_empty());
                }
                Action::Happened(what) => {
                    let by = (n, self.nodes[n].starts);
                    self.told.push(Told { at: self.now - self.start, by, what });
                }
                Action::Close { .. } | Action::Frame { .. } | Action::Tell { .. } | Action::Stopped => {}
            }
        }
    }

    fn send(&mut self, from: usize, router: RouterId, destination: IpAddr, bytes: &[u8]) {
        let source = self.nodes[from].sources[&router];
        for to in (0..self.nodes.len()).filter(|&to| to != from) {
            if self.random() % 256 < self.lost_of_256 {
                continue;
            }
            let delay = self.delay_max.mul_f64((self.random() % 1_000) as f64 / 1_000.0);
            let seen = Seen { interface: 2, source, destination, ttl: 255 };
            self.packets += 1;
            self.on_wire.insert((self.now + delay, self.packets), Packet { to, seen, bytes: bytes.to_vec() });
        }
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.step(until) {}
        self.now = until;
    }

    /// The next thing to happen, if it is not after `until`.
    fn step(&mut self, until: Instant) -> bool {
        let deadline = |(n, station): (usize, &Station)| Some((station.deadline()?, n));
        let node = self.nodes.iter().enumerate().filter_map(deadline).min();
        let packet = self.on_wire.first_key_value().map(|(&(at, _), _)| at);
        match (node, packet) {
            (node, Some(at)) if at <= until && node.is_none_or(|(deadline, _)| at <= deadline) => {
                self.now = at;
                let Some((_, Packet { to, seen, bytes })) = self.on_wire.pop_first() else { return false };
                if self.nodes[to].is_alive {
                    self.input(to, Input::Packet { seen, bytes: &bytes });
                }
                true
            }
            (Some((deadline, n)), _) if deadline <= until => {
                self.now = self.now.max(deadline);
                self.input(n, Input::Pass);
                true
            }
            (_, _) => false,
        }
    }

    /// Nodes that live and have their first router Active.
    pub(super) fn active(&self) -> Vec<usize> {
        let is = |n: &usize| self.nodes[*n].is_alive && self.state(*n) == State::Active.name();
        (0..self.nodes.len()).filter(is).collect()
    }

    pub(super) fn state(&self, n: usize) -> String {
        self.nodes[n].node.status(self.now).routers[0].state.clone()
    }

    pub(super) fn random(&mut self) -> u64 {
        // SplitMix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Station {
    fn new(now: Instant, starts: u32) -> Station {
        let (installed, sources) = (BTreeMap::new(), BTreeMap::new());
        Station { node: Node::new(now, 1), is_alive: true, installed, sources, starts }
    }

    fn deadline(&self) -> Option<Instant> {
        self.node.deadline().filter(|_| self.is_alive)
    }
}
