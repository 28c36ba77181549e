//! Who gets the next connection: round robin, least connections, the client's address.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Forward, Steelyard,
    client::{Requests, Session, tcp_from},
    poll,
};

use super::{bed, bed_of, each_forward, sessions};

#[test]
fn round_robin_keeps_to_the_weights_closely() -> Result<()> {
    for mode in each_forward() {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        let web = &mut config.services[0];
        web.balance = Some("roundrobin");
        web.servers.iter_mut().zip([3, 2, 1]).for_each(|(server, weight)| server.weight = weight);
        let _steelyard = Steelyard::running(&bed, &config)?;
        for (protocol, seen) in [
            ("tcp", Requests::new(bed.service(), 600).tcp(&bed.client)?),
            ("udp", Requests::new(bed.service(), 600).udp(&bed.client)?),
        ] {
            seen.all_answered().with_context(|| format!("{} {protocol}", mode.name))?;
            for (server, turns) in [("web1", 300), ("web2", 200), ("web3", 100)] {
                // Processors may take turns apart from each other, each to within a turn or two.
                let off = seen.of(server).abs_diff(turns);
                ensure!(off <= 10, "{} {protocol}: {seen:?}", mode.name);
            }
        }
    }
    Ok(())
}

/// A connection keeps the server that its turn gave it.
#[test]
fn round_robin_keeps_connections_whole() -> Result<()> {
    for mode in each_forward() {
        let (bed, mut config) = bed_of(mode.layout(Arms::Two))?;
        config.services[0].balance = Some("roundrobin");
        let _steelyard = Steelyard::running(&bed, &config)?;
        let mut open = sessions(&bed, 12).with_context(|| mode.name)?;
        for session in &mut open {
            session.upload(500_000).with_context(|| mode.name)?;
            session.download(500_000).with_context(|| mode.name)?;
            ensure!(session.who()? == session.server, "{}", mode.name);
        }
        let counts = count(&open);
        ensure!(counts.values().all(|count| (3..=5).contains(count)), "{}: {counts:?}", mode.name);
    }
    Ok(())
}

#[test]
fn least_connections_fills_the_emptiest_server() -> Result<()> {
    for mode in each_forward() {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        config.services[0].balance = Some("leastconn");
        let _steelyard = Steelyard::running(&bed, &config)?;
        let mut open = sessions(&bed, 30).with_context(|| mode.name)?;
        let counts = count(&open);
        let even = counts.len() == 3 && counts.values().all(|count| (8..=12).contains(count));
        ensure!(even, "{}: {counts:?}", mode.name);
        open.retain(|session| session.server != "web2");
        poll("new connections to the server that has none", CLOSING, || {
            let fresh = sessions(&bed, 5).ok()?;
            fresh.iter().all(|session| session.server == "web2").then_some(())
        })
        .with_context(|| mode.name)?;
    }
    Ok(())
}

/// Weights count connections: a server of weight 2 carries twice as many.
#[test]
fn least_connections_respects_weights() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Nat)?;
    let web = &mut config.services[0];
    web.balance = Some("leastconn");
    web.servers[0].weight = 2;
    let _steelyard = Steelyard::running(&bed, &config)?;
    let open = sessions(&bed, 40)?;
    let counts = count(&open);
    for (server, expected) in [("web1", 20_usize), ("web2", 10), ("web3", 10)] {
        let found = counts.get(server).copied().unwrap_or(0);
        ensure!(found.abs_diff(expected) <= 3, "{counts:?}");
    }
    Ok(())
}

#[test]
fn source_looks_at_the_address_alone() -> Result<()> {
    for mode in each_forward() {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        config.services[0].balance = Some("source");
        let _steelyard = Steelyard::running(&bed, &config)?;
        let mut servers = BTreeMap::new();
        for last in 30..60 {
            let client = bed.add_client_address(last)?;
            let ask = || tcp_from(&bed.client, SocketAddr::new(client, 0), bed.service());
            let server = ask().with_context(|| mode.name)?;
            for _ in 0..4 {
                ensure!(ask()? == server, "{}: {client} changed its server", mode.name);
            }
            *servers.entry(server).or_insert(0) += 1;
        }
        ensure!(servers.len() == 3, "{}: 30 clients have {servers:?}", mode.name);
    }
    Ok(())
}

fn count(sessions: &[Session]) -> BTreeMap<&str, usize> {
    sessions.iter().fold(BTreeMap::new(), |mut counts, session| {
        *counts.entry(session.server.as_str()).or_default() += 1;
        counts
    })
}

/// Until closed connections are known to be closed.
const CLOSING: Duration = Duration::from_secs(30);
