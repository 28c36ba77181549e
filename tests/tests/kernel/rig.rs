//! The loaded program over the tables of one case, in a namespace with the interfaces that cases name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray, loaded_maps},
    programs::{ProgramInfo, TestRun, TestRunOptions, Xdp},
};
use lb_common::{
    counter::{Counter, TrafficCounts},
    flow::Ticks,
    slot::ServerId,
};
use lb_ebpf::Action;
use lb_tests::{
    bed::Namespace,
    cases::{
        Case, Effect,
        host::records,
        world::{BACK, FRONT, Key, RING_SLOTS, Record, World},
    },
};
use lb_user::{
    io::kernel::{Kernel, Pins, Reader, Sizes, TableMemory, now},
    pure::plan::{Step, Tables, diff},
};

use super::state::State;

/// How the packet reaches the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Direct,
    /// Through a program that fills the headroom.
    Poisoned,
}

impl Entry {
    /// Filling the headroom takes some.
    pub(crate) fn takes(self, case: &Case) -> bool {
        self == Entry::Direct || case.headroom.is_none()
    }
}

/// One rig for each size of the flow table, since loading the program takes longer than all else.
#[derive(Default)]
pub(crate) struct Rigs(BTreeMap<(u32, bool), Rig>);

impl Rigs {
    /// With the tables of `case`.
    pub(crate) fn prepare(&mut self, case: &Case) -> Result<&mut Rig> {
        let world = &case.world;
        // What is expected of replies only grows.
        let size = (world.capacity, world.tables.gateways.is_empty());
        let rig = match self.0.remove(&size) {
            Some(rig) => rig,
            None => Rig::new(world)?,
        };
        let rig = self.0.entry(size).or_insert(rig);
        rig.set_tables(world)?;
        Ok(rig)
    }
}

/// Does `work` where interface `FRONT` is the loopback and `BACK` one end of a pair.
pub(crate) fn inside(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the kernel ring loads programs: run it as root");
    let namespace = Namespace::create(&tag())?;
    namespace.ip(&format!("link add back index {BACK} type veth peer name wall\n"))?;
    namespace.enter(work)?
}

pub(crate) struct Rig {
    /// Some until it is taken down.
    kernel: Option<Kernel>,
    /// What stands in the kernel's tables.
    tables: Tables,
    reader: Reader,
    state: State,
    poison: Poison,
}

impl Rig {
    fn new(world: &World) -> Result<Rig> {
        let pins = Pins::open(&Path::new("/sys/fs/bpf").join(tag()))?;
        let sizes = Sizes { flows: world.capacity, ring_slots: RING_SLOTS };
        let mut kernel = Kernel::load(pins, sizes)?;
        match open(&mut kernel, world) {
            Ok((reader, state, poison)) => {
                Ok(Rig { kernel: Some(kernel), tables: world.tables.clone(), reader, state, poison })
            }
            Err(error) => {
                // The first error is the one to report.
                let _ = kernel.pins.remove();
                Err(error)
            }
        }
    }

    fn set_tables(&mut self, world: &World) -> Result<()> {
        let kernel = self.kernel.as_mut().context("the rig was taken down")?;
        let standing = std::mem::replace(&mut self.tables, world.tables.clone());
        let same = world.removed.is_empty() && standing.services.keys().eq(world.tables.services.keys());
        // Keys stand in the buckets that the case means only where none stood before.
        let steps = match same {
            true => diff(&standing, &world.tables),
            false => {
                let bare = Tables { services: BTreeMap::new(), ..standing.clone() };
                for step in diff(&standing, &bare) {
                    kernel.apply(&step)?;
                }
                let mut steps = diff(&bare, &Tables { services: BTreeMap::new(), ..world.tables.clone() });
                steps.extend(world.steps().into_iter().filter(is_of_services));
                steps
            }
        };
        for step in steps {
            kernel.apply(&step)?;
        }
        Ok(())
    }

    /// Runs the packet as often as it takes to meet one tick of the clock that stamps records.
    pub(crate) fn run(&mut self, case: &Case, entry: Entry) -> Result<Effect> {
        for _ in 0..TICKS_MISSED_MAX {
            let start = now();
            let moved = start.0.wrapping_sub(case.world.now.0);
            self.fill_flows(case, moved)?;
            self.state.fill(&case.world, moved)?;
            let silent = case.world.watchdog.map_or(0, |watchdog| watchdog.silent);
            let patience = case.world.watchdog.map(|watchdog| watchdog.patience);
            self.memory().globals().set_moving(case.world.moving);
            self.memory().globals().beat(Ticks(start.0.wrapping_sub(silent)), patience);
            let before = (self.counters()?, self.traffic(case)?);
            let (action, packet) = self.run_once(case, entry)?;
            let after = (self.counters()?, self.traffic(case)?);
            if now() != start {
                continue;
            }
            return Ok(Effect {
                action,
                packet,
                counters: grown(&before.0, &after.0, |old, new| new - old),
                flows: self.flows(moved)?,
                fragments: self.state.fragments(moved)?,
                turns: self.state.turns(&case.world)?,
                refused: self.state.refused(&case.world, moved)?,
                load: self.state.load(&case.world)?,
                traffic: grown(&before.1, &after.1, |old, new| TrafficCounts {
                    packets: new.packets - old.packets,
                    bytes: new.bytes - old.bytes,
                    connections: new.connections - old.connections,
                }),
            });
        }
        bail!("{}: the clock moved under each of {TICKS_MISSED_MAX} runs", case.name)
    }

    pub(crate) fn program(&self) -> Result<&Xdp> {
        Ok(self.kernel.as_ref().context("the rig was taken down")?.program()?)
    }

    /// The entry and every stage.
    pub(crate) fn programs(&self) -> Result<Vec<ProgramInfo>> {
        self.state.programs()
    }

    /// Of the maps that the entry or a stage uses.
    pub(crate) fn map_names(&self) -> Result<BTreeSet<String>> {
        let mut ids = BTreeSet::new();
        for program in self.programs()? {
            ids.extend(program.map_ids()?.context("the kernel does not tell maps")?);
        }
        let mut names = BTreeSet::new();
        for map in loaded_maps() {
            let map = map?;
            if ids.contains(&map.id()) {
                names.insert(map.name_as_str().context("a map without a name")?.to_owned());
            }
        }
        Ok(names)
    }

    fn run_once(&self, case: &Case, entry: Entry) -> Result<(Action, Vec<u8>)> {
        // What is put before the packet leaves less room there.
        let metadata = case.headroom.map_or(0, |bytes| HEADROOM - bytes);
        let input = [vec![0; metadata], case.packet.clone()].concat();
        let mut packet = vec![0; input.len() + 256];
        let context =
            XdpContext { start: metadata as u32, end: input.len() as u32, ingress: case.ingress }.bytes();
        let options = TestRunOptions {
            data_in: Some(&input),
            data_out: Some(&mut packet),
            ctx_in: Some(&context),
            repeat: 1,
            ..TestRunOptions::default()
        };
        let program = match entry {
            Entry::Direct => self.program()?,
            Entry::Poisoned => self.poison.program()?,
        };
        let ran = program.test_run(options).with_context(|| format!("running {}", case.name))?;
        packet.truncate(ran.data_size_out as usize);
        Ok((action(ran.return_value)?, packet.split_off(metadata)))
    }

    pub(crate) fn memory(&self) -> &TableMemory {
        &self.reader.memory
    }

    pub(crate) fn clear_flows(&self) {
        records::clear(self.memory());
    }

    /// The case's records and no others, as if they were made `moved` ticks later.
    fn fill_flows(&mut self, case: &Case, moved: u32) -> Result<()> {
        self.clear_flows();
        for (key, record) in &case.world.flows {
            let seen = Ticks(record.seen.0.wrapping_add(moved));
            let inserted = records::insert(self.memory(), key, &Record { seen, ..*record });
            ensure!(inserted.is_ok(), "{key:?}: {inserted:?}");
        }
        Ok(())
    }

    fn flows(&self, moved: u32) -> Result<BTreeMap<Key, Record>> {
        let found = records::all(self.memory()).map_err(anyhow::Error::msg)?;
        let earlier = |record: Record| Record { seen: Ticks(record.seen.0.wrapping_sub(moved)), ..record };
        Ok(found.into_iter().map(|(key, record)| (key, earlier(record))).collect())
    }

    fn counters(&self) -> Result<BTreeMap<Counter, u64>> {
        let all = self.reader.counters.all()?;
        Ok(Counter::ALL.iter().map(|&counter| (counter, all[counter.name()])).collect())
    }

    /// Of the servers that the case could have used.
    fn traffic(&self, case: &Case) -> Result<BTreeMap<ServerId, TrafficCounts>> {
        let mut traffic = BTreeMap::new();
        for &id in case.world.tables.servers.keys() {
            let found = self.reader.counters.traffic(id)?;
            let counts =
                TrafficCounts { packets: found.packets, bytes: found.bytes, connections: found.connections };
            traffic.insert(id, counts);
        }
        Ok(traffic)
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

/// TEST_RUN does not tell which interface a packet would leave through. The program may send through `BACK`
/// and `FRONT` alone, and transmits where the packet came from, so that `Redirect` means the other one.
pub(crate) fn seen_by_kernel(effect: &Effect) -> Effect {
    let action = if let Action::Redirect(_) = effect.action { Action::Redirect(0) } else { effect.action };
    Effect { action, ..effect.clone() }
}

fn open(kernel: &mut Kernel, world: &World) -> Result<(Reader, State, Poison)> {
    for step in world.steps() {
        kernel.apply(&step)?;
    }
    let state = State::open(&kernel.pins.maps())?;
    Ok((kernel.reader()?, state, Poison::load(kernel.program()?)?))
}

fn is_of_services(step: &Step) -> bool {
    matches!(step, Step::SetService(..) | Step::RemoveService(_))
}

struct Poison {
    object: Ebpf,
    /// Keeps the program behind it.
    _called: ProgramArray<MapData>,
}

impl Poison {
    fn load(behind: &Xdp) -> Result<Poison> {
        let mut object = EbpfLoader::new().load(OBJECT).context("cannot load the driver's object")?;
        let program: &mut Xdp =
            object.program_mut("poison").context("the driver has no program poison")?.try_into()?;
        program.load().context("cannot load the program poison")?;
        let map = object.take_map("poisoned").context("the driver has no map poisoned")?;
        let mut called = ProgramArray::try_from(map)?;
        called.set(0, behind.fd()?, 0)?;
        Ok(Poison { object, _called: called })
    }

    fn program(&self) -> Result<&Xdp> {
        Ok(self.object.program("poison").context("the driver has no program poison")?.try_into()?)
    }
}

/// `struct xdp_md` of linux/bpf.h, as far as a test run may set it.
struct XdpContext {
    start: u32,
    end: u32,
    ingress: u32,
}

impl XdpContext {
    fn bytes(&self) -> Vec<u8> {
        let (data_meta, queue, egress) = (0, 0, 0);
        let fields: [u32; 6] = [self.start, self.end, data_meta, self.ingress, queue, egress];
        fields.iter().flat_map(|field| field.to_ne_bytes()).collect()
    }
}

fn action(value: u32) -> Result<Action> {
    match value {
        1 => Ok(Action::Drop),
        2 => Ok(Action::Pass),
        3 => Ok(Action::Transmit),
        4 => Ok(Action::Redirect(0)),
        value => bail!("the program returned {value}, which is no action of ours"),
    }
}

fn grown<K: Ord + Copy, V: PartialEq + Copy>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    difference: impl Fn(V, V) -> V,
) -> BTreeMap<K, V> {
    let pairs = before.iter().zip(after).filter(|((_, old), (_, new))| old != new);
    pairs.map(|((&key, &old), (_, &new))| (key, difference(old, new))).collect()
}

/// What the bed's janitor takes for ours.
pub(crate) fn tag() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("sy-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Aligned: the loader reads its headers in place.
static OBJECT: &[u8] = {
    #[repr(C, align(16))]
    struct Aligned<T: ?Sized>(T);
    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("STEELYARD_DRIVER")));
    &ALIGNED.0
};

/// In front of a packet, without what the kernel keeps for itself.
const HEADROOM: usize = 216;
const _: () = assert!(FRONT == 1, "the loopback of every namespace");
/// A tick is 134 ms, a run far less.
const TICKS_MISSED_MAX: u32 = 100;
