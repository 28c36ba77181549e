//! Services wider than one address and one port: ranges, any port, networks; and that the narrower one wins.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Check, Family, Forward, Ports, Server, Service, Steelyard,
    client::{Histogram, Knock, Requests, knock},
    layout::SERVICE_PORT,
    server::Peer,
};

use super::{bed, bed_of, each_forward};

#[test]
fn a_range_of_ports_ends_where_it_says() -> Result<()> {
    for mode in each_forward() {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        let check_port = bed.layout.server_port();
        config.services[0].set_ports(Ports::Range(8_100, 8_109), check_port);
        let _peers = listen(&bed, bed.vip(), &[8_100, 8_105, 8_109])?;
        let _steelyard = Steelyard::running(&bed, &config)?;
        for port in [8_100, 8_105, 8_109] {
            all_ask(&bed, bed.vip_port(port)).with_context(|| format!("{} port {port}", mode.name))?;
        }
        for port in [8_099, 8_110] {
            let (outcome, _) = knock(&bed.client, bed.vip_port(port), LIMIT)?;
            ensure!(outcome == Knock::Refused, "{} port {port}: {outcome:?}", mode.name);
        }
    }
    Ok(())
}

/// The answers to its own checks would go to the servers.
#[test]
fn every_port_of_the_balancer_itself_is_warned_of() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Nat)?;
    let own = bed.balancer_to_servers();
    config.services[0].addresses = vec![own.to_string()];
    config.services[0].set_ports(Ports::Any, bed.layout.server_port());
    let mut steelyard = Steelyard::new(&bed, &config)?;
    steelyard.start()?;
    let named = |text: &String| text.contains(&own.to_string()) && text.contains("own address");
    steelyard.wait("a warning", |status| status.warnings.iter().any(named))?;
    Ok(())
}

/// `web` on port 80 has web1 alone, and every other port goes to the other servers.
#[test]
fn any_port_leaves_an_exact_one_alone() -> Result<()> {
    for mode in each_forward() {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        let check_port = bed.layout.server_port();
        config.add("all", 81).set_ports(Ports::Any, check_port);
        apart(&mut config.services);
        let ports = [1, 443, 40_000, 65_535];
        let _peers = listen(&bed, bed.vip(), &ports)?;
        let _steelyard = Steelyard::running(&bed, &config)?;
        for port in ports {
            let seen =
                all_ask(&bed, bed.vip_port(port)).with_context(|| format!("{} port {port}", mode.name))?;
            ensure!(seen.of("web1") == 0, "{} port {port}: {seen:?}", mode.name);
        }
        let seen = all_ask(&bed, bed.service()).with_context(|| mode.name)?;
        ensure!(seen.of("web1") == seen.answered(), "{}: {seen:?}", mode.name);
    }
    Ok(())
}

/// `web` is the VIP alone; `net` is a network with one address of its own service within, `one`.
#[test]
fn a_network_leaves_an_address_within_alone() -> Result<()> {
    // Who opens `ipip` and `gue` packets is told single addresses.
    for mode in each_forward().filter(|mode| !mode.forward.encapsulates()) {
        let (bed, mut config) = bed_of(mode.layout(Arms::Two))?;
        let (network, first, one, last) = network(mode.family);
        bed.route_to_balancer(network)?;
        config.services[0].addresses = vec![one.to_string()];
        config.add("net", SERVICE_PORT).addresses = vec![network.to_owned()];
        apart(&mut config.services);
        let mut peers = Vec::new();
        if mode.forward.keeps_vip() {
            let bits = mode.family.bits();
            for address in [first, one, last] {
                for server in &bed.servers {
                    server.host.namespace.ip(&format!("addr add {address}/{bits} dev lo\n"))?;
                }
                peers.extend(listen(&bed, address, &[SERVICE_PORT])?);
            }
        }
        let _steelyard = Steelyard::running(&bed, &config)?;
        for address in [first, last] {
            let seen = all_ask(&bed, SocketAddr::new(address, SERVICE_PORT))
                .with_context(|| format!("{} {address}", mode.name))?;
            ensure!(seen.of("web1") == 0, "{} {address}: {seen:?}", mode.name);
        }
        let seen = all_ask(&bed, SocketAddr::new(one, SERVICE_PORT)).with_context(|| mode.name)?;
        ensure!(seen.of("web1") == seen.answered(), "{}: {seen:?}", mode.name);
    }
    Ok(())
}

#[test]
fn ranges_that_overlap_in_part_are_refused() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Nat)?;
    for (name, ports) in [("low", Ports::Range(8_000, 8_100)), ("high", Ports::Range(8_050, 8_200))] {
        config.add(name, 81).set_ports(ports, 8_080);
    }
    let steelyard = Steelyard::new(&bed, &config)?;
    let done = steelyard.cli(&["check"])?;
    ensure!(done.code == Some(2), "{done:?}");
    ensure!(done.stderr.contains("low") && done.stderr.contains("high"), "{}", done.stderr);
    Ok(())
}

/// A service for the range has its own server, and the one for a range within has another.
#[test]
fn a_range_within_a_range_wins() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Nat)?;
    for (name, ports, server) in
        [("wide", Ports::Range(8_000, 8_999), 0), ("narrow", Ports::Range(8_500, 8_501), 1)]
    {
        let service = config.add(name, 81);
        service.set_ports(ports, 8_080);
        service.servers = vec![service.servers[server].clone()];
    }
    let _peers = listen(&bed, bed.vip(), &[8_000, 8_499, 8_500, 8_501, 8_502, 8_999])?;
    let _steelyard = Steelyard::running(&bed, &config)?;
    for (port, server) in
        [(8_000, "web1"), (8_499, "web1"), (8_500, "web2"), (8_501, "web2"), (8_502, "web1"), (8_999, "web1")]
    {
        let seen = all_ask(&bed, bed.vip_port(port)).with_context(|| format!("port {port}"))?;
        ensure!(seen.of(server) == seen.answered(), "port {port}: {seen:?}");
    }
    Ok(())
}

/// Peers on every server where packets for these ports of `address` arrive.
fn listen(bed: &Bed, address: IpAddr, ports: &[u16]) -> Result<Vec<Peer>> {
    let peer = |server: &Server| {
        let address = if bed.layout.forward.keeps_vip() { address } else { server.own().ip() };
        let listens: Vec<_> = ports.iter().map(|port| SocketAddr::new(address, *port)).collect();
        Peer::start(&server.host.namespace, &server.name, &listens)
    };
    bed.servers.iter().map(peer).collect()
}

/// The first service is left with web1, the last with all the others. Unchecked, since only some ports are open.
fn apart(services: &mut [Service]) {
    if let [first, .., last] = services {
        first.servers.truncate(1);
        last.servers.remove(0);
        last.check = Check::None;
    }
}

fn all_ask(bed: &Bed, target: SocketAddr) -> Result<Histogram> {
    let datagrams = Requests::new(target, 20).udp(&bed.client)?;
    datagrams.all_answered().context("udp")?;
    let seen = Requests::new(target, 60).tcp(&bed.client)?;
    seen.all_answered().context("tcp")?;
    Ok(seen)
}

/// A network for documentation, its first, one, and its last address.
fn network(family: Family) -> (&'static str, IpAddr, IpAddr, IpAddr) {
    match family {
        Family::V4 => {
            let host = |last| IpAddr::from([198, 51, 100, last]);
            ("198.51.100.0/28", host(1), host(5), host(14))
        }
        Family::V6 => {
            let host = |last| IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, last]);
            ("2001:db8:1::/64", host(1), host(5), host(0xffff))
        }
    }
}

const LIMIT: Duration = Duration::from_secs(3);
