//! What control has to do with the virtual routers: it configures them, says when this node can serve, and tells what
//! happens to them.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{join, sync::mpsc};

use super::{
    Handle, Order,
    notify::Notifier,
    trackers::{self, Trackers},
};
use crate::{
    daemon::{answers::Situation, control::Control},
    pure::{
        notice::Notice,
        vrrp::{happening::Happening, node::Settings, served::Served},
    },
};

/// Control's side.
pub(in crate::daemon) struct Desk {
    pub handle: Handle,
    /// Why adverts may be late.
    warning: Option<String>,
    /// Happenings for which there was no room.
    lost: Arc<AtomicU64>,
    /// The configuration is not with the thread yet.
    is_stale: bool,
    /// When the first results of checks are no longer waited for. None: this node is ready.
    waits_until: Option<Instant>,
    notifier: Notifier,
    trackers: Trackers,
    /// What trackers have to say to operators.
    pub tracked: mpsc::Receiver<Notice>,
    pub(super) served: Served,
}

impl Desk {
    pub(super) fn new(
        handle: Handle,
        situation: &Arc<Mutex<Situation>>,
        warning: Option<String>,
        lost: Arc<AtomicU64>,
    ) -> Desk {
        let (sender, tracked) = mpsc::channel(trackers::NOTICES);
        Desk {
            notifier: Notifier::start(situation),
            trackers: Trackers::new(handle.clone(), Arc::clone(situation), sender),
            tracked,
            served: Served::default(),
            handle,
            warning,
            lost,
            is_stale: true,
            waits_until: Some(Instant::now() + FIRST_RESULTS),
        }
    }

    /// Waits for the programs that are told of the end, and for scripts that may have ordered it, but not for long.
    pub(in crate::daemon) async fn close(self) {
        join!(self.notifier.close(LAST_WORDS), self.trackers.close(LAST_RUNS));
    }
}

impl Control {
    /// The configuration that is in force has changed.
    pub(in crate::daemon) fn configure_vrrp(&mut self) {
        self.vrrp.is_stale = true;
        self.follow_vrrp();
    }

    /// Orders what is due; what finds no room is ordered the next time.
    pub(in crate::daemon) fn follow_vrrp(&mut self) {
        if self.vrrp.is_stale {
            let settings = Settings {
                vrrp: self.settings.file.vrrp.clone(),
                cluster: self.settings.file.cluster.clone(),
                secret: Some(self.settings.secret.clone()).filter(|secret| !secret.is_empty()),
            };
            let is_used = !settings.vrrp.routers.is_empty();
            self.trouble("vrrp thread", self.vrrp.warning.clone().filter(|_| is_used));
            let is_told = self.order_vrrp(Order::Configure(Box::new(settings)));
            self.vrrp.is_stale = !is_told;
            if is_told {
                let file = &self.settings.file;
                self.vrrp.notifier.configure(&file.vrrp, file.notify.timeout);
                self.vrrp.trackers.configure(&file.vrrp);
                self.vrrp.served.forget_all();
            }
        }
        self.tell_served();
        let waits = |until: Instant| {
            let left = until.saturating_duration_since(Instant::now());
            !left.is_zero() && !self.state.is_checked() || self.waits_for_peers(FIRST_RESULTS - left)
        };
        if self.vrrp.waits_until.is_some_and(|until| !waits(until)) && self.order_vrrp(Order::Ready(true)) {
            self.vrrp.waits_until = None;
        }
    }

    /// Whether other nodes may still tell what they know of their connections, so long after the start.
    fn waits_for_peers(&self, passed: Duration) -> bool {
        let status = self.vrrp.handle.status.borrow();
        let lives = |address: &IpAddr| {
            let address = address.to_string();
            status.peers.iter().any(|peer| peer.address == address && peer.state == "alive")
        };
        let peers = &self.settings.file.cluster.peers;
        let mut silent = peers.iter().filter(|&peer| !self.peers.is_complete(*peer));
        passed < FIRST_TOLD && silent.any(|peer| passed < FIRST_HEARD || lives(peer))
    }

    /// What nobody tells, to be looked at now and then.
    pub(in crate::daemon) fn watch_vrrp(&mut self) {
        self.hold();
        self.vrrp.trackers.tick();
        let lost = self.vrrp.lost.load(Ordering::Relaxed);
        let lost = (lost > 0).then(|| {
            format!(
                "events of virtual routers that came too fast to be told: {lost}; see `steelyard vrrp list`"
            )
        });
        self.trouble("vrrp events", lost);
    }

    /// Whether it was taken.
    pub(super) fn order_vrrp(&self, order: Order) -> bool {
        let failure = self.vrrp.handle.order(order).err().map(|error| error.to_string());
        let is_taken = failure.is_none();
        self.trouble("vrrp orders", failure);
        is_taken
    }

    /// Something that operators are to know of virtual routers.
    pub(in crate::daemon) fn happened(&mut self, happening: Happening) {
        if matches!(happening, Happening::Became { .. }) {
            self.hold();
        }
        let is_mailed = self.vrrp.notifier.tell(&happening);
        let notice = Notice::Vrrp(happening);
        match is_mailed {
            true => self.notices.tell(&notice),
            false => self.notices.tell_unmailed(&notice),
        }
    }
}

/// And so long for what other nodes know of their connections.
const FIRST_TOLD: Duration = Duration::from_secs(2);
/// Nodes that have sent no heartbeat by then are not there.
const FIRST_HEARD: Duration = Duration::from_millis(500);
/// Checks that have no result by then are not waited for: a node that can serve something is better than none.
const FIRST_RESULTS: Duration = Duration::from_secs(10);
/// For programs that are told of the end, and those that wait for their turn.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// For scripts that run when the daemon stops.
const LAST_RUNS: Duration = Duration::from_secs(1);
