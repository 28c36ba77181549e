//! Answers the admin socket's questions from the snapshot and the live tables.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use lb_common::slot::ServerId;
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    notices::Stream,
    orders::{Limits, Orderer},
    vrrp::{self, Handle},
};
use crate::{
    io::{
        admin::{
            ReloadRequest,
            server::{Answers, Refused, ServerChange},
        },
        kernel::{Dry, Reader},
    },
    pure::{
        explain::{Connection, explain},
        snapshot::{Counts, Snapshot, Surroundings},
        status::{Counters, Explanation, Flows, InterfaceStatus, Traffic, VrrpStatus},
    },
};

/// What changes beside the snapshot: where the program is attached, and what the daemon complains of.
#[derive(Debug, Clone, Default)]
pub(super) struct Situation {
    pub interfaces: Vec<InterfaceStatus>,
    /// By what they are about: a new one takes the place of the old, and one that is over is removed.
    pub warnings: BTreeMap<String, String>,
    /// What is in force and not in the configuration file.
    pub changes: Vec<String>,
    /// Of the programs that steer checks; empty while there are none.
    pub checks: Counters,
    /// The last results of what virtual routers track, in words: "script chk", "exit code 1".
    pub tracked: BTreeMap<String, String>,
}

impl Situation {
    /// None: it is over. True: this is news.
    pub(super) fn warn_of(&mut self, about: &str, what: Option<String>) -> bool {
        match what {
            Some(what) => self.warnings.insert(about.to_owned(), what.clone()) != Some(what),
            None => self.warnings.remove(about).is_some(),
        }
    }
}

pub(super) struct Sources {
    pub node: String,
    pub started: Instant,
    pub reader: Reader,
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    pub situation: Arc<Mutex<Situation>>,
    pub stream: Arc<Stream>,
    pub orderer: Orderer,
    /// Loaded when it is first asked.
    pub dry: Mutex<Option<Dry>>,
    /// Held by whoever lists flows: one at a time.
    pub listing: Mutex<()>,
    pub vrrp: Handle,
}

/// Beside the counters, and no counter: how many slots look records up now.
const SLOTS_LOOKUP: &str = "slots_lookup";
/// Shown of the recorded flows.
const FLOWS_SHOWN: usize = 10_000;

/// The functions the admin server calls.
pub(super) fn answers(sources: Sources) -> Answers {
    let sources = Arc::new(sources);
    let [status, counters, explain, events, routers] = [(); 5].map(|()| Arc::clone(&sources));
    let handle = sources.vrrp.clone();
    let [plan, reload, change] = [(); 3].map(|()| sources.orderer.clone());
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
                changes: &situation.changes,
                vrrp: &status.vrrp(),
            };
            Ok(snapshot.status(&around, &LiveTables(&status.reader)))
        }),
        counters: Box::new(move |()| {
            let forwarding = counters.reader.counters.all();
            let mut all = forwarding.map_err(|error| format!("cannot read the counters: {error}"))?;
            all.extend(counters.situation().checks);
            let lookup = counters.snapshot.borrow().slots_lookup();
            all.insert(SLOTS_LOOKUP.to_owned(), lookup);
            Ok(all)
        }),
        events: Box::new(move |replay| events.stream.subscribe(replay)),
        explain: Box::new(move |connection| explain.explain(&connection)),
        flows: Box::new(move |service| sources.flows(service.as_deref())),
        plan: Box::new(move |texts| {
            let plan = plan.clone();
            Box::pin(async move { plan.plan(texts).await })
        }),
        reload: Box::new(move |ReloadRequest { max_moved, force }| {
            let reload = reload.clone();
            Box::pin(async move { reload.reload(Limits { max_moved, force }).await })
        }),
        change: Box::new(move |ServerChange { service, server, change: what }| {
            let change = change.clone();
            Box::pin(async move { change.change(service, server, what).await })
        }),
        vrrp: Box::new(move |()| Ok((*routers.vrrp()).clone())),
        fail_over: Box::new(move |router| {
            let handle = handle.clone();
            Box::pin(fail_over(handle, router))
        }),
    }
}

async fn fail_over(handle: Handle, router: String) -> Result<String, Refused> {
    let fault = |error: &str| Refused::Fault(error.to_owned());
    let (reply, answer) = oneshot::channel();
    handle.order(vrrp::Order::FailOver { router, reply }).map_err(|error| fault(&error.to_string()))?;
    match timeout(FAIL_OVER_MAX, answer).await {
        Ok(Ok(done)) => done.map_err(Refused::Conflict),
        Ok(Err(_)) => Err(fault(&vrrp::OrderError::Ended.to_string())),
        Err(_) => Err(fault("nothing came of it in time: see `steelyard vrrp show` and the log")),
    }
}

/// Longer than any hand-over takes.
const FAIL_OVER_MAX: Duration = Duration::from_secs(10);

impl Sources {
    fn explain(&self, connection: &Connection) -> Result<Explanation, String> {
        let interfaces = self.situation().interfaces;
        let arrival = interfaces.first().map_or(0, |interface| interface.index);
        let facts = {
            // What a thread that failed left is made anew.
            let mut dry = self.dry.lock().unwrap_or_else(|poisoned| {
                let mut dry = poisoned.into_inner();
                *dry = None;
                dry
            });
            let dry = match dry.as_mut() {
                Some(dry) => dry,
                None => dry.insert(self.reader.dry().map_err(|error| error.to_string())?),
            };
            dry.explain(connection, arrival).map_err(|error| error.to_string())?
        };
        let snapshot = Arc::clone(&self.snapshot.borrow());
        Ok(explain(&facts, &snapshot, &interfaces, connection))
    }

    fn flows(&self, service: Option<&str>) -> Result<Flows, String> {
        let snapshot = Arc::clone(&self.snapshot.borrow());
        let id = match service {
            None => None,
            Some(name) => {
                let found = snapshot.services.iter().find(|service| service.name == name);
                Some(found.ok_or_else(|| format!("no service named `{name}`"))?.id)
            }
        };
        let _one = self.listing.lock().map_err(|_| "an earlier listing failed: see the log")?;
        let listing = self.reader.memory.list(id, FLOWS_SHOWN);
        let flows = listing.records.iter().map(|record| record.status(&snapshot)).collect();
        Ok(Flows { total: listing.total, flows })
    }

    fn vrrp(&self) -> Arc<VrrpStatus> {
        Arc::clone(&self.vrrp.status.borrow())
    }

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
