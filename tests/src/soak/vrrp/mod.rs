//! `cargo xtask soak vrrp`: nodes that share addresses while links are cut and daemons stopped, killed and reloaded, in
//! an order that its seed decides.
//!
//! Owns the sequence, the clocks and the verdict. Must not know how an election is held: it asks which nodes have an
//! address, and hears who advertises it.
//!
//! ```text
//! seed ─► act ─► a, b, c: steelyard   d: Keepalived
//!                   └─► watch: who can hear whom, who has what ─► never none, never two, for longer than allowed
//! ```

mod act;
mod dice;
mod report;
mod watch;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub use self::report::Report;
use self::{act::Cast, dice::Dice, watch::Watch};
use crate::bed::{Family, Pair, observer::Observer, vrrp::Virtual};

#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Plan {
    pub seconds: u64,
    pub seed: u64,
    /// Of ours, 2 or 3.
    pub nodes: usize,
    /// One more, with Keepalived.
    pub foreign: bool,
    /// Ours hear each other's heartbeats.
    pub heartbeats: bool,
}

/// Ends at the first violation, with what led to it.
pub fn run(plan: Plan) -> Result<Report> {
    let nodes = plan.nodes + usize::from(plan.foreign);
    let pair = Pair::new(nodes, 0)?;
    let observer = Observer::start(&pair)?;
    let mut dice = Dice::new(plan.seed);
    let mut routers = [
        Virtual::new(41, Family::V4, &[200, 150, 100, 50][..nodes]),
        Virtual::new(42, Family::V4, &[50, 100, 150, 200][..nodes]),
        Virtual::new(43, Family::V6, &[100, 200, 50, 150][..nodes]),
    ];
    let mut cast = Cast::start(&pair, plan, &routers)?;
    let mut watch = Watch::new(&pair, &observer, routers.iter().map(Virtual::clone).collect());
    let mut report = Report::new(plan);
    let end = Instant::now() + Duration::from_secs(plan.seconds);
    let result = loop {
        if Instant::now() >= end {
            break Ok(());
        }
        if let Err(error) = watch.during(dice.pause(), &cast) {
            break Err(error);
        }
        let act = cast.choose(&mut dice);
        watch.restart(act);
        cast.carry_out(act, &mut routers, &mut dice)?;
        report.count(act);
    };
    report.longest(&watch);
    cast.quiet(result.is_ok());
    if let Err(error) = result {
        bail!("{error:#}\nthe last of {} acts were {:?}", report.acts(), report.last());
    }
    report.adverts = observer.stop()?.len();
    Ok(report)
}
