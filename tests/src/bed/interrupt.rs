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
use nix::sys::signal::{SigSet, Signal};

use super::janitor;

/// To be finished when the program has come to its end.
pub struct Watch(SyncSender<()>);

/// Signals are taken by one thread, which removes everything of this process and ends it; children get them
/// unblocked. It sweeps twice: what the program was just making appears after the first time. Call it before any thread
/// starts.
pub fn watch() -> Result<Watch> {
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().context("cannot watch for Ctrl-C")?;
    let (ended, end) = sync_channel(1);
    thread::spawn(move || {
        if signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            eprintln!("interrupted: removing namespaces, maps and programs");
            janitor::sweep_own();
            // Too late or not, the second sweep is the last.
            let _ = end.recv_timeout(END);
            janitor::sweep_own();
            process::exit(130);
        }
    });
    Ok(Watch(ended))
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
