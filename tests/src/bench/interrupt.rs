//! An interrupted measurement ends between two calls, so that nothing is left behind.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};

/// Takes the signals that end a program, for the whole process: call it before any thread starts.
pub fn end_when_asked() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("cannot block signals")?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            ENDED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// An error once a signal came.
pub fn go_on() -> Result<()> {
    if ENDED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

static ENDED: AtomicBool = AtomicBool::new(false);
