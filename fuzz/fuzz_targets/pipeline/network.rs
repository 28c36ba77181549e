//! The tables that the first bytes of an input choose: services of both families, two servers of each.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use lb_common::{
    entry::{Hop, Mode, Rule, Scheduler, Server, Service, Tags},
    flow::Ticks,
    flow_table::WAYS,
    hash::HashKey,
    net::{Be16, Family as _, Mac, TCP, UDP, V4, V6},
    slot::{ServerId, Slot},
};
use lb_user::pure::{
    config::network,
    plan::{Key, Tables, Verdict, diff},
};

use super::{
    host::{
        HostTables,
        records::{NAT_SOURCES, NAT_SOURCES6},
    },
    input::Input,
};

/// What the bits of the input say.
pub struct Network {
    service: Service,
    slot: Slot,
    buckets: u32,
    /// Bits of the servers.
    servers: [u8; 2],
    wildcard: bool,
}

impl Network {
    pub fn choose(input: &mut Input<'_>) -> Network {
        let (shape, policy, slot) = (input.byte(), input.byte(), input.byte());
        let mode = match shape & 7 {
            0 | 5 => Mode::Dsr,
            1 => Mode::Ipip,
            2 => Mode::Gue,
            3 | 6 => Mode::Nat,
            _ => Mode::Gateway,
        };
        let scheduler = match shape >> 3 & 3 {
            1 => Scheduler::RoundRobin,
            2 => Scheduler::LeastConn,
            _ => Scheduler::Ring,
        };
        let bit = |n: u32| policy >> n & 1 != 0;
        let id = |choice: u8| ServerId(u32::from(choice & 7));
        Network {
            service: Service {
                id: 1,
                ring_base: 0,
                ring_mask: SLOTS - 1,
                mode,
                scheduler,
                by_client: bit(0),
                access: bit(1),
                reset: bit(2),
                mss: if bit(3) { 1_000 } else { 0 },
                idle_ticks: 224,
                client_ticks: 500,
            },
            slot: Slot::new(id(slot), id(slot >> 3), slot >> 6 & 1 != 0),
            buckets: 1 + u32::from(bit(4)),
            servers: [input.byte(), input.byte()],
            wildcard: bit(5),
        }
    }

    pub fn rewrites(&self) -> bool {
        self.service.mode.rewrites()
    }

    pub fn tables(&self) -> HostTables {
        let mut wanted = Tables {
            hash_key: HashKey([1, 2]),
            nat_sources: [NAT_SOURCES, NAT_SOURCES6].concat(),
            ..Tables::default()
        };
        wanted.rings.insert(0, Arc::new(vec![self.slot; SLOTS as usize]));
        for (number, target) in
            [TARGET4.into(), TARGET4.into(), TARGET6.into(), TARGET6.into()].into_iter().enumerate()
        {
            // Modes without tunnels have servers of one family on a ring: here the first byte's, for both.
            let id = ServerId(number as u32 + 1);
            wanted.servers.insert(id, self.server(number, target));
            if self.service.mode == Mode::Gateway {
                wanted.gateways.insert(target);
            }
        }
        for vip in VIPS {
            self.add_service(&mut wanted, vip);
        }
        let mut tables = HostTables::new(Ticks(NOW), self.buckets * WAYS, SLOTS);
        for step in diff(&Tables::default(), &wanted) {
            tables.apply(&step);
        }
        tables
    }

    fn add_service(&self, wanted: &mut Tables, vip: IpAddr) {
        let rule = |protocol, first, last| Rule { protocol, first, last, service: self.service };
        let icmp = if vip.is_ipv4() { V4::ICMP } else { V6::ICMP };
        if self.wildcard {
            let rules = vec![rule(TCP, 1, 1_023), rule(UDP, 1, 1_023), rule(icmp, 0, 0)];
            let around = network::Network::around(vip, 20).expect("shorter than an address");
            wanted.wildcards.insert(around, rules);
        } else {
            wanted.services.insert(Key::new(vip, WEB, TCP), self.service);
            wanted.services.insert(Key::new(vip, NAMES, UDP), self.service);
            wanted.services.insert(Key::of_vip(vip), self.service);
        }
        // Half of the clients.
        let clients = if vip.is_ipv4() { IpAddr::V4(CLIENT4) } else { IpAddr::V6(CLIENT6) };
        let length = if vip.is_ipv4() { 29 } else { 125 };
        let denied = network::Network::around(clients, length).expect("shorter than an address");
        wanted.access.insert((self.service.id, denied), Verdict::Deny);
    }

    /// Bits: lives, has a next hop, one arm, short way, its own port, tags (two bits).
    fn server(&self, number: usize, address: IpAddr) -> Server {
        let bits = self.servers[number & 1];
        let bit = |n: u32| bits >> n & 1 != 0;
        let mut tags = Tags::default();
        for tag in 0..bits >> 5 & 3 {
            tags = tags.with(0x2064 + u16::from(tag));
        }
        let tags = if tags.count() > 2 { Tags::default() } else { tags };
        let hop = Hop {
            lives: !bit(0),
            resolved: !bit(1),
            mac: Mac::from_bytes([2, 0, 0, 0, 2, number as u8]),
            source_mac: Mac::from_bytes([2, 0, 0, 0, 2, 9]),
            interface: if bit(2) { FRONT } else { BACK },
            tags,
            mtu: if bit(3) { 120 } else { 1_500 },
        };
        let (nat_first, own) =
            if address.is_ipv4() { (0, NAT_SOURCES[0]) } else { (2, NAT_SOURCES6[0]) };
        let port = if bit(4) { 0 } else { 8_080 + number as u16 };
        Server {
            hop,
            nat_first,
            nat_count: 2,
            address,
            port: Be16::new(port),
            weight: 1 + number as u16,
            service: 1,
            outer_source: own,
        }
    }
}

pub const NOW: u32 = 100_000;
pub const FRONT: u32 = 1;
pub const BACK: u32 = 2;
pub const WEB: u16 = 80;
pub const NAMES: u16 = 53;
pub const VIP4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x80);
/// The first of sixteen.
pub const CLIENT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];
const TARGET4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const TARGET6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 10, 0, 0, 0, 0, 0x11);
const SLOTS: u32 = 4;
