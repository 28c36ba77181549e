//! Checks through the data path: the programs that steer them follow what the state wants.

use std::time::Instant;

use lb_common::through::counter::Counter;

use super::control::{Control, FULL_SHOWN};
use crate::{
    io::{
        kernel::{Through, ThroughError},
        net::NetError,
    },
    pure::{state::LocalAddress, status::Counters},
};

/// What steers checks. Nothing is loaded while none asks for it.
#[derive(Default)]
pub(super) struct Steers {
    programs: Option<Through>,
    local: Vec<LocalAddress>,
    refused: u64,
    refused_at: Option<Instant>,
}

impl Control {
    /// The addresses that checks may come from; nothing is asked while none goes through the data path.
    pub(super) async fn look_for_sources(&mut self) -> Result<(), NetError> {
        if self.state.steers() {
            self.steers.local = self.net.local_addresses().await?;
        }
        Ok(())
    }

    /// Loads, attaches and enters what checks need, and takes away what they no longer do.
    pub(super) fn steer(&mut self) -> Result<(), ThroughError> {
        if !self.state.steers() {
            self.steers.programs = None;
            return Ok(());
        }
        let programs = match &mut self.steers.programs {
            Some(programs) => programs,
            empty => empty.insert(self.kernel.through()?),
        };
        let steering = self.state.steering(&self.steers.local);
        let sourceless = (!steering.sourceless.is_empty()).then(|| {
            let shown = &steering.sourceless[..steering.sourceless.len().min(SOURCELESS_SHOWN)];
            format!(
                "no source address for checks of {} servers ({}, ..) in the family of their service's address: \
                 give an interface one, or set `source` in [service.check]",
                steering.sourceless.len(),
                shown.join(", ")
            )
        });
        let steered = programs.steer(&steering);
        self.trouble("check sources", sourceless);
        steered
    }

    /// What changes without a plan: the addresses of this machine, attachments that somebody took away, the counters.
    pub(super) async fn follow_steering(&mut self) {
        let failure = self.look_for_sources().await.err().map(|error| error.to_string());
        self.trouble("local addresses", failure);
        if let Some(programs) = &mut self.steers.programs {
            programs.forget_lost();
        }
        self.keep_steering();
        let counters = self.steers.counters();
        let refused = self.steers.refuses(counters.get(Counter::CheckRefused.name()).copied().unwrap_or(0));
        if let Ok(mut situation) = self.situation.lock() {
            situation.checks = counters;
        }
        let refused = refused.then(|| {
            "packets of checks are longer than an interface takes once they are encapsulated: raise its mtu".to_owned()
        });
        self.trouble("refused checks", refused);
    }

    /// Follows a plan: what fails is tried again.
    pub(super) fn keep_steering(&mut self) {
        let failure = self.steer().err().map(|error| error.to_string());
        self.trouble("checks through the data path", failure);
    }
}

impl Steers {
    /// Empty while nothing is steered.
    fn counters(&self) -> Counters {
        self.programs.as_ref().and_then(|programs| programs.counters().ok()).unwrap_or_default()
    }

    /// Whether packets were refused of late; `total`: since the programs were loaded.
    fn refuses(&mut self, total: u64) -> bool {
        if total > self.refused {
            self.refused_at = Some(Instant::now());
        }
        self.refused = total;
        self.refused_at.is_some_and(|at| at.elapsed() < FULL_SHOWN)
    }
}

const SOURCELESS_SHOWN: usize = 5;
