//! What the program keeps between packets beside its flow tables: fragments, turns, load, and its answers of late.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result};
use aya::{
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues, loaded_maps},
    programs::{ProgramInfo, loaded_programs},
    util::nr_cpus,
};
use lb_common::{
    flow::Ticks,
    fragment::{FragmentEntry, FragmentKey},
    net::Be16,
    slot::ServerId,
    stage::Stage,
};
use lb_tests::cases::world::World;
use lb_user::io::kernel::now;

pub(crate) struct State {
    /// By the words of their layouts.
    fragments: HashMap<MapData, [u64; 5], [u16; 4]>,
    turns: Array<MapData, u64>,
    refused: Array<MapData, u64>,
    load: Array<MapData, u64>,
    answers: PerCpuArray<MapData, [u32; 2]>,
    /// The id of a map that every program of ours uses.
    counters: u32,
}

impl State {
    pub(crate) fn open(maps: &Path) -> Result<State> {
        let pinned =
            |name: &str| MapData::from_pin(maps.join(name)).with_context(|| format!("opening {name}"));
        let counters = pinned("counters")?.info()?.id();
        Ok(State {
            fragments: HashMap::try_from(Map::LruHashMap(pinned("fragments")?))?,
            turns: Array::try_from(Map::Array(pinned("turns")?))?,
            refused: Array::try_from(Map::Array(pinned("refused")?))?,
            load: Array::try_from(Map::Array(pinned("load")?))?,
            answers: PerCpuArray::try_from(Map::PerCpuArray(unpinned("answers", counters)?))?,
            counters,
        })
    }

    /// As the world says, `moved` ticks later.
    pub(crate) fn fill(&mut self, world: &World, moved: u32) -> Result<()> {
        let standing: Vec<_> = self.fragments.keys().collect::<Result<_, _>>()?;
        for key in standing {
            self.fragments.remove(&key)?;
        }
        for (key, entry) in &world.fragments {
            let seen = Ticks(entry.seen.0.wrapping_add(moved));
            self.fragments.insert(key_words(key), entry_words(&FragmentEntry { seen, ..*entry }), 0)?;
        }
        for id in services(world) {
            self.turns.set(id, world.turns.get(&id).copied().unwrap_or(0), 0)?;
            self.refused.set(id, 0, 0)?;
        }
        for &id in world.tables.servers.keys() {
            self.load.set(id.0, world.load.get(&id).copied().unwrap_or(0), 0)?;
        }
        let cpus = nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?;
        let answers = PerCpuValues::try_from(vec![[now().0, world.answered]; cpus])?;
        self.answers.set(0, answers, 0)?;
        Ok(())
    }

    pub(crate) fn fragments(&self, moved: u32) -> Result<BTreeMap<FragmentKey, FragmentEntry>> {
        let mut fragments = BTreeMap::new();
        for found in self.fragments.iter() {
            let (key, entry) = found?;
            let entry = entry_of(entry);
            let seen = Ticks(entry.seen.0.wrapping_sub(moved));
            fragments.insert(key_of(key), FragmentEntry { seen, ..entry });
        }
        Ok(fragments)
    }

    pub(crate) fn turns(&self, world: &World) -> Result<BTreeMap<u32, u64>> {
        let mut turns = BTreeMap::new();
        for id in services(world) {
            turns.insert(id, self.turns.get(&id, 0)?);
        }
        turns.retain(|_, &mut count| count != 0);
        Ok(turns)
    }

    pub(crate) fn refused(&self, world: &World, moved: u32) -> Result<BTreeMap<u32, Ticks>> {
        let mut refused = BTreeMap::new();
        for id in services(world) {
            if let Some(at) = Ticks::of_stamp(self.refused.get(&id, 0)?) {
                refused.insert(id, Ticks(at.0.wrapping_sub(moved)));
            }
        }
        Ok(refused)
    }

    pub(crate) fn load(&self, world: &World) -> Result<BTreeMap<ServerId, u64>> {
        let mut load = BTreeMap::new();
        for &id in world.tables.servers.keys() {
            load.insert(id, self.load.get(&id.0, 0)?);
        }
        load.retain(|_, &mut count| count != 0);
        Ok(load)
    }

    /// The entry and every stage.
    pub(crate) fn programs(&self) -> Result<Vec<ProgramInfo>> {
        programs_with(self.counters)
    }
}

fn services(world: &World) -> BTreeSet<u32> {
    world.tables.all_services().map(|service| service.id).collect()
}

/// A map of the program that counts in the map `counters`.
fn unpinned(name: &str, counters: u32) -> Result<MapData> {
    let mut ids = BTreeSet::new();
    for program in programs_with(counters)? {
        ids.extend(program.map_ids()?.context("the kernel does not tell maps")?);
    }
    for map in loaded_maps() {
        let map = map?;
        if ids.contains(&map.id()) && map.name_as_str() == Some(name) {
            return Ok(MapData::from_id(map.id())?);
        }
    }
    anyhow::bail!("no program uses a map {name}")
}

fn programs_with(counters: u32) -> Result<Vec<ProgramInfo>> {
    let names: BTreeSet<&str> = Stage::ALL.iter().map(|&(_, name)| name).chain([ENTRY]).collect();
    let mut found = Vec::new();
    for program in loaded_programs() {
        // Others may load and unload theirs at any time.
        let Ok(program) = program else { continue };
        let is_named = program.name_as_str().is_some_and(|name| names.contains(name));
        if is_named && program.map_ids().ok().flatten().is_some_and(|ids| ids.contains(&counters)) {
            found.push(program);
        }
    }
    Ok(found)
}

const ENTRY: &str = "steelyard";

fn key_words(key: &FragmentKey) -> [u64; 5] {
    let ([a, b], [c, d]) = (key.source, key.destination);
    [a, b, c, d, u64::from(key.id) | u64::from(key.protocol) << 32]
}

fn key_of([a, b, c, d, rest]: [u64; 5]) -> FragmentKey {
    FragmentKey { source: [a, b], destination: [c, d], id: rest as u32, protocol: (rest >> 32) as u32 }
}

fn entry_words(entry: &FragmentEntry) -> [u16; 4] {
    let seen = entry.seen.0;
    [entry.source_port.0, entry.destination_port.0, seen as u16, (seen >> 16) as u16]
}

fn entry_of([source, destination, low, high]: [u16; 4]) -> FragmentEntry {
    FragmentEntry {
        source_port: Be16(source),
        destination_port: Be16(destination),
        seen: Ticks(u32::from(low) | u32::from(high) << 16),
    }
}
