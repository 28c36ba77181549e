//! The kernel: the XDP program, its maps, its links.
//!
//! Owns everything that is loaded, mapped, pinned or attached. Must not know why a table changes: it carries
//! out `pure::plan::Step`s and reads back what stands in the maps.
//!
//! ```text
//! Step ─► tables ─► map memory ◄─ XDP        flows ◄─ sweep    list ◄─ flows
//!           pins (bpffs) ─► load ─► attach   counters ◄─ status
//!                             └─► dry ◄─ explain
//! ```

mod attach;
mod carry;
mod counters;
mod decap;
mod dry;
mod flows;
mod list;
mod load;
mod mapped;
mod migrate;
mod pins;
mod pod;
mod tables;
mod through;

use std::{
    error::Error,
    hash::{BuildHasher, RandomState},
    io,
    path::PathBuf,
    sync::Arc,
};

use aya::{
    Ebpf,
    maps::{LpmTrie, Map, MapData, PerCpuArray, xdp::DevMapHash},
    programs::{ProgramError, Xdp},
};

use lb_common::{entry::ServerEntry, flow_table};

pub use self::{
    attach::{AttachError, Attached, Mode, Target},
    carry::{Import, Imported},
    counters::Counters,
    decap::{Decap, DecapAttachError},
    dry::{Dry, DryError},
    flows::{Open, Round, Sweep, Telling, Told, now},
    list::Listing,
    load::{LoadError, Sizes},
    pins::{Pins, PinsError, remove_every},
    tables::{StepError, TableMemory},
    through::{Through, ThroughError},
};
use self::{load::absent, mapped::Mapped, tables::TableMaps};
use crate::pure::{
    config::model::XdpMode,
    plan::{Part, Step, Tables},
};

/// The one writer of the kernel's tables.
pub struct Kernel {
    /// Keeps the program loaded.
    object: Ebpf,
    pub pins: Pins,
    memory: Arc<TableMemory>,
    maps: TableMaps,
    counters: Counters,
}

/// What readers need: table memory, and handles on the counters of their own.
pub struct Reader {
    pub memory: Arc<TableMemory>,
    pub counters: Counters,
    /// Where the maps are pinned.
    maps: PathBuf,
}

impl Reader {
    /// A copy of the program that leaves no trace.
    pub fn dry(&self) -> Result<Dry, LoadError> {
        Dry::load(&self.maps, Arc::clone(&self.memory))
    }
}

impl Kernel {
    /// Loads the program over new or adopted maps, those of another size moved to maps of the right one; attaches it
    /// nowhere. New maps go with a failure.
    pub fn load(pins: Pins, sizes: Sizes) -> Result<Self, LoadError> {
        match migrate::prepare(&pins, sizes).and_then(|sizes| Parts::load(&pins, sizes)) {
            Ok(Parts { object, memory, maps, counters }) => {
                Ok(Kernel { object, pins, memory: Arc::new(memory), maps, counters })
            }
            Err(error) => {
                // The first error is the one to report.
                let _ = pins.remove_unused();
                Err(error)
            }
        }
    }

    /// To be called before the program is attached to the first interface.
    pub fn attaching(&self) -> Result<(), LoadError> {
        migrate::begin(&self.pins, &self.memory)
    }

    /// To be called once the program is attached everywhere: nothing runs over the maps of an earlier size any more.
    pub fn attached(&self) -> Result<(), LoadError> {
        migrate::complete(&self.pins, &self.memory)
    }

    /// Instead of `attached`, when that cannot be.
    pub fn not_attached(&self) {
        migrate::give_up(&self.pins, &self.memory);
    }

    /// Gives the pins back and leaves the program to its links.
    pub fn into_pins(self) -> Pins {
        self.pins
    }

    /// Prints what the program logs; for debugging.
    #[cfg(feature = "xdp-log")]
    #[expect(unsafe_code, reason = "the logger lends its descriptor to the runtime")]
    pub fn print_log(&mut self) -> Result<impl Future<Output = io::Result<()>> + use<>, LoadError> {
        let logger = aya_log::EbpfLogger::init(&mut self.object)
            .map_err(|error| LoadError::Other(format!("the program's log cannot be read: {error}")))?;
        Ok(async {
            // SAFETY: the logger owns one descriptor, the same for all its life, which the guard holds.
            let mut logger = unsafe { tokio::io::unix::AsyncFd::register(logger)? };
            loop {
                let mut ready = logger.readable_mut().await?;
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        })
    }

    /// A second set of handles, for another task.
    pub fn reader(&self) -> Result<Reader, LoadError> {
        let pinned = |name: &str| MapData::from_pin(self.pins.maps().join(name));
        Ok(Reader {
            memory: Arc::clone(&self.memory),
            counters: Counters {
                counts: PerCpuArray::try_from(Map::PerCpuArray(pinned("counters")?))?,
                traffic: PerCpuArray::try_from(Map::PerCpuArray(pinned("traffic")?))?,
            },
            maps: self.pins.maps(),
        })
    }

    /// The programs for checks through the data path, attached nowhere.
    pub fn through(&self) -> Result<Through, ThroughError> {
        Through::load(&self.pins.maps())
    }

    /// The memory of all tables, for readers and for the sweep.
    pub fn memory(&self) -> Arc<TableMemory> {
        Arc::clone(&self.memory)
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What stands in the tables.
    pub fn tables(&self) -> Tables {
        self.memory.load(&self.maps)
    }

    /// One part of the tables as it stands; None: it is as `installed`.
    pub fn differing(&self, part: Part, installed: &Tables) -> Option<Tables> {
        self.memory.differing(&self.maps, part, installed)
    }

    /// Tells the program that a daemon lives. `patience`: ticks without one after which packets pass; None: never.
    pub fn beat(&self, patience: Option<u32>) {
        self.memory.globals().beat(now(), patience);
    }

    /// Slots of the ring map, which an earlier daemon may have made larger or smaller.
    pub fn ring_slots(&self) -> u32 {
        self.memory.ring.len() as u32
    }

    /// Records the flow table has room for, whatever the configuration says since.
    pub fn flows_max(&self) -> u32 {
        flow_table::flows(self.memory.flow_tags4.len() as u32)
    }

    pub fn apply(&mut self, step: &Step) -> Result<(), StepError> {
        if let Step::RemoveServer(id) = step
            && let Some(server) = self.memory.server(*id).and_then(ServerEntry::load)
            && let Err(error) = self.counters.retire(*id, server.service)
        {
            tracing::warn!("the counts of server {} are lost: {error}", id.0);
        }
        self.memory.apply(step, &mut self.maps)
    }

    /// The loaded program, for test runs.
    pub fn program(&self) -> Result<&Xdp, LoadError> {
        let program = self.object.program(load::ENTRY).ok_or_else(|| absent(load::ENTRY))?;
        program.try_into().map_err(|error: ProgramError| load::explain(&error))
    }

    /// Whether `target` can be attached to, as far as it can be told without trying.
    pub fn inspect(&self, target: &Target, mode: XdpMode) -> Result<(), AttachError> {
        attach::inspect(&self.pins, target, mode)
    }

    pub fn attach(&mut self, target: &Target, mode: XdpMode) -> Result<Attached, AttachError> {
        let program = load::program(&mut self.object, load::ENTRY).map_err(|error| AttachError::Attach {
            name: target.name.clone(),
            mode: "any",
            cause: error.to_string(),
            remedy: "build steelyard again",
        })?;
        attach::attach(program, &self.pins, target, mode)
    }
}

/// What is loaded and mapped.
struct Parts {
    object: Ebpf,
    memory: TableMemory,
    maps: TableMaps,
    counters: Counters,
}

impl Parts {
    fn load(pins: &Pins, sizes: Sizes) -> Result<Self, LoadError> {
        Parts::of(load::load(&pins.maps(), sizes)?)
    }

    /// Of a loaded object.
    fn of(mut object: Ebpf) -> Result<Self, LoadError> {
        // Maps are taken only now: a file descriptor closed before the program was loaded would be bound
        // under its number.
        let memory = TableMemory::of(|name| take(&mut object, name))?;
        // Before the first packet: the program finds its buckets by their number.
        let globals = memory.globals();
        let seed = match globals.flow_seed() {
            0 => RandomState::new().hash_one(std::process::id()) | 1,
            seed => seed,
        };
        globals.set_flow_table(memory.flow_tags4.len() as u32, seed);
        let maps = TableMaps {
            devices: DevMapHash::try_from(take(&mut object, "devices")?)?,
            wildcards: LpmTrie::try_from(take(&mut object, "wildcards")?)?,
            access: LpmTrie::try_from(take(&mut object, "access")?)?,
        };
        let counters = counters(&mut object)?;
        Ok(Parts { object, memory, maps, counters })
    }
}

fn take(object: &mut Ebpf, name: &str) -> Result<Map, LoadError> {
    object.take_map(name).ok_or_else(|| absent(name))
}

impl TableMemory {
    /// Of array maps by their names.
    fn of(mut map: impl FnMut(&'static str) -> Result<Map, LoadError>) -> Result<TableMemory, LoadError> {
        Ok(TableMemory {
            globals: mapped(&mut map, "globals")?,
            services4: mapped(&mut map, "services4")?,
            services6: mapped(&mut map, "services6")?,
            ring: mapped(&mut map, "ring")?,
            servers: mapped(&mut map, "servers")?,
            turns: mapped(&mut map, "turns")?,
            refused: mapped(&mut map, "refused")?,
            load: mapped(&mut map, "load")?,
            flow_tags4: mapped(&mut map, "flow_tags4")?,
            flows4: mapped(&mut map, "flows4")?,
            halves4: mapped(&mut map, "halves4")?,
            flow_tags6: mapped(&mut map, "flow_tags6")?,
            flows6: mapped(&mut map, "flows6")?,
            halves6: mapped(&mut map, "halves6")?,
        })
    }
}

/// An array map as memory. The kernel half declares it with this type; `load` has checked a pinned one.
fn mapped<T: mapped::Words>(
    map: &mut impl FnMut(&'static str) -> Result<Map, LoadError>,
    name: &'static str,
) -> Result<Mapped<T>, LoadError> {
    let Map::Array(data) = map(name)? else { return Err(absent(name)) };
    let info = data.info()?;
    if info.value_size() as usize != size_of::<T>() {
        return Err(absent(name));
    }
    Mapped::new(data.fd(), info.max_entries())
        .map_err(|error| LoadError::Kernel(format!("mapping a bpf array failed: {error}")))
}

fn counters(object: &mut Ebpf) -> Result<Counters, LoadError> {
    Ok(Counters {
        counts: PerCpuArray::try_from(take(object, "counters")?)?,
        traffic: PerCpuArray::try_from(take(object, "traffic")?)?,
    })
}

/// The operating system's error number at the root of an error.
fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        next = error.source();
    }
    None
}
