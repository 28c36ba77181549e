//! The one writer: takes events, plans, carries the plan out, publishes what readers see.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use lb_common::counter::Counter;
use tokio::{
    select,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep_until},
};
use tracing::warn;

use super::{
    answers::Situation,
    checks::Mailbox,
    drift::Patrol,
    notices::Notices,
    orders::{Order, Settings},
    replica::{self, Heard, Joined, Peers, Sessions},
    start::host_name,
    through::Steers,
    vrrp::Desk,
};
use crate::{
    io::{
        kernel::{self, Kernel, Round, Sweep},
        net::{
            Net,
            follow::{NetEvent, Watched},
        },
    },
    pure::{
        config::model::XdpMode,
        plan::Step,
        snapshot::Snapshot,
        state::{CheckTask, Event, State},
        vrrp::happening::Happening,
    },
};

/// Events that wait; senders wait in turn, so that none is lost.
pub(super) const INBOX: usize = 1_024;
/// Events taken in before a plan.
const EVENTS_PER_PLAN: usize = 256;
/// The shortest time from a change to its plan, so that changes that come together are planned together.
pub(super) const PLAN_PAUSE_MIN: Duration = Duration::from_millis(2);
/// And as many times as long as the last plan took: planning uses a fifth of a CPU at the most.
const PLAN_PAUSE: u32 = 4;
/// And as long before a step that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a warning about a full table outlives the last refusal.
pub(super) const FULL_SHOWN: Duration = Duration::from_secs(30);
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// The sweep's share of an interval, to which its last pass adds: 4 % of a CPU at the most.
const SWEEP_TIME: Duration = Duration::from_millis(16);

/// What control takes in.
pub(super) struct Inbox<'a> {
    pub events: &'a mut mpsc::Receiver<Event>,
    pub net_events: &'a mut mpsc::Receiver<NetEvent>,
    pub orders: &'a mut mpsc::Receiver<Order>,
    pub happenings: &'a mut mpsc::Receiver<Happening>,
    pub joined: &'a mut mpsc::Receiver<Joined>,
    pub heard: &'a mut mpsc::Receiver<Heard>,
}

pub(super) struct Control {
    pub kernel: Kernel,
    pub state: State,
    pub net: Net,
    pub mode: XdpMode,
    pub situation: Arc<Mutex<Situation>>,
    pub notices: Notices,
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    pub settings: Settings,
    /// To the task that checks.
    pub tasks: watch::Sender<Arc<Vec<CheckTask>>>,
    /// To the task that follows the network.
    pub wanted: watch::Sender<Watched>,
    /// What the configuration was last warned of, by what it is about.
    pub warned: BTreeSet<String>,
    /// Configured interfaces without the program.
    pub unattached: BTreeSet<String>,
    pub orders: Arc<Mailbox>,
    /// From a change to its plan.
    pub pause: Duration,
    /// Health checks that go through the data path.
    pub steers: Steers,
    pub rooms: BTreeMap<&'static str, Room>,
    /// Nodes that are told of this one's connections.
    pub sessions: Sessions,
    /// Nodes that tell of theirs.
    pub peers: Peers,
    pub cluster: watch::Sender<replica::Cluster>,
    pub vrrp: Desk,
}

impl Control {
    /// Plans and applies until the senders of events are gone. Cancel safe between events.
    pub(super) async fn run(
        &mut self,
        Inbox { events, net_events, orders, happenings, joined, heard }: Inbox<'_>,
    ) {
        let mut sweep = Sweep::default();
        let mut patrol = Patrol::default();
        let mut ticks = interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(EVENTS_PER_PLAN);
        let mut net_batch = Vec::with_capacity(EVENTS_PER_PLAN);
        // When to plan what has changed; events that come until then are planned together.
        let mut due: Option<Instant> = None;
        loop {
            select! {
                taken = events.recv_many(&mut batch, EVENTS_PER_PLAN) => {
                    if taken == 0 {
                        return;
                    }
                    self.handle_all(batch.drain(..));
                }
                _ = net_events.recv_many(&mut net_batch, EVENTS_PER_PLAN) => {
                    let hops: Vec<_> = net_batch.drain(..).filter_map(|event| self.handle_net(event)).collect();
                    self.handle_all(hops.into_iter());
                }
                Some(happening) = happenings.recv() => self.happened(happening),
                Some(notice) = self.vrrp.tracked.recv() => self.notices.tell(&notice),
                Some(order) = orders.recv() => {
                    // What was found under the configuration that is in force counts under it.
                    self.handle_all(std::iter::from_fn(|| events.try_recv().ok()).take(INBOX));
                    self.state.clock(kernel::now());
                    self.kernel.beat(self.state.patience());
                    self.carry_out(order).await;
                }
                Some(peer) = joined.recv() => {
                    self.sessions.join(peer);
                    // Perhaps it waits for what this node knows before it takes part in elections.
                    self.sweep(&mut sweep);
                }
                Some(message) = heard.recv() => self.hear(message).await,
                _ = ticks.tick() => {
                    self.kernel.beat(self.state.patience());
                    self.sweep(&mut sweep);
                    self.read_counters();
                    self.patrol(&mut patrol);
                    self.check_pins();
                    self.attach_missing().await;
                    self.tell_cluster();
                    self.follow_steering().await;
                    self.publish();
                    self.watch_vrrp();
                    self.notices.tick();
                }
                () = at(self.state.deadline()) => self.state.pass(Instant::now()),
                () = at(due) => {
                    let started = Instant::now();
                    let done = self.settle();
                    let shortest = if done { PLAN_PAUSE_MIN } else { RETRY_PAUSE };
                    self.pause = (started.elapsed() * PLAN_PAUSE).max(shortest);
                    due = None;
                }
            }
            self.follow_up();
            if due.is_none() && self.state.is_stale() {
                due = Some(Instant::now() + self.pause);
            }
        }
    }

    /// Takes events in, and says what an operator should read of them.
    pub(super) fn handle_all(&mut self, events: impl Iterator<Item = Event>) {
        self.state.pass(Instant::now());
        for notice in events.flat_map(|event| self.state.handle(event)) {
            self.notices.tell(&notice);
        }
    }

    /// Says what no event told, and hands the checks their orders.
    fn follow_up(&mut self) {
        for notice in self.state.take_notices() {
            self.notices.tell(&notice);
        }
        self.orders.post(self.state.take_orders());
        self.follow_vrrp();
    }

    /// Plans, applies every step, and publishes when anything changed.
    /// Whether every step was carried out.
    pub(super) fn settle(&mut self) -> bool {
        // A large plan takes longer than a tick.
        self.kernel.beat(self.state.patience());
        self.state.clock(kernel::now());
        let steps = self.state.plan();
        if steps.iter().any(|step| matches!(step, Step::RemoveServer(_))) {
            self.tell_tasks();
        }
        if steps.is_empty() {
            // What is usable can change without one: where too few are, all are used.
            self.publish();
        }
        self.apply(steps)
    }

    /// Whether every step was carried out.
    pub(super) fn apply(&mut self, steps: Vec<Step>) -> bool {
        if steps.is_empty() {
            return true;
        }
        let mut failure = None;
        for step in steps {
            if let Err(error) = self.kernel.apply(&step) {
                self.state.failed(&step);
                failure = Some(error.to_string());
            }
        }
        let done = failure.is_none();
        self.trouble(TABLES, failure);
        self.keep_steering();
        self.publish();
        done
    }

    /// Whom to check, and whom to look for.
    pub(super) fn tell_tasks(&self) {
        self.tasks.send_replace(self.state.checks().into());
        self.wanted.send_replace(self.wanted_now());
    }

    /// Who is told of this node's connections, and may tell of its own.
    pub(super) fn tell_cluster(&self) {
        let cluster = self.cluster_now();
        self.cluster.send_if_modified(|told| {
            let changed = *told != cluster;
            if changed {
                *told = cluster;
            }
            changed
        });
    }

    /// Nobody without a secret: whoever knew none could tell anything.
    fn cluster_now(&self) -> replica::Cluster {
        let Settings { file, secret, .. } = &self.settings;
        let peers = if secret.is_empty() { Vec::new() } else { file.cluster.peers.clone() };
        let attached =
            self.situation.lock().map(|situation| situation.interfaces.clone()).unwrap_or_default();
        replica::Cluster {
            node: file.global.node.clone().unwrap_or_else(host_name),
            interfaces: attached.into_iter().map(|interface| (interface.index, interface.name)).collect(),
            peers,
            port: file.cluster.port.saturating_add(1),
            secret: secret.clone(),
        }
    }

    pub(super) fn wanted_now(&self) -> Watched {
        Watched {
            addresses: self.state.targets(),
            interfaces: self.settings.file.datapath.interfaces.iter().cloned().collect(),
        }
    }

    /// What is likely to go wrong with the configuration, by what it is about; what is no longer said is over.
    pub(super) fn look_around(&mut self, warnings: BTreeMap<String, String>) {
        for over in self.warned.iter().filter(|about| !warnings.contains_key(*about)) {
            self.trouble(over, None);
        }
        self.warned = warnings.keys().cloned().collect();
        for (about, text) in warnings {
            self.trouble(&about, Some(text));
        }
    }

    /// Readers see every plan at once; what only words a check's result differently, at the next tick.
    fn publish(&mut self) {
        let snapshot = self.state.snapshot();
        self.notices.compare(&snapshot);
        self.snapshot.send_if_modified(|published| {
            let changed = **published != snapshot;
            if changed {
                *published = Arc::new(snapshot);
            }
            changed
        });
    }

    /// What the state has to know of a network event.
    fn handle_net(&mut self, event: NetEvent) -> Option<Event> {
        match event {
            NetEvent::Hop(hop) => Some(Event::Reached { address: hop.address, reach: hop.reach }),
            NetEvent::Link(link) => {
                self.handle_link(link);
                None
            }
        }
    }

    /// What the status warns of and the log says once; None: it is over.
    pub(super) fn trouble(&self, about: &str, what: Option<String>) {
        let text = what.clone();
        if self.warn_of(about, what)
            && let Some(text) = text
        {
            warn!("{text}");
        }
    }

    /// What the status warns of. True: it is news.
    pub(super) fn warn_of(&self, about: &str, what: Option<String>) -> bool {
        self.situation.lock().is_ok_and(|mut situation| situation.warn_of(about, what))
    }

    /// Passes until the round over the table is complete or the tick's share of time is used.
    fn sweep(&mut self, sweep: &mut Sweep) {
        let started = Instant::now();
        let memory = self.kernel.memory();
        loop {
            self.sessions.begin(sweep, &self.state);
            let round = sweep.pass(&*memory, kernel::now(), &self.state);
            self.sessions.tell(sweep.take_told(), &self.state);
            if let Some(mut round) = round {
                self.sessions.tell(std::mem::take(&mut round.told), &self.state);
                self.sessions.end();
                for (id, in_pairs) in self.state.counted() {
                    let open = round.open.get(&id).copied().unwrap_or_default();
                    memory.set_load(id, if in_pairs { open.pairs } else { open.alone });
                }
                // Refusals are read last: one that came during the round counts.
                self.state.advance(kernel::now(), |service| memory.refused_at(service));
                let Round { records, named, survey, signs, .. } = round;
                let in_a_row = signs.in_a_row();
                let swept = Event::Swept { records, named, survey };
                self.handle_all([swept, Event::Failing { in_a_row }].into_iter());
                return;
            }
            if started.elapsed() > SWEEP_TIME {
                return;
            }
        }
    }

    /// What the kernel refused since the last tick: the operator has to know.
    fn read_counters(&mut self) {
        let Ok(counters) = self.kernel.counters().all() else { return };
        let count = |counter: Counter| counters.get(counter.name()).copied().unwrap_or(0);
        let flows = count(Counter::DropFlowsFull) + count(Counter::FlowUnrecorded);
        self.watch_room(flows, count(Counter::DropNatPorts));
    }

    /// Warns while flows are refused for want of room, and a while after.
    fn watch_room(&mut self, flows: u64, nat_ports: u64) {
        let refused = [
            ("flow table", flows, "raise [datapath] flows"),
            ("nat ports", nat_ports, "give [datapath] nat_source more addresses"),
        ];
        for (what, total, remedy) in refused {
            let room = self.rooms.entry(what).or_insert(Room { total, refused_at: None });
            if total > room.total {
                room.refused_at = Some(Instant::now());
                room.total = total;
            }
            let full = room.refused_at.is_some_and(|at| at.elapsed() < FULL_SHOWN);
            self.trouble(
                what,
                full.then(|| format!("{what}: no room, new flows are refused or not recorded; {remedy}")),
            );
        }
    }
}

/// Subject of the warning that steps of the last plan failed.
pub(super) const TABLES: &str = "tables";

/// What has been refused for want of room.
pub(super) struct Room {
    total: u64,
    refused_at: Option<Instant>,
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
