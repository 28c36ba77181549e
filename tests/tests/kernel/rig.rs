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
    programs::{TestRun, TestRunOptions, Xdp},
};
use lb_common::{
    counter::{Counter, TrafficCounts},
    flow::{FlowKey, FlowView, Ticks},
    flow_table::{self, FlowMemory, WAYS},
    slot::ServerId,
};
use lb_ebpf::Action;
use lb_tests::{
    bed::Namespace,
    cases::{
        Case, Effect,
        world::{BACK, FRONT, RING_SLOTS, World},
    },
};
use lb_user::{
    io::kernel::{Kernel, Pins, Reader, Sizes, TableMemory, now},
    pure::plan::diff,
};

/// How the packet reaches the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Direct,
    /// Through a program that fills the headroom.
    Poisoned,
}

/// One rig for each size of the flow table, since loading the program takes longer than all else.
#[derive(Default)]
pub(crate) struct Rigs(BTreeMap<u32, Rig>);

impl Rigs {
    /// With the tables of `case`.
    pub(crate) fn prepare(&mut self, case: &Case) -> Result<&mut Rig> {
        let world = &case.world;
        let rig = match self.0.remove(&world.capacity) {
            Some(rig) if rig.has_services_of(world) => rig,
            _ => Rig::new(world)?,
        };
        let rig = self.0.entry(world.capacity).or_insert(rig);
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
    reader: Reader,
    poison: Poison,
}

impl Rig {
    fn new(world: &World) -> Result<Rig> {
        let pins = Pins::open(&Path::new("/sys/fs/bpf").join(tag()))?;
        let sizes = Sizes { flows: world.capacity, ring_slots: RING_SLOTS };
        let mut kernel = Kernel::load(pins, sizes)?;
        match open(&mut kernel, world) {
            Ok((reader, poison)) => Ok(Rig { kernel: Some(kernel), reader, poison }),
            Err(error) => {
                // The first error is the one to report.
                let _ = kernel.pins.remove();
                Err(error)
            }
        }
    }

    /// Only then do keys stand in the buckets that the case means: a key that goes leaves a trace.
    fn has_services_of(&self, world: &World) -> bool {
        let standing = self.kernel.as_ref().map(Kernel::tables).unwrap_or_default();
        world.removed.is_empty() && standing.services.keys().eq(world.tables.services.keys())
    }

    fn set_tables(&mut self, world: &World) -> Result<()> {
        let kernel = self.kernel.as_mut().context("the rig was taken down")?;
        for step in diff(&kernel.tables(), &world.tables) {
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

    pub(crate) fn map_names(&self) -> Result<BTreeSet<String>> {
        let ids = self.program()?.info()?.map_ids()?.context("the kernel does not tell maps")?;
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
        let mut packet = vec![0; case.packet.len() + 256];
        let context = XdpContext { end: case.packet.len() as u32, ingress: case.ingress }.bytes();
        let options = TestRunOptions {
            data_in: Some(&case.packet),
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
        Ok((action(ran.return_value)?, packet))
    }

    pub(crate) fn memory(&self) -> &TableMemory {
        &self.reader.memory
    }

    pub(crate) fn clear_flows(&self) {
        let memory = self.memory();
        for index in 0..memory.flow_buckets() * WAYS {
            if let Some(key) = memory.flow_record(index).and_then(|flow| flow.key()) {
                flow_table::release(memory, index, &key);
            }
        }
    }

    /// The case's records and no others, as if they were made `moved` ticks later.
    fn fill_flows(&mut self, case: &Case, moved: u32) -> Result<()> {
        self.clear_flows();
        let memory = self.memory();
        for (key, view) in &case.world.flows {
            let seen = Ticks(view.seen.0.wrapping_add(moved));
            let inserted = flow_table::insert(memory, key, &FlowView { seen, ..*view });
            ensure!(inserted.is_ok(), "{key:?}: {inserted:?}");
        }
        Ok(())
    }

    /// Every tag must have its record, and every record its tag.
    fn flows(&self, moved: u32) -> Result<BTreeMap<FlowKey, FlowView>> {
        let memory = &*self.reader.memory;
        let mut flows = BTreeMap::new();
        for index in 0..memory.flow_buckets() * WAYS {
            let used = memory.flow_tags(index / WAYS).is_some_and(|tags| tags.is_used(index % WAYS));
            let found = memory.flow_record(index).and_then(|flow| Some((flow.key()?, flow.view())));
            ensure!(found.is_some() == used, "place {index}: tag {used}, record {found:?}");
            if let Some((key, view)) = found {
                let seen = Ticks(view.seen.0.wrapping_sub(moved));
                ensure!(flows.insert(key, FlowView { seen, ..view }).is_none(), "{key:?} stands twice");
            }
        }
        Ok(flows)
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

fn open(kernel: &mut Kernel, world: &World) -> Result<(Reader, Poison)> {
    for step in world.steps() {
        kernel.apply(&step)?;
    }
    Ok((kernel.reader()?, Poison::load(kernel.program()?)?))
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
    end: u32,
    ingress: u32,
}

impl XdpContext {
    fn bytes(&self) -> Vec<u8> {
        let (data, data_meta, queue, egress) = (0, 0, 0, 0);
        let fields: [u32; 6] = [data, self.end, data_meta, self.ingress, queue, egress];
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
fn tag() -> String {
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

const _: () = assert!(FRONT == 1, "the loopback of every namespace");
/// A tick is 134 ms, a run far less.
const TICKS_MISSED_MAX: u32 = 100;
