//! The flow table: buckets of eight records in memory that the kernel and the daemon share.
//!
//! ```text
//! key ─ hash ─► two buckets, one tag
//! tags     16 bits for each of a bucket's eight ways, 0: free        small enough for the cache
//! records  half a cache line each: the only place a lookup waits for
//! halves   what flows that are rewritten have beside, under the same index
//! ```
//!
//! A record goes to the emptier of its two buckets, so that a table is filled to 80 % before one is refused. A
//! way belongs to whoever sets its tag; a record counts from the moment the last word of its key stands. Every
//! CPU may look up, insert and remove at any time without a lock.

use crate::{
    flow::{Flow, FlowKey, FlowView, Half, NatFlow, OPENING, Owner, Ticks},
    hash,
    net::Family,
    word::Word,
};

/// Records in a bucket.
pub const WAYS: u32 = 8;

/// Tags of one bucket, four to a word.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Tags(pub [Word; 2]);

impl Tags {
    pub fn is_empty(&self) -> bool {
        self.0[0].get() == 0 && self.0[1].get() == 0
    }

    /// Whether a way holds a record, or one that is being written.
    pub fn is_used(&self, way: u32) -> bool {
        self.0[(way / 4) as usize & 1].get() >> shift(way) & 0xffff != 0
    }
}

/// The memory of a table: an array of tags, and eight times as many records.
pub trait FlowMemory<F: Family> {
    /// Number of buckets.
    fn flow_buckets(&self) -> u32;
    /// Of the hash: fixed while the table holds records.
    fn flow_seed(&self) -> u64;
    fn flow_tags(&self, bucket: u32) -> Option<&Tags>;
    fn flow_record(&self, index: u32) -> Option<&Flow<F>>;
    fn flow_half(&self, index: u32) -> Option<&Half<F>>;
    /// A record of this server's gave way though its flow may live.
    fn flow_lost(&self, server: u32, now: Ticks);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertError {
    Exists,
    /// Both buckets are full of records that may not give way.
    Full,
}

/// Buckets for a table of `flows` records: a quarter more places than records.
pub const fn buckets(flows: u32) -> u32 {
    let buckets = (flows as u64 * 5 / (4 * WAYS as u64)) as u32;
    if buckets == 0 { 1 } else { buckets }
}

/// The most records that a table of so many buckets is made for.
pub const fn flows(buckets: u32) -> u32 {
    (buckets as u64 * 4 * WAYS as u64).div_ceil(5) as u32
}

/// A half of a NAT flow, and what it held in one moment.
#[inline(always)]
pub fn read<'a, F: Family>(
    memory: &'a impl FlowMemory<F>,
    key: &FlowKey<F>,
) -> Option<(NatFlow<'a, F>, FlowView<F>)> {
    let found = nat(memory, find(memory, key)?)?;
    let view = found.view();
    // Removed and given to another flow while it was read.
    found.flow.is(key).then_some((found, view))
}

/// A record with what its packets are rewritten to.
#[inline(always)]
pub fn nat<F: Family>(memory: &impl FlowMemory<F>, index: u32) -> Option<NatFlow<'_, F>> {
    Some(NatFlow { flow: memory.flow_record(index)?, half: memory.flow_half(index)? })
}

/// A record, its index, and whose it is.
#[inline(always)]
pub fn owner<'a, F: Family>(
    memory: &'a impl FlowMemory<F>,
    key: &FlowKey<F>,
) -> Option<(&'a Flow<F>, u32, Owner)> {
    let index = find(memory, key)?;
    let flow = memory.flow_record(index)?;
    let owner = flow.owner();
    flow.is(key).then_some((flow, index, owner))
}

/// Index of a key's record.
#[inline(always)]
pub fn find<F: Family>(memory: &impl FlowMemory<F>, key: &FlowKey<F>) -> Option<u32> {
    let index = locate(memory, key);
    (index != NOBODY).then_some(index)
}

// Not inlined, like `claim` and `publish`: the verifier follows each call's many ways anew, and what comes after only
// once.
#[inline(never)]
fn locate<F: Family>(memory: &impl FlowMemory<F>, key: &FlowKey<F>) -> u32 {
    holder(memory, Place::of(key, memory), key, NOBODY).unwrap_or(NOBODY)
}

/// Never replaces a record. The caller fills the place that `claim` gives, and `publish` lets others see it: what it
/// holds then never stands on a stack, which has little room in BPF.
#[inline(always)]
pub fn insert<F: Family>(
    memory: &impl FlowMemory<F>,
    key: &FlowKey<F>,
    now: Ticks,
    fill: impl FnOnce(u32),
) -> Result<(), InsertError> {
    let index = match claim(memory, key, now) {
        CLAIM_EXISTS => return Err(InsertError::Exists),
        CLAIM_FULL => return Err(InsertError::Full),
        index => index,
    };
    fill(index);
    if publish(memory, key, index) { Ok(()) } else { Err(InsertError::Exists) }
}

/// A free place for a key, now the caller's; or one of the two values that no index has.
#[inline(never)]
fn claim<F: Family>(memory: &impl FlowMemory<F>, key: &FlowKey<F>, now: Ticks) -> u32 {
    let place = Place::of(key, memory);
    if holder(memory, place, key, NOBODY).is_some() {
        return CLAIM_EXISTS;
    }
    let (emptier, other) = if used(memory, place.first) <= used(memory, place.second) {
        (place.first, place.second)
    } else {
        (place.second, place.first)
    };
    let taken = take(memory, emptier, place.tag).or_else(|| take(memory, other, place.tag));
    match taken {
        Some(index) => index,
        None => match evict(memory, place.first, now) {
            Some(()) => take(memory, place.first, place.tag).unwrap_or(CLAIM_FULL),
            None => CLAIM_FULL,
        },
    }
}

/// Makes a filled place the record of its key. Two CPUs that insert one key at once: each has published before it
/// looks, so at least one sees the other and gives way.
#[inline(never)]
fn publish<F: Family>(memory: &impl FlowMemory<F>, key: &FlowKey<F>, index: u32) -> bool {
    let Some(flow) = memory.flow_record(index) else { return false };
    flow.publish(key);
    let place = Place::of(key, memory);
    if holder(memory, place, key, index).is_some() {
        release(memory, index, key);
        return false;
    }
    true
}

const CLAIM_EXISTS: u32 = u32::MAX;
const CLAIM_FULL: u32 = u32::MAX - 1;

/// Whether a record of this key would find a place now.
pub fn has_room<F: Family>(memory: &impl FlowMemory<F>, key: &FlowKey<F>, now: Ticks) -> bool {
    let place = Place::of(key, memory);
    let gives_way = |way: u32| {
        let flow = memory.flow_record(place.first * WAYS + way);
        flow.is_some_and(|flow| flow.half_open_since(now, EVICTABLE_TICKS).is_some())
    };
    [place.first, place.second].into_iter().any(|bucket| used(memory, bucket) < WAYS)
        || (0..WAYS).any(gives_way)
}

/// Removes the record of a key; absent already is as good.
#[inline(always)]
pub fn remove<F: Family>(memory: &impl FlowMemory<F>, key: &FlowKey<F>) {
    if let Some(index) = find(memory, key) {
        release(memory, index, key);
    }
}

/// Index of the record with this key, other than `except`.
#[inline(always)]
fn holder<F: Family>(
    memory: &impl FlowMemory<F>,
    place: Place,
    key: &FlowKey<F>,
    except: u32,
) -> Option<u32> {
    in_bucket(memory, place.first, place.tag, key, except)
        .or_else(|| in_bucket(memory, place.second, place.tag, key, except))
}

/// Looks behind four tags at most. Five of eight alike come once in 2^54 buckets, and the hash has a seed that no
/// client knows; the fifth record would be missed, as if it had expired.
// Without a loop: the compiler need not unroll it, and the verifier then sees none that may not end.
#[inline(always)]
fn in_bucket<F: Family>(
    memory: &impl FlowMemory<F>,
    bucket: u32,
    tag: u16,
    key: &FlowKey<F>,
    except: u32,
) -> Option<u32> {
    let mut ways = Ways::with(memory.flow_tags(bucket)?, tag);
    let mut next = || {
        let index = bucket * WAYS + ways.next()?;
        (index != except && memory.flow_record(index)?.is(key)).then_some(index)
    };
    next().or_else(&mut next).or_else(&mut next).or_else(&mut next)
}

/// No record has this index: tables are smaller.
const NOBODY: u32 = u32::MAX;

/// Gives a way back: first the record stops counting, then its place is free. Of several callers one succeeds:
/// the others must not free a place that somebody may have taken since.
#[inline(always)]
pub fn release<F: Family>(memory: &impl FlowMemory<F>, index: u32, key: &FlowKey<F>) -> bool {
    let withdrawn = memory.flow_record(index).is_some_and(|flow| flow.withdraw(key));
    if withdrawn {
        free(memory, index);
    }
    withdrawn
}

/// Frees a way without a record: its owner's, or one whose owner was killed before it wrote.
#[inline(always)]
pub fn free<F: Family>(memory: &impl FlowMemory<F>, index: u32) {
    if let Some(tags) = memory.flow_tags(index / WAYS) {
        let way = index % WAYS;
        tags.0[(way / 4) as usize & 1].and(!(0xffff << shift(way)));
    }
}

/// Makes room in a full bucket: a half-open record that nobody confirmed for a second gives way, since a flood of
/// SYNs must not keep clients out that answer.
#[inline(always)]
fn evict<F: Family>(memory: &impl FlowMemory<F>, bucket: u32, now: Ticks) -> Option<()> {
    for way in 0..WAYS {
        let index = bucket * WAYS + way;
        let flow = memory.flow_record(index)?;
        let owner = flow.owner();
        if let Some(key) = flow.half_open_since(now, EVICTABLE_TICKS)
            && release(memory, index, &key)
        {
            if owner.state & OPENING == 0 {
                memory.flow_lost(owner.server, now);
            }
            return Some(());
        }
    }
    None
}

/// Longer than a handshake takes; a client that is slower sends its SYN again and gets a new record.
const EVICTABLE_TICKS: u32 = Ticks::in_ms(1_000);

/// Takes a free way of a bucket.
#[inline(always)]
fn take<F: Family>(memory: &impl FlowMemory<F>, bucket: u32, new: u16) -> Option<u32> {
    let tags = memory.flow_tags(bucket)?;
    for _ in 0..CLAIM_TRIES {
        let way = Ways::with(tags, FREE).next()?;
        let word = &tags.0[(way / 4) as usize & 1];
        let old = word.get();
        let taken = old >> shift(way) & 0xffff != 0;
        if !taken && word.compare_exchange(old, old | (new as u64) << shift(way)) {
            return Some(bucket * WAYS + way);
        }
    }
    None
}

const FREE: u16 = 0;
/// Each failure means that another CPU changed the same four ways in the meantime.
const CLAIM_TRIES: u32 = 2;

#[inline(always)]
fn used<F: Family>(memory: &impl FlowMemory<F>, bucket: u32) -> u32 {
    memory.flow_tags(bucket).map_or(WAYS, |tags| WAYS - Ways::with(tags, FREE).count())
}

#[inline(always)]
const fn shift(way: u32) -> u32 {
    way % 4 * 16
}

/// A set of ways, a bit each. Found and taken apart without a branch, so that neither the CPU nor the verifier
/// has to follow eight of them.
struct Ways(u64);

impl Ways {
    #[inline(always)]
    fn with(tags: &Tags, tag: u16) -> Self {
        let all = tag as u64 * 0x0001_0001_0001_0001;
        Ways(zero_lanes(tags.0[0].get() ^ all) | zero_lanes(tags.0[1].get() ^ all) << 4)
    }

    /// Takes the lowest way out.
    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let lowest = self.0 & self.0.wrapping_neg();
        self.0 ^= lowest;
        // A de Bruijn product numbers the eight single bits; BPF has no instruction for it, and a comparison
        // would be a branch.
        let number = ((lowest * 0x17) & 0xff) >> 5;
        Some((0x5637_4210u32 >> (number * 4)) & 7)
    }

    #[inline(always)]
    fn count(&self) -> u32 {
        let pairs = self.0 - (self.0 >> 1 & 0x55);
        let nibbles = (pairs & 0x33) + (pairs >> 2 & 0x33);
        ((nibbles + (nibbles >> 4)) & 0xf) as u32
    }
}

/// A bit for each 16-bit lane that is zero, the lowest lane first.
#[inline(always)]
const fn zero_lanes(x: u64) -> u64 {
    const LOW: u64 = 0x7fff_7fff_7fff_7fff;
    let tops = !(((x & LOW) + LOW) | x | LOW);
    // Brings the top bits of the lanes side by side; no other product reaches these four places.
    (tops >> 15).wrapping_mul(1 << 48 | 1 << 33 | 1 << 18 | 1 << 3) >> 48 & 0xf
}

/// Where a key may stand.
#[derive(Clone, Copy)]
struct Place {
    first: u32,
    second: u32,
    /// Never 0.
    tag: u16,
}

impl Place {
    #[inline(always)]
    fn of<F: Family>(key: &FlowKey<F>, memory: &impl FlowMemory<F>) -> Self {
        let hash = hash::record(memory.flow_seed(), key.addresses(), key.rest());
        let buckets = memory.flow_buckets();
        let scale = |bits: u32| ((bits as u64 * buckets as u64) >> 32) as u32;
        Place { first: scale(hash as u32), second: scale((hash >> 32) as u32), tag: hash as u16 | 1 }
    }
}

const _: () = assert!(size_of::<Tags>() == 16);

#[cfg(test)]
mod tests;
