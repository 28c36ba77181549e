//! A server dies and comes back; everybody else is undisturbed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Forward, Steelyard,
    client::{Load, Requests, Session},
    config::{FALL, INTERVAL_MS},
    poll,
    steelyard::{all_up, is_down},
};

use super::{bed, bed_of, each_forward};

#[test]
fn a_killed_server_leaves_within_its_checks_time_and_returns() -> Result<()> {
    for layout in each_forward().flat_map(|mode| [Arms::One, Arms::Two].map(|arms| mode.layout(arms))) {
        let (bed, config) = bed_of(layout)?;
        let steelyard = Steelyard::running(&bed, &config)?;
        let start = Instant::now();
        bed.servers[0].kill();
        steelyard.wait("web1 to leave the ring", |status| is_down(status, "web", "web1"))?;
        // `fall` checks in a row, the first up to an interval away, and time for a machine that does more than this.
        let limit = Duration::from_millis(u64::from(INTERVAL_MS * (FALL + 1))) + Duration::from_secs(4);
        ensure!(start.elapsed() < limit, "{layout:?}: it took {:?}", start.elapsed());

        let without = Requests::new(bed.service(), 300).tcp(&bed.client)?;
        without.all_answered().with_context(|| format!("{layout:?}"))?;
        ensure!(without.of("web1") == 0, "{layout:?}: {without:?}");
        let datagrams = Requests::new(bed.service(), 100).udp(&bed.client)?;
        datagrams.all_answered().with_context(|| format!("{layout:?}, udp"))?;
        ensure!(datagrams.of("web1") == 0, "{layout:?}: {datagrams:?}");

        bed.servers[0].start()?;
        steelyard.wait("web1 to return", all_up)?;
        let with = Requests::new(bed.service(), 300).tcp(&bed.client)?;
        with.all_answered().with_context(|| format!("{layout:?}"))?;
        ensure!(with.of("web1") > 50, "{layout:?}: {with:?}");
    }
    Ok(())
}

#[test]
fn connections_to_the_other_servers_survive_by_dsr() -> Result<()> {
    connections_to_the_other_servers_survive(Forward::Dsr)
}

#[test]
fn connections_to_the_other_servers_survive_by_nat() -> Result<()> {
    connections_to_the_other_servers_survive(Forward::Nat)
}

fn connections_to_the_other_servers_survive(forward: Forward) -> Result<()> {
    let (bed, config) = bed(Arms::Two, forward)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let mut sessions = (0..60)
        .map(|_| Session::open(&bed.client, bed.service()))
        .collect::<Result<Vec<_>>>()
        .context("opening sessions")?;
    let mut all_keep_their_server = |when: &str| -> Result<()> {
        for session in sessions.iter_mut().filter(|session| session.server != "web1") {
            let answered = session.who().with_context(|| format!("{when}: asking {}", session.server))?;
            ensure!(answered == session.server, "{when}: {answered} answered for {}", session.server);
        }
        Ok(())
    };
    bed.servers[0].kill();
    steelyard.wait("web1 to leave the ring", |status| is_down(status, "web", "web1"))?;
    all_keep_their_server("after web1 left")?;
    bed.servers[0].start()?;
    steelyard.wait("web1 to return", all_up)?;
    all_keep_their_server("after web1 returned")
}

#[test]
fn a_return_costs_no_request() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Nat)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    bed.servers[2].kill();
    steelyard.wait("web3 to leave the ring", |status| is_down(status, "web", "web3"))?;
    let load = Load::start(&bed.client, bed.service(), 2);
    bed.servers[2].start()?;
    steelyard.wait("web3 to return", all_up)?;
    // The server listens before it is used.
    load.stop()?.all_answered()
}

/// UDP has no SYN that would tell a new flow: a server that returns gets some once the idle time has passed.
#[test]
fn a_server_that_returns_gets_udp_again() -> Result<()> {
    for forward in [Forward::Nat, Forward::Dsr] {
        let (bed, mut config) = bed(Arms::One, forward)?;
        config.services[0].idle_timeout = Some("1s");
        let steelyard = Steelyard::running(&bed, &config)?;
        bed.servers[0].kill();
        steelyard.wait("web1 to leave the ring", |status| is_down(status, "web", "web1"))?;
        bed.servers[0].start()?;
        steelyard.wait("web1 to return", all_up)?;
        poll("datagrams to web1", Duration::from_secs(10), || {
            let seen = Requests::new(bed.service(), 60).udp(&bed.client).ok()?;
            (seen.of("web1") > 10).then_some(())
        })
        .with_context(|| format!("{forward:?}"))?;
    }
    Ok(())
}
