//! Checks through the data path: a server that lost the VIP, or opens its tunnel no more, is found, though it answers at
//! its own address.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_links};
use lb_common::{slot::ServerId, through::mark};
use lb_tests::bed::{
    Arms, Bed, Config, Forward, Member, Ports, Service, Steelyard,
    client::Requests,
    layout::SERVICE_PORT,
    poll,
    steelyard::{all_up, is_down, server},
    xdp,
};
use lb_user::pure::status::Status;
use nix::sys::signal::Signal;
use socket2::SockRef;

use super::{TABLE, bed_of};

#[test]
fn a_server_without_its_vip_or_its_tunnel_is_found() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let (bed, config) = bed_of(super::mode("", Forward::Gue, super::V4, super::V4).layout(arms))?;
        let config = every_mix(&bed, &config);
        let steelyard = Steelyard::running(&bed, &config)?;
        let [take, give] = bed.vips_of_server();
        bed.servers[0].host.namespace.ip(&take)?;
        bed.servers[1].stop_opening();
        let expected = |server: &str, service: &Service| match server {
            "web1" => false,
            "web2" => service.forward == Forward::Dsr,
            _ => true,
        };
        let found = |status: &Status| {
            config.services.iter().all(|service| {
                service.servers.iter().all(|Member { name, .. }| match expected(name, service) {
                    true => is_up(status, &service.name, name),
                    false => is_down(status, &service.name, name),
                })
            })
        };
        let status = steelyard.wait("what is broken, and nothing else, to be down", found)?;
        for service in &config.services {
            let detail = &server(&status, &service.name, "web1").context("no web1")?.detail;
            let asked = format!("at {}, asked by {}: does it have", vip_of(service)?, service.forward.name());
            ensure!(detail.contains(&asked), "{}: {detail}, not {asked}", service.name);
        }
        bed.servers[0].host.namespace.ip(&give)?;
        let back =
            |status: &Status| config.services.iter().all(|service| is_up(status, &service.name, "web1"));
        steelyard.wait("web1 to return", back)?;
        Requests::new(bed.service(), 60).tcp(&bed.client)?.all_answered()?;
        ensure!(steelyard.counter("check_answered")? > 0);
    }
    Ok(())
}

/// A service for each mode and mix of families, the first as it was; all are checked at the port that servers listen on.
fn every_mix(bed: &Bed, config: &Config) -> Config {
    let mut config = steered(config);
    let modes = TABLE.iter().filter(|mode| mode.forward.keeps_vip());
    let others = modes.filter(|mode| mode.name != "gue 4in4").zip(81..).map(|(mode, port)| {
        let mut service = config.services[0].clone();
        service.name = mode.name.replace(' ', "-");
        service.forward = mode.forward;
        service.addresses = vec![bed.vip_of(mode.family).to_string()];
        for (member, server) in service.servers.iter_mut().zip(&bed.servers) {
            member.address.set_ip(server.host.address(mode.server_family));
        }
        service.set_ports(Ports::One(port), SERVICE_PORT);
        service
    });
    let others: Vec<_> = others.collect();
    config.services.extend(others);
    config
}

fn vip_of(service: &Service) -> Result<SocketAddr> {
    Ok(SocketAddr::new(service.addresses[0].parse()?, SERVICE_PORT))
}

fn is_up(status: &Status, service: &str, name: &str) -> bool {
    server(status, service, name).is_some_and(|server| server.health == "up" && server.slots > 0)
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
    forwarder.ip(&bed.vips_of_server()[0])?;
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

/// A closed port is told by ICMP alone, from the VIP, which is an address of the balancer, too.
#[test]
fn datagrams_go_the_same_way_and_refusals_come_back() -> Result<()> {
    for (forward, family) in [(Forward::Dsr, super::V4), (Forward::Ipip, super::V6)] {
        let (bed, config) = bed_of(super::mode("", forward, family, family).layout(Arms::One))?;
        let _steelyard = Steelyard::running(&bed, &steered(&config))?;
        let server = &bed.servers[0];
        let (first, target) = (ServerId(1), server.own());
        let ask = || {
            bed.balancer.namespace.enter(|| -> io::Result<String> {
                let socket = UdpSocket::bind(SocketAddr::new(family.unspecified(), 0))?;
                SockRef::from(&socket).set_mark(mark(first))?;
                socket.set_read_timeout(Some(Duration::from_millis(300)))?;
                socket.connect(target)?;
                socket.send(b"who\n")?;
                let mut buffer = [0; 64];
                let length = socket.recv(&mut buffer)?;
                Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
            })
        };
        ensure!(ask()??.contains(&server.name), "{forward:?}");
        let [take, give] = bed.vips_of_server();
        server.host.namespace.ip(&take)?;
        let lost = ask()?;
        let silent = lost.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        ensure!(silent, "{forward:?}, without the VIP: {lost:?}");
        server.host.namespace.ip(&give)?;
        server.kill();
        let closed = ask()?;
        let refused = closed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        ensure!(refused, "{forward:?}, nobody listens: {closed:?}");
    }
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

/// As `bpftool link detach` does: every server would count as down until the daemon ends.
#[test]
fn attachments_that_are_taken_away_are_made_again() -> Result<()> {
    let (bed, config) = bed_of(super::mode("", Forward::Dsr, super::V4, super::V4).layout(Arms::One))?;
    let steelyard = Steelyard::running(&bed, &steered(&config))?;
    let ours = programs(&bed)?;
    ensure!(ours.len() == 2, "{ours:?}");
    for link in loaded_links().filter_map(Result::ok).filter(|link| ours.contains(&link.program_id())) {
        xdp::detach(link.id())?;
    }
    poll("both attachments", Duration::from_secs(5), || attached(&bed).ok().filter(|&count| count == 2))?;
    steelyard.wait("every server to be up", all_up).map(drop)
}

fn stop(steelyard: &mut Steelyard<'_>, signal: Signal) -> Result<()> {
    match signal {
        Signal::SIGKILL => steelyard.kill9(),
        _ => steelyard.terminate().map(drop),
    }
}

fn attached(bed: &Bed) -> Result<usize> {
    Ok(programs(bed)?.len())
}

/// Ids of the programs at the traffic hooks of the balancer's interface.
fn programs(bed: &Bed) -> Result<Vec<u32>> {
    bed.balancer.namespace.enter(|| {
        let mut ids = Vec::new();
        for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
            ids.extend(SchedClassifier::query_tcx("eth0", hook)?.1.iter().map(ProgramInfo::id));
        }
        Ok(ids)
    })?
}

fn steered(config: &Config) -> Config {
    let mut config = config.clone();
    config.services[0].check_through = true;
    config
}
