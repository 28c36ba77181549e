//! Moves the pinned state into maps of other sizes, while the program that an earlier daemon left goes on with its own.
//!
//! ```text
//! v3/maps-new   being filled; worth nothing when its daemon was killed
//! v3/maps       what the next program uses: exchanged for the old ones in one step
//! v3/maps-old   what the attached program still uses: its late records follow, then it goes
//! ```
//!
//! Only what depends on a size is made anew: the flow tables, the ring, and what the program finds them by. Every other
//! map is pinned twice, so that both programs count, send and tell servers apart by the same memory.

use std::path::Path;

use aya::maps::{Map, MapData};
use lb_common::{
    flow::{FIN, FlowKey, FlowView, NAT_REPLY, NAT_REQUEST, OPENING, RST, UNCONFIRMED},
    flow_table::{self, FlowMemory, InsertError, WAYS},
    net::{Family, V4, V6},
};
use tracing::{info, warn};

use super::{
    flows::now,
    load::{self, LoadError, Sizes},
    pins::Pins,
    tables::TableMemory,
};

/// Sees to it that the pinned maps have the sizes of the configuration, as far as they can: what the program is to
/// be loaded with.
pub(super) fn prepare(pins: &Pins, wanted: Sizes) -> Result<Sizes, LoadError> {
    pins.discard(&pins.new_maps())?;
    let Some(standing) = load::standing(&pins.maps())? else { return Ok(wanted) };
    // A ring never shrinks: services that go leave gaps.
    let wanted = Sizes { ring_slots: wanted.ring_slots.max(standing.ring_slots), ..wanted };
    if standing.is_as(wanted) {
        return Ok(wanted);
    }
    if pins.old_maps().exists() {
        warn!(
            "the last move to other maps was interrupted: it is completed first, [datapath] flows counts at the next start"
        );
        return Ok(standing);
    }
    load::check_all(&pins.maps(), standing)?;
    match fill(pins, standing, wanted) {
        Ok(copied) => {
            pins.exchange()?;
            copied.tell(standing, wanted);
            Ok(wanted)
        }
        Err(error) => {
            // The first error is the one to report.
            let _ = pins.discard(&pins.new_maps());
            Err(error)
        }
    }
}

/// Before programs are replaced: fetches what the one that is attached has recorded since, and keeps both from taking
/// what they find no record of for lost or new. A link is replaced at a time, and until the last is, requests and their
/// replies may meet different tables.
pub(super) fn begin(pins: &Pins, memory: &TableMemory) -> Result<(), LoadError> {
    if !pins.old_maps().exists() {
        // As a daemon that was killed in the move would have left it.
        memory.globals().set_moving(false);
        return Ok(());
    }
    let old = open(&pins.old_maps())?;
    copy_flows(&old, memory);
    for program in [memory, &old] {
        program.globals().set_moving(true);
    }
    Ok(())
}

/// Nothing waits any more for a move that was not finished.
pub(super) fn give_up(pins: &Pins, memory: &TableMemory) {
    memory.globals().set_moving(false);
    if let Ok(old) = open(&pins.old_maps()) {
        old.globals().set_moving(false);
    }
}

/// Fetches what the program that was replaced recorded to its end; its maps go.
pub(super) fn complete(pins: &Pins, memory: &TableMemory) -> Result<(), LoadError> {
    let path = pins.old_maps();
    if !path.exists() {
        return Ok(());
    }
    let copied = copy_flows(&open(&path)?, memory);
    memory.globals().set_moving(false);
    if copied.lost > 0 {
        warn!("{} late flow records found no room in the new flow table", copied.lost);
    }
    Ok(pins.discard(&path)?)
}

fn fill(pins: &Pins, standing: Sizes, wanted: Sizes) -> Result<Copied, LoadError> {
    let (from, to) = (pins.maps(), pins.new_maps());
    pins.make(&to)?;
    let grows = wanted.ring_slots != standing.ring_slots;
    for name in load::names() {
        let is_sized = SIZED.contains(&name) || grows && OF_RING.contains(&name);
        if !is_sized && from.join(name).exists() {
            let shared = MapData::from_pin(from.join(name))?;
            shared.pin(to.join(name)).map_err(|error| load::explain(&error))?;
        }
    }
    load::make_maps(&to, wanted)?;
    let (old, new) = (open(&from)?, open(&to)?);
    new.globals().copy_from(old.globals());
    new.globals().set_flow_table(new.flow_tags4.len() as u32, old.globals().flow_seed());
    if grows {
        new.copy_services(&old);
    }
    Ok(copy_flows(&old, &new))
}

/// What is made anew when a flow table has another size. The stages with it: the old program calls its own.
const SIZED: [&str; 8] =
    ["globals", "stages", "flow_tags4", "flows4", "halves4", "flow_tags6", "flows6", "halves6"];
/// And what is when the ring has: services say where theirs is.
const OF_RING: [&str; 3] = ["ring", "services4", "services6"];

fn open(maps: &Path) -> Result<TableMemory, LoadError> {
    TableMemory::of(|name| Ok(Map::Array(MapData::from_pin(maps.join(name))?)))
}

/// What became of recorded flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Copied {
    records: u64,
    lost: u64,
}

impl Copied {
    fn tell(self, from: Sizes, to: Sizes) {
        info!(
            "moved {} flow records from maps for {} flows and {} slots to maps for {} and {}",
            self.records, from.flows, from.ring_slots, to.flows, to.ring_slots
        );
        if self.lost > 0 {
            warn!(
                "{} flow records found no room in the smaller flow table: raise [datapath] flows",
                self.lost
            );
        }
    }
}

/// Every record that `to` lacks, or has an older one of. Both tables may be in use.
fn copy_flows(from: &TableMemory, to: &TableMemory) -> Copied {
    let mut copied = Copied::default();
    copy_family::<V4>(from, to, &mut copied);
    copy_family::<V6>(from, to, &mut copied);
    copied
}

fn copy_family<F: Family>(from: &TableMemory, to: &TableMemory, copied: &mut Copied)
where
    TableMemory: FlowMemory<F>,
{
    for bucket in 0..FlowMemory::<F>::flow_buckets(from) {
        let Some(tags) = FlowMemory::<F>::flow_tags(from, bucket) else { return };
        for index in (0..WAYS).filter(|&way| tags.is_used(way)).map(|way| bucket * WAYS + way) {
            let Some(found) = flow_table::nat::<F>(from, index) else { return };
            let Some(key) = found.flow.key() else { continue };
            let view = found.view();
            // Removed while it was read, or on its way with the other half.
            if !found.flow.is(&key) || view.state & NAT_REPLY != 0 {
                continue;
            }
            match copy(from, to, &key, &view) {
                Ok(records) => copied.records += records,
                Err(NoRoom) => copied.lost += 1,
            }
        }
    }
}

struct NoRoom;

/// A record that stands alone, or both halves of a pair. Returns how many records that were.
fn copy<F: Family>(
    from: &TableMemory,
    to: &TableMemory,
    key: &FlowKey<F>,
    view: &FlowView<F>,
) -> Result<u64, NoRoom>
where
    TableMemory: FlowMemory<F>,
{
    drop_older(to, key, view);
    if view.state & NAT_REQUEST == 0 {
        return put(to, key, view);
    }
    let twin_key = key.twin(view.rewrite);
    let twin = flow_table::read(from, &twin_key)
        .filter(|(found, twin)| twin.state & NAT_REPLY != 0 && found.rewrites_to(key.tuple().reversed()));
    // Half a pair is void.
    let Some((_, twin)) = twin else { return Ok(0) };
    let replies = put(to, &twin_key, &twin)?;
    let stands = flow_table::read(to, &twin_key).is_some_and(|(found, _)| found.rewrites_to(twin.rewrite));
    if !stands {
        // Another flow got the port meanwhile.
        return Err(NoRoom);
    }
    match put(to, key, view) {
        Ok(requests) => Ok(replies + requests),
        Err(NoRoom) => {
            flow_table::remove(to, &twin_key);
            Err(NoRoom)
        }
    }
}

/// A record of an earlier connection under the same key gives way, and its other half with it.
fn drop_older<F: Family>(to: &TableMemory, key: &FlowKey<F>, view: &FlowView<F>)
where
    TableMemory: FlowMemory<F>,
{
    let Some((_, standing)) = flow_table::read(to, key) else { return };
    let in_pairs = (standing.state | view.state) & NAT_REQUEST != 0;
    let same = standing.server == view.server && (!in_pairs || standing.rewrite == view.rewrite);
    if same || view.seen.since(standing.seen) == 0 {
        return;
    }
    if standing.state & NAT_REQUEST != 0 {
        flow_table::remove(to, &key.twin(standing.rewrite));
    }
    flow_table::remove(to, key);
}

/// Returns how many records were made. One that was copied before learns what became of it since.
fn put<F: Family>(to: &TableMemory, key: &FlowKey<F>, view: &FlowView<F>) -> Result<u64, NoRoom>
where
    TableMemory: FlowMemory<F>,
{
    let fill = |index| {
        if let Some(place) = flow_table::nat(to, index) {
            place.fill(view);
        }
    };
    match flow_table::insert(to, key, now(), fill) {
        Ok(()) => Ok(1),
        Err(InsertError::Exists) => {
            refresh(to, key, view);
            Ok(0)
        }
        Err(InsertError::Full) => Err(NoRoom),
    }
}

fn refresh<F: Family>(to: &TableMemory, key: &FlowKey<F>, view: &FlowView<F>)
where
    TableMemory: FlowMemory<F>,
{
    let Some((standing, known)) = flow_table::read(to, key) else { return };
    let same = known.server == view.server && known.rewrite == view.rewrite;
    if same && view.seen.since(known.seen) > 0 {
        let opened = (OPENING | UNCONFIRMED) & !view.state;
        standing.flow.touch(view.seen, view.state & (FIN | RST), opened);
    }
}
