//! The maps, and the tables they make.
#![expect(unsafe_code, reason = "map values are pointers into kernel memory")]

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST, xdp_action},
    helpers::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, DevMapHash, HashMap, PerCpuArray},
};
use lb_common::{
    counter::{COUNTS, Counter, Counts, TrafficCounts},
    entry::{Globals, ServerEntry, ServiceEntry},
    flow::{Flow, FlowKey, Ticks},
    limits::{DEVICES_MAX, FLOWS_DEFAULT, RING_SLOTS_MIN, SERVERS_MAX, SERVICE_BUCKETS, SERVICES_MAX},
    slot::{ServerId, Slot},
};
use lb_ebpf::{InsertError, Tables};

#[map(name = "globals")]
static GLOBALS: Array<Globals> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map(name = "services")]
static SERVICES: Array<ServiceEntry> = Array::with_max_entries(SERVICE_BUCKETS, BPF_F_MMAPABLE);
/// The daemon sets the size when it creates the map.
#[map(name = "ring")]
static RING: Array<u64> = Array::with_max_entries(RING_SLOTS_MIN, BPF_F_MMAPABLE);
#[map(name = "servers")]
static SERVERS: Array<ServerEntry> = Array::with_max_entries(SERVERS_MAX, BPF_F_MMAPABLE);
/// The daemon sets the size when it creates the map.
#[map(name = "flows")]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(FLOWS_DEFAULT, 0);
#[map(name = "counters")]
static COUNTERS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);
/// By server id; behind them, by service id, the daemon's account of servers that are gone.
#[map(name = "traffic")]
static TRAFFIC: PerCpuArray<TrafficCounts> = PerCpuArray::with_max_entries(SERVERS_MAX + SERVICES_MAX, 0);
#[map(name = "devices")]
static DEVICES: DevMapHash = DevMapHash::with_max_entries(DEVICES_MAX, 0);

pub(crate) struct Maps;

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
    fn flow(&self, key: &FlowKey) -> Option<&Flow> {
        // SAFETY: what several CPUs change is atomic. A record removed meanwhile may be another flow's for
        // the rest of this packet: the packet is then sent by that record, as if it had come a moment later.
        unsafe { FLOWS.get(key) }
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> Result<(), InsertError> {
        match FLOWS.insert(key, flow, BPF_NOEXIST as u64) {
            Ok(()) => Ok(()),
            Err(error) if error == -EEXIST => Err(InsertError::Exists),
            Err(_) => Err(InsertError::Full),
        }
    }

    #[inline(always)]
    fn remove_flow(&self, key: &FlowKey) {
        // Absent already: another CPU removed it.
        let _ = FLOWS.remove(key);
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

/// To another interface; an interface the daemon did not enter drops the packet.
#[inline(always)]
pub(crate) fn redirect(interface: u32) -> u32 {
    DEVICES.redirect(interface, xdp_action::XDP_DROP as u64).unwrap_or_else(|action| action)
}

const EEXIST: i32 = 17;
