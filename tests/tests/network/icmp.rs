//! ICMP: echoes to a VIP are answered, and errors reach whom they are about.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Check, Forward, Member, Server, Steelyard, client::ping, datagrams, poll, steelyard::is_down,
};

use super::{bed_of, every_layout, every_mode};

/// The balancer's kernel is without the VIP, so that it cannot answer either.
#[test]
fn a_vip_answers_echoes_with_and_without_servers() -> Result<()> {
    for mode in every_mode() {
        let (bed, config) = bed_of(mode.layout(Arms::Two))?;
        let bits = mode.family.bits();
        bed.balancer.namespace.ip(&format!("addr del {}/{bits} dev eth0\n", bed.vip()))?;
        ensure!(ping(&bed.client, bed.vip(), Duration::from_millis(50)).is_err(), "somebody has the VIP");
        let steelyard = Steelyard::running(&bed, &config)?;
        ping(&bed.client, bed.vip(), LIMIT).with_context(|| mode.name)?;
        bed.servers.iter().for_each(Server::kill);
        steelyard.wait("every server to be down", |status| {
            bed.servers.iter().all(|server| is_down(status, "web", &server.name))
        })?;
        ping(&bed.client, bed.vip(), LIMIT).with_context(|| format!("{}, no server", mode.name))?;
    }
    Ok(())
}

/// The server's kernel says that nobody listens; by `nat` that is about an address the client never heard of.
#[test]
fn an_unreachable_port_is_told_to_the_client() -> Result<()> {
    for layout in every_layout() {
        let (bed, mut config) = bed_of(layout)?;
        config.services[0].check = Check::None;
        bed.servers.iter().for_each(Server::kill);
        let _steelyard = Steelyard::running(&bed, &config)?;
        let error = datagrams::error_met(&bed.client, bed.service(), 64)?;
        is(error, ErrorKind::ConnectionRefused).with_context(|| format!("{layout:?}"))?;
    }
    Ok(())
}

/// As `traceroute` asks: two hops are the balancer and a router behind it, and the server is one more.
#[test]
fn a_hop_behind_the_balancer_shows_itself() -> Result<()> {
    for mode in every_mode().filter(|mode| mode.forward == Forward::Nat) {
        let (bed, mut config) = bed_of(mode.layout(Arms::Two))?;
        let web = &mut config.services[0];
        web.check = Check::None;
        let address = SocketAddr::new(bed.beyond_router()?, web.servers[0].address.port());
        web.servers = vec![Member { name: "far".to_owned(), address, weight: 1, backup: false }];
        let _steelyard = Steelyard::running(&bed, &config)?;
        let error = datagrams::error_met(&bed.client, bed.service(), 2)?;
        is(error, ErrorKind::HostUnreachable).with_context(|| mode.name)?;
    }
    Ok(())
}

/// A server that came back from the dead answers again on the same socket: an error ends no flow.
#[test]
fn an_error_does_not_end_a_flow() -> Result<()> {
    for mode in every_mode() {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        let web = &mut config.services[0];
        web.check = Check::None;
        web.servers.truncate(1);
        bed.servers[0].kill();
        let _steelyard = Steelyard::running(&bed, &config)?;
        let socket = datagrams::connected(&bed.client, bed.service())?;
        let refused = datagrams::echo(&socket, 100).err().context("nobody listens")?;
        let kind = refused.downcast_ref::<io::Error>().map(io::Error::kind);
        ensure!(kind == Some(ErrorKind::ConnectionRefused), "{}: {refused:#}", mode.name);
        bed.servers[0].start()?;
        poll("an echo", LIMIT, || datagrams::echo(&socket, 100).ok()).with_context(|| mode.name)?;
    }
    Ok(())
}

fn is(error: Option<io::Error>, expected: ErrorKind) -> Result<()> {
    let error = error.context("the client heard no error")?;
    ensure!(error.kind() == expected, "not {expected:?}: {error}");
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(3);
