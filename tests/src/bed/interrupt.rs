//! Ctrl-C in a program that stands in a bed: everything of the bed goes before the program does.

use std::{
    process,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    runtime, select,
    signal::unix::{SignalKind, signal},
};

use super::janitor;

/// To be finished when the program has come to its end.
pub struct Watch(SyncSender<()>);

/// What is interrupted is swept twice: what the program was just making appears after the first time.
pub fn watch() -> Result<Watch> {
    let (ended, end) = sync_channel(1);
    on_signal(move || {
        INTERRUPTED.store(true, Ordering::SeqCst);
        eprintln!("interrupted: removing namespaces, maps and programs");
        janitor::sweep_own();
        // Too late or not, the second sweep is the last.
        let _ = end.recv_timeout(END);
        janitor::sweep_own();
        process::exit(130);
    })?;
    Ok(Watch(ended))
}

/// Calls back from a thread of its own, once, when a signal asks the program to end. By handlers, not by blocking
/// signals: a mask would pass to every child, and no daemon would hear its SIGTERM.
pub fn on_signal(then: impl FnOnce() + Send + 'static) -> Result<()> {
    let (ready, is_ready) = sync_channel(1);
    thread::spawn(move || {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let came = runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [mut interrupt, mut terminate, mut hangup] = match kinds.map(signal) {
                [Ok(interrupt), Ok(terminate), Ok(hangup)] => {
                    drop(ready.send(Ok(())));
                    [interrupt, terminate, hangup]
                }
                [Err(error), ..] | [_, Err(error), _] | [.., Err(error)] => {
                    drop(ready.send(Err(error)));
                    return false;
                }
            };
            select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            true
        });
        if came {
            then();
        }
    });
    is_ready.recv().context("the thread that watches for Ctrl-C ended")?.context("cannot watch for Ctrl-C")
}

impl Watch {
    /// Does not return once a signal came: the watcher ends the process.
    pub fn finish(self) {
        // The watcher lives as long as the process, so this reaches it or fills its buffer.
        let _ = self.0.try_send(());
        while came() {
            thread::park();
        }
    }
}

/// A signal came: failures from then on are its doing.
pub fn came() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

const END: Duration = Duration::from_secs(5);
