//! Runs health checks when they are due and sends what came of them.

use std::{collections::HashMap, sync::Arc, time::Instant};

use lb_common::slot::ServerId;
use tokio::{
    select,
    sync::{mpsc, watch},
    task::JoinSet,
    time,
};

use crate::{
    io::probe,
    pure::{
        health::{CheckId, Schedule},
        report::Report,
        state::{CheckTask, Event},
    },
};

/// Checks under way at once: bounds sockets and memory; what is due beyond it waits its turn.
const RUNNING_MAX: usize = 1_024;

/// Runs the checks until the receiver of events is gone.
pub(super) async fn run(mut tasks: watch::Receiver<Arc<Vec<CheckTask>>>, events: mpsc::Sender<Event>) {
    let mut checks = Checks::default();
    tasks.mark_changed();
    loop {
        checks.start_due();
        let deadline = checks.schedule.deadline().filter(|_| checks.running.len() < RUNNING_MAX);
        // Cancel safe: a finished check stays in the set until it is taken.
        let finished = select! {
            Some(finished) = checks.running.join_next() => finished,
            () = until(deadline) => continue,
            Ok(()) = tasks.changed() => {
                checks.take(&tasks.borrow_and_update());
                continue;
            }
            () = events.closed() => return,
        };
        if let Ok((id, task, report)) = finished {
            checks.schedule.done(id, Instant::now());
            // What was asked in another way, or of somebody who is gone, says nothing.
            if checks.tasks.get(&id) != Some(&task) {
                continue;
            }
            if events.send(Event::Checked { server: ServerId(id.0), report }).await.is_err() {
                return;
            }
        }
    }
}

#[derive(Default)]
struct Checks {
    tasks: HashMap<CheckId, Arc<CheckTask>>,
    schedule: Schedule,
    running: JoinSet<(CheckId, Arc<CheckTask>, Report)>,
}

impl Checks {
    fn take(&mut self, tasks: &[CheckTask]) {
        let now = Instant::now();
        let wanted: HashMap<_, _> = tasks.iter().map(|task| (CheckId(task.server.0), task)).collect();
        for id in self.tasks.keys().filter(|id| !wanted.contains_key(id)) {
            self.schedule.remove(*id);
        }
        self.tasks.retain(|id, _| wanted.contains_key(id));
        for (id, task) in wanted {
            self.schedule.add(id, task.check.interval, now, id.phase());
            if self.tasks.get(&id).is_none_or(|known| **known != *task) {
                self.tasks.insert(id, Arc::new(task.clone()));
            }
        }
    }

    fn start_due(&mut self) {
        let room = RUNNING_MAX.saturating_sub(self.running.len());
        for id in self.schedule.due(Instant::now(), room) {
            if let Some(task) = self.tasks.get(&id).cloned() {
                self.running.spawn(async move {
                    let report = probe::run(&task).await;
                    (id, task, report)
                });
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
