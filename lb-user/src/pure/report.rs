//! What one check found.
//!
//! Owns the words in which a check's result is told. Must not know how a check is made, nor what follows from it.

use std::{fmt, time::Duration};

/// The result of one check, with the time each of its steps took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub outcome: Outcome,
    /// In the order they were taken; the last one is where a check that failed ended.
    pub steps: Vec<(Step, Duration)>,
    /// What the server answered, for people: "status 200".
    pub answer: Option<String>,
    /// Something an operator should look at though the check passed.
    pub warning: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// An agent's answer, which says more than that.
    Advised(Advice),
    /// The server, or the way to it, is at fault.
    Failed(String),
    /// This machine could not make the attempt: it says nothing about the server.
    NotRun(String),
}

/// One part of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A name or a neighbour is looked up.
    Neighbour,
    Connect,
    Tls,
    Send,
    Reply,
    Status,
    /// A program runs.
    Run,
}

/// What an agent says of its server; None leaves things as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Advice {
    /// Percent of the configured weight.
    pub weight: Option<u8>,
    pub admin: Option<AgentAdmin>,
    pub up: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentAdmin {
    Ready,
    Drain,
    Maintenance,
}

impl Advice {
    /// What stands after a further answer of the agent.
    pub fn updated(self, next: Advice) -> Advice {
        Advice {
            weight: next.weight.or(self.weight),
            admin: next.admin.or(self.admin),
            up: next.up.or(self.up),
        }
    }
}

impl Report {
    /// A connection that nobody answered did not get as far as that: its next hop was asked for in vain.
    pub fn without_neighbour(mut self, reason: &str) -> Report {
        if let (Outcome::Failed(said), Some((step @ Step::Connect, _))) =
            (&mut self.outcome, self.steps.last_mut())
        {
            reason.clone_into(said);
            *step = Step::Neighbour;
        }
        self
    }

    pub fn elapsed(&self) -> Duration {
        self.steps.iter().map(|(_, time)| *time).sum()
    }
}

impl Step {
    pub fn name(self) -> &'static str {
        match self {
            Step::Neighbour => "neighbour",
            Step::Connect => "connect",
            Step::Tls => "tls",
            Step::Send => "send",
            Step::Reply => "reply",
            Step::Status => "status",
            Step::Run => "run",
        }
    }
}

impl fmt::Display for Report {
    /// What an operator reads beside the server's state: "status 200 in 3.1 ms (connect 0.4, reply 2.7)".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Passed | Outcome::Advised(_) => {
                let answer = self.answer.as_deref().unwrap_or("connected");
                write!(f, "{answer} in {:.1} ms", milliseconds(self.elapsed()))?;
            }
            Outcome::Failed(reason) => match self.steps.last() {
                Some((step, _)) if self.steps.len() > 1 && !reason.starts_with(step.name()) => {
                    write!(f, "{}: {reason}", step.name())?;
                }
                _ => f.write_str(reason)?,
            },
            Outcome::NotRun(reason) => return write!(f, "check not run: {reason}"),
        }
        if self.steps.len() > 1 {
            let steps =
                self.steps.iter().map(|(step, time)| format!("{} {:.1}", step.name(), milliseconds(*time)));
            write!(f, " ({} ms)", steps.collect::<Vec<_>>().join(", "))?;
        }
        match &self.warning {
            Some(warning) => write!(f, "; {warning}"),
            None => Ok(()),
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_that_failed_is_the_neighbours_fault() {
        let ms = Duration::from_millis;
        let report = |outcome, steps: &[Step]| Report {
            outcome,
            steps: steps.iter().map(|&step| (step, ms(1))).collect(),
            answer: None,
            warning: None,
        };
        let failed = || Outcome::Failed("timeout".into());
        let silent = report(failed(), &[Step::Connect]).without_neighbour("silent");
        assert_eq!(silent, report(Outcome::Failed("silent".into()), &[Step::Neighbour]));
        for other in [
            report(failed(), &[Step::Connect, Step::Reply]),
            report(failed(), &[]),
            report(Outcome::Passed, &[Step::Connect]),
            report(Outcome::NotRun("no port".into()), &[Step::Connect]),
        ] {
            assert_eq!(other.clone().without_neighbour("silent"), other);
        }
    }

    #[test]
    fn reports_read_as_sentences() {
        let ms = Duration::from_millis;
        let passed = Report {
            outcome: Outcome::Passed,
            steps: vec![(Step::Connect, ms(1))],
            answer: None,
            warning: None,
        };
        let asked = Report {
            steps: vec![(Step::Connect, ms(1)), (Step::Reply, ms(3))],
            answer: Some("status 200".into()),
            ..passed.clone()
        };
        let failed = Report { outcome: Outcome::Failed("status 503".into()), answer: None, ..asked.clone() };
        let judged = Report { steps: vec![(Step::Connect, ms(1)), (Step::Status, ms(0))], ..failed.clone() };
        let refused = Report { outcome: Outcome::Failed("connection refused".into()), ..passed.clone() };
        let not_run = Report { outcome: Outcome::NotRun("no free local port".into()), ..passed.clone() };
        let ending = Report { warning: Some("its certificate ends in 3 days".into()), ..passed.clone() };
        for (report, expected) in [
            (passed, "connected in 1.0 ms"),
            (asked, "status 200 in 4.0 ms (connect 1.0, reply 3.0 ms)"),
            (failed, "reply: status 503 (connect 1.0, reply 3.0 ms)"),
            (judged, "status 503 (connect 1.0, status 0.0 ms)"),
            (refused, "connection refused"),
            (not_run, "check not run: no free local port"),
            (ending, "connected in 1.0 ms; its certificate ends in 3 days"),
        ] {
            assert_eq!(report.to_string(), expected);
        }
    }
}
