//! The maps, and the tables they make.
#![expect(unsafe_code, reason = "map values are pointers into kernel memory")]

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_action},
    helpers::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, DevMapHash, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, lpm_trie::Key},
    programs::XdpContext,
};
use lb_common::{
    counter::{COUNTS, Counter, Counts, TrafficCounts},
    entry::{Globals, Rules, Scoped, ServerEntry, ServiceEntry},
    flow::{Flow, Half, TICK_SHIFT, Ticks},
    flow_table::{FlowMemory, Tags, WAYS},
    fragment::{FragmentEntry, FragmentKey},
    limits::{
        ACCESS_NETWORKS_MAX, ANSWERS_PER_SECOND, DEVICES_MAX, FRAGMENTS_MAX, RING_SLOTS_MIN, SERVERS_MAX,
        SERVICE_BUCKETS, SERVICES_MAX, WILDCARD_NETWORKS_MAX,
    },
    net::{V4, V6},
    slot::{ServerId, Slot},
    stage::Stage,
    word::Word,
};
use lb_ebpf::{FamilyTables, Held, Tables, forward::Task};

#[map(name = "globals")]
static GLOBALS: Array<Globals> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map(name = "services4")]
static SERVICES4: Array<ServiceEntry<V4>> = Array::with_max_entries(SERVICE_BUCKETS, BPF_F_MMAPABLE);
#[map(name = "services6")]
static SERVICES6: Array<ServiceEntry<V6>> = Array::with_max_entries(SERVICE_BUCKETS, BPF_F_MMAPABLE);
#[map(name = "wildcards")]
static WILDCARDS: LpmTrie<Scoped, Rules> = LpmTrie::with_max_entries(WILDCARD_NETWORKS_MAX, 0);
#[map(name = "access")]
static ACCESS: LpmTrie<Scoped, u32> = LpmTrie::with_max_entries(ACCESS_NETWORKS_MAX, 0);
/// The daemon sets the size when it creates the map.
#[map(name = "ring")]
static RING: Array<u64> = Array::with_max_entries(RING_SLOTS_MIN, BPF_F_MMAPABLE);
#[map(name = "servers")]
static SERVERS: Array<ServerEntry> = Array::with_max_entries(SERVERS_MAX, BPF_F_MMAPABLE);
#[map(name = "turns")]
static TURNS: Array<Word> = Array::with_max_entries(SERVICES_MAX, BPF_F_MMAPABLE);
/// By service id.
#[map(name = "refused")]
static REFUSED: Array<Word> = Array::with_max_entries(SERVICES_MAX, BPF_F_MMAPABLE);
#[map(name = "load")]
static LOAD: Array<Word> = Array::with_max_entries(SERVERS_MAX, BPF_F_MMAPABLE);
/// The daemon sets the sizes of these six when it creates the maps.
#[map(name = "flow_tags4")]
static FLOW_TAGS4: Array<Tags> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map(name = "flows4")]
static FLOWS4: Array<Flow<V4>> = Array::with_max_entries(WAYS, BPF_F_MMAPABLE);
#[map(name = "halves4")]
static HALVES4: Array<Half<V4>> = Array::with_max_entries(WAYS, BPF_F_MMAPABLE);
#[map(name = "flow_tags6")]
static FLOW_TAGS6: Array<Tags> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map(name = "flows6")]
static FLOWS6: Array<Flow<V6>> = Array::with_max_entries(WAYS, BPF_F_MMAPABLE);
#[map(name = "halves6")]
static HALVES6: Array<Half<V6>> = Array::with_max_entries(WAYS, BPF_F_MMAPABLE);
#[map(name = "fragments")]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry> = LruHashMap::with_max_entries(FRAGMENTS_MAX, 0);
#[map(name = "counters")]
static COUNTERS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);
/// By server id; behind them, by service id, the daemon's account of servers that are gone.
#[map(name = "traffic")]
static TRAFFIC: PerCpuArray<TrafficCounts> = PerCpuArray::with_max_entries(SERVERS_MAX + SERVICES_MAX, 0);
#[map(name = "devices")]
static DEVICES: DevMapHash = DevMapHash::with_max_entries(DEVICES_MAX, 0);
/// The stages behind the entry, by their numbers; the daemon puts them in.
#[map(name = "stages")]
static STAGES: ProgramArray = ProgramArray::with_max_entries(Stage::ALL.len() as u32, 0);
#[map(name = "held4")]
static HELD4: PerCpuArray<Held<V4>> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "held6")]
static HELD6: PerCpuArray<Held<V6>> = PerCpuArray::with_max_entries(1, 0);
/// The tick in which ICMP errors were sent last, and how many.
#[map(name = "answers")]
static ANSWERS: PerCpuArray<[u32; 2]> = PerCpuArray::with_max_entries(1, 0);

pub(crate) struct Maps;

macro_rules! family_tables {
    ($family:ty, $services:ident, $tags:ident, $flows:ident, $halves:ident, $held:ident, $is_v6:literal) => {
        impl FlowMemory<$family> for Maps {
            #[inline(always)]
            fn flow_buckets(&self) -> u32 {
                GLOBALS.get(0).map_or(0, |globals| globals.flow_buckets($is_v6))
            }

            #[inline(always)]
            fn flow_seed(&self) -> u64 {
                GLOBALS.get(0).map_or(0, |globals| globals.flow_seed())
            }

            #[inline(always)]
            fn flow_tags(&self, bucket: u32) -> Option<&Tags> {
                $tags.get(bucket)
            }

            #[inline(always)]
            fn flow_record(&self, index: u32) -> Option<&Flow<$family>> {
                $flows.get(index)
            }

            #[inline(always)]
            fn flow_half(&self, index: u32) -> Option<&Half<$family>> {
                $halves.get(index)
            }

            #[inline(always)]
            fn flow_lost(&self, server: u32, now: Ticks) {
                if let Some(entry) = SERVERS.get(server)
                    && let Some(at) = REFUSED.get(entry.service())
                {
                    at.set(now.stamp());
                }
            }
        }

        impl FamilyTables<$family> for Maps {
            #[inline(always)]
            fn service_bucket(&self, index: u32) -> Option<&ServiceEntry<$family>> {
                $services.get(index)
            }

            #[inline(always)]
            fn hold(&self, held: &Held<$family>) {
                if let Some(place) = $held.get_ptr_mut(0) {
                    // SAFETY: this CPU's own value; XDP is not interrupted by XDP on the same CPU.
                    unsafe { *place = *held };
                }
            }

            #[inline(always)]
            fn assign(&self, task: Task) {
                if let Some(place) = $held.get_ptr_mut(0) {
                    // SAFETY: as above.
                    unsafe { (*place).task = task };
                }
            }

            #[inline(always)]
            fn held(&self) -> Option<Held<$family>> {
                // SAFETY: as above. What stands there was written by `hold`, or is zero, a value as well.
                $held.get_ptr(0).map(|place| unsafe { *place })
            }
        }
    };
}

family_tables!(V4, SERVICES4, FLOW_TAGS4, FLOWS4, HALVES4, HELD4, false);
family_tables!(V6, SERVICES6, FLOW_TAGS6, FLOWS6, HALVES6, HELD6, true);

impl Tables for Maps {
    #[inline(always)]
    fn globals(&self) -> Option<&Globals> {
        GLOBALS.get(0)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        let word = RING.get_ptr(index)?;
        // SAFETY: the pointer is to a live map value of 8 aligned bytes. Volatile: one load, of a word the
        // daemon may replace at any time.
        Some(Slot(unsafe { word.read_volatile() }))
    }

    #[inline(always)]
    fn server(&self, id: ServerId) -> Option<&ServerEntry> {
        SERVERS.get(id.0)
    }

    #[inline(always)]
    fn rules(&self, address: &Scoped) -> Option<&Rules> {
        WILDCARDS.get(Key::new(KEY_BITS, *address))
    }

    #[inline(always)]
    fn access(&self, client: &Scoped) -> Option<u32> {
        ACCESS.get(Key::new(KEY_BITS, *client)).copied()
    }

    #[inline(always)]
    fn turns(&self, service: u32) -> Option<&Word> {
        TURNS.get(service)
    }

    #[inline(always)]
    fn refused(&self, service: u32) -> Option<&Word> {
        REFUSED.get(service)
    }

    #[inline(always)]
    fn load(&self, id: ServerId) -> Option<&Word> {
        LOAD.get(id.0)
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        // SAFETY: a live value; one that changes meanwhile belongs to the same datagram or to none.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn keep_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) {
        // The least recently seen gives way: there is always room.
        let _ = FRAGMENTS.insert(key, entry, 0);
    }

    #[inline(always)]
    fn now(&self) -> Ticks {
        // SAFETY: a helper without arguments.
        Ticks::from_ns(unsafe { bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn may_answer(&self, now: Ticks) -> bool {
        let Some(place) = ANSWERS.get_ptr_mut(0) else { return false };
        // SAFETY: this CPU's own value; XDP is not interrupted by XDP on the same CPU.
        let [tick, sent] = unsafe { &mut *place };
        if *tick != now.0 {
            (*tick, *sent) = (now.0, 0);
        }
        *sent += 1;
        *sent <= ANSWERS_PER_TICK
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        count(counter as usize);
    }

    #[inline(always)]
    fn count_server(&self, id: ServerId, bytes: u32, opening: bool) {
        let Some(counts) = TRAFFIC.get_ptr_mut(id.0) else { return };
        // SAFETY: this CPU's own value; XDP is not interrupted by XDP on the same CPU.
        unsafe {
            (*counts).packets += 1;
            (*counts).bytes += bytes as u64;
            (*counts).connections += opening as u64;
        }
    }
}

/// Scope and address.
const KEY_BITS: u32 = Scoped::bits(128, false);
const ANSWERS_PER_TICK: u32 = ((ANSWERS_PER_SECOND as u64) << TICK_SHIFT).div_ceil(1_000_000_000) as u32;

/// `counter`: an index below `COUNTS`, which the verifier sees from its bits.
#[inline(always)]
pub(crate) fn count(counter: usize) {
    let Some(counts) = COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own value; XDP is not interrupted by XDP on the same CPU.
    let counts = unsafe { &mut (*counts).0 };
    counts[counter & (COUNTS - 1)] += 1;
}

/// To another interface; None: the daemon did not enter it, or it is gone.
#[inline(always)]
pub(crate) fn redirect(interface: u32) -> Option<u32> {
    DEVICES.redirect(interface, xdp_action::XDP_DROP as u64).ok()
}

/// Does not return when the stage is there.
#[inline(always)]
pub(crate) fn go_on(context: &XdpContext, stage: u32) {
    // SAFETY: the context is the kernel's own, and nothing in the programs needs to be dropped.
    unsafe { STAGES.tail_call(context, stage) };
}
