//! Services and servers that cannot be used: an answer, a count and a word in the status.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_tests::bed::{
    Arms, Check, Forward, Member, Steelyard,
    client::{Knock, Requests, knock},
    steelyard::{is_down, server, service_of},
};

use super::{bed, bed_of, every_mode};

#[test]
fn a_service_without_a_usable_server_refuses() -> Result<()> {
    for mode in every_mode() {
        let (bed, config) = bed_of(mode.layout(Arms::Two))?;
        let steelyard = Steelyard::running(&bed, &config)?;
        all_servers_die(&bed, &steelyard)?;
        let before = steelyard.counter("reset_no_server")?;
        let (outcome, after) = knock(&bed.client, bed.service(), Duration::from_secs(3))?;
        ensure!(outcome == Knock::Refused, "{}: {outcome:?}", mode.name);
        ensure!(after < Duration::from_millis(500), "{}: refused after {after:?}", mode.name);
        ensure!(steelyard.counter("reset_no_server")? == before + 1);
        bed.servers[1].start()?;
        steelyard.wait("a server", |status| {
            service_of(status, "web").is_some_and(|service| service.servers_usable == 1)
                && server(status, "web", "web2").is_some_and(|server| server.slots > 0)
        })?;
        let seen = Requests::new(bed.service(), 50).tcp(&bed.client)?;
        seen.all_answered()?;
        ensure!(seen.of("web2") == 50, "{seen:?}");
    }
    Ok(())
}

#[test]
fn or_is_silent_where_configured() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Dsr)?;
    config.services[0].no_server = "drop";
    let steelyard = Steelyard::running(&bed, &config)?;
    all_servers_die(&bed, &steelyard)?;
    let (outcome, _) = knock(&bed.client, bed.service(), Duration::from_millis(300))?;
    ensure!(outcome == Knock::Silent, "{outcome:?}");
    ensure!(steelyard.counter("drop_no_server")? > 0, "{:?}", steelyard.counters()?);
    Ok(())
}

#[test]
fn a_server_without_a_neighbour_is_counted_and_shown() -> Result<()> {
    let (bed, mut config) = bed(Arms::Two, Forward::Nat)?;
    let web = &mut config.services[0];
    web.check = Check::None;
    let address = SocketAddr::new(bed.nobody(), 8_080);
    web.servers = vec![Member { name: "ghost".to_owned(), address, weight: 1, backup: false }];
    let mut steelyard = Steelyard::new(&bed, &config)?;
    steelyard.start()?;
    let status = steelyard.wait("the ghost in the status", |status| {
        server(status, "web", "ghost").is_some() && status.warnings.iter().any(|line| line.contains("ghost"))
    })?;
    ensure!(server(&status, "web", "ghost").is_some_and(|ghost| ghost.neighbour.is_none()), "{status:?}");
    ensure!(knock(&bed.client, bed.service(), Duration::from_millis(300))?.0 != Knock::Open);
    ensure!(steelyard.counter("drop_unresolved")? > 0, "{:?}", steelyard.counters()?);
    Ok(())
}

fn all_servers_die(bed: &lb_tests::bed::Bed, steelyard: &Steelyard) -> Result<()> {
    bed.servers.iter().for_each(lb_tests::bed::Server::kill);
    steelyard.wait("every server to be down", |status| {
        bed.servers.iter().all(|server| is_down(status, "web", &server.name))
    })?;
    Ok(())
}
