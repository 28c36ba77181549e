//! One client address, one server, for as long as it comes back in time.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Config, Forward, Layout, Steelyard,
    client::{Requests, tcp_from},
    poll,
    steelyard::all_up,
};

use super::{bed_of, each_forward};

#[test]
fn twenty_connections_have_one_server() -> Result<()> {
    for mode in each_forward() {
        let (bed, config) = persistent(mode.layout(Arms::Two), "30s")?;
        let _steelyard = Steelyard::running(&bed, &config)?;
        let tcp = Requests::new(bed.service(), 20).tcp(&bed.client)?;
        tcp.all_answered().with_context(|| mode.name)?;
        ensure!(tcp.by_server.len() == 1, "{}: {tcp:?}", mode.name);
        let udp = Requests::new(bed.service(), 20).udp(&bed.client)?;
        udp.all_answered().with_context(|| mode.name)?;
        ensure!(udp.by_server.len() == 1, "{}: {udp:?}", mode.name);
    }
    Ok(())
}

#[test]
fn a_client_stays_when_a_server_is_added() -> Result<()> {
    for mode in each_forward() {
        let (bed, config) = persistent(mode.layout(Arms::One), "30s")?;
        let mut fewer = config.clone();
        fewer.services[0].servers.truncate(2);
        let mut steelyard = Steelyard::running(&bed, &fewer)?;
        let clients = clients(&bed)?;
        let before = answers(&bed, &clients).with_context(|| mode.name)?;
        replace(&mut steelyard, &config)?;
        let after = answers(&bed, &clients).with_context(|| mode.name)?;
        ensure!(after == before, "{}: {before:?} became {after:?}", mode.name);
    }
    Ok(())
}

/// Clients that nobody has seen for that long are anybody's.
#[test]
fn an_added_server_gets_clients_once_they_were_silent() -> Result<()> {
    let (bed, config) = persistent(Layout::new(Arms::One, Forward::Dsr), "1s")?;
    let mut fewer = config.clone();
    fewer.services[0].servers.truncate(2);
    let mut steelyard = Steelyard::running(&bed, &fewer)?;
    let clients = clients(&bed)?;
    answers(&bed, &clients)?;
    replace(&mut steelyard, &config)?;
    // Not by asking, which would keep a client where it is.
    let client = poll("a client of web3", Duration::from_secs(30), || {
        clients.iter().map(|client| SocketAddr::new(*client, 4_000)).find(|client| {
            let explained = steelyard.explain(*client, bed.service(), "tcp");
            explained.is_ok_and(|explained| explained.new.server.as_deref() == Some("web3"))
        })
    })?;
    let server = tcp_from(&bed.client, client, bed.service())?;
    ensure!(server == "web3", "{client} was promised web3 and got {server}");
    Ok(())
}

fn persistent(layout: Layout, time: &'static str) -> Result<(Bed, Config)> {
    let (bed, mut config) = bed_of(layout)?;
    config.services[0].persistence = Some(time);
    Ok((bed, config))
}

fn replace(steelyard: &mut Steelyard<'_>, config: &Config) -> Result<()> {
    steelyard.terminate()?;
    steelyard.configure(config)?;
    steelyard.start()?;
    let servers = config.services[0].servers.len();
    steelyard.wait("the added server to be up", |status| {
        status.services[0].servers.len() == servers && all_up(status)
    })?;
    Ok(())
}

fn clients(bed: &Bed) -> Result<Vec<IpAddr>> {
    (30..54).map(|last| bed.add_client_address(last)).collect()
}

fn answers(bed: &Bed, clients: &[IpAddr]) -> Result<BTreeMap<IpAddr, String>> {
    let answer = |client: &IpAddr| {
        let server = tcp_from(&bed.client, SocketAddr::new(*client, 0), bed.service())?;
        Ok((*client, server))
    };
    clients.iter().map(answer).collect()
}
