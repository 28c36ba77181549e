//! The kernel's end of the measurement: the driver program, what it calls, and one call of it.
#![expect(unsafe_code, reason = "aya's Pod is an unsafe trait")]

#[path = "../../../lb-ebpf/src/bin/driver/drive/orders.rs"]
mod orders;

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, ProgramArray},
    programs::{ProgramFd, TestRun, TestRunOptions, Xdp},
};
use lb_common::net::{Be16, Be32};

use self::orders::{Headers, Orders};
use super::packet::{Kind, Packet, client};

pub(super) struct Driver {
    object: Ebpf,
    orders: Array<MapData, Orders>,
    /// Keeps the program behind the driver.
    _called: ProgramArray<MapData>,
    /// What TEST_RUN gets, so that the first packet has the length of all.
    frame: Vec<u8>,
}

/// What the driver calls.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call<'a> {
    /// The program that only says XDP_PASS.
    Floor,
    Program(&'a ProgramFd),
}

/// Which flow comes after which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    /// Multiples of a large odd number: neighbours in time are far apart in every table that was filled in
    /// ascending order, and no prefetcher follows.
    Scattered,
}

impl Order {
    fn stride(self) -> u64 {
        match self {
            Order::Ascending => 1,
            Order::Scattered => SCATTER,
        }
    }
}

/// What one TEST_RUN call reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ran {
    /// Whole nanoseconds per packet, driver included.
    pub(super) mean: Duration,
    /// Of the last packet.
    pub(super) action: u32,
}

impl Driver {
    /// A driver calls the same program as long as it lives.
    pub(super) fn load(call: Call<'_>) -> Result<Driver> {
        let mut object = EbpfLoader::new().load(OBJECT).context("cannot load the driver's object")?;
        for name in [DRIVE, PASS] {
            program(&mut object, name)?.load().with_context(|| format!("cannot load the program {name}"))?;
        }
        // Maps are taken only now: a descriptor closed before the programs were loaded would be bound under
        // its number.
        let pass = program(&mut object, PASS)?.fd()?.try_clone()?;
        let mut map =
            |name: &str| object.take_map(name).with_context(|| format!("the driver has no map {name}"));
        let orders: Map = map("orders")?;
        let mut called = ProgramArray::try_from(map("program")?)?;
        let program = match call {
            Call::Floor => &pass,
            Call::Program(program) => program,
        };
        called.set(0, program, 0).context("cannot put the program behind the driver")?;
        let Map::Array(data) = &orders else { bail!("the map orders is no array: build the driver again") };
        let size = data.info()?.value_size() as usize;
        ensure!(size == size_of::<Orders>(), "the map orders holds {size} bytes: build the driver again");
        Ok(Driver { orders: Array::try_from(orders)?, _called: called, object, frame: Vec::new() })
    }

    /// Begins anew at flow 0 with another packet and number of flows, which is a power of two.
    pub(super) fn set(&mut self, packet: Packet, flows: u32, order: Order) -> Result<()> {
        ensure!(flows.is_power_of_two(), "{flows} flows are not a power of two");
        let first = client(0);
        self.frame = packet.frame(first)?;
        let unspecified = packet.frame(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
        let orders = Orders {
            packets: 0,
            flow_mask: u64::from(flows - 1),
            stride: order.stride(),
            length: self.frame.len() as u64,
            is_udp: u64::from(packet.kind == Kind::Udp),
            template: headers(&unspecified).context("the packet is too short for the driver")?,
            source_port: Be16::new(first.port()),
            source: Be32::from(*first.ip()),
            zero: 0,
        };
        Ok(self.orders.set(0, orders, 0)?)
    }

    /// Shows that the driver writes the packets it should, for a driver that calls the floor. The next packets
    /// driven are those after the checked ones.
    pub(super) fn check(&mut self, packet: Packet, flows: u32, order: Order) -> Result<()> {
        self.set(packet, flows, order)?;
        for n in 0..CHECKED {
            let flow = n.wrapping_mul(order.stride()) & u64::from(flows - 1);
            let expected = packet.frame(client(flow as u32))?;
            let mut found = vec![0; expected.len()];
            let options = TestRunOptions {
                data_in: Some(&self.frame),
                data_out: Some(&mut found),
                ..TestRunOptions::default()
            };
            program(&mut self.object, DRIVE)?.test_run(options).context("cannot drive one packet")?;
            ensure!(
                found == expected,
                "the driver wrote {found:x?} for flow {flow} instead of {expected:x?}"
            );
        }
        Ok(())
    }

    /// Drives the next `packets` packets, at least one.
    pub(super) fn run(&mut self, packets: u32) -> Result<Ran> {
        let options =
            TestRunOptions { data_in: Some(&self.frame), repeat: packets, ..TestRunOptions::default() };
        let driver = program(&mut self.object, DRIVE)?;
        let ran = driver.test_run(options).context("BPF_PROG_TEST_RUN of the driver failed")?;
        Ok(Ran { mean: ran.duration, action: ran.return_value })
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let found = object.program_mut(name).with_context(|| format!("the driver has no program {name}"))?;
    Ok(found.try_into()?)
}

/// The first bytes of a frame in the driver's types.
fn headers(frame: &[u8]) -> Option<Headers> {
    let bytes = frame.get(..size_of::<Headers>())?;
    // SAFETY: as many bytes as the type has, which is integers without padding; read without alignment.
    Some(unsafe { bytes.as_ptr().cast::<Headers>().read_unaligned() })
}

// SAFETY: repr(C) of integers without padding, as its file asserts: every bit pattern is a value.
unsafe impl aya::Pod for Orders {}

/// The object the build script made. Aligned: the loader reads its headers in place.
static OBJECT: &[u8] = {
    #[repr(C, align(16))]
    struct Aligned<T: ?Sized>(T);
    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("STEELYARD_DRIVER")));
    &ALIGNED.0
};

/// 2^32 divided by the golden ratio: multiples spread evenly.
const SCATTER: u64 = 0x9e37_79b1;
/// Packets looked at before a measurement.
const CHECKED: u64 = 32;
const DRIVE: &str = "drive";
const PASS: &str = "pass";
