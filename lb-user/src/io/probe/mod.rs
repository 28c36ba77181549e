//! Health checks: one attempt against one server, and what came of it.
//!
//! Must not know schedules, rise or fall: those count results and live in `pure`.
//!
//! ```text
//! CheckTask ─► run ─► one module per kind ─► Report
//!               │          └─ Trace: which step it is at, and when that began
//!               └─ the time limit of the whole
//! ```

mod agent;
mod datagram;
mod dialogue;
mod dns;
mod grpc;
mod http;
mod icmp;
mod script;
mod tcp;
mod through;
mod tls;
mod udp;

#[cfg(test)]
mod peer;

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

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
        Err(_) => Outcome::Failed(through::told(trace.timeout(limit), trace.at(), task)),
    };
    trace.report(outcome)
}

async fn attempt(trace: &mut Trace, task: &CheckTask) -> Result<Option<Advice>, Failure> {
    match &task.check.kind {
        CheckKind::None => Ok(None),
        CheckKind::Tcp(exchanges) if exchanges.is_empty() => tcp::check(trace, task).await.map(|()| None),
        CheckKind::Tcp(exchanges) => dialogue::check(trace, task, exchanges).await.map(|()| None),
        CheckKind::Http(http) => http::check(trace, task, http).await.map(|()| None),
        CheckKind::Tls(tls) => tls::check(trace, task, tls).await.map(|()| None),
        CheckKind::Udp(udp) => udp::check(trace, task, udp).await.map(|()| None),
        CheckKind::Dns(dns) => dns::check(trace, task, dns).await.map(|()| None),
        CheckKind::Grpc(grpc) => grpc::check(trace, task, grpc).await.map(|()| None),
        CheckKind::Icmp => icmp::check(trace, task).await.map(|()| None),
        CheckKind::Script(script) => script::check(trace, task, script).await.map(|()| None),
        CheckKind::Agent { send } => agent::check(trace, task, send).await.map(Some),
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

    /// With what the server said until then, which may be why the rest is missing.
    fn timeout(&self, limit: Duration) -> String {
        match &self.answer {
            Some(answer) => format!("timeout after {limit:?}, and until then {answer}"),
            None => format!("timeout after {limit:?}"),
        }
    }

    fn report(mut self, outcome: Outcome) -> Report {
        self.end();
        Report { outcome, steps: self.ended, answer: self.answer, warning: self.warning }
    }
}

/// For ids that nobody should guess: the hasher's keys come from the kernel.
fn random() -> u64 {
    RandomState::new().hash_one(())
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
