//! The tables of the cases: one client, two servers, two interfaces, two NAT sources.
//!
//! ```text
//! client ── FRONT ── balancer ── BACK ── server A, server B
//! ```

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use lb_common::{
    entry::{Hop, Mode, Server, Service, ServiceKey},
    flow::{FlowKey, FlowView, OPENING, Ticks, Tuple},
    flow_table::WAYS,
    hash::HashKey,
    limits::SLOTS_MIN,
    net::{Be16, Be32, Mac, TCP, UDP},
    slot::{ServerId, Slot},
};
use lb_user::pure::plan::{Step, Tables, diff};

/// Tables and flow records at one moment.
#[derive(Debug, Clone)]
pub struct World {
    pub now: Ticks,
    pub tables: Tables,
    /// Services that stood in the table before, and were removed.
    pub removed: Vec<ServiceKey>,
    pub flows: Vec<(FlowKey, FlowView)>,
    /// Of the flow table.
    pub capacity: u32,
}

impl World {
    /// The web service over TCP and the name service over UDP, all slots settled on server A.
    pub fn new(mode: Mode, now: Ticks) -> World {
        let mut tables = Tables {
            hash_key: HASH_KEY,
            nat_sources: NAT_SOURCES.to_vec(),
            devices: [FRONT, BACK].into(),
            ..Tables::default()
        };
        for (id, mac, target) in [(A, A_MAC, TARGET_A), (B, B_MAC, TARGET_B)] {
            tables.servers.insert(id, server(mac, target));
        }
        for (vip, protocol, ring_base, idle_ticks) in
            [(WEB, TCP, WEB_RING, TCP_IDLE), (NAMES, UDP, NAMES_RING, UDP_IDLE)]
        {
            let service =
                Service { id: 1, ring_base, ring_mask: SLOTS_MIN - 1, mode, reset: true, idle_ticks };
            tables.services.insert(key(vip, protocol), service);
            tables.rings.insert(ring_base, Arc::new(vec![Slot::settled(A); SLOTS_MIN as usize]));
        }
        World { now, tables, removed: Vec::new(), flows: Vec::new(), capacity: CAPACITY }
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
        change(self.tables.servers.entry(id).or_insert_with(|| server(A_MAC, TARGET_A)));
        self
    }

    /// The servers answer on the interface that requests arrive on.
    pub fn one_arm(self) -> World {
        let front = |server: &mut Server| {
            server.hop.interface = FRONT;
            server.hop.source_mac = Mac::from_bytes(FRONT_MAC);
        };
        self.server(A, front).server(B, front)
    }

    pub fn dead(self, id: ServerId) -> World {
        self.server(id, |server| server.hop.lives = false)
    }

    pub fn services(mut self, change: impl Fn(&mut Service)) -> World {
        self.tables.services.values_mut().for_each(change);
        self
    }

    /// Another service, with servers and slots of the web service.
    pub fn service(mut self, vip: SocketAddrV4, protocol: u8) -> World {
        let web = self.tables.services[&key(WEB, TCP)];
        self.tables.services.insert(key(vip, protocol), web);
        self
    }

    pub fn flow(mut self, key: FlowKey, view: FlowView) -> World {
        self.flows.push((key, view));
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
        let any = Service { id: 9, ring_base: 0, ring_mask: 0, mode: Mode::Dsr, reset: false, idle_ticks: 1 };
        let before = self.removed.iter().map(|&key| Step::SetService(key, any));
        let wanted = diff(&Tables::default(), &self.tables);
        before.chain(wanted).chain(self.removed.iter().map(|&key| Step::RemoveService(key))).collect()
    }
}

/// Both halves of a NAT flow.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    pub client: SocketAddrV4,
    pub vip: SocketAddrV4,
    pub nat: SocketAddrV4,
    pub target: SocketAddrV4,
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
    pub peer_mac: [u8; 6],
    pub own_mac: [u8; 6],
}

impl Half {
    /// As a packet from the client by the usual way leaves it.
    pub fn new(seen: Ticks, state: u32) -> Half {
        Half { seen, state, interface: FRONT, peer_mac: CLIENT_MAC, own_mac: FRONT_MAC }
    }
}

impl Pair {
    /// As a SYN makes it.
    pub fn opening(mut self) -> Pair {
        self.request.state |= OPENING;
        self.reply.state |= OPENING;
        self
    }

    pub fn records(&self) -> [(FlowKey, FlowView); 2] {
        let view = |half: Half, source: SocketAddrV4, destination: SocketAddrV4| FlowView {
            server: self.server.0,
            seen: half.seen,
            state: half.state,
            interface: half.interface,
            rewrite: tuple(source, destination),
            peer_mac: Mac::from_bytes(half.peer_mac).0,
            own_mac: Mac::from_bytes(half.own_mac).0,
        };
        [
            (flow_key(self.client, self.vip, self.protocol), view(self.request, self.nat, self.target)),
            (flow_key(self.target, self.nat, self.protocol), view(self.reply, self.vip, self.client)),
        ]
    }
}

/// One of many clients that no case sends packets of.
fn stranger(number: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 20_000 + number)
}

/// A record of a flow that is not rewritten.
pub fn record(server: ServerId, seen: Ticks, state: u32) -> FlowView {
    let none = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let rewrite = tuple(none, none);
    FlowView { server: server.0, seen, state, interface: 0, rewrite, peer_mac: 0, own_mac: 0 }
}

pub fn flow_key(source: SocketAddrV4, destination: SocketAddrV4, protocol: u8) -> FlowKey {
    FlowKey::new(tuple(source, destination), protocol)
}

pub fn key(vip: SocketAddrV4, protocol: u8) -> ServiceKey {
    ServiceKey::new(Be32::from(*vip.ip()), Be16::new(vip.port()), protocol)
}

/// `ticks` before `now`, on a clock that wraps.
pub fn ago(now: Ticks, ticks: u32) -> Ticks {
    Ticks(now.0.wrapping_sub(ticks))
}

fn tuple(source: SocketAddrV4, destination: SocketAddrV4) -> Tuple {
    Tuple {
        source: Be32::from(*source.ip()),
        destination: Be32::from(*destination.ip()),
        source_port: Be16::new(source.port()),
        destination_port: Be16::new(destination.port()),
    }
}

fn server(mac: [u8; 6], target: SocketAddrV4) -> Server {
    Server {
        hop: Hop {
            lives: true,
            resolved: true,
            mac: Mac::from_bytes(mac),
            source_mac: Mac::from_bytes(BACK_MAC),
            interface: BACK,
        },
        nat_first: 0,
        nat_count: 1,
        address: Be32::from(*target.ip()),
        port: Be16::new(target.port()),
        service: 1,
    }
}

/// The kernel ring runs in a namespace that has these two: its loopback, and a number no other is given.
pub const FRONT: u32 = 1;
pub const BACK: u32 = 77;

pub const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 40_000);
pub const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 80), 80);
pub const NAMES: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 80), 53);
pub const TARGET_A: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 11), 8_080);
pub const TARGET_B: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 12), 8_081);
pub const NAT_SOURCES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)];

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub const FRONT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];
pub const BACK_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
pub const A_MAC: [u8; 6] = [2, 0, 0, 0, 2, 0xa];
pub const B_MAC: [u8; 6] = [2, 0, 0, 0, 2, 0xb];

pub const A: ServerId = ServerId(1);
pub const B: ServerId = ServerId(2);

pub const HASH_KEY: HashKey = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211]);
pub const TCP_IDLE: u32 = Ticks::in_ms(900_000);
pub const UDP_IDLE: u32 = Ticks::in_ms(30_000);

pub const RING_SLOTS: u32 = 4 * SLOTS_MIN;
const WEB_RING: u32 = 0;
const NAMES_RING: u32 = SLOTS_MIN;
const CAPACITY: u32 = 64;
