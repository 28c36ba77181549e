//! The program under test over tables of its own, loaded as the daemon loads it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    process,
};

use anyhow::{Context, Result};
use aya::{
    maps::MapData,
    programs::{ProgramFd, loaded_programs},
};
use lb_common::{
    entry::{Hop, Mode, Server, Service, ServiceKey},
    flow::Ticks,
    hash::HashKey,
    limits::{RING_SLOTS_MIN, SLOTS_DEFAULT},
    net::{Be16, Be32, Mac},
    slot::{ServerId, Slot},
};
use lb_user::{
    io::kernel::{Kernel, Pins, Reader, Sizes},
    pure::{
        plan::{Tables, diff},
        ring::{self, Member},
        status::Counters,
    },
};

/// What stands in the tables of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) mode: Mode,
    pub(super) protocol: u8,
    /// Every slot is moving from one server to another, so records matter.
    pub(super) moving: bool,
    /// Capacity of the flow table.
    pub(super) flows: u32,
}

pub(super) struct Rig {
    /// Some until it is taken down.
    kernel: Option<Kernel>,
    reader: Reader,
    program: ProgramFd,
}

impl Rig {
    pub(super) fn new(setting: Setting) -> Result<Rig> {
        let pins = Pins::open(&Path::new(BPFFS).join(format!("sy-bench-{}", process::id())))?;
        let sizes = Sizes { flows: setting.flows, ring_slots: RING_SLOTS_MIN };
        let mut kernel = Kernel::load(pins, sizes)?;
        match fill(&mut kernel, setting).and_then(|()| Ok((kernel.reader()?, under_test(&kernel)?))) {
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

    pub(super) fn counters(&self) -> Result<Counters> {
        Ok(self.reader.counters.all()?)
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

fn fill(kernel: &mut Kernel, setting: Setting) -> Result<()> {
    for step in diff(&kernel.tables(), &tables(setting)) {
        kernel.apply(&step)?;
    }
    Ok(())
}

fn tables(setting: Setting) -> Tables {
    let id = 0;
    let service = Service {
        id,
        ring_base: SLOTS_DEFAULT,
        ring_mask: SLOTS_DEFAULT - 1,
        mode: setting.mode,
        reset: true,
        idle_ticks: Ticks::in_ms(900_000),
    };
    let key = ServiceKey::new(Be32::from(*VIP.ip()), Be16::new(VIP.port()), setting.protocol);
    let servers = (1..=SERVERS).map(|n| (ServerId(n), server(n, id))).collect();
    Tables {
        hash_key: HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211]),
        nat_sources: NAT_SOURCES.to_vec(),
        servers,
        rings: [(service.ring_base, std::sync::Arc::new(ring(setting.moving)))].into(),
        services: BTreeMap::from([(key, service)]),
        ..Tables::default()
    }
}

fn server(n: u32, service: u32) -> Server {
    let address = Ipv4Addr::from_bits(FIRST_SERVER.to_bits() + n);
    let hop = Hop {
        lives: true,
        resolved: true,
        mac: Mac::from_bytes([2, 0, 0, 1, 0, n as u8]),
        source_mac: Mac::from_bytes([2, 0, 0, 0, 0, 2]),
        interface: LOOPBACK,
    };
    Server {
        hop,
        nat_first: 0,
        nat_count: NAT_SOURCES.len() as u8,
        address: address.into(),
        port: Be16::new(8080),
        service,
    }
}

/// Ten servers with equal weights; a moving slot gives its new connections to the next server.
fn ring(moving: bool) -> Vec<Slot> {
    let member = |n: u32| Member {
        id: n,
        address: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from_bits(FIRST_SERVER.to_bits() + n), 8080)),
        weight: 1,
        usable: true,
    };
    let members: Vec<_> = (1..=SERVERS).map(member).collect();
    let slot = |id: u32| match moving {
        true => Slot::new(ServerId(id % SERVERS + 1), ServerId(id), true),
        false => Slot::settled(ServerId(id)),
    };
    ring::build(SEED, SLOTS_DEFAULT, &members).into_iter().map(slot).collect()
}

/// The kernel's handle on the program that uses our maps.
fn under_test(kernel: &Kernel) -> Result<ProgramFd> {
    let ours = MapData::from_pin(kernel.pins.maps().join("flows"))?.info()?.id();
    for program in loaded_programs() {
        let program = program?;
        if program.map_ids()?.is_some_and(|ids| ids.contains(&ours)) {
            return Ok(program.fd()?);
        }
    }
    None.context("the kernel does not list the program that was just loaded: run as root")
}

/// The service of every case.
pub(super) const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80);
/// Of no service.
pub(super) const ELSEWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 80);

const BPFFS: &str = "/sys/fs/bpf";
const SERVERS: u32 = 10;
const FIRST_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// Enough ports that 16 tries find one for each of 131 072 flows.
const NAT_SOURCES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 255, 1), Ipv4Addr::new(10, 0, 255, 2)];
const SEED: u64 = 1;
/// Where TEST_RUN lets packets arrive; servers on the same interface are sent to with XDP_TX.
const LOOPBACK: u32 = 1;
