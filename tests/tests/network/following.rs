//! Interfaces, MACs and addresses that come, go and change: the daemon follows.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::bed::{
    Arms, Forward, Steelyard,
    client::{Requests, Session},
    poll,
    steelyard::{all_up, server},
};

use super::bed;

#[test]
fn an_interface_that_appears_later_is_attached_to_each_time() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Dsr)?;
    config.interfaces.push("late0".to_owned());
    let steelyard = Steelyard::running(&bed, &config)?;
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()?;
    let told = |word: &str| {
        let wanted = |warning: &String| warning.contains("late0") && warning.contains(word);
        steelyard.wait(word, |status| status.warnings.iter().any(wanted)).map(drop)
    };
    told("as soon as it is")?;
    let namespace = &bed.balancer.namespace;
    for _ in 0..2 {
        namespace.ip("link add late0 type veth peer name late1\nlink set late0 up\nlink set late1 up\n")?;
        let status = steelyard.wait("the attachment", |status| {
            let late = |warning: &String| warning.contains("late0");
            status.datapath.interfaces.len() == 2 && !status.warnings.iter().any(late)
        })?;
        ensure!(steelyard.attached("late0")?, "{:?}", status.datapath);
        namespace.ip("link delete late0\n")?;
        told("gone")?;
    }
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()
}

#[test]
fn a_link_that_was_down_forwards_again() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Nat)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let mut session = Session::open(&bed.client, bed.service())?;
    let namespace = &bed.balancer.namespace;
    namespace.ip("link set eth1 down\n")?;
    steelyard.wait("the loss of every server", |status| {
        status.services[0].servers.iter().all(|server| server.neighbour.is_none() || server.slots == 0)
    })?;
    namespace.ip("link set eth1 up\n")?;
    steelyard.wait("every server to be up", all_up)?;
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()?;
    // Its records were cut when its server was marked down, or the connection goes on.
    if let Ok(name) = session.who() {
        ensure!(name == session.server);
    }
    Ok(())
}

#[test]
fn a_server_whose_mac_changes_keeps_its_connections() -> Result<()> {
    for forward in [Forward::Dsr, Forward::Nat] {
        let (bed, config) = bed(Arms::Two, forward)?;
        let steelyard = Steelyard::running(&bed, &config)?;
        let mut sessions: Vec<_> =
            (0..9).map(|_| Session::open(&bed.client, bed.service())).collect::<Result<_>>()?;
        let namespace = &bed.servers[0].host.namespace;
        // As after a fail-over: without a word of it everybody waits until the old one is not confirmed.
        namespace.set(&[("ipv4/conf/all/arp_notify", "1"), ("ipv6/conf/all/ndisc_notify", "1")])?;
        namespace.ip(&format!("link set eth0 address {MAC}\n"))?;
        steelyard.wait("the new mac", |status| {
            server(status, "web", "web1").is_some_and(|server| server.neighbour.as_deref() == Some(MAC))
        })?;
        for session in &mut sessions {
            ensure!(session.who()? == session.server);
        }
        steelyard.wait("every server to be up", all_up)?;
        Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()?;
    }
    Ok(())
}

/// Without `nat_source` and for tunnels, packets leave from the interface's address.
#[test]
fn a_source_address_that_moves_is_followed() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Nat)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let old = bed.balancer_to_servers();
    let mut session = Session::open(&bed.client, bed.service())?;
    ensure!(session.seen_from()?.ip() == old);
    let new = bed.free_to_servers(77);
    bed.balancer
        .namespace
        .ip(&format!("addr delete {old}/24 dev eth1\naddr add {new}/24 dev eth1\nroute flush cache\n"))?;
    poll("connections from the new address", Duration::from_secs(20), || {
        let mut session = Session::open(&bed.client, bed.service()).ok()?;
        (session.seen_from().ok()?.ip() == new).then_some(())
    })?;
    steelyard.wait("every server to be up", all_up)?;
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()
}

const MAC: &str = "02:00:00:00:77:01";
