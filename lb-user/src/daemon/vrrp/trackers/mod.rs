//! Asks what virtual routers track: scripts, processes and files. The thread hears verdicts only.
//!
//! ```text
//! one task each script and file, one for all processes ─► Reporter ─┬─► Order::Tracked ─► thread
//!                                                                   ├─► Situation (status)
//!                                                                   └─► Notice, bounded ─► control
//! ```
//!
//! Only what some router or group tracks is asked. A task ends when the sender of its settings is gone, after a run
//! that it is in the middle of: a script may have ordered what ended it.

mod files;
mod processes;
mod scripts;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, warn};

use super::{Handle, Order};
use crate::{
    daemon::answers::Situation,
    pure::{
        config::model::vrrp::{Process, Script, TrackFile, Tracked, Vrrp},
        notice::Notice,
        vrrp::{node::Verdict, served::tracked},
    },
};

pub(super) struct Trackers {
    reporter: Reporter,
    scripts: BTreeMap<String, watch::Sender<Script>>,
    files: BTreeMap<String, watch::Sender<TrackFile>>,
    /// At most one, for all of them.
    processes: BTreeMap<String, watch::Sender<Vec<Process>>>,
    tasks: JoinSet<()>,
}

/// Notices of trackers that wait for control; what does not fit is in the log.
pub(super) const NOTICES: usize = 256;

impl Trackers {
    pub(super) fn new(
        thread: Handle,
        situation: Arc<Mutex<Situation>>,
        notices: mpsc::Sender<Notice>,
    ) -> Trackers {
        let reporter = Reporter { thread, situation, notices, known: Arc::default() };
        Trackers {
            reporter,
            scripts: BTreeMap::new(),
            files: BTreeMap::new(),
            processes: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// At the start, and after the thread was told of another configuration: it hears again what is known.
    pub(super) fn configure(&mut self, vrrp: &Vrrp) {
        let tracked: BTreeSet<_> = tracked(vrrp).into_iter().cloned().collect();
        self.reporter.keep(&tracked);
        let is_tracked = |what: Tracked| tracked.contains(&what);

        let scripts = vrrp.scripts.iter().filter(|script| is_tracked(Tracked::Script(script.name.clone())));
        let scripts: BTreeMap<_, _> = scripts.map(|script| (script.name.clone(), script.clone())).collect();
        adjust(&mut self.scripts, scripts, |script| {
            self.tasks.spawn(scripts::follow(script, self.reporter.clone()));
        });

        let files = vrrp.files.iter().filter(|file| is_tracked(Tracked::File(file.name.clone())));
        let files: BTreeMap<_, _> = files.map(|file| (file.name.clone(), file.clone())).collect();
        adjust(&mut self.files, files, |file| {
            self.tasks.spawn(files::follow(file, self.reporter.clone()));
        });

        let processes =
            vrrp.processes.iter().filter(|process| is_tracked(Tracked::Process(process.name.clone())));
        let processes: Vec<_> = processes.cloned().collect();
        let wanted = (!processes.is_empty()).then(|| (String::new(), processes));
        adjust(&mut self.processes, wanted.into_iter().collect(), |processes| {
            self.tasks.spawn(processes::follow(processes, self.reporter.clone()));
        });
        self.reporter.repeat();
    }

    /// Now and then: what the thread did not take is said again.
    pub(super) fn tick(&mut self) {
        self.reporter.retry();
        while self.tasks.try_join_next().is_some() {}
    }

    /// A run that has begun may end, for so long: the script may be what stops the daemon.
    pub(super) async fn close(self, patience: Duration) {
        let Trackers { scripts, files, processes, mut tasks, .. } = self;
        drop((scripts, files, processes));
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(patience, ended).await.is_err() {
            debug!("scripts that still ran after {patience:?} were ended with the daemon");
        }
    }
}

/// Starts what is new, tells what changed, and lets go of what is no longer wanted.
fn adjust<T: Clone + PartialEq>(
    running: &mut BTreeMap<String, watch::Sender<T>>,
    wanted: BTreeMap<String, T>,
    mut start: impl FnMut(watch::Receiver<T>),
) {
    running.retain(|name, _| wanted.contains_key(name));
    for (name, settings) in wanted {
        match running.get(&name) {
            Some(sender) => {
                sender.send_if_modified(|before| {
                    let changed = *before != settings;
                    *before = settings;
                    changed
                });
            }
            None => {
                let (sender, watched) = watch::channel(settings);
                running.insert(name, sender);
                start(watched);
            }
        }
    }
}

/// Where trackers say what they found.
#[derive(Clone)]
struct Reporter {
    thread: Handle,
    situation: Arc<Mutex<Situation>>,
    notices: mpsc::Sender<Notice>,
    known: Arc<Mutex<BTreeMap<Tracked, Known>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    verdict: Verdict,
    /// The thread took it.
    is_ordered: bool,
}

impl Reporter {
    /// `words` say what the last result was. A verdict goes to the thread when it is another than before.
    fn found(&self, what: &Tracked, verdict: Verdict, words: &str) {
        if let Ok(mut situation) = self.situation.lock() {
            situation.tracked.insert(what.to_string(), words.to_owned());
        }
        let before = {
            let Ok(mut known) = self.known.lock() else { return };
            let before = known.get(what).map_or(Verdict::Unknown, |known| known.verdict);
            if before == verdict {
                return;
            }
            let is_ordered = self.order(what, verdict);
            known.insert(what.clone(), Known { verdict, is_ordered });
            before
        };
        let (what, detail) = (what.to_string(), words.to_owned());
        match (before, verdict) {
            (_, Verdict::Down) => self.tell(Notice::TrackerDown { what, detail }),
            (Verdict::Down, Verdict::Up) => self.tell(Notice::TrackerUp { what, detail }),
            // What began well is no news, and a number shows in the priority.
            (_, Verdict::Up | Verdict::Unknown | Verdict::Number(_)) => {}
        }
    }

    /// What somebody has to mend, until None. It counts as failed, and is told when it begins.
    fn broken(&self, what: &Tracked, fault: Option<&str>) {
        let warning = fault.map(|fault| format!("{what} cannot tell, and counts as failed: {fault}"));
        if self.warn_of(what.to_string(), warning)
            && let Some(fault) = fault
        {
            self.tell(Notice::TrackerBroken { what: what.to_string(), detail: fault.to_owned() });
        }
    }

    /// It takes longer than it should, but tells: None when that is over.
    fn late(&self, what: &Tracked, fault: Option<&str>) {
        self.warn_of(format!("{what} late"), fault.map(|fault| format!("{what} {fault}")));
    }

    /// True: this is news.
    fn warn_of(&self, about: String, warning: Option<String>) -> bool {
        self.situation.lock().is_ok_and(|mut situation| situation.warn_of(&about, warning))
    }

    fn tell(&self, notice: Notice) {
        if let Err(error) = self.notices.try_send(notice) {
            warn!("{}", error.into_inner());
        }
    }

    fn order(&self, what: &Tracked, verdict: Verdict) -> bool {
        self.thread.order(Order::Tracked { what: what.clone(), verdict }).is_ok()
    }

    /// Forgets, and takes back, all that is no longer tracked.
    fn keep(&self, tracked: &BTreeSet<Tracked>) {
        let Ok(mut known) = self.known.lock() else { return };
        known.retain(|what, _| tracked.contains(what));
        let named: BTreeSet<_> = tracked.iter().map(ToString::to_string).collect();
        if let Ok(mut situation) = self.situation.lock() {
            let gone: Vec<_> = situation.tracked.extract_if(.., |what, _| !named.contains(what)).collect();
            for (what, _) in gone {
                situation.warn_of(&what, None);
                situation.warn_of(&format!("{what} late"), None);
            }
        }
    }

    fn repeat(&self) {
        if let Ok(mut known) = self.known.lock() {
            known.values_mut().for_each(|known| known.is_ordered = false);
        }
        self.retry();
    }

    fn retry(&self) {
        let Ok(mut known) = self.known.lock() else { return };
        for (what, known) in known.iter_mut().filter(|(_, known)| !known.is_ordered) {
            known.is_ordered = self.order(what, known.verdict);
            if !known.is_ordered {
                return;
            }
        }
    }
}

/// Whoever gave the settings has let go.
fn is_over<T>(settings: &watch::Receiver<T>) -> bool {
    settings.has_changed().is_err()
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
