//! Health checks: one attempt against one server, and what came of it.
//!
//! Must not know schedules, rise or fall: those count results and live in `pure`.
//!
//! ```text
//! CheckTask ─► run ─► one module per kind ─► Report
//!               │          └─ Trace: which step it is at, and when that began
//!               └─ the time limit of the whole
//! ```

mod tcp;
mod through;

use std::time::{Duration, Instant};

use tokio::time;

use crate::pure::{
    config::model::check::CheckKind,
    report::{Advice, Outcome, Report, Step},
    state::CheckTask,
};

/// One attempt, never longer than the check's timeout; dropping the future ends it.
pub async fn run(task: &CheckTask) -> Report {
    let mut trace = Trace::default();
    let limit = task.check.timeout;
    let outcome = match time::timeout(limit, attempt(&mut trace, task)).await {
        Ok(Ok(None)) => Outcome::Passed,
        Ok(Ok(Some(advice))) => Outcome::Advised(advice),
        Ok(Err(Failure::Server(reason))) => Outcome::Failed(through::told(reason, trace.at(), task)),
        Ok(Err(Failure::Local(reason))) => Outcome::NotRun(reason),
        Err(_) => Outcome::Failed(through::told(format!("timeout after {limit:?}"), trace.at(), task)),
    };
    trace.report(outcome)
}

async fn attempt(trace: &mut Trace, task: &CheckTask) -> Result<Option<Advice>, Failure> {
    match &task.check.kind {
        CheckKind::None => Ok(None),
        CheckKind::Tcp(_) => tcp::check(trace, task).await.map(|()| None),
        CheckKind::Http(_)
        | CheckKind::Tls(_)
        | CheckKind::Udp(_)
        | CheckKind::Dns(_)
        | CheckKind::Grpc(_)
        | CheckKind::Icmp
        | CheckKind::Script(_)
        | CheckKind::Agent { .. } => Err(Failure::Local("not built yet".to_owned())),
    }
}

/// Why a check did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// The server, or the way to it, is at fault.
    Server(String),
    /// This machine is.
    Local(String),
}

/// How far a check is: outlives the attempt, so that a timeout knows which step it ended.
#[derive(Debug, Default)]
struct Trace {
    ended: Vec<(Step, Duration)>,
    current: Option<(Step, Instant)>,
    answer: Option<String>,
    warning: Option<String>,
}

impl Trace {
    /// A step begins, and the one before has ended.
    fn step(&mut self, step: Step) {
        self.end();
        self.current = Some((step, Instant::now()));
    }

    /// The step that is under way.
    fn at(&self) -> Option<Step> {
        self.current.map(|(step, _)| step)
    }

    fn end(&mut self) {
        if let Some((step, since)) = self.current.take() {
            self.ended.push((step, since.elapsed()));
        }
    }

    fn report(mut self, outcome: Outcome) -> Report {
        self.end();
        Report { outcome, steps: self.ended, answer: self.answer, warning: self.warning }
    }
}

#[cfg(test)]
mod testing {
    use std::{net::SocketAddr, sync::Arc, time::Duration};

    use lb_common::slot::ServerId;

    use crate::pure::{
        config::model::check::{Check, CheckKind},
        state::CheckTask,
    };

    pub(super) fn task(kind: CheckKind, target: SocketAddr, timeout: Duration) -> CheckTask {
        CheckTask {
            server: ServerId(1),
            service_name: "web".to_owned(),
            server_name: "web1".to_owned(),
            target,
            through: None,
            check: Arc::new(Check { timeout, ..Check::of(kind) }),
        }
    }
}
