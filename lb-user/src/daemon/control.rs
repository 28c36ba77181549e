//! The one writer: takes events, plans, carries the plan out, publishes what readers see.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    select,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use super::answers::Situation;
use crate::{
    io::{
        kernel::{self, Flows, Kernel, Mode, Sweep, Target},
        net::{
            AttachedMode, Interface, Net,
            follow::{LinkEvent, LinkState, NetEvent},
        },
    },
    pure::{
        config::model::XdpMode,
        snapshot::Snapshot,
        state::{Event, Notice, State},
        status::InterfaceStatus,
    },
};

/// Events that wait; senders wait in turn, so that none is lost.
pub(super) const INBOX: usize = 1_024;
/// Events taken in before a plan.
const EVENTS_PER_PLAN: usize = 256;
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// The sweep's share of an interval: 4 % of a CPU at the most.
const SWEEP_TIME: Duration = Duration::from_millis(20);

pub(super) struct Control {
    pub kernel: Kernel,
    pub flows: Flows,
    pub state: State,
    pub net: Net,
    pub mode: XdpMode,
    pub situation: Arc<Mutex<Situation>>,
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    /// Configured interfaces without the program.
    pub unattached: BTreeSet<String>,
}

impl Control {
    /// Plans and applies until the senders of events are gone. Cancel safe between events.
    pub(super) async fn run(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        net_events: &mut mpsc::Receiver<NetEvent>,
    ) {
        let mut sweep = Sweep::new();
        let mut ticks = interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(EVENTS_PER_PLAN);
        loop {
            select! {
                taken = events.recv_many(&mut batch, EVENTS_PER_PLAN) => {
                    if taken == 0 {
                        return;
                    }
                    for event in batch.drain(..) {
                        self.handle(event);
                    }
                    while let Ok(event) = net_events.try_recv() {
                        self.handle_net(event);
                    }
                }
                Some(event) = net_events.recv() => self.handle_net(event),
                _ = ticks.tick() => {
                    self.sweep(&mut sweep);
                    self.attach_missing().await;
                    self.publish();
                }
            }
            self.settle();
        }
    }

    pub(super) fn handle(&mut self, event: Event) {
        if let Some(notice) = self.state.handle(event) {
            say(&notice);
        }
    }

    /// Plans, applies every step, and publishes when anything changed.
    pub(super) fn settle(&mut self) {
        let steps = self.state.plan();
        if steps.is_empty() {
            return;
        }
        let mut failure = None;
        for step in steps {
            if let Err(error) = self.kernel.apply(&step) {
                self.state.failed(&step);
                failure = Some(error.to_string());
            }
        }
        self.trouble("tables", failure);
        self.publish();
    }

    /// Readers see every plan at once; what only words a check's result differently, at the next tick.
    fn publish(&mut self) {
        let snapshot = self.state.snapshot();
        self.snapshot.send_if_modified(|published| {
            let changed = **published != snapshot;
            if changed {
                *published = Arc::new(snapshot);
            }
            changed
        });
    }

    fn handle_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::Hop(hop) => self.handle(Event::Reached { address: hop.address, reach: hop.reach }),
            NetEvent::Link(link) => self.handle_link(link),
        }
    }

    /// An interface that was replaced has lost the program.
    fn handle_link(&mut self, link: LinkEvent) {
        let known = self.attached_index(&link.name);
        let (up, index) = match link.state {
            LinkState::Up { index } => (true, Some(index)),
            LinkState::Down { index } => (false, Some(index)),
            LinkState::Absent => (false, None),
        };
        if let Some(known) = known
            && index != Some(known)
        {
            self.state.detached(known);
            if let Ok(mut situation) = self.situation.lock() {
                situation.interfaces.retain(|interface| interface.name != link.name);
            }
            self.unattached.insert(link.name.clone());
        }
        let state = if index.is_some() { "down" } else { "gone" };
        let trouble = (!up).then(|| format!("interface {} is {state}", link.name));
        self.trouble(&format!("link {}", link.name), trouble);
    }

    /// Interfaces that came back.
    async fn attach_missing(&mut self) {
        for name in self.unattached.clone() {
            // Its absence is in the warnings already.
            let Ok(interface) = self.net.interface(&name).await else { continue };
            let failure = self.attach(&interface).err().map(|error| error.to_string());
            self.trouble(&format!("attach {name}"), failure);
        }
    }

    /// What the status warns of and the log says once; None: it is over.
    fn trouble(&self, about: &str, what: Option<String>) {
        let Ok(mut situation) = self.situation.lock() else { return };
        match what {
            Some(what) if situation.warnings.get(about) != Some(&what) => {
                warn!("{what}");
                situation.warnings.insert(about.to_owned(), what);
            }
            Some(_) => {}
            None => drop(situation.warnings.remove(about)),
        }
    }

    fn attached_index(&self, name: &str) -> Option<u32> {
        let situation = self.situation.lock().ok()?;
        situation.interfaces.iter().find(|interface| interface.name == name).map(|interface| interface.index)
    }

    /// Attaches to one interface, and tells the readers. True: the link is new, not one taken over.
    pub(super) fn attach(&mut self, interface: &Interface) -> Result<bool, kernel::AttachError> {
        let attached = self.kernel.attach(&target(interface), self.mode)?;
        let (name, mode) = (&interface.name, attached.mode.name());
        if attached.replaced {
            info!("took over interface {name} ({mode} mode)");
        } else {
            info!("attached to interface {name} ({mode} mode)");
        }
        let slow = (attached.mode == Mode::Generic && self.mode == XdpMode::Auto).then(|| {
            let cause = attached.fallback.unwrap_or_else(|| "as before the restart".to_owned());
            format!(
                "interface {name} runs xdp in generic mode, several times slower than native: {cause}; \
                 see `ethtool -i {name}` for its driver, or set [datapath] mode = \"generic\" to accept it"
            )
        });
        self.trouble(&format!("mode {name}"), slow);
        self.state.attach(interface.index);
        self.unattached.remove(name);
        if let Ok(mut situation) = self.situation.lock() {
            situation.interfaces.retain(|known| known.name != *name);
            let (name, mode) = (name.clone(), mode.to_owned());
            situation.interfaces.push(InterfaceStatus { name, index: interface.index, mode });
        }
        Ok(!attached.replaced)
    }

    /// Passes until the round over the table is complete or the tick's share of time is used.
    fn sweep(&mut self, sweep: &mut Sweep) {
        let started = Instant::now();
        let failure = loop {
            let state = &self.state;
            match self.flows.sweep(sweep, kernel::now(), |id, protocol| state.idle_ticks(id, protocol)) {
                Ok(Some(round)) => {
                    self.handle(Event::Swept { records: round.records, named: round.named });
                    break None;
                }
                Ok(None) if started.elapsed() < SWEEP_TIME => {}
                Ok(None) => break None,
                Err(failure) => break Some(format!("sweeping the flow table failed: {failure}")),
            }
        };
        self.trouble("sweep", failure);
    }
}

pub(super) fn target(interface: &Interface) -> Target {
    Target {
        index: interface.index,
        name: interface.name.clone(),
        attached: interface.xdp.as_ref().map(|xdp| (xdp.program_id, mode(xdp.mode))),
    }
}

fn mode(mode: AttachedMode) -> Mode {
    match mode {
        AttachedMode::Generic => Mode::Generic,
        AttachedMode::Native | AttachedMode::Hardware => Mode::Native,
    }
}

fn say(notice: &Notice) {
    match notice {
        Notice::Up { server, detail } => info!("{server} is up: {detail}"),
        Notice::Down { server, detail } => warn!("{server} is down: {detail}"),
        Notice::Unreachable { server, reason } => warn!("{server} cannot be reached: {reason}"),
        Notice::NotChecked { server, detail } => warn!("{server}: {detail}"),
    }
}
