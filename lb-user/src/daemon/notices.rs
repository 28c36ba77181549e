//! Tells everybody of a notice: the log, the readers of the stream, and the sinks that are configured.
//!
//! ```text
//! tell ─► History ─┬─► log
//!                  ├─► broadcast ─► readers of the admin socket's stream
//!                  └─► try_send ──► one task each: command, mail, webhook
//! ```
//!
//! Nothing here waits for anybody: a queue that is full is counted, and the count is told later.

mod sink;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, broadcast, mpsc, watch},
    task::JoinHandle,
    time::timeout_at,
};
use tracing::{info, warn};

use self::sink::{Kind, Sink};
use super::answers::Situation;
use crate::{
    io::admin::events::Subscription,
    pure::{
        config::model::Notify,
        notice::{Event, History, Level, Limit, Notice, Replay, Services},
        snapshot::Snapshot,
    },
};

pub(super) struct Notices {
    stream: Arc<Stream>,
    lines: Limit,
    /// Left out of the log since the last line.
    unsaid: u64,
    services: Services,
    settings: watch::Sender<Notify>,
    outlets: Vec<Outlet>,
}

/// The events of late and those to come, for readers.
pub(super) struct Stream {
    history: Mutex<History>,
    live: broadcast::Sender<Arc<Event>>,
    readers: Arc<Semaphore>,
}

/// The way to a sink's task.
struct Outlet {
    kind: Kind,
    queue: mpsc::Sender<Arc<Event>>,
    /// What found the queue full, until the task has seen it.
    lost: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Notices {
    /// Starts a task for each kind of sink; those that are not configured have nothing to do.
    pub(super) fn start(node: &str, notify: Notify, situation: &Arc<Mutex<Situation>>) -> Self {
        let (settings, watched) = watch::channel(notify);
        let outlets = Kind::ALL.map(|kind| {
            let (queue, events) = mpsc::channel(QUEUE);
            let lost = Arc::new(AtomicU64::new(0));
            let sink =
                Sink::new(kind, events, Arc::clone(&lost), watched.clone(), Arc::clone(situation), node);
            Outlet { kind, queue, lost, task: tokio::spawn(sink.run()) }
        });
        let stream = Stream {
            history: Mutex::new(History::new(node)),
            live: broadcast::Sender::new(STREAM),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
        };
        Notices {
            stream: Arc::new(stream),
            lines: Limit::new(LINES_PER_MINUTE),
            unsaid: 0,
            services: Services::default(),
            settings,
            outlets: outlets.into(),
        }
    }

    pub(super) fn stream(&self) -> Arc<Stream> {
        Arc::clone(&self.stream)
    }

    /// For what is told from now on.
    pub(super) fn configure(&self, notify: Notify) {
        self.settings.send_if_modified(|settings| {
            let changed = *settings != notify;
            *settings = notify;
            changed
        });
    }

    pub(super) fn tell(&mut self, notice: &Notice) {
        self.tell_by(notice, |_| true);
    }

    /// For what nobody wants to be mailed.
    pub(super) fn tell_unmailed(&mut self, notice: &Notice) {
        self.tell_by(notice, |kind| kind != Kind::Mail);
    }

    fn tell_by(&mut self, notice: &Notice, goes_by: impl Fn(Kind) -> bool) {
        let event = self.stream.push(notice);
        if self.lines.take(Instant::now()) {
            self.say_unsaid();
            say(&event);
        } else {
            self.unsaid += 1;
        }
        for outlet in &self.outlets {
            if goes_by(outlet.kind)
                && outlet.kind.is_on(&self.settings.borrow())
                && outlet.queue.try_send(Arc::clone(&event)).is_err()
            {
                outlet.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What a new snapshot shows and no event said.
    pub(super) fn compare(&mut self, snapshot: &Snapshot) {
        for notice in self.services.compare(snapshot) {
            self.tell(&notice);
        }
    }

    /// Now and then, so that what was left out of the log is summed up though nothing else happens.
    pub(super) fn tick(&mut self) {
        if self.unsaid > 0 && self.lines.take(Instant::now()) {
            self.say_unsaid();
        }
    }

    fn say_unsaid(&mut self) {
        if self.unsaid > 0 {
            warn!("and {} more such changes: see `steelyard events`", self.unsaid);
            self.unsaid = 0;
        }
    }

    /// Waits for what is on its way, but not for long.
    pub(super) async fn close(self) {
        let deadline = Instant::now() + LAST_WORDS;
        let tasks = self.outlets.into_iter().map(|outlet| (outlet.kind, outlet.task)).collect::<Vec<_>>();
        for (kind, mut task) in tasks {
            if timeout_at(deadline.into(), &mut task).await.is_err() {
                task.abort();
                warn!("{} did not take the last events within {LAST_WORDS:?}", kind.name());
            }
        }
    }
}

impl Stream {
    fn push(&self, notice: &Notice) -> Arc<Event> {
        // A thread that failed left a whole history: `push` of it is all that changes it.
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let event = history.push(Timestamp::now(), notice);
        // Within the lock, so that a reader who comes now gets it once. Without readers nobody gets it.
        let _ = self.live.send(Arc::clone(&event));
        event
    }

    pub(super) fn subscribe(&self, replay: Replay) -> Result<Subscription, String> {
        let Ok(place) = Arc::clone(&self.readers).try_acquire_owned() else {
            return Err(format!("{READERS_MAX} readers follow the events already: end one of them"));
        };
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Subscription {
            kept: history.replay(replay).into(),
            live: self.live.subscribe(),
            node: Arc::clone(history.node()),
            place,
        })
    }
}

/// One line in the log, for people and for those who search it by field.
fn say(event: &Event) {
    let about = &event.about;
    macro_rules! say {
        ($level:ident) => {
            $level!(
                kind = event.kind,
                service = about.service.as_deref(),
                server = about.server.as_deref(),
                address = about.address.as_deref(),
                interface = about.interface.as_deref(),
                router = about.router.as_deref(),
                from = about.from.as_deref(),
                to = about.to.as_deref(),
                by = about.by,
                "{}",
                event.text
            )
        };
    }
    match event.level {
        Level::Info => say!(info),
        Level::Warning => say!(warn),
    }
}

/// Events that wait for a sink; what comes on top is counted.
const QUEUE: usize = 256;
/// Events that wait for the slowest reader of the stream; it is told how many it missed.
const STREAM: usize = 256;
const READERS_MAX: usize = 16;
const LINES_PER_MINUTE: u32 = 300;
/// For what is on its way when the daemon stops.
const LAST_WORDS: Duration = Duration::from_secs(2);
