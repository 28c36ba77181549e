//! Writes what virtual routers do to the FIFOs.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tokio::{select, sync::watch, task::spawn_blocking};
use tracing::{info, warn};

use super::{Queues, Settings};
use crate::{daemon::answers::Situation, io::notify::fifo::Fifo};

/// Until the queue is closed and empty.
pub(super) async fn run(
    queues: Arc<Queues>,
    mut settings: watch::Receiver<Settings>,
    situation: Arc<Mutex<Situation>>,
) {
    let mut outlets = Vec::new();
    loop {
        let wanted = settings.borrow_and_update().fifos.clone();
        outlets = kept(outlets, &wanted, &situation);
        let (lines, lost, closed) = {
            let mut waiting = queues.lock();
            let lines: Vec<_> = waiting.lines.drain(..).collect();
            (lines, std::mem::take(&mut waiting.lines_lost), waiting.closed)
        };
        if lost > 0 {
            warn!("{lost} lines for fifos were left out: their file system is slow");
        }
        if lines.is_empty() && closed {
            return;
        }
        if !lines.is_empty() {
            // Not on this thread: a FIFO can be on a file system that is far away.
            let written = spawn_blocking(move || {
                outlets.iter_mut().for_each(|outlet: &mut Outlet| outlet.write(&lines));
                outlets
            });
            let Ok(written) = written.await else { return };
            outlets = written;
            outlets.iter_mut().for_each(|outlet| outlet.say(&situation));
            continue;
        }
        // Cancel safe: a notification that comes meanwhile is kept.
        select! {
            () = queues.lines.notified() => {}
            Ok(()) = settings.changed() => {}
        }
    }
}

struct Outlet {
    fifo: Fifo,
    /// Lines that it did not take since it last took all.
    lost: u64,
    failure: Option<String>,
}

impl Outlet {
    fn write(&mut self, lines: &[String]) {
        let lost = self.lost;
        for line in lines {
            if let Err(error) = self.fifo.write(line) {
                self.lost += 1;
                self.failure = Some(error.to_string());
            }
        }
        if self.lost == lost {
            self.failure = None;
        }
    }

    /// In the status until it takes lines again.
    fn say(&mut self, situation: &Mutex<Situation>) {
        let lost = format!("lines left out so far: {}", self.lost);
        let warning = self.failure.as_ref().map(|failure| format!("{failure}; {lost}"));
        let about = about(&self.fifo);
        let was_said = situation.lock().is_ok_and(|situation| situation.warnings.contains_key(&about));
        if let Ok(mut situation) = situation.lock() {
            situation.warn_of(&about, warning.clone());
        }
        match warning {
            Some(warning) if !was_said => warn!("{warning}"),
            None if was_said => {
                info!("the fifo {} takes lines again; {lost}", self.fifo.path().display());
                self.lost = 0;
            }
            Some(_) | None => {}
        }
    }
}

/// Those that stay stay open; each is made at once, so that readers find it.
fn kept(outlets: Vec<Outlet>, wanted: &[PathBuf], situation: &Mutex<Situation>) -> Vec<Outlet> {
    let mut before: BTreeMap<_, _> =
        outlets.into_iter().map(|outlet| (outlet.fifo.path().to_owned(), outlet)).collect();
    let fresh = |path: &PathBuf| Outlet { fifo: Fifo::new(path.clone()), lost: 0, failure: None };
    let kept = wanted.iter().map(|path| before.remove(path).unwrap_or_else(|| fresh(path))).collect();
    if let Ok(mut situation) = situation.lock() {
        for gone in before.values() {
            situation.warn_of(&about(&gone.fifo), None);
        }
    }
    kept
}

/// Subject of the warning in the status.
fn about(fifo: &Fifo) -> String {
    format!("fifo {}", fifo.path().display())
}
