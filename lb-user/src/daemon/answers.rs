//! Answers the admin socket's questions from the snapshot and the live tables.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Instant,
};

use lb_common::{
    entry::{Server, ServerEntry, Service, ServiceKey},
    flow::{FlowKey, FlowView, Ticks},
    flow_table,
    hash::HashKey,
    net::V4,
    slot::{ServerId, Slot},
};
use tokio::sync::watch;

use crate::{
    io::{
        admin::server::Answers,
        kernel::{self, Reader},
    },
    pure::{
        explain::{Live, explain},
        plan::Key,
        snapshot::{Counts, Snapshot, Surroundings},
        status::{InterfaceStatus, Traffic},
    },
};

/// What changes beside the snapshot: where the program is attached, and what the daemon complains of.
#[derive(Debug, Clone, Default)]
pub(super) struct Situation {
    pub interfaces: Vec<InterfaceStatus>,
    /// By what they are about: a new one takes the place of the old, and one that is over is removed.
    pub warnings: BTreeMap<String, String>,
}

pub(super) struct Sources {
    pub node: String,
    pub started: Instant,
    pub reader: Reader,
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    pub situation: Arc<Mutex<Situation>>,
}

/// The functions the admin server calls.
pub(super) fn answers(sources: Sources) -> Answers {
    let sources = Arc::new(sources);
    let (status, counters) = (Arc::clone(&sources), Arc::clone(&sources));
    Answers {
        status: Box::new(move |()| {
            let situation = status.situation();
            let warnings: Vec<_> = situation.warnings.into_values().collect();
            let snapshot = Arc::clone(&status.snapshot.borrow());
            let around = Surroundings {
                node: &status.node,
                pid: std::process::id(),
                uptime_s: status.started.elapsed().as_secs(),
                interfaces: &situation.interfaces,
                warnings: &warnings,
            };
            Ok(snapshot.status(&around, &LiveTables(&status.reader)))
        }),
        counters: Box::new(move |()| {
            counters.reader.counters.all().map_err(|error| format!("cannot read the counters: {error}"))
        }),
        explain: Box::new(move |connection| {
            let snapshot = Arc::clone(&sources.snapshot.borrow());
            let interfaces = sources.situation().interfaces;
            Ok(explain(&LiveTables(&sources.reader), &snapshot, &interfaces, connection))
        }),
    }
}

impl Sources {
    fn situation(&self) -> Situation {
        self.situation.lock().map(|situation| situation.clone()).unwrap_or_default()
    }
}

struct LiveTables<'a>(&'a Reader);

impl Counts for LiveTables<'_> {
    fn server(&self, id: ServerId) -> Traffic {
        self.0.counters.traffic(id).unwrap_or_default()
    }

    fn retired(&self, service: u32) -> Traffic {
        self.0.counters.retired(service).unwrap_or_default()
    }
}

impl Live for LiveTables<'_> {
    fn hash_key(&self) -> HashKey {
        self.0.memory.globals().hash_key()
    }

    fn nat_source(&self, index: u32) -> Option<Ipv4Addr> {
        self.0.memory.globals().nat_source::<V4>(index).map(Ipv4Addr::from)
    }

    fn service(&self, key: ServiceKey) -> Option<Service> {
        self.0.memory.service(Key::V4(key))
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.0.memory.slot(index)
    }

    fn server(&self, id: ServerId) -> Option<Server> {
        self.0.memory.server(id).and_then(ServerEntry::load)
    }

    fn flow(&self, key: &FlowKey) -> Option<FlowView> {
        flow_table::read(&*self.0.memory, key).map(|(_, view)| view)
    }

    fn now(&self) -> Ticks {
        kernel::now()
    }
}
