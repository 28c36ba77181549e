//! The thread of the virtual routers, and how the rest of the daemon speaks with it.
//!
//! ```text
//! control, trackers, admin ── Order, bounded ─► thread: Node, sockets, addresses ── Happening, bounded ─► control
//!                                                   └─► watch<Arc<VrrpStatus>> ─► admin
//! ```
//!
//! Nothing that could delay an advert runs on the thread: no file, no log, no name, no lock that others hold for long.

mod told;
mod trackers;

use std::{
    io,
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError},
    },
};

use nix::sys::eventfd::EventFd;
use tokio::sync::{oneshot, watch};

use crate::pure::{
    config::model::vrrp::Tracked,
    status::VrrpStatus,
    vrrp::node::{Settings, Verdict},
};

/// What the thread is told.
pub(super) enum Order {
    Configure(Settings),
    Tracked {
        what: Tracked,
        verdict: Verdict,
    },
    Ready(bool),
    FailOver {
        router: String,
        reply: oneshot::Sender<Result<String, String>>,
    },
    /// Resign, hand over, take the addresses away, and end.
    Stop,
}

/// Speaks to the thread. Cheap to clone.
#[derive(Clone)]
pub(super) struct Handle {
    orders: SyncSender<Order>,
    wake: Arc<EventFd>,
    pub status: watch::Receiver<Arc<VrrpStatus>>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("the thread of the virtual routers does not keep up: try again")]
    Busy,
    #[error("the thread of the virtual routers has ended: restart the daemon, and report its log")]
    Ended,
    #[error("cannot wake the thread of the virtual routers: {0}")]
    Wake(io::Error),
}

/// Orders that wait for the thread, which takes all of them whenever it wakes.
pub(super) const ORDERS: usize = 1_024;

impl Handle {
    /// Never blocks.
    pub(super) fn order(&self, order: Order) -> Result<(), OrderError> {
        self.orders.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => OrderError::Busy,
            TrySendError::Disconnected(_) => OrderError::Ended,
        })?;
        self.wake.write(1).map(drop).map_err(|errno| OrderError::Wake(errno.into()))
    }
}
