//! Checks through the data path: a server that lost the VIP, or opens its tunnel no more, is found, though it answers at
//! its own address.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use lb_tests::bed::{
    Arms, Bed, Config, Forward, Steelyard,
    client::Requests,
    poll,
    steelyard::{all_up, is_down, server},
};
use lb_user::pure::status::Status;
use nix::sys::signal::Signal;

use super::{TABLE, bed_of};

#[test]
fn a_server_without_its_vip_or_its_tunnel_is_found() -> Result<()> {
    let rows = TABLE.iter().filter(|mode| mode.forward.keeps_vip());
    let failures: Vec<String> = rows
        .filter_map(|mode| {
            let start = Instant::now();
            // The VIP is the balancer's own with either; with two arms the servers are on another link.
            let arms = if mode.family == mode.server_family { Arms::One } else { Arms::Two };
            let found = find(&bed_of(mode.layout(arms)).ok()?);
            eprintln!("{} {arms:?}: {:.1} s", mode.name, start.elapsed().as_secs_f64());
            Some(format!("{} {arms:?}: {:#}", mode.name, found.err()?))
        })
        .collect();
    ensure!(failures.is_empty(), "{} rows failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

fn find((bed, config): &(Bed, Config)) -> Result<()> {
    let mut steelyard = Steelyard::running(bed, &steered(config))?;
    steelyard.show_log = false;
    let [take, give] = bed.vip_of_server();
    let lost = &bed.servers[0].host.namespace;
    lost.ip(&take)?;
    let tunnels = bed.layout.forward.encapsulates();
    if tunnels {
        bed.servers[1].stop_opening();
    }
    let found =
        |status: &Status| is_down(status, "web", "web1") && (!tunnels || is_down(status, "web", "web2"));
    let status = steelyard.wait("what is broken to be down", found).with_context(|| steelyard.log())?;
    let detail = &server(&status, "web", "web1").context("no web1")?.detail;
    let expected =
        format!("at {}, asked by {}: does it have this address", bed.service(), bed.layout.forward.name());
    ensure!(detail.contains(&expected), "{detail}");
    ensure!(server(&status, "web", "web3").is_some_and(|web3| web3.health == "up"), "{status:?}");

    lost.ip(&give)?;
    let back = |status: &Status| {
        server(status, "web", "web1").is_some_and(|web1| web1.health == "up" && web1.slots > 0)
    };
    steelyard.wait("web1 to return", back)?;
    Requests::new(bed.service(), 60).tcp(&bed.client)?.all_answered()
}

/// A server without the VIP that forwards sends the packet back to the balancer, which must not send it on to one that has
/// it. And reverse path filters hold: what comes in seems to come from the server.
#[test]
fn a_packet_that_comes_back_is_no_answer() -> Result<()> {
    let (bed, config) = bed_of(super::mode("", Forward::Dsr, super::V4, super::V4).layout(Arms::One))?;
    bed.balancer.namespace.set(&[("ipv4/conf/all/rp_filter", "1"), ("ipv4/conf/eth0/rp_filter", "1")])?;
    let forwarder = &bed.servers[0].host.namespace;
    forwarder.set(&[("ipv4/ip_forward", "1"), ("ipv4/conf/eth0/send_redirects", "0")])?;
    let steelyard = Steelyard::running(&bed, &steered(&config))?;
    forwarder.ip(&bed.vip_of_server()[0])?;
    steelyard.wait("web1 to be down", |status| is_down(status, "web", "web1"))?;
    ensure!(steelyard.counter("forward_dsr")? == 0, "a check went to another server");
    // The status is a tick old at most, and so are the counters of checks.
    let told = || steelyard.counter("check_error").ok().filter(|&errors| errors > 0);
    poll("the balancer's word that the packet came back", Duration::from_secs(5), told)?;
    Ok(())
}

#[test]
fn a_refusal_and_a_silent_neighbour_are_told_apart() -> Result<()> {
    let (bed, config) = bed_of(super::mode("", Forward::Ipip, super::V4, super::V4).layout(Arms::One))?;
    let steelyard = Steelyard::running(&bed, &steered(&config))?;
    bed.servers[0].kill();
    bed.servers[1].host.namespace.ip("link set eth0 down\n")?;
    // The kernel would trust its entry for half a minute, and ask three times for a second each.
    bed.balancer.namespace.set(&[("ipv4/neigh/eth0/retrans_time_ms", "100")])?;
    bed.balancer.namespace.ip(&format!("neigh del {} dev eth0\n", bed.servers[1].own().ip()))?;
    let detail = |status: &Status, name: &str, words: &str| {
        server(status, "web", name).is_some_and(|server| server.detail.contains(words))
    };
    let refused = format!("connection refused at {}, asked by ipip", bed.service());
    steelyard.wait("both to be down for their own reasons", |status| {
        is_down(status, "web", "web1")
            && is_down(status, "web", "web2")
            && detail(status, "web1", &refused)
            && detail(status, "web2", "its next hop does not answer arp")
    })?;
    Ok(())
}

#[test]
fn nothing_is_attached_unasked_or_left_behind() -> Result<()> {
    let (bed, config) = bed_of(super::mode("", Forward::Dsr, super::V4, super::V4).layout(Arms::One))?;
    let mut steelyard = Steelyard::running(&bed, &config)?;
    ensure!(attached(&bed)? == 0, "a direct check attaches something");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        stop(&mut steelyard, Signal::SIGTERM)?;
        steelyard.configure(&steered(&config))?;
        steelyard.start()?;
        steelyard.wait("every server to be up", all_up)?;
        ensure!(attached(&bed)? == 2, "one for each direction");
        stop(&mut steelyard, signal)?;
        // The kernel takes a program off a moment after its last reference.
        poll("the end of the attachments", Duration::from_secs(5), || {
            attached(&bed).ok().filter(|&count| count == 0)
        })?;
        steelyard.configure(&config)?;
        steelyard.start()?;
    }
    Ok(())
}

fn stop(steelyard: &mut Steelyard<'_>, signal: Signal) -> Result<()> {
    match signal {
        Signal::SIGKILL => steelyard.kill9(),
        _ => steelyard.terminate().map(drop),
    }
}

/// Programs at the traffic hooks of the balancer's interface.
fn attached(bed: &Bed) -> Result<usize> {
    bed.balancer.namespace.enter(|| {
        let hooks = [TcAttachType::Ingress, TcAttachType::Egress];
        let count = |hook| Ok(SchedClassifier::query_tcx("eth0", hook)?.1.len());
        hooks.map(count).into_iter().sum()
    })?
}

fn steered(config: &Config) -> Config {
    let mut config = config.clone();
    config.services[0].check_through = true;
    config
}
