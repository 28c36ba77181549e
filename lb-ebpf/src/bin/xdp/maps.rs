//! The maps, and the tables they make.
#![expect(unsafe_code, reason = "map values are pointers into kernel memory")]

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_action},
    helpers::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, DevMapHash, PerCpuArray},
};
use lb_common::{
    counter::{COUNTS, Counter, Counts, TrafficCounts},
    entry::{Globals, ServerEntry, ServiceEntry},
    flow::{Flow, Ticks},
    flow_table::{FlowMemory, Tags, WAYS},
    limits::{DEVICES_MAX, RING_SLOTS_MIN, SERVERS_MAX, SERVICE_BUCKETS, SERVICES_MAX},
    slot::{ServerId, Slot},
};
use lb_ebpf::Tables;

#[map(name = "globals")]
static GLOBALS: Array<Globals> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map(name = "services")]
static SERVICES: Array<ServiceEntry> = Array::with_max_entries(SERVICE_BUCKETS, BPF_F_MMAPABLE);
/// The daemon sets the size when it creates the map.
#[map(name = "ring")]
static RING: Array<u64> = Array::with_max_entries(RING_SLOTS_MIN, BPF_F_MMAPABLE);
#[map(name = "servers")]
static SERVERS: Array<ServerEntry> = Array::with_max_entries(SERVERS_MAX, BPF_F_MMAPABLE);
/// The daemon sets both sizes when it creates the maps.
#[map(name = "flow_tags")]
static FLOW_TAGS: Array<Tags> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map(name = "flows")]
static FLOWS: Array<Flow> = Array::with_max_entries(WAYS, BPF_F_MMAPABLE);
#[map(name = "counters")]
static COUNTERS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);
/// By server id; behind them, by service id, the daemon's account of servers that are gone.
#[map(name = "traffic")]
static TRAFFIC: PerCpuArray<TrafficCounts> = PerCpuArray::with_max_entries(SERVERS_MAX + SERVICES_MAX, 0);
#[map(name = "devices")]
static DEVICES: DevMapHash = DevMapHash::with_max_entries(DEVICES_MAX, 0);

pub(crate) struct Maps;

impl FlowMemory for Maps {
    #[inline(always)]
    fn flow_buckets(&self) -> u32 {
        GLOBALS.get(0).map_or(0, |globals| globals.flow_buckets.get() as u32)
    }

    #[inline(always)]
    fn flow_seed(&self) -> u64 {
        GLOBALS.get(0).map_or(0, |globals| globals.flow_seed.get())
    }

    #[inline(always)]
    fn flow_tags(&self, bucket: u32) -> Option<&Tags> {
        FLOW_TAGS.get(bucket)
    }

    #[inline(always)]
    fn flow_record(&self, index: u32) -> Option<&Flow> {
        FLOWS.get(index)
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn globals(&self) -> Option<&Globals> {
        GLOBALS.get(0)
    }

    #[inline(always)]
    fn service_bucket(&self, index: u32) -> Option<&ServiceEntry> {
        SERVICES.get(index)
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
    fn now(&self) -> Ticks {
        // SAFETY: a helper without arguments.
        Ticks::from_ns(unsafe { bpf_ktime_get_coarse_ns() })
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
