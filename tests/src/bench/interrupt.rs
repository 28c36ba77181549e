//! An interrupted measurement ends between two calls, so that nothing is left behind.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

use crate::bed::interrupt::on_signal;

/// Takes the signals that end a program.
pub fn end_when_asked() -> Result<()> {
    on_signal(|| ENDED.store(true, Ordering::Relaxed))
}

/// An error once a signal came.
pub fn go_on() -> Result<()> {
    if ENDED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

static ENDED: AtomicBool = AtomicBool::new(false);
