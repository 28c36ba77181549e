//! Tells programs and FIFOs what virtual routers do, in Keepalived's words.
//!
//! ```text
//! tell ─► Teller ─┬─► Backlog ─► hooks: one router's after each other, many routers' at once
//!                 └─► lines, bounded ─► fifos
//! ```
//!
//! Nothing here waits for anybody, and nothing waits for what is here: what does not fit is counted and told.

mod fifos;
mod hooks;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout_at,
};
use tracing::warn;

use crate::{
    daemon::answers::Situation,
    pure::{
        config::model::vrrp::Vrrp,
        vrrp::{
            happening::Happening,
            hooks::{Backlog, Teller},
        },
    },
};

pub(super) struct Notifier {
    teller: Teller,
    queues: Arc<Queues>,
    settings: watch::Sender<Settings>,
    situation: Arc<Mutex<Situation>>,
    tasks: [(&'static str, JoinHandle<()>); 2],
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Settings {
    fifos: Vec<PathBuf>,
    /// Of one program.
    timeout: Duration,
}

/// What waits, and who is to hear of it.
#[derive(Default)]
struct Queues {
    waiting: Mutex<Waiting>,
    programs: Notify,
    lines: Notify,
}

#[derive(Default)]
struct Waiting {
    backlog: Backlog,
    lines: VecDeque<String>,
    /// Those that did not fit, until it is said.
    lines_lost: u64,
    /// Nothing is put in any more.
    closed: bool,
}

impl Notifier {
    /// With nobody to tell until it is configured.
    pub(super) fn start(situation: &Arc<Mutex<Situation>>) -> Notifier {
        let queues = Arc::new(Queues::default());
        let (settings, watched) = watch::channel(Settings::default());
        let hooks = hooks::run(Arc::clone(&queues), watched.clone(), Arc::clone(situation));
        let fifos = fifos::run(Arc::clone(&queues), watched, Arc::clone(situation));
        Notifier {
            teller: Teller::default(),
            queues,
            settings,
            situation: Arc::clone(situation),
            tasks: [("hooks", tokio::spawn(hooks)), ("fifos", tokio::spawn(fifos))],
        }
    }

    /// For what is told from now on.
    pub(super) fn configure(&mut self, vrrp: &Vrrp, timeout: Duration) {
        self.teller.configure(vrrp);
        let wanted = Settings { fifos: vrrp.fifos.clone(), timeout };
        self.settings.send_if_modified(|settings| {
            let changed = *settings != wanted;
            *settings = wanted;
            changed
        });
    }

    /// Whether it is to be mailed, too.
    pub(super) fn tell(&mut self, happening: &Happening) -> bool {
        let is_mailed = self.teller.is_mailed(happening);
        let Some(telling) = self.teller.tell(happening) else { return is_mailed };
        let mut waiting = self.queues.lock();
        if !self.settings.borrow().fifos.is_empty() {
            waiting.lines.push_back(telling.line.clone());
            if waiting.lines.len() > LINES {
                waiting.lines.pop_front();
                waiting.lines_lost += 1;
            }
        }
        let dropped = waiting.backlog.put(telling);
        drop(waiting);
        if let Some(dropped) = dropped {
            let text = format!(
                "programs of {} are slower than its changes of state: \"{}\" was left out",
                dropped.owner.shown(),
                dropped.line.trim_end()
            );
            warn!("{text}");
            if let Ok(mut situation) = self.situation.lock() {
                situation.warn_of(&hooks::about(&dropped.owner), Some(text));
            }
        }
        self.queues.programs.notify_one();
        self.queues.lines.notify_one();
        is_mailed
    }

    /// Waits for what was told, but not for long: programs that still run then are ended.
    pub(super) async fn close(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        self.queues.lock().closed = true;
        self.queues.programs.notify_one();
        self.queues.lines.notify_one();
        for (name, mut task) in self.tasks {
            if timeout_at(deadline.into(), &mut task).await.is_err() {
                task.abort();
                warn!("{name} of virtual routers did not take the last words within {patience:?}");
            }
        }
    }
}

impl Queues {
    /// A thread that failed left whole queues: each change of them is one call.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines that wait for the FIFOs; the oldest go first.
const LINES: usize = 1_024;
