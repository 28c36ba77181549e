//! The kernel's end of the measurements: the driver programs, what they call, and one call of them.
#![expect(unsafe_code, reason = "aya's Pod is an unsafe trait")]

mod live;
#[path = "../../../lb-ebpf/src/bin/driver/drive/orders.rs"]
mod orders;
mod script;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, ProgramArray},
    programs::{ProgramFd, TestRun, TestRunOptions, Xdp},
};

use self::orders::Orders;
pub(super) use self::{
    live::Live,
    orders::{LONG, SHORT},
    script::{Order, Script},
};

pub(super) struct Driver {
    object: Ebpf,
    orders: Array<MapData, Orders>,
    ends: Array<MapData, orders::Ends>,
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
    /// The program that prepends one fixed header, without a map.
    Encapsulation,
    Program(&'a ProgramFd),
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
    /// A driver calls the same program as long as it lives. `flows`: how many a script may list.
    pub(super) fn load(call: Call<'_>, flows: u32) -> Result<Driver> {
        let mut object = load_object(flows)?;
        for name in [DRIVE, PASS, ENCAP] {
            program(&mut object, name)?.load().with_context(|| format!("cannot load the program {name}"))?;
        }
        // Maps are taken only now: a descriptor closed before the programs were loaded would be bound under
        // its number.
        let callee = match call {
            Call::Floor => program(&mut object, PASS)?.fd()?.try_clone()?,
            Call::Encapsulation => program(&mut object, ENCAP)?.fd()?.try_clone()?,
            Call::Program(program) => program.try_clone()?,
        };
        let mut called = ProgramArray::try_from(take_map(&mut object, "program")?)?;
        called.set(0, &callee, 0).context("cannot put the program behind the driver")?;
        let (orders, ends) = (take_array(&mut object, "orders")?, take_array(&mut object, "ends")?);
        Ok(Driver { orders, ends, _called: called, object, frame: Vec::new() })
    }

    /// Begins anew at flow 0 with another script.
    pub(super) fn set(&mut self, script: &Script<'_>) -> Result<()> {
        self.frame = script.frame(0)?;
        self.orders.set(0, script.orders()?, 0)?;
        for (number, ends) in (0..).zip(script.listed()) {
            let ends = orders::Ends::from(ends);
            self.ends.set(number, ends, 0).context("the driver has no room for all flows")?;
        }
        Ok(())
    }

    /// Shows that the driver writes the packets it should. `expected` turns a driven packet into what the program
    /// behind makes of it. The next packets driven are those after the checked ones.
    pub(super) fn check(
        &mut self,
        script: &Script<'_>,
        expected: impl Fn(Vec<u8>) -> Result<Vec<u8>>,
    ) -> Result<()> {
        self.set(script)?;
        for number in 0..CHECKED {
            let expected = expected(script.frame(number)?)?;
            let mut found = vec![0; expected.len() + ROOM];
            let options = TestRunOptions {
                data_in: Some(&self.frame),
                data_out: Some(&mut found),
                ..TestRunOptions::default()
            };
            let ran =
                program(&mut self.object, DRIVE)?.test_run(options).context("cannot drive one packet")?;
            found.truncate(ran.data_size_out as usize);
            ensure!(
                found == expected,
                "the driver wrote {found:x?} for packet {number} instead of {expected:x?}"
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

/// The driver's object, nothing of it loaded yet but the maps.
fn load_object(flows: u32) -> Result<Ebpf> {
    EbpfLoader::new()
        .map_max_entries("ends", flows.max(1))
        .load(OBJECT)
        .context("cannot load the driver's object")
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let found = object.program_mut(name).with_context(|| format!("the driver has no program {name}"))?;
    Ok(found.try_into()?)
}

fn take_map(object: &mut Ebpf, name: &str) -> Result<Map> {
    object.take_map(name).with_context(|| format!("the driver has no map {name}"))
}

/// An array of values that both sides must lay out alike.
fn take_array<T: aya::Pod>(object: &mut Ebpf, name: &str) -> Result<Array<MapData, T>> {
    let map = take_map(object, name)?;
    let Map::Array(data) = &map else { bail!("the map {name} is no array: build the driver again") };
    let size = data.info()?.value_size() as usize;
    ensure!(size == size_of::<T>(), "the map {name} holds {size} bytes: build the driver again");
    Ok(Array::try_from(map)?)
}

// SAFETY: repr(C) of integers without padding, as its file asserts: every bit pattern is a value.
unsafe impl aya::Pod for Orders {}
// SAFETY: as above.
unsafe impl aya::Pod for orders::Ends {}

/// The object the build script made. Aligned: the loader reads its headers in place.
static OBJECT: &[u8] = {
    #[repr(C, align(16))]
    struct Aligned<T: ?Sized>(T);
    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("STEELYARD_DRIVER")));
    &ALIGNED.0
};

/// Packets looked at before a measurement.
const CHECKED: u64 = 32;
/// More than any program here prepends, so that a frame that is too long is seen.
const ROOM: usize = 128;
const DRIVE: &str = "drive";
const PASS: &str = "pass";
const ENCAP: &str = "encap";
