//! Checks through the data path: the programs that steer them follow what the state wants.

use super::control::Control;
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

    /// Addresses of this machine come and go.
    pub(super) async fn follow_steering(&mut self) {
        let failure = self.look_for_sources().await.err().map(|error| error.to_string());
        self.trouble("local addresses", failure);
        self.keep_steering();
    }

    /// As above, once the daemon runs: what fails is tried again.
    pub(super) fn keep_steering(&mut self) {
        let failure = self.steer().err().map(|error| error.to_string());
        self.trouble("checks through the data path", failure);
        let refused = self.steers.counters().is_some_and(|counters| counters["check_refused"] > 0);
        let refused = refused.then(|| {
            "packets of checks are longer than an interface takes once they are encapsulated: raise its mtu".to_owned()
        });
        self.trouble("refused checks", refused);
    }
}

impl Steers {
    fn counters(&self) -> Option<Counters> {
        self.programs.as_ref()?.counters().ok()
    }
}

const SOURCELESS_SHOWN: usize = 5;
