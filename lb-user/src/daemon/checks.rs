//! Runs health checks when they are due and sends what came of them.

use std::{collections::HashMap, sync::Arc, time::Instant};

use lb_common::slot::ServerId;
use tokio::{select, sync::mpsc, task::JoinSet, time};

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
pub(super) async fn run(tasks: Vec<CheckTask>, events: mpsc::Sender<Event>) {
    let mut checks = Checks::new(tasks);
    loop {
        checks.start_due();
        let deadline = checks.schedule.deadline().filter(|_| checks.running.len() < RUNNING_MAX);
        // Cancel safe: a finished check stays in the set until it is taken.
        let finished = select! {
            Some(finished) = checks.running.join_next() => finished,
            () = until(deadline) => continue,
            () = events.closed() => return,
        };
        if let Ok((id, report)) = finished {
            checks.schedule.done(id, Instant::now());
            if events.send(Event::Checked { server: ServerId(id.0), report }).await.is_err() {
                return;
            }
        }
    }
}

struct Checks {
    tasks: HashMap<CheckId, Arc<CheckTask>>,
    schedule: Schedule,
    running: JoinSet<(CheckId, Report)>,
}

impl Checks {
    fn new(tasks: Vec<CheckTask>) -> Self {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        let mut by_id = HashMap::new();
        for task in tasks {
            let id = CheckId(task.server.0);
            schedule.add(id, task.check.interval, now, id.phase());
            by_id.insert(id, Arc::new(task));
        }
        Checks { tasks: by_id, schedule, running: JoinSet::new() }
    }

    fn start_due(&mut self) {
        let room = RUNNING_MAX.saturating_sub(self.running.len());
        for id in self.schedule.due(Instant::now(), room) {
            if let Some(task) = self.tasks.get(&id).cloned() {
                self.running.spawn(async move { (id, probe::run(&task).await) });
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
