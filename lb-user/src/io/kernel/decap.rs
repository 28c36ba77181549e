//! The program that opens encapsulated packets on a server: loaded and attached for as long as its owner
//! lives. Nothing is pinned: a link ends with its descriptor, also when the process is killed.

use std::net::IpAddr;

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, MapError, PerCpuArray},
    programs::{ProgramError, Xdp, links::FdLink},
};
use lb_common::{
    decap::{Counter, Counts},
    net::{Be32, Be128},
};

use super::{
    attach::{Attached, Link, Mode, Refused, Target, link},
    load::{LoadError, absent, explain},
    take,
};
use crate::pure::{config::model::XdpMode, status};

pub struct Decap {
    /// Keeps the program loaded.
    object: Ebpf,
    counts: PerCpuArray<MapData, Counts>,
    links: Vec<FdLink>,
}

#[derive(Debug, thiserror::Error)]
pub enum DecapAttachError {
    #[error(
        "interface {name} already runs xdp program {program}: remove it \
         (`ip link set dev {name} xdp off`, `steelyard detach` when it forwards, or end the process that holds it)"
    )]
    Foreign { name: String, program: u32 },
    #[error("cannot attach to interface {name} in {mode} mode: {cause}; {remedy}")]
    Refused { name: String, mode: &'static str, cause: String, remedy: &'static str },
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl Decap {
    /// Loads the program for `vips`; attaches it nowhere. At most `VIPS_MAX` of each family.
    pub fn load(vips: &[IpAddr]) -> Result<Self, LoadError> {
        let mut object = EbpfLoader::new().load(OBJECT).map_err(|error| explain(&error))?;
        program_mut(&mut object)?.load().map_err(|error| explain(&error))?;
        let mut vips4: HashMap<_, u32, u8> = HashMap::try_from(take(&mut object, "vips4")?)?;
        let mut vips6: HashMap<_, [u64; 2], u8> = HashMap::try_from(take(&mut object, "vips6")?)?;
        for vip in vips {
            match *vip {
                IpAddr::V4(vip) => vips4.insert(Be32::from(vip).0, LISTED, 0)?,
                IpAddr::V6(vip) => vips6.insert(Be128::from(vip).0, LISTED, 0)?,
            }
        }
        let counts = PerCpuArray::try_from(take(&mut object, "counters")?)?;
        Ok(Decap { object, counts, links: Vec::new() })
    }

    /// Whether `target` is free.
    pub fn inspect(target: &Target) -> Result<(), DecapAttachError> {
        match target.attached {
            Some((program, _)) => Err(DecapAttachError::Foreign { name: target.name.clone(), program }),
            None => Ok(()),
        }
    }

    pub fn attach(&mut self, target: &Target, mode: XdpMode) -> Result<Attached, DecapAttachError> {
        let Link { link, mode, fallback } = link(program_mut(&mut self.object)?, target.index, mode)
            .map_err(|Refused { mode, cause }| DecapAttachError::Refused {
                name: target.name.clone(),
                mode: mode.name(),
                cause,
                remedy: match mode {
                    Mode::Native => "`--mode auto` or `--mode generic` runs without the driver's help",
                    Mode::Generic => "see `ip -d link show` and the kernel log",
                },
            })?;
        self.links.push(link);
        Ok(Attached { mode, replaced: false, fallback })
    }

    /// Takes the program off every interface.
    pub fn detach(&mut self) {
        self.links.clear();
    }

    /// Every counter by name, summed over the CPUs.
    pub fn counters(&self) -> Result<status::Counters, MapError> {
        let per_cpu = self.counts.get(&0, 0)?;
        let sum = |counter: Counter| per_cpu.iter().map(|counts| counts[counter as usize]).sum();
        Ok(Counter::ALL.iter().map(|&counter| (counter.name().to_owned(), sum(counter))).collect())
    }

    /// The loaded program, for test runs.
    pub fn program(&self) -> Result<&Xdp, LoadError> {
        let program = self.object.program(PROGRAM).ok_or_else(|| absent("the program"))?;
        program.try_into().map_err(|error: ProgramError| explain(&error))
    }
}

fn program_mut(object: &mut Ebpf) -> Result<&mut Xdp, LoadError> {
    let program = object.program_mut(PROGRAM).ok_or_else(|| absent("the program"))?;
    program.try_into().map_err(|error: ProgramError| explain(&error))
}

const PROGRAM: &str = "steelyard_decap";
/// Of a key in the maps of addresses: that it is there is what counts.
const LISTED: u8 = 1;

/// The object `build.rs` made. Aligned: the loader reads its headers in place.
static OBJECT: &[u8] = {
    #[repr(C, align(16))]
    struct Aligned<T: ?Sized>(T);
    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("STEELYARD_DECAP")));
    &ALIGNED.0
};
