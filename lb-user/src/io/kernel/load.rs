//! Loads the program over pinned maps, after checking that they have the layout it expects.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, MapError, MapType, ProgramArray},
    programs::Xdp,
};
use lb_common::{
    counter::{Counts, TrafficCounts},
    entry::{Globals, Rules, Scoped, ServerEntry, ServiceEntry, SlotEntry},
    flow::{Flow, Half},
    flow_table::{self, Tags, WAYS},
    fragment::{FragmentEntry, FragmentKey},
    limits::{
        ACCESS_NETWORKS_MAX, DEVICES_MAX, FRAGMENTS_MAX, SERVERS_MAX, SERVICE_BUCKETS, SERVICES_MAX,
        WILDCARD_NETWORKS_MAX,
    },
    net::{V4, V6},
    stage::Stage,
    word::Word,
};

use super::{errno, pins::PinsError};

/// Map sizes that follow the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub flows: u32,
    pub ring_slots: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("may not load bpf programs: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Privileges,
    #[error(
        "the pinned map {name} has {what} {found}, this program needs {wanted}: \
         run `steelyard detach` (it ends the flows that are recorded), then start again"
    )]
    Incompatible { name: &'static str, what: &'static str, found: u64, wanted: u64 },
    #[error(
        "the kernel refuses the program ({0}): use Linux 5.18 or newer; if it is, report this as a fault"
    )]
    Kernel(String),
    #[error("no memory for the maps: lower [datapath] flows")]
    Memory,
    #[error("the pinned map {} is gone: start steelyard again", .0.display())]
    Unpinned(PathBuf),
    #[error(transparent)]
    Pins(#[from] PinsError),
    #[error("cannot load the xdp program: {0}")]
    Other(String),
}

impl Sizes {
    /// Whether maps of these sizes are those of other ones.
    pub(super) fn is_as(self, other: Sizes) -> bool {
        flow_table::buckets(self.flows) == flow_table::buckets(other.flows)
            && self.ring_slots == other.ring_slots
    }
}

/// The sizes of pinned maps; None: there are none.
pub(super) fn standing(maps: &Path) -> Result<Option<Sizes>, LoadError> {
    let [tags, ring] = ["flow_tags4", "ring"].map(|name| maps.join(name));
    if !tags.exists() || !ring.exists() {
        return Ok(None);
    }
    let entries = |path| Ok::<_, LoadError>(MapData::from_pin(path)?.info()?.max_entries());
    Ok(Some(Sizes { flows: flow_table::flows(entries(tags)?), ring_slots: entries(ring)? }))
}

/// The names of all maps that are pinned.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    layouts(Sizes { flows: 0, ring_slots: 0 }).into_iter().map(|layout| layout.name)
}

/// Whether the pinned maps are such as this program has, with these sizes.
pub(super) fn check_all(maps: &Path, sizes: Sizes) -> Result<(), LoadError> {
    layouts(sizes).iter().try_for_each(|layout| check(maps, layout))
}

/// Makes and pins the maps that are missing, for a program to come.
pub(super) fn make_maps(maps: &Path, sizes: Sizes) -> Result<(), LoadError> {
    object(maps, sizes).map(drop)
}

fn object(maps: &Path, sizes: Sizes) -> Result<Ebpf, LoadError> {
    let mut loader = EbpfLoader::new();
    size_flows(&mut loader, sizes.flows);
    loader.map_max_entries("ring", sizes.ring_slots);
    for name in names() {
        loader.map_pin_path(name, maps.join(name));
    }
    loader.load(OBJECT).map_err(|error| explain(&error))
}

/// Creates or adopts the maps and loads the program.
pub(super) fn load(maps: &Path, sizes: Sizes) -> Result<Ebpf, LoadError> {
    check_all(maps, sizes)?;
    let mut object = object(maps, sizes)?;
    // The map of stages is pinned, and so they stay.
    programs(&mut object)?;
    Ok(object)
}

/// Loads the program once more, over the pinned maps that it only reads and over new ones for all that it writes. With
/// the map of its stages, which is empty once nobody holds it.
pub(super) fn copy(maps: &Path, flows: u32) -> Result<(Ebpf, ProgramArray<MapData>), LoadError> {
    let mut loader = EbpfLoader::new();
    size_flows(&mut loader, flows);
    loader.map_max_entries("fragments", COPY_FRAGMENTS);
    for name in READ_ONLY {
        let path = maps.join(name);
        // The loader would make a new one, and pin it.
        if !path.exists() {
            return Err(LoadError::Unpinned(path));
        }
        loader.map_pin_path(name, path);
    }
    let mut object = loader.load(OBJECT).map_err(|error| explain(&error))?;
    let stages = programs(&mut object)?;
    Ok((object, stages))
}

/// Maps that the program looks into and never changes.
const READ_ONLY: [&str; 7] = ["services4", "services6", "wildcards", "access", "ring", "servers", "devices"];
/// The kernel wants a few for each CPU; nobody's fragments come here.
const COPY_FRAGMENTS: u32 = 256;

fn size_flows(loader: &mut EbpfLoader<'_>, flows: u32) {
    let buckets = flow_table::buckets(flows);
    loader
        .map_max_entries("flow_tags4", buckets)
        .map_max_entries("flows4", buckets * WAYS)
        .map_max_entries("halves4", buckets * WAYS)
        .map_max_entries("flow_tags6", buckets)
        .map_max_entries("flows6", buckets * WAYS)
        .map_max_entries("halves6", buckets * WAYS);
}

/// Loads every program, and puts those behind the entry where its tail calls find them. Those of an earlier daemon give
/// way one by one: every stage works with every other of the same layout.
fn programs(object: &mut Ebpf) -> Result<ProgramArray<MapData>, LoadError> {
    for name in Stage::ALL.map(|(_, name)| name).into_iter().chain([ENTRY]) {
        program(object, name)?.load().map_err(|error| explain(&error))?;
    }
    // Taken only now: a descriptor closed before a program was loaded would be bound under its number.
    let map = object.take_map("stages").ok_or_else(|| absent("stages"))?;
    let mut places: ProgramArray<MapData> = map.try_into()?;
    for (stage, name) in Stage::ALL {
        let handle = program(object, name)?.fd().map_err(|error| explain(&error))?;
        places.set(stage as u32, handle, 0)?;
    }
    Ok(places)
}

/// The program that is attached.
pub(super) const ENTRY: &str = "steelyard";

pub(super) fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, LoadError> {
    let program = object.program_mut(name).ok_or_else(|| absent(name))?;
    program.try_into().map_err(|error: aya::programs::ProgramError| explain(&error))
}

pub(super) fn absent(what: &str) -> LoadError {
    LoadError::Other(format!("{what} is missing in the embedded object: build it again"))
}

/// The object `build.rs` made. Aligned: the loader reads its headers in place.
static OBJECT: &[u8] = {
    #[repr(C, align(16))]
    struct Aligned<T: ?Sized>(T);
    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("STEELYARD_XDP")));
    &ALIGNED.0
};

/// What a pinned map must look like, since aya takes any.
struct Layout {
    name: &'static str,
    kind: MapType,
    key: usize,
    /// None: only the program knows, and the verifier compares.
    value: Option<usize>,
    /// None: any size serves.
    entries: Option<u32>,
}

fn layouts(sizes: Sizes) -> Vec<Layout> {
    let buckets = flow_table::buckets(sizes.flows);
    let keyed = |name, kind, key, value, entries| Layout { name, kind, key, value: Some(value), entries };
    let map = |name, kind, value, entries| keyed(name, kind, INDEX, value, entries);
    let array = |name, value, entries| map(name, MapType::Array, value, entries);
    vec![
        array("globals", size_of::<Globals>(), Some(1)),
        array("services4", size_of::<ServiceEntry<V4>>(), Some(SERVICE_BUCKETS)),
        array("services6", size_of::<ServiceEntry<V6>>(), Some(SERVICE_BUCKETS)),
        keyed("wildcards", MapType::LpmTrie, PREFIXED, size_of::<Rules>(), Some(WILDCARD_NETWORKS_MAX)),
        keyed("access", MapType::LpmTrie, PREFIXED, size_of::<u32>(), Some(ACCESS_NETWORKS_MAX)),
        array("ring", size_of::<SlotEntry>(), None),
        array("servers", size_of::<ServerEntry>(), Some(SERVERS_MAX)),
        array("turns", size_of::<Word>(), Some(SERVICES_MAX)),
        array("refused", size_of::<Word>(), Some(SERVICES_MAX)),
        array("load", size_of::<Word>(), Some(SERVERS_MAX)),
        array("flow_tags4", size_of::<Tags>(), Some(buckets)),
        array("flows4", size_of::<Flow<V4>>(), Some(buckets * WAYS)),
        array("halves4", size_of::<Half<V4>>(), Some(buckets * WAYS)),
        array("flow_tags6", size_of::<Tags>(), Some(buckets)),
        array("flows6", size_of::<Flow<V6>>(), Some(buckets * WAYS)),
        array("halves6", size_of::<Half<V6>>(), Some(buckets * WAYS)),
        keyed(
            "fragments",
            MapType::LruHash,
            size_of::<FragmentKey>(),
            size_of::<FragmentEntry>(),
            Some(FRAGMENTS_MAX),
        ),
        map("counters", MapType::PerCpuArray, size_of::<Counts>(), Some(1)),
        map("traffic", MapType::PerCpuArray, size_of::<TrafficCounts>(), Some(SERVERS_MAX + SERVICES_MAX)),
        map("devices", MapType::DevMapHash, 8, Some(DEVICES_MAX)),
        // Pinned, so that an entry and stages of two daemons hand packets over: one replaces the other piece by piece.
        Layout { name: "held4", kind: MapType::PerCpuArray, key: INDEX, value: None, entries: Some(1) },
        Layout { name: "held6", kind: MapType::PerCpuArray, key: INDEX, value: None, entries: Some(1) },
        // Pinned, so that the stages stay when the daemon goes.
        map("stages", MapType::ProgramArray, 4, Some(Stage::ALL.len() as u32)),
    ]
}

/// Bytes of a key: an index, or a prefix length and what it counts.
const INDEX: usize = 4;
const PREFIXED: usize = 4 + size_of::<Scoped>();

fn check(maps: &Path, layout: &Layout) -> Result<(), LoadError> {
    let path = maps.join(layout.name);
    if !path.exists() {
        return Ok(());
    }
    let info = MapData::from_pin(path).and_then(|map| map.info()).map_err(|error| explain(&error))?;
    let kind = info.map_type().map_err(|error| explain(&error))?;
    let mut pairs = vec![
        ("type", kind as u64, layout.kind as u64),
        ("key size", info.key_size().into(), layout.key as u64),
    ];
    if let Some(value) = layout.value {
        pairs.push(("value size", info.value_size().into(), value as u64));
    }
    if let Some(entries) = layout.entries {
        pairs.push(("capacity", info.max_entries().into(), entries.into()));
    }
    match pairs.into_iter().find(|(_, found, wanted)| found != wanted) {
        Some((what, found, wanted)) => {
            Err(LoadError::Incompatible { name: layout.name, what, found, wanted })
        }
        None => Ok(()),
    }
}

/// The cause an operator can act on.
pub(super) fn explain(error: &(dyn Error + 'static)) -> LoadError {
    match errno(error) {
        Some(libc::EPERM | libc::EACCES) if !verifier_spoke(error) => LoadError::Privileges,
        Some(_) if verifier_spoke(error) => LoadError::Kernel(last_lines(error)),
        Some(libc::ENOMEM | libc::E2BIG) => LoadError::Memory,
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => LoadError::Kernel(chain(error)),
        _ => LoadError::Other(chain(error)),
    }
}

fn verifier_spoke(error: &(dyn Error + 'static)) -> bool {
    matches!(
        error.downcast_ref::<aya::programs::ProgramError>(),
        Some(aya::programs::ProgramError::LoadError { verifier_log, .. })
            if verifier_log.to_string().contains("processed")
    )
}

fn last_lines(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

/// An error with its causes.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

impl From<MapError> for LoadError {
    fn from(error: MapError) -> Self {
        explain(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_decides_the_advice() {
        let os = |code| {
            MapError::from(aya::sys::SyscallError {
                call: "bpf_map_create",
                io_error: std::io::Error::from_raw_os_error(code),
            })
        };
        for (code, words) in [
            (libc::EPERM, "run as root"),
            (libc::ENOMEM, "lower [datapath] flows"),
            (libc::EINVAL, "Linux 5.18 or newer"),
            (libc::ENOSYS, "Linux 5.18 or newer"),
            (libc::EIO, "Input/output error"),
        ] {
            let text = explain(&os(code)).to_string();
            assert!(text.contains(words), "{code}: {text}");
        }
    }
}
