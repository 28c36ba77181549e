//! The tables of the cases: one client, two servers, two interfaces, two NAT sources, of each family.
//!
//! ```text
//! client ── FRONT ── balancer ── BACK ── server A, server B
//! ```

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use lb_common::fragment::{FragmentEntry, FragmentKey};
use lb_common::{
    entry::{Hop, Mode, Rule, Scheduler, Server, Service, Tags},
    flow::{NAT_REPLY, NAT_REQUEST, OPENING, Ticks},
    flow_table::WAYS,
    hash::HashKey,
    limits::SLOTS_MIN,
    net::{Be16, Mac, TCP, UDP},
    slot::{ServerId, Slot},
};
use lb_user::pure::{
    config::network::{Family, Network},
    plan::{self, Step, Tables, Verdict, diff},
};

pub use super::host::records::{Key, NAT_SOURCES, NAT_SOURCES6, Record, Rewrite};

/// Tables and flow records at one moment.
#[derive(Debug, Clone)]
pub struct World {
    pub now: Ticks,
    pub tables: Tables,
    /// Services that stood in the table before, and were removed.
    pub removed: Vec<plan::Key>,
    pub flows: Vec<(Key, Record)>,
    pub fragments: Vec<(FragmentKey, FragmentEntry)>,
    /// ICMP errors sent in this tick.
    pub answered: u32,
    pub turns: BTreeMap<u32, u64>,
    pub load: BTreeMap<ServerId, u64>,
    /// Of the flow table of each family.
    pub capacity: u32,
    pub watchdog: Option<Watchdog>,
    /// Records are on their way from another table.
    pub moving: bool,
}

/// In ticks: how long no daemon has been alive, and after how long packets pass.
#[derive(Debug, Clone, Copy)]
pub struct Watchdog {
    pub silent: u32,
    pub patience: u32,
}

impl World {
    /// The web service over TCP and the name service over UDP, all slots settled on server A of their family.
    pub fn new(mode: Mode, now: Ticks) -> World {
        let mut tables = Tables {
            hash_key: HASH_KEY,
            nat_sources: [NAT_SOURCES, NAT_SOURCES6].concat(),
            devices: [FRONT, BACK].into(),
            ..Tables::default()
        };
        for peer in PEERS {
            tables.servers.insert(peer.id, server(peer));
            if mode == Mode::Gateway {
                tables.gateways.insert(peer.target.ip());
            }
        }
        let services = Family::ALL.into_iter().flat_map(|family| {
            let Ends { web, names, .. } = ends(family);
            let first = if family == Family::V4 { A } else { A6 };
            [(*web, TCP, TCP_IDLE, first), (*names, UDP, UDP_IDLE, first)]
        });
        for (ring, (vip, protocol, idle_ticks, first)) in (0..).zip(services) {
            let ring_base = ring * SLOTS_MIN;
            let service = Service { mode, ring_base, idle_ticks, ..SERVICE };
            tables.services.insert(key(vip, protocol), service);
            tables.services.insert(plan::Key::of_vip(vip.ip()), service);
            tables.rings.insert(ring_base, Arc::new(vec![Slot::settled(first); SLOTS_MIN as usize]));
        }
        World {
            now,
            tables,
            removed: Vec::new(),
            flows: Vec::new(),
            fragments: Vec::new(),
            answered: 0,
            turns: BTreeMap::new(),
            load: BTreeMap::new(),
            capacity: CAPACITY,
            watchdog: None,
            moving: false,
        }
    }

    pub fn watched(self, silent: u32, patience: u32) -> World {
        World { watchdog: Some(Watchdog { silent, patience }), ..self }
    }

    /// Every slot of every ring.
    pub fn slots(mut self, slot: Slot) -> World {
        self.tables.rings.values_mut().for_each(|ring| *ring = Arc::new(vec![slot; ring.len()]));
        self
    }

    /// One slot of the web service's ring.
    pub fn slot(mut self, index: usize, slot: Slot) -> World {
        let ring = self.tables.rings.entry(WEB_RING).or_default();
        Arc::make_mut(ring)[index] = slot;
        self
    }

    pub fn server(mut self, id: ServerId, change: impl FnOnce(&mut Server)) -> World {
        change(self.tables.servers.entry(id).or_insert_with(|| server(PEERS[0])));
        self
    }

    /// All of them.
    pub fn servers(mut self, change: impl Fn(&mut Server)) -> World {
        self.tables.servers.values_mut().for_each(change);
        self
    }

    /// The servers answer on the interface that requests arrive on.
    pub fn one_arm(self) -> World {
        self.servers(|server| {
            server.hop.interface = FRONT;
            server.hop.source_mac = Mac::from_bytes(FRONT_MAC);
        })
    }

    /// The servers are reached with these VLAN tags, the outer one first.
    pub fn behind(self, tags: &[u16]) -> World {
        let tags = tags.iter().fold(Tags::default(), |tags, &tag| tags.with(tag));
        self.servers(|server| server.hop.tags = tags)
    }

    pub fn dead(self, id: ServerId) -> World {
        self.server(id, |server| server.hop.lives = false)
    }

    pub fn services(mut self, change: impl Fn(&mut Service)) -> World {
        self.tables.services.values_mut().for_each(change);
        self
    }

    /// Another service, with servers and slots of the web service of its family.
    pub fn service(mut self, vip: SocketAddr, protocol: u8) -> World {
        let web = self.web(Family::of(vip.ip()));
        self.tables.services.insert(key(vip, protocol), web);
        self
    }

    pub fn web(&self, family: Family) -> Service {
        self.tables.services[&key(ends(family).web, TCP)]
    }

    /// No service is found by address, port and protocol.
    pub fn bare(mut self) -> World {
        self.tables.services.clear();
        self
    }

    pub fn rules(mut self, network: Network, rules: &[Rule]) -> World {
        self.tables.wildcards.insert(network, rules.to_vec());
        self
    }

    pub fn access(mut self, network: Network, verdict: Verdict) -> World {
        self.tables.access.insert((SERVICE.id, network), verdict);
        self.services(|service| service.access = true)
    }

    pub fn flow(mut self, key: Key, record: Record) -> World {
        self.flows.push((key, record));
        self
    }

    pub fn pair(mut self, pair: Pair) -> World {
        self.flows.extend(pair.records());
        self
    }

    /// Leaves `room` free places in a flow table of one bucket; strangers have the others.
    pub fn full_but(self, room: u32) -> World {
        let taken = self.flows.len() as u32;
        self.strangers(WAYS - room - taken, 0, 0)
    }

    /// `count` records in a flow table of one bucket, made `age` ticks ago, with the bits of `state`.
    pub fn strangers(mut self, count: u32, age: u32, state: u32) -> World {
        self.capacity = WAYS;
        let seen = ago(self.now, age);
        for _ in 0..count {
            let stranger = stranger(self.flows.len() as u16);
            self.flows.push((flow_key(stranger, WEB, TCP), record(A, seen, state)));
        }
        self
    }

    /// What makes these tables of empty ones.
    pub fn steps(&self) -> Vec<Step> {
        let any = Service { id: 9, mode: Mode::Dsr, reset: false, idle_ticks: 1, ..SERVICE };
        let before = self.removed.iter().map(|&key| Step::SetService(key, any));
        let wanted = diff(&Tables::default(), &self.tables);
        before.chain(wanted).chain(self.removed.iter().map(|&key| Step::RemoveService(key))).collect()
    }
}

/// A server of the world: where its packets go.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub id: ServerId,
    pub target: SocketAddr,
    pub mac: [u8; 6],
}

pub fn peer(id: ServerId) -> Peer {
    PEERS.into_iter().find(|peer| peer.id == id).expect("cases name servers of the world")
}

/// The ends that packets of a family have.
#[derive(Debug)]
pub struct Ends {
    pub client: SocketAddr,
    pub web: SocketAddr,
    pub names: SocketAddr,
    /// Servers A and B of the family.
    pub servers: [ServerId; 2],
    pub nat_sources: [IpAddr; 2],
    /// Source of the outer headers.
    pub own: IpAddr,
}

pub fn ends(family: Family) -> &'static Ends {
    match family {
        Family::V4 => &ENDS4,
        Family::V6 => &ENDS6,
    }
}

/// Both halves of a NAT flow.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub nat: SocketAddr,
    pub target: SocketAddr,
    pub protocol: u8,
    pub server: ServerId,
    pub request: Half,
    pub reply: Half,
}

/// What differs between the halves, or may.
#[derive(Debug, Clone, Copy)]
pub struct Half {
    pub seen: Ticks,
    pub state: u32,
    pub interface: u32,
    pub tags: Tags,
    pub peer_mac: [u8; 6],
    pub own_mac: [u8; 6],
}

impl Half {
    /// As a packet from the client by the usual way leaves it.
    pub fn new(seen: Ticks, state: u32) -> Half {
        Half {
            seen,
            state,
            interface: FRONT,
            tags: Tags::default(),
            peer_mac: CLIENT_MAC,
            own_mac: FRONT_MAC,
        }
    }
}

impl Pair {
    /// As a SYN makes it.
    pub fn opening(mut self) -> Pair {
        self.request.state |= OPENING;
        self.reply.state |= OPENING;
        self
    }

    /// The client's packets come with these tags, the outer one first.
    pub fn tagged(mut self, tags: &[u16]) -> Pair {
        let tags = tags.iter().fold(Tags::default(), |tags, &tag| tags.with(tag));
        self.request.tags = tags;
        self.reply.tags = tags;
        self
    }

    pub fn records(&self) -> [(Key, Record); 2] {
        let record = |half: Half, source: SocketAddr, destination: SocketAddr| {
            let Half { seen, state, interface, tags, peer_mac, own_mac } = half;
            let rewrite = Rewrite { source, destination, interface, tags, peer_mac, own_mac };
            Record { server: self.server, seen, state, rewrite: Some(rewrite) }
        };
        [
            (flow_key(self.client, self.vip, self.protocol), record(self.request, self.nat, self.target)),
            (flow_key(self.target, self.nat, self.protocol), record(self.reply, self.vip, self.client)),
        ]
    }
}

/// One of many clients that no case sends packets of.
fn stranger(number: u16) -> SocketAddr {
    v4([198, 51, 100, 1], 20_000 + number)
}

/// A record of a flow that is not rewritten, or a half that leads nowhere.
pub fn record(server: ServerId, seen: Ticks, state: u32) -> Record {
    let none = v4([0; 4], 0);
    let nowhere = Rewrite {
        source: none,
        destination: none,
        interface: 0,
        tags: Tags::default(),
        peer_mac: [0; 6],
        own_mac: [0; 6],
    };
    let is_half = state & (NAT_REQUEST | NAT_REPLY) != 0;
    Record { server, seen, state, rewrite: is_half.then_some(nowhere) }
}

pub fn flow_key(source: SocketAddr, destination: SocketAddr, protocol: u8) -> Key {
    Key::new(source, destination, protocol)
}

pub fn key(vip: SocketAddr, protocol: u8) -> plan::Key {
    plan::Key::new(vip.ip(), vip.port(), protocol)
}

/// `ticks` before `now`, on a clock that wraps.
pub fn ago(now: Ticks, ticks: u32) -> Ticks {
    Ticks(now.0.wrapping_sub(ticks))
}

fn server(peer: Peer) -> Server {
    let family = Family::of(peer.target.ip());
    Server {
        hop: Hop {
            lives: true,
            resolved: true,
            mac: Mac::from_bytes(peer.mac),
            source_mac: Mac::from_bytes(BACK_MAC),
            interface: BACK,
            tags: Tags::default(),
            mtu: MTU,
        },
        nat_first: if family == Family::V4 { 0 } else { 2 },
        nat_count: 1,
        address: peer.target.ip(),
        port: Be16::new(peer.target.port()),
        weight: 1,
        service: SERVICE.id,
        outer_source: ends(family).own,
    }
}

pub const fn v4([a, b, c, d]: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port)
}

/// Of the network 2001:db8:net::/48.
pub const fn v6(net: u16, host: u16, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host)), port)
}

/// The kernel ring runs in a namespace that has these two: its loopback, and a number no other is given.
pub const FRONT: u32 = 1;
pub const BACK: u32 = 77;
/// Of the way to every server.
pub const MTU: u16 = 1_500;

pub const CLIENT: SocketAddr = v4([192, 0, 2, 10], 40_000);
pub const WEB: SocketAddr = v4([203, 0, 113, 80], 80);
pub const NAMES: SocketAddr = v4([203, 0, 113, 80], 53);
pub const TARGET_A: SocketAddr = v4([10, 0, 0, 11], 8_080);
pub const TARGET_B: SocketAddr = v4([10, 0, 0, 12], 8_081);

const ENDS4: Ends = Ends {
    client: CLIENT,
    web: WEB,
    names: NAMES,
    servers: [A, B],
    nat_sources: NAT_SOURCES,
    own: v4([10, 0, 0, 1], 0).ip(),
};
const ENDS6: Ends = Ends {
    client: v6(1, 10, 40_000),
    web: v6(2, 80, 80),
    names: v6(2, 80, 53),
    servers: [A6, B6],
    nat_sources: NAT_SOURCES6,
    own: v6(10, 1, 0).ip(),
};

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub const FRONT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
pub const BACK_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
pub const A_MAC: [u8; 6] = [2, 0, 0, 0, 2, 0xa];
pub const B_MAC: [u8; 6] = [2, 0, 0, 0, 2, 0xb];

pub const A: ServerId = ServerId(1);
pub const B: ServerId = ServerId(2);
/// The same over IPv6.
pub const A6: ServerId = ServerId(11);
pub const B6: ServerId = ServerId(12);

pub const PEERS: [Peer; 4] = [
    Peer { id: A, target: TARGET_A, mac: A_MAC },
    Peer { id: B, target: TARGET_B, mac: B_MAC },
    Peer { id: A6, target: v6(10, 11, 8_080), mac: [2, 0, 0, 0, 6, 0xa] },
    Peer { id: B6, target: v6(10, 12, 8_081), mac: [2, 0, 0, 0, 6, 0xb] },
];

pub const SERVICE: Service = Service {
    id: 1,
    ring_base: 0,
    ring_mask: SLOTS_MIN - 1,
    mode: Mode::Dsr,
    scheduler: Scheduler::Ring,
    by_client: false,
    access: false,
    reset: true,
    mss: 0,
    idle_ticks: TCP_IDLE,
    client_ticks: CLIENT_IDLE,
};

pub const HASH_KEY: HashKey = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211]);
pub const TCP_IDLE: u32 = Ticks::in_ms(900_000);
pub const UDP_IDLE: u32 = Ticks::in_ms(30_000);
/// How long a client keeps its server.
pub const CLIENT_IDLE: u32 = Ticks::in_ms(3_600_000);

pub const RING_SLOTS: u32 = 8 * SLOTS_MIN;
const WEB_RING: u32 = 0;
const CAPACITY: u32 = 64;
