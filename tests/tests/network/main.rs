//! Scenarios: `steelyard` between real clients and real servers, in namespaces.

mod bad_input;
mod balance;
mod decap;
mod failover;
mod lifecycle;
mod modes;
mod passing;
mod unusable;
mod view;

use anyhow::Result;
use lb_tests::bed::{Arms, Bed, Config, Layout};
use lb_user::pure::config::model::Forward;

/// Both forward modes on both layouts.
fn every_layout() -> impl Iterator<Item = Layout> {
    [Arms::One, Arms::Two]
        .into_iter()
        .flat_map(|arms| [Forward::Nat, Forward::Dsr].map(|forward| Layout::new(arms, forward)))
}

fn bed(arms: Arms, forward: Forward) -> Result<(Bed, Config)> {
    let bed = Bed::new(Layout::new(arms, forward))?;
    let config = Config::of(&bed);
    Ok((bed, config))
}
