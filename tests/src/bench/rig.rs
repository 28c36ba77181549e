//! The program under test over tables of its own, loaded as the daemon loads it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;
use lb_common::{
    entry::{Hop, Mode, Rule, Scheduler, Server, Service, Tags},
    flow::{NAT_REPLY, Ticks},
    flow_table::{FlowMemory, WAYS},
    hash::HashKey,
    limits::{RING_SLOTS_MIN, SLOTS_DEFAULT},
    net::{Be16, Mac, V4},
    slot::{ServerId, Slot},
};
use lb_user::{
    io::kernel::{Kernel, Pins, Reader, Sizes, Target},
    pure::{
        config::{model::XdpMode, network::Network},
        plan::{Key, Tables, diff},
        ring::{self, Member},
        status::Counters,
    },
};
use nix::net::if_::if_nametoindex;

use super::packet::{Ends, OWN_MAC};
use crate::bed::janitor;

/// What stands in the tables of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) mode: Mode,
    pub(super) protocol: u8,
    /// Every slot is moving from one server to another, so records matter.
    pub(super) moving: bool,
    /// Capacity of the flow table.
    pub(super) flows: u32,
    /// Where the service is; servers are of the same family.
    pub(super) vip: SocketAddr,
    /// Services by port range and by prefix stand beside.
    pub(super) wildcards: bool,
}

pub(super) struct Rig {
    /// Some until it is taken down.
    kernel: Option<Kernel>,
    reader: Reader,
    program: ProgramFd,
}

impl Rig {
    /// Every server is reached through `hop`, whose interface is one of the caller's network namespace.
    pub(super) fn new(setting: Setting, hop: &Hop) -> Result<Rig> {
        let pins = Pins::open(&janitor::pin_directory(&janitor::fresh_tag()?))?;
        let sizes = Sizes { flows: setting.flows, ring_slots: RING_SLOTS_MIN };
        let mut kernel = Kernel::load(pins, sizes)?;
        let filled = fill(&mut kernel, &tables(setting, hop));
        match filled.and_then(|()| Ok((kernel.reader()?, under_test(&kernel)?))) {
            Ok((reader, program)) => Ok(Rig { kernel: Some(kernel), reader, program }),
            Err(error) => {
                // The first error is the one to report.
                let _ = kernel.pins.remove();
                Err(error)
            }
        }
    }

    pub(super) fn program(&self) -> &ProgramFd {
        &self.program
    }

    /// To interfaces of the caller's network namespace, in native mode.
    pub(super) fn attach(&mut self, interfaces: &[&str]) -> Result<()> {
        let kernel = self.kernel.as_mut().context("the rig was taken down")?;
        for &name in interfaces {
            let index = if_nametoindex(name).with_context(|| format!("no interface {name}"))?;
            kernel.attach(&Target { index, name: name.to_owned(), attached: None }, XdpMode::Native)?;
        }
        Ok(())
    }

    pub(super) fn counters(&self) -> Result<Counters> {
        Ok(self.reader.counters.all()?)
    }

    /// What the servers send in the recorded NAT flows, in the order of the records in memory.
    pub(super) fn replies(&self, flows: u32) -> Result<Vec<Ends>> {
        let memory: &dyn FlowMemory<V4> = &*self.reader.memory;
        let mut replies = Vec::new();
        for index in 0..memory.flow_buckets() * WAYS {
            let Some(flow) = memory.flow_record(index) else { continue };
            if let Some(key) = flow.key()
                && flow.owner().state & NAT_REPLY != 0
            {
                let tuple = key.tuple();
                let end = |address, port: Be16| SocketAddr::new(Ipv4Addr::from(address).into(), port.get());
                let from = end(tuple.source, tuple.source_port);
                replies.push(Ends { from, to: end(tuple.destination, tuple.destination_port) });
            }
        }
        ensure!(replies.len() == flows as usize, "{} of {flows} flows are recorded", replies.len());
        Ok(replies)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel.take()
            && let Err(error) = kernel.pins.remove()
        {
            eprintln!("error: {error}");
        }
    }
}

fn fill(kernel: &mut Kernel, wanted: &Tables) -> Result<()> {
    for step in diff(&kernel.tables(), wanted) {
        kernel.apply(&step)?;
    }
    Ok(())
}

fn tables(setting: Setting, hop: &Hop) -> Tables {
    let id = 0;
    let service = Service {
        id,
        ring_base: SLOTS_DEFAULT,
        ring_mask: SLOTS_DEFAULT - 1,
        mode: setting.mode,
        scheduler: Scheduler::Ring,
        by_client: false,
        access: false,
        reset: true,
        mss: 0,
        idle_ticks: Ticks::in_ms(900_000),
        client_ticks: 0,
    };
    let vip = setting.vip;
    let key = Key::new(vip.ip(), vip.port(), setting.protocol);
    let rule = Rule { protocol: setting.protocol, first: 8_000, last: 8_999, service };
    let wildcards = [Network::host(vip.ip()), Network::all(Network::host(vip.ip()).family())];
    Tables {
        hash_key: HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211]),
        nat_sources: NAT_SOURCES.map(IpAddr::V4).to_vec(),
        devices: [hop.interface].into(),
        servers: (1..=SERVERS).map(|n| (ServerId(n), server(n, id, hop, vip.is_ipv6()))).collect(),
        rings: [(service.ring_base, Arc::new(ring(setting.moving)))].into(),
        services: BTreeMap::from([(key, service)]),
        wildcards: wildcards
            .into_iter()
            .filter(|_| setting.wildcards)
            .map(|network| (network, vec![rule]))
            .collect(),
        ..Tables::default()
    }
}

/// On the interface packets arrive on, so that they leave with XDP_TX.
pub(super) fn hop_back() -> Hop {
    Hop {
        lives: true,
        resolved: true,
        mac: Mac::from_bytes([2, 0, 0, 1, 0, 1]),
        source_mac: Mac::from_bytes(OWN_MAC),
        interface: LOOPBACK,
        tags: Tags::default(),
        mtu: 1_500,
    }
}

fn server(n: u32, service: u32, hop: &Hop, is_v6: bool) -> Server {
    Server {
        hop: *hop,
        nat_first: 0,
        nat_count: NAT_SOURCES.len() as u8,
        address: if is_v6 {
            Ipv6Addr::from_bits(FIRST_SERVER_V6.to_bits() + u128::from(n)).into()
        } else {
            server_address(n).into()
        },
        port: Be16::new(SERVER_PORT),
        weight: 1,
        service,
        outer_source: if is_v6 { FIRST_SERVER_V6.into() } else { IpAddr::from(FIRST_SERVER) },
    }
}

pub(super) fn server_address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST_SERVER.to_bits() + n)
}

/// Ten servers with equal weights; a moving slot gives its new connections to the next server.
fn ring(moving: bool) -> Vec<Slot> {
    let member = |n: u32| Member {
        id: n,
        address: SocketAddr::new(server_address(n).into(), SERVER_PORT),
        weight: 1,
        share: 100,
    };
    let members: Vec<_> = (1..=SERVERS).map(member).collect();
    let slot = |id: u32| match moving {
        true => Slot::new(ServerId(id % SERVERS + 1), ServerId(id), true),
        false => Slot::settled(ServerId(id)),
    };
    ring::build(SEED, SLOTS_DEFAULT, &members).into_iter().map(slot).collect()
}

/// The kernel's handle on the program that is attached.
fn under_test(kernel: &Kernel) -> Result<ProgramFd> {
    Ok(kernel.program()?.fd()?.try_clone()?)
}

/// The service of every case.
pub(super) const VIP_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 80);
pub(super) const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(VIP_ADDRESS), 80);
const VIP_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Of each service.
pub(super) const SERVERS: u32 = 10;
pub(super) const SERVER_PORT: u16 = 8080;
const FIRST_SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
const FIRST_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// Enough ports that 16 tries find one for each of 131 072 flows.
const NAT_SOURCES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 255, 1), Ipv4Addr::new(10, 0, 255, 2)];
const SEED: u64 = 1;
/// Where TEST_RUN lets packets arrive.
const LOOPBACK: u32 = 1;
