//! The one writer: takes events, plans, carries the plan out, publishes what readers see.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    select,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

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
/// One pass of the sweep looks at a bounded number of records.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct Control {
    pub kernel: Kernel,
    pub flows: Flows,
    pub state: State,
    pub net: Net,
    pub mode: XdpMode,
    pub situation: Arc<Mutex<Situation>>,
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    /// The last step that failed.
    pub failure: Option<String>,
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
                        self.handle_net(event).await;
                    }
                }
                Some(event) = net_events.recv() => self.handle_net(event).await,
                _ = ticks.tick() => {
                    self.sweep(&mut sweep);
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
        for step in steps {
            if let Err(failure) = self.kernel.apply(&step) {
                self.state.failed(&step);
                // A step that fails is planned again and again; it is said once.
                let failure = failure.to_string();
                if self.failure.as_ref() != Some(&failure) {
                    error!("{failure}");
                    self.failure = Some(failure);
                }
            }
        }
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

    async fn handle_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::Hop(hop) => self.handle(Event::Reached { address: hop.address, reach: hop.reach }),
            NetEvent::Link(link) => self.handle_link(link).await,
        }
    }

    /// An interface that was replaced has lost the program.
    async fn handle_link(&mut self, link: LinkEvent) {
        let known = self.attached_index(&link.name);
        match link.state {
            LinkState::Up { index } if known != Some(index) => {
                warn!("interface {} was replaced: attaching again", link.name);
                match self.net.interface(&link.name).await {
                    Ok(interface) => {
                        if let Err(failure) = self.attach(&interface) {
                            error!("{failure}");
                        }
                    }
                    Err(failure) => error!("{failure}"),
                }
            }
            LinkState::Up { .. } => {}
            LinkState::Down { .. } => warn!("interface {} is down", link.name),
            LinkState::Absent => {
                warn!("interface {} is gone", link.name);
                if let Some(index) = known {
                    self.forget(&link.name, index);
                }
            }
        }
    }

    fn forget(&mut self, name: &str, index: u32) {
        self.state.detached(index);
        if let Ok(mut situation) = self.situation.lock() {
            situation.interfaces.retain(|known| known.name != name);
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
        match (&attached.fallback, attached.replaced) {
            (Some(cause), _) => warn!(
                "interface {name} runs in generic mode, several times slower than native: {cause}; \
                 see `ethtool -i {name}` for the driver, or set [datapath] mode = \"generic\" to accept it"
            ),
            (None, true) => info!("took over interface {name} ({mode} mode)"),
            (None, false) => info!("attached to interface {name} ({mode} mode)"),
        }
        self.state.attach(interface.index);
        self.remember(interface, mode, attached.fallback.as_deref());
        Ok(!attached.replaced)
    }

    fn remember(&self, interface: &Interface, mode: &str, fallback: Option<&str>) {
        let Ok(mut situation) = self.situation.lock() else { return };
        situation.interfaces.retain(|known| known.name != interface.name);
        situation.interfaces.push(InterfaceStatus {
            name: interface.name.clone(),
            index: interface.index,
            mode: mode.to_owned(),
        });
        if let Some(cause) = fallback {
            situation.warnings.push(format!("interface {} runs in generic mode: {cause}", interface.name));
        }
    }

    fn sweep(&mut self, sweep: &mut Sweep) {
        let state = &self.state;
        match self.flows.sweep(sweep, kernel::now(), |id, protocol| state.idle_ticks(id, protocol)) {
            Ok(Some(round)) => self.handle(Event::Swept { records: round.records, named: round.named }),
            Ok(None) => {}
            Err(failure) => error!("sweeping the flow table failed: {failure}"),
        }
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
