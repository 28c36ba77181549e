//! The thread of the virtual routers, and how the rest of the daemon speaks with it.
//!
//! ```text
//! control, trackers, admin ── Order, bounded ─► thread: Node, sockets, addresses ── Happening, bounded ─► control
//!                                                   └─► watch<Arc<VrrpStatus>> ─► admin
//! ```
//!
//! Nothing that could delay an advert runs on the thread: no file, no log, no name, no lock that others hold for long.

mod desk;
mod failover;
mod notify;
mod serving;
mod thread;
mod trackers;
mod wires;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::AtomicU64,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use jiff::Timestamp;
use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    signal::SigSet,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tracing::warn;

pub(super) use self::desk::Desk;
pub(super) use self::thread::ThreadError;
use self::thread::{Parts, Thread, Told};
use crate::{
    daemon::answers::Situation,
    io::vrrp::realtime,
    pure::{
        config::model::vrrp::{Tracked, Vrrp},
        status::VrrpStatus,
        vrrp::{
            happening::Happening,
            node::{Settings, Verdict},
        },
    },
};

/// What the thread is told.
pub(super) enum Order {
    Configure(Box<Settings>),
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

/// The thread as whoever started it sees it.
pub(super) struct Routers {
    pub happenings: mpsc::Receiver<Happening>,
    handle: Handle,
    /// What it ended with; nothing is sent by a panic.
    pub ended: oneshot::Receiver<Result<(), ThreadError>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start the thread of the virtual routers: {0}; see the system's limits")]
    Spawn(#[source] io::Error),
    #[error(transparent)]
    Thread(#[from] ThreadError),
}

/// What the start came to.
#[derive(Debug, Default)]
struct Started {
    /// What a killed daemon had left.
    removed: Vec<String>,
    /// Why it may be late.
    warning: Option<String>,
}

impl Routers {
    /// Without routers until it is configured. `vrrp` tells what a killed daemon may have left.
    pub(super) fn start(
        vrrp: &Vrrp,
        situation: &Arc<Mutex<Situation>>,
    ) -> Result<(Routers, Desk), StartError> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = EventFd::from_flags(flags).map_err(|errno| StartError::Spawn(errno.into()))?;
        let (wake, lost) = (Arc::new(wake), Arc::new(AtomicU64::new(0)));
        let (orders, inbox) = sync_channel(ORDERS);
        let (sender, happenings) = mpsc::channel(HAPPENINGS);
        let (publisher, status) = watch::channel(Arc::default());
        let (ending, ended) = oneshot::channel();
        let parts = Parts {
            orders: inbox,
            wake: Arc::clone(&wake),
            told: Told { happenings: sender, lost: Arc::clone(&lost) },
            status: publisher,
            // Later starts have higher ones.
            seed: Timestamp::now().as_microsecond().cast_unsigned(),
        };
        let (vrrp, (begun, begins)) = (vrrp.clone(), sync_channel(1));
        std::thread::Builder::new()
            .name("vrrp".to_owned())
            .spawn(move || run(parts, &vrrp, &begun, ending))
            .map_err(StartError::Spawn)?;
        let started = begun_or_ended(&begins)?;
        if !started.removed.is_empty() {
            warn!("removed what a daemon that was killed had left: {}", started.removed.join(", "));
        }
        let handle = Handle { orders, wake, status };
        let desk = Desk::new(handle.clone(), situation, started.warning, lost);
        Ok((Routers { happenings, handle, ended }, desk))
    }

    /// Resigns and takes the addresses away; hands over what happens meanwhile.
    pub(super) async fn stop(&mut self, mut take: impl FnMut(Happening)) {
        if self.handle.order(Order::Stop).is_err() {
            // It has ended already.
            return;
        }
        let ended = timeout(STOP, &mut self.ended).await;
        if ended.is_err() {
            warn!(
                "the virtual routers did not stop within {STOP:?}: addresses may be left until the next start"
            );
        }
        while let Ok(happening) = self.happenings.try_recv() {
            take(happening);
        }
    }
}

fn run(
    parts: Parts,
    vrrp: &Vrrp,
    begun: &SyncSender<Result<Started, ThreadError>>,
    ending: oneshot::Sender<Result<(), ThreadError>>,
) {
    // Signals are for the runtime.
    let _ = SigSet::all().thread_block();
    let warning = realtime::enter().err().map(|error| error.to_string());
    let (mut thread, removed) = match Thread::new(parts, vrrp) {
        Ok(made) => made,
        Err(error) => {
            // Whoever starts it waits for this.
            let _ = begun.send(Err(error));
            return;
        }
    };
    let _ = begun.send(Ok(Started { removed, warning }));
    let ended = thread.run();
    // What is installed leaves before the end is told.
    drop(thread);
    let _ = ending.send(ended);
}

fn begun_or_ended(begins: &Receiver<Result<Started, ThreadError>>) -> Result<Started, StartError> {
    match begins.recv_timeout(STOP) {
        Ok(begun) => Ok(begun?),
        Err(_) => Err(StartError::Spawn(io::ErrorKind::TimedOut.into())),
    }
}

/// Happenings that wait for control; what comes on top is counted.
const HAPPENINGS: usize = 1_024;
/// For the last adverts, a hand-over, and the removal of what is installed.
const STOP: Duration = Duration::from_secs(2);
