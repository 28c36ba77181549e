//! Servers get the shares that are configured.

use anyhow::{Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Config, Forward, Layout, Steelyard,
    client::{Histogram, Requests},
};

#[test]
fn weights_are_respected_over_twenty_thousand_connections() -> Result<()> {
    let bed = Bed::new(Layout::new(Arms::One, Forward::Dsr))?;
    let _steelyard = Steelyard::running(&bed, &weighted(&bed))?;
    within_three_points(&Requests::new(bed.service(), 20_000).tcp(&bed.client)?)
}

#[test]
fn weights_are_respected_by_nat_too() -> Result<()> {
    let bed = Bed::new(Layout::new(Arms::Two, Forward::Nat))?;
    let _steelyard = Steelyard::running(&bed, &weighted(&bed))?;
    within_three_points(&Requests::new(bed.service(), 5_000).tcp(&bed.client)?)
}

fn weighted(bed: &Bed) -> Config {
    let mut config = Config::of(bed);
    for (server, (_, weight)) in config.services[0].servers.iter_mut().zip(WEIGHTS) {
        server.weight = weight;
    }
    config
}

fn within_three_points(seen: &Histogram) -> Result<()> {
    seen.all_answered()?;
    let total: u16 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    for (server, weight) in WEIGHTS {
        let wanted = f64::from(weight) / f64::from(total);
        let share = seen.share(server);
        ensure!((share - wanted).abs() < 0.03, "{server}: {share:.3} of {wanted:.3}: {seen:?}");
    }
    Ok(())
}

const WEIGHTS: [(&str, u16); 3] = [("web1", 3), ("web2", 2), ("web3", 1)];
