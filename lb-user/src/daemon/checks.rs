//! Runs health checks when they are due and sends what came of them.
//!
//! ```text
//! tasks  (watch)   ─┐                       ┌─► one attempt each, in a task of its own
//! orders (Mailbox) ─┴─► Checks ── Schedule ─┘            │
//!                                   events (mpsc) ◄──────┘ reports, one at a time
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use lb_common::slot::ServerId;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    select,
    sync::{Notify, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time,
};
use tracing::warn;

use crate::{
    io::probe,
    pure::{
        report::Report,
        schedule::{CheckId, Orders, Rhythm, Schedule},
        state::{CheckTask, Event},
    },
};

/// Orders on their way to the checks: never full, since later ones for a check replace those that wait, and never
/// waited for. Bounded by the number of checks.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    orders: Mutex<Orders>,
    news: Notify,
}

impl Mailbox {
    pub(super) fn post(&self, orders: Orders) {
        if !orders.is_empty() {
            // Orders are whole at any time.
            self.orders.lock().unwrap_or_else(PoisonError::into_inner).add(orders);
            self.news.notify_one();
        }
    }

    fn take(&self) -> Orders {
        std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the daemon wants checked; a list replaces the one before.
pub(super) type Tasks = watch::Receiver<Arc<Vec<CheckTask>>>;

/// Runs the checks until the receiver of events is gone.
///
/// A report counts only while its task is on the list: one that waits for room in the channel is looked at again
/// before it is sent. What is in the channel already is the receiver's to read before it changes the list.
pub(super) async fn run(mut tasks: Tasks, orders: Arc<Mailbox>, events: mpsc::Sender<Event>) {
    let mut checks = Checks::new(running_max());
    checks.reconcile(&tasks.borrow_and_update());
    loop {
        checks.start_due();
        // Cancel safe: a finished check stays in the set until it is taken, an order in the mailbox, and the news of
        // either comes again.
        let deadline = checks.deadline();
        let finished = select! {
            Some(finished) = checks.running.join_next() => finished,
            () = orders.news.notified() => {
                checks.schedule.obey(orders.take(), Instant::now());
                continue;
            }
            Ok(()) = tasks.changed() => {
                checks.reconcile(&tasks.borrow_and_update());
                continue;
            }
            () = until(deadline) => continue,
            () = events.closed() => return,
        };
        // An attempt that was dropped has no result.
        let Ok((attempt, report)) = finished else { continue };
        let Ok(permit) = events.reserve().await else { return };
        if tasks.has_changed().unwrap_or(false) {
            checks.reconcile(&tasks.borrow_and_update());
        }
        if checks.ended(attempt) {
            permit.send(Event::Checked { server: ServerId(attempt.id.0), report });
        }
    }
}

/// One run of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attempt {
    id: CheckId,
    number: u64,
}

struct Checks {
    checks: HashMap<CheckId, Planned>,
    schedule: Schedule,
    running: JoinSet<(Attempt, Report)>,
    /// Attempts under way at once: bounds sockets and memory; what is due beyond it waits its turn.
    running_max: usize,
    attempts: u64,
}

struct Planned {
    task: Arc<CheckTask>,
    attempt: Option<(u64, AbortHandle)>,
}

impl Checks {
    fn new(running_max: usize) -> Self {
        Checks {
            checks: HashMap::new(),
            schedule: Schedule::default(),
            running: JoinSet::new(),
            running_max,
            attempts: 0,
        }
    }

    /// A check that stays keeps its time and its run, one that changed runs anew, and one that is gone ends.
    fn reconcile(&mut self, tasks: &[CheckTask]) {
        if tasks.len() > self.running_max {
            warn!(
                "{} servers to check, and room for {} checks at once: when many do not answer, checks are late; raise \
                 LimitNOFILE",
                tasks.len(),
                self.running_max
            );
        }
        let now = Instant::now();
        let wanted: BTreeSet<CheckId> = tasks.iter().map(|task| CheckId(task.server.0)).collect();
        let gone: Vec<_> = self.checks.keys().filter(|id| !wanted.contains(id)).copied().collect();
        for id in gone {
            self.drop_attempt(id);
            self.checks.remove(&id);
            self.schedule.remove(id);
        }
        for task in tasks {
            let id = CheckId(task.server.0);
            if self.checks.get(&id).is_some_and(|known| *known.task == *task) {
                continue;
            }
            self.drop_attempt(id);
            self.schedule.add(id, Rhythm::of(&task.check), now, id.phase());
            self.checks.insert(id, Planned { task: Arc::new(task.clone()), attempt: None });
        }
    }

    fn drop_attempt(&mut self, id: CheckId) {
        if let Some((_, handle)) = self.checks.get_mut(&id).and_then(|check| check.attempt.take()) {
            handle.abort();
        }
    }

    fn start_due(&mut self) {
        let room = self.running_max.saturating_sub(self.running.len());
        for id in self.schedule.due(Instant::now(), room) {
            let Some(check) = self.checks.get_mut(&id) else { continue };
            self.attempts += 1;
            let attempt = Attempt { id, number: self.attempts };
            let task = Arc::clone(&check.task);
            let handle = self.running.spawn(async move { (attempt, probe::run(&task).await) });
            check.attempt = Some((attempt.number, handle));
        }
    }

    /// When to start the next; None while there is no room, which an attempt that ends makes.
    fn deadline(&self) -> Option<Instant> {
        self.schedule.deadline().filter(|_| self.running.len() < self.running_max)
    }

    /// Whether the attempt is that of a check that still stands.
    fn ended(&mut self, attempt: Attempt) -> bool {
        let Some(check) = self.checks.get_mut(&attempt.id) else { return false };
        if check.attempt.as_ref().is_none_or(|&(number, _)| number != attempt.number) {
            return false;
        }
        check.attempt = None;
        self.schedule.done(attempt.id, Instant::now());
        true
    }
}

/// As many attempts as there is room for open files, up to a bound of our own.
fn running_max() -> usize {
    let files = open_files().unwrap_or(FILES_ASSUMED);
    let room = usize::try_from(files.saturating_sub(FILES_OF_OTHERS)).unwrap_or(RUNNING_MAX);
    (room / FILES_PER_CHECK).clamp(RUNNING_MIN, RUNNING_MAX)
}

/// The daemon may open as many files as the system lets it; shells and service managers hand on less.
fn open_files() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        return Ok(soft);
    }
    Ok(hard)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Each holds a few KiB beside its socket.
const RUNNING_MAX: usize = 8_192;
const RUNNING_MIN: usize = 64;
/// Most have one socket, a few scripts three pipes.
const FILES_PER_CHECK: usize = 2;
/// Maps, programs, links, netlink, admin connections.
const FILES_OF_OTHERS: u64 = 512;
/// Where the limit cannot be read: the usual soft one.
const FILES_ASSUMED: u64 = 1_024;

#[cfg(test)]
mod tests;
