//! The one way to wait: look again until it is true or the deadline has passed.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Calls `look` until it returns a value; the error names `what` did not happen within `limit`.
pub fn poll<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = look() {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("{what} did not happen within {limit:?}");
        }
        pause(PAUSE);
    }
}

/// Gives the processor away between two looks or two paced requests; never a way to wait for something.
pub fn pause(time: Duration) {
    thread::park_timeout(time);
}

const PAUSE: Duration = Duration::from_millis(5);
