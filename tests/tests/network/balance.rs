//! The main job: requests reach the servers, whole, in the configured shares.

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Config, Layout, Steelyard,
    client::{Histogram, Requests, Session},
};
use lb_user::pure::config::model::Forward;

#[test]
fn nat_one_arm() -> Result<()> {
    requests_reach_every_server(Layout::new(Arms::One, Forward::Nat))
}

#[test]
fn nat_two_arms() -> Result<()> {
    requests_reach_every_server(Layout::new(Arms::Two, Forward::Nat))
}

#[test]
fn dsr_one_arm() -> Result<()> {
    requests_reach_every_server(Layout::new(Arms::One, Forward::Dsr))
}

#[test]
fn dsr_two_arms() -> Result<()> {
    requests_reach_every_server(Layout::new(Arms::Two, Forward::Dsr))
}

fn requests_reach_every_server(layout: Layout) -> Result<()> {
    let bed = Bed::new(layout)?;
    let steelyard = Steelyard::running(&bed, &Config::of(&bed))?;
    for (protocol, seen) in [
        ("tcp", Requests::new(bed.service(), 600).tcp(&bed.client)?),
        ("udp", Requests::new(bed.service(), 600).udp(&bed.client)?),
    ] {
        seen.all_answered().with_context(|| format!("{layout:?} {protocol}"))?;
        for server in &bed.servers {
            // 600 requests over three equal servers: 200 on average, with a deviation of 12.
            ensure!(seen.of(&server.name) > 120, "{layout:?} {protocol}: {seen:?}");
        }
    }
    let forwarded = match layout.forward {
        Forward::Nat => {
            steelyard.counter("forward_nat_request")?.min(steelyard.counter("forward_nat_reply")?)
        }
        Forward::Dsr => steelyard.counter("forward_dsr")?,
    };
    ensure!(forwarded > 600 * 4, "only {forwarded} packets went through XDP: {:?}", steelyard.counters()?);
    Ok(())
}

#[test]
fn a_hundred_megabytes_arrive_whole_by_nat() -> Result<()> {
    let bed = Bed::new(Layout::new(Arms::Two, Forward::Nat))?;
    let _steelyard = Steelyard::running(&bed, &Config::of(&bed))?;
    let mut session = Session::open(&bed.client, bed.service())?;
    session.upload(HUNDRED_MB)?;
    session.download(HUNDRED_MB)
}

#[test]
fn a_hundred_megabytes_arrive_whole_by_dsr() -> Result<()> {
    let bed = Bed::new(Layout::new(Arms::Two, Forward::Dsr))?;
    let _steelyard = Steelyard::running(&bed, &Config::of(&bed))?;
    let mut session = Session::open(&bed.client, bed.service())?;
    session.upload(HUNDRED_MB)?;
    session.download(HUNDRED_MB)
}

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
const HUNDRED_MB: u64 = 100_000_000;
