//! Health checks: one attempt against one server, and what came of it.
//!
//! Must not know schedules, rise or fall: those count results and live in `pure`.

pub mod tcp;

use std::{fmt, time::Duration};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    pub outcome: Outcome,
    pub elapsed: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// The server, or the way to it, is at fault.
    Failed(String),
    /// This machine could not make the attempt: it says nothing about the server.
    NotRun(String),
}

impl fmt::Display for ProbeResult {
    /// What an operator reads beside the server's state.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Passed => write!(f, "connected in {:.1} ms", self.elapsed.as_secs_f64() * 1_000.0),
            Outcome::Failed(reason) => f.write_str(reason),
            Outcome::NotRun(reason) => write!(f, "check not run: {reason}"),
        }
    }
}
