//! Runs the programs that are told of virtual routers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{select, sync::watch, task::JoinSet};
use tracing::{info, warn};

use super::{Queues, Settings};
use crate::{
    daemon::answers::Situation,
    io::{notify::command, process::Program},
    pure::vrrp::hooks::{Owner, Telling},
};

/// Until the queue is closed and empty. Dropped, it ends the programs that run.
pub(super) async fn run(
    queues: Arc<Queues>,
    settings: watch::Receiver<Settings>,
    situation: Arc<Mutex<Situation>>,
) {
    let mut running = JoinSet::new();
    loop {
        let is_over = {
            let mut waiting = queues.lock();
            while let Some(telling) = waiting.backlog.take() {
                running.spawn(tell(telling, settings.borrow().timeout));
            }
            waiting.closed && waiting.backlog.is_idle()
        };
        if is_over {
            return;
        }
        // Cancel safe: a task that ended is returned once, and a notification that comes meanwhile is kept.
        select! {
            () = queues.programs.notified() => {}
            Some(Ok((owner, failure))) = running.join_next() => {
                queues.lock().backlog.done(&owner);
                say(&situation, &owner, failure);
            }
        }
    }
}

/// All programs, whether or not those before failed.
async fn tell(telling: Telling, limit: Duration) -> (Owner, Option<String>) {
    let mut failure = None;
    for hook in telling.programs {
        let program = Program { command: hook.command, environment: Vec::new(), user: hook.user };
        if let Err(error) = command::run_program(&program, limit).await {
            failure = Some(format!(
                "{} was not told \"{}\": {error}",
                telling.owner.shown(),
                telling.line.trim_end()
            ));
        }
    }
    (telling.owner, failure)
}

/// In the status until a program of the same owner works.
fn say(situation: &Mutex<Situation>, owner: &Owner, failure: Option<String>) {
    let has_failed = failure.is_some();
    let text = failure.as_ref().map(|failure| format!("a program of {failure}"));
    let is_news = situation.lock().is_ok_and(|mut situation| situation.warn_of(&about(owner), text.clone()));
    match text {
        Some(text) if is_news => warn!("{text}"),
        None if is_news && !has_failed => info!("the programs of {} work again", owner.shown()),
        Some(_) | None => {}
    }
}

/// Subject of the warning in the status.
pub(super) fn about(owner: &Owner) -> String {
    format!("hooks of {}", owner.shown())
}
