extern crate std;

use std::{
    collections::BTreeMap,
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    vec::Vec,
};

use super::*;
use crate::limits::{FLOWS_DEFAULT, FLOWS_MAX, FLOWS_MIN};
use crate::{
    flow::{Tuple, UNCONFIRMED},
    net::{Be16, Be32, TCP, V4},
};

struct Memory {
    tags: Vec<Tags>,
    records: Vec<Flow>,
    halves: Vec<Half>,
    /// Records that gave way though their flows may live.
    lost: AtomicU32,
}

impl Memory {
    fn new(flows: u32) -> Self {
        let buckets = buckets(flows);
        Memory {
            tags: (0..buckets).map(|_| Tags::default()).collect(),
            records: (0..buckets * WAYS).map(|_| Flow::default()).collect(),
            halves: (0..buckets * WAYS).map(|_| Half::default()).collect(),
            lost: AtomicU32::new(0),
        }
    }

    fn used(&self) -> usize {
        (0..self.flow_buckets()).map(|bucket| used(self, bucket) as usize).sum()
    }
}

impl FlowMemory<V4> for Memory {
    fn flow_buckets(&self) -> u32 {
        self.tags.len() as u32
    }

    fn flow_seed(&self) -> u64 {
        0x0123_4567_89ab_cdef
    }

    fn flow_tags(&self, bucket: u32) -> Option<&Tags> {
        self.tags.get(bucket as usize)
    }

    fn flow_record(&self, index: u32) -> Option<&Flow> {
        self.records.get(index as usize)
    }

    fn flow_half(&self, index: u32) -> Option<&Half> {
        self.halves.get(index as usize)
    }

    fn flow_lost(&self, _: u32, _: Ticks) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

fn key(n: u32) -> FlowKey {
    let tuple = Tuple {
        source: Be32(n),
        destination: Be32(!n),
        source_port: Be16(n as u16),
        destination_port: Be16(80),
    };
    FlowKey::new(tuple, TCP)
}

fn view(n: u32) -> FlowView {
    FlowView {
        server: n & 0xff_ffff,
        nat_source: n & 63,
        seen: Ticks(n),
        state: n & !OPENING & 31,
        interface: n,
        tags: !n,
        rewrite: key(n).tuple(),
        peer_mac: n.into(),
        own_mac: (!n).into(),
    }
}

fn put(memory: &Memory, key: &FlowKey, view: &FlowView) -> Result<(), InsertError> {
    insert(memory, key, view.seen, |index| nat(memory, index).expect("within").fill(view))
}

#[test]
fn lanes_are_told_apart() {
    for (x, zero) in [
        (0, [true; 4]),
        (0x8000_0001_0000_ffff, [false, true, false, false]),
        (0x0000_8000_7fff_0001, [false, false, false, true]),
        (0x0001_0000_0000_0100, [false, true, true, false]),
    ] {
        let lanes = zero_lanes(x);
        let expected = (0..4).filter(|&lane| zero[lane]).fold(0, |bits, lane| bits | 1 << lane);
        assert_eq!(lanes, expected, "{x:#x}");
    }
}

#[test]
fn ways_come_one_by_one() {
    for bits in 0..256u64 {
        let expected: Vec<u32> = (0..8).filter(|way| bits >> way & 1 != 0).collect();
        assert_eq!(Ways(bits).count() as usize, expected.len(), "{bits:#b}");
        let mut ways = Ways(bits);
        let found: Vec<u32> = core::iter::from_fn(|| ways.next()).collect();
        assert_eq!(found, expected, "{bits:#b}");
    }
}

#[test]
fn what_is_inserted_is_found_until_it_is_removed() {
    let memory = Memory::new(1_000);
    for n in 0..1_000 {
        assert_eq!(put(&memory, &key(n), &view(n)), Ok(()), "{n}");
        assert_eq!(put(&memory, &key(n), &view(n)), Err(InsertError::Exists), "{n}");
    }
    for n in 0..1_000 {
        assert_eq!(read(&memory, &key(n)).map(|(_, view)| view), Some(view(n)));
        remove(&memory, &key(n));
        assert!(find(&memory, &key(n)).is_none());
        remove(&memory, &key(n));
    }
    assert_eq!(memory.used(), 0);
}

#[test]
fn a_table_takes_what_it_is_made_for() {
    for flows in [1_024, 10_000, 262_144] {
        let memory = Memory::new(flows);
        let refused = (0..flows).filter(|&n| put(&memory, &key(n), &view(n)).is_err()).count();
        assert!(refused * 1_000 <= flows as usize, "{refused} of {flows} refused");
    }
}

#[test]
fn one_bucket_is_full_after_eight() {
    let memory = Memory::new(8);
    for n in 0..8 {
        assert!(has_room(&memory, &key(8), Ticks(8)));
        assert_eq!(put(&memory, &key(n), &view(n)), Ok(()));
    }
    assert!(!has_room(&memory, &key(8), Ticks(8)));
    assert_eq!(put(&memory, &key(8), &view(8)), Err(InsertError::Full));
    remove(&memory, &key(3));
    assert_eq!(put(&memory, &key(8), &view(8)), Ok(()));
}

#[test]
fn a_record_that_nobody_confirmed_gives_way_after_a_second() {
    gives_way(OPENING);
    gives_way(UNCONFIRMED);
}

fn gives_way(unconfirmed: u32) {
    let memory = Memory::new(8);
    let at = |n: u32, tick, state| FlowView { seen: Ticks(tick), state, ..view(n) };
    for n in 0..8 {
        let state = if n == 5 { unconfirmed } else { 0 };
        assert_eq!(put(&memory, &key(n), &at(n, 100, state)), Ok(()));
    }
    let soon = 100 + EVICTABLE_TICKS - 1;
    assert_eq!(put(&memory, &key(8), &at(8, soon, unconfirmed)), Err(InsertError::Full));
    assert_eq!(put(&memory, &key(8), &at(8, soon + 1, unconfirmed)), Ok(()));
    assert!(find(&memory, &key(5)).is_none());
    assert_eq!(put(&memory, &key(5), &at(5, soon + 1, unconfirmed)), Err(InsertError::Full));
    assert_eq!(memory.used(), 8);
    // A client without an answer lost nothing.
    assert_eq!(memory.lost.into_inner(), u32::from(unconfirmed & OPENING == 0));
}

/// One bucket, more keys than ways, and every record half-open and old: removals, evictions and insertions
/// meet on the same way all the time.
#[test]
fn a_way_has_one_owner_at_a_time() {
    const KEYS: u32 = 24;
    const ROUNDS: u32 = 60_000;
    let memory = Memory::new(8);
    let opening = |n: u32, tick| FlowView { seen: Ticks(tick), state: OPENING, ..view(n) };
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for thread in 0..4u32 {
            let (memory, barrier, opening) = (&memory, &barrier, &opening);
            scope.spawn(move || {
                barrier.wait();
                let mut random = thread + 1;
                for round in 0..ROUNDS {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let n = (random >> 8) % KEYS;
                    match random >> 28 & 3 {
                        0 => remove(memory, &key(n)),
                        1 | 2 => drop(put(memory, &key(n), &opening(n, round * EVICTABLE_TICKS))),
                        _ => {
                            if let Some((_, found)) = read(memory, &key(n)) {
                                assert_eq!(found, opening(n, found.seen.0), "a record of another key");
                            }
                        }
                    }
                }
            });
        }
    });
    for index in 0..WAYS {
        let tagged = memory.tags[0].is_used(index);
        let standing = memory.records[index as usize].key();
        assert_eq!(tagged, standing.is_some(), "way {index}: {standing:?}");
    }
}

/// Threads fight over few keys; in the end no key stands twice, and no way is lost.
#[test]
fn threads_never_hold_one_key_twice() {
    const KEYS: u32 = 16;
    const ROUNDS: u32 = 20_000;
    let memory = Memory::new(64);
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for thread in 0..4u32 {
            let (memory, barrier) = (&memory, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut random = thread + 1;
                for _ in 0..ROUNDS {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let n = random >> 8 & (KEYS - 1);
                    match random >> 28 & 3 {
                        0 => remove(memory, &key(n)),
                        1 => drop(put(memory, &key(n), &view(n))),
                        _ => {
                            if let Some((_, found)) = read(memory, &key(n)) {
                                assert_eq!(found, view(n), "a record of another key");
                            }
                        }
                    }
                }
            });
        }
    });
    let mut standing = BTreeMap::new();
    for index in 0..memory.records.len() as u32 {
        if let Some(key) = memory.records[index as usize].key() {
            *standing.entry(key).or_insert(0) += 1;
        }
    }
    assert!(standing.values().all(|&times| times == 1), "{standing:?}");
    assert_eq!(memory.used(), standing.len(), "a way without a record");
    for key in standing.keys() {
        remove(&memory, key);
    }
    assert_eq!(memory.used(), 0);
}

#[test]
fn a_table_tells_how_many_flows_it_is_for() {
    for flows in [FLOWS_MIN, 1_500, FLOWS_DEFAULT, FLOWS_MAX] {
        assert_eq!(buckets(super::flows(buckets(flows))), buckets(flows), "{flows}");
    }
    assert_eq!(buckets(flows(1)), 1);
}
