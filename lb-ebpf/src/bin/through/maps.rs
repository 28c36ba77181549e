//! The maps, and the tables they make.
#![expect(unsafe_code, reason = "map values are pointers into kernel memory")]

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use lb_common::{
    entry::ServerEntry,
    limits::SERVERS_MAX,
    slot::ServerId,
    through::{
        CONNECTIONS_MAX, Connection, ConnectionKey, Target,
        counter::{COUNTS, Counter},
    },
};
use lb_ebpf::through::ThroughTables;

/// The data path's own.
#[map(name = "servers")]
static SERVERS: Array<ServerEntry> = Array::with_max_entries(SERVERS_MAX, BPF_F_MMAPABLE);
/// By server id.
#[map(name = "targets")]
static TARGETS: HashMap<u32, Target> = HashMap::with_max_entries(SERVERS_MAX, BPF_F_NO_PREALLOC);
#[map(name = "connections")]
static CONNECTIONS: LruHashMap<ConnectionKey, Connection> = LruHashMap::with_max_entries(CONNECTIONS_MAX, 0);
#[map(name = "counters")]
static COUNTERS: PerCpuArray<[u64; COUNTS]> = PerCpuArray::with_max_entries(1, 0);

pub(crate) struct Maps;

impl ThroughTables for Maps {
    #[inline(always)]
    fn target(&self, server: ServerId) -> Option<&Target> {
        // SAFETY: the value stays as it is, or turns into another server's once the memory is reused: the address
        // that is compared with the server's entry decides what is sent.
        unsafe { TARGETS.get(server.0) }
    }

    #[inline(always)]
    fn server(&self, server: ServerId) -> Option<&ServerEntry> {
        SERVERS.get(server.0)
    }

    #[inline(always)]
    fn connection(&self, key: &ConnectionKey) -> Option<&Connection> {
        // SAFETY: as above; a connection that gave way in this moment costs one packet of a check.
        unsafe { CONNECTIONS.get(key) }
    }

    #[inline(always)]
    fn remember(&self, key: &ConnectionKey, connection: &Connection) -> Option<()> {
        CONNECTIONS.insert(key, connection, 0).ok()
    }
}

#[inline(always)]
pub(crate) fn count(counter: Counter) {
    let Some(counts) = COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own value. A packet that is sent while one is received may cost a count.
    let counts = unsafe { &mut *counts };
    counts[counter as usize & (COUNTS - 1)] += 1;
}
