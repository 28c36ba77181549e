//! Operators who wait for another node to take over.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::pure::{
    status::VrrpStatus,
    vrrp::{happening::Happening, node::State},
};

pub(super) type Reply = oneshot::Sender<Result<String, String>>;

#[derive(Default)]
pub(super) struct FailOvers {
    waiting: Vec<Waiting>,
}

struct Waiting {
    router: String,
    reply: Reply,
    until: Instant,
}

impl FailOvers {
    /// True: the node is to be asked. Else whoever asked has been answered.
    pub(super) fn begin(&mut self, status: &VrrpStatus, router: &str, reply: Reply, now: Instant) -> bool {
        let known = status.routers.iter().find(|known| known.name == router);
        let refusal = match known {
            None => {
                let names: Vec<_> = status.routers.iter().map(|router| router.name.as_str()).collect();
                Some(format!("there is no virtual router {router}; this node has {}", names.join(", ")))
            }
            Some(known) if known.state != State::Active.name() => {
                Some(format!("{router} is {} here, not active: ask the node that is", known.state))
            }
            Some(_) if self.waiting.len() >= WAITING_MAX => {
                Some("too many fail-overs are under way: try again".to_owned())
            }
            Some(_) => None,
        };
        match refusal {
            Some(refusal) => {
                // Whoever asked has gone when it cannot be sent.
                let _ = reply.send(Err(refusal));
                false
            }
            None => {
                self.waiting.push(Waiting { router: router.to_owned(), reply, until: now + PATIENCE });
                true
            }
        }
    }

    pub(super) fn happened(&mut self, happening: &Happening) {
        match happening {
            Happening::HandOver { router, to: Some(_), .. } => self.answer(router, &happening.to_string()),
            Happening::Became { router, from: State::Active, .. } => {
                self.answer(router, &happening.to_string());
            }
            _ => {}
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        for late in self.waiting.extract_if(.., |waiting| waiting.until <= now) {
            let _ = late.reply.send(Err(format!(
                "{} is still active here after {PATIENCE:?}: no other node takes it; see `steelyard vrrp show {}`",
                late.router, late.router
            )));
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    fn answer(&mut self, router: &str, done: &str) {
        for waiting in self.waiting.extract_if(.., |waiting| waiting.router == router) {
            let _ = waiting.reply.send(Ok(done.to_owned()));
        }
    }
}

/// A hand-over takes milliseconds, and less than a second without heartbeats.
const PATIENCE: Duration = Duration::from_secs(2);
const WAITING_MAX: usize = 64;
