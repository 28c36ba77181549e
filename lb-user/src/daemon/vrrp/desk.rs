//! What control has to do with the virtual routers: it configures them, says when this node can serve, and tells what
//! happens to them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Handle, Order};
use crate::{
    daemon::control::Control,
    pure::{
        notice::Notice,
        vrrp::{happening::Happening, node::Settings},
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
}

impl Desk {
    pub(super) fn new(handle: Handle, warning: Option<String>, lost: Arc<AtomicU64>) -> Desk {
        let waits_until = Some(Instant::now() + FIRST_RESULTS);
        Desk { handle, warning, lost, is_stale: true, waits_until }
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
            self.vrrp.is_stale = !self.order_vrrp(Order::Configure(settings));
        }
        let waits = |until: Instant| Instant::now() < until && !self.state.is_checked();
        if self.vrrp.waits_until.is_some_and(|until| !waits(until)) && self.order_vrrp(Order::Ready(true)) {
            self.vrrp.waits_until = None;
        }
    }

    /// What nobody tells, to be looked at now and then.
    pub(in crate::daemon) fn watch_vrrp(&self) {
        let lost = self.vrrp.lost.load(Ordering::Relaxed);
        let lost = (lost > 0).then(|| {
            format!(
                "events of virtual routers that came too fast to be told: {lost}; see `steelyard vrrp list`"
            )
        });
        self.trouble("vrrp events", lost);
    }

    /// Whether it was taken.
    fn order_vrrp(&self, order: Order) -> bool {
        let failure = self.vrrp.handle.order(order).err().map(|error| error.to_string());
        let is_taken = failure.is_none();
        self.trouble("vrrp orders", failure);
        is_taken
    }

    /// Something that operators are to know of virtual routers.
    pub(in crate::daemon) fn happened(&mut self, happening: Happening) {
        self.notices.tell(&Notice::Vrrp(happening));
    }
}

/// Checks that have no result by then are not waited for: a node that can serve something is better than none.
const FIRST_RESULTS: Duration = Duration::from_secs(10);
