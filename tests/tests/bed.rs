//! The bed's own tests: what scenarios take for granted.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Family, Forward, Layout, Pair,
    client::{Knock, Requests, Session, knock, knock_from, ping, tcp_from, udp_from},
    datagrams,
    frr::{Frr, FrrRouter},
    keepalived::Keepalived,
    layout,
    observer::Observer,
    tcpdump::Tcpdump,
    topology::{attach, interface_index},
    vrrp::{Virtual, keepalived_config},
    xdp::Program,
};

/// Client and servers on one bridge: no program involved.
#[test]
fn one_segment_carries_tcp_udp_and_a_transfer() -> Result<()> {
    let bed = Bed::new(Layout { servers: 2, ..Layout::new(Arms::One, Forward::Nat) })?;
    for (server, family) in bed.servers.iter().flat_map(|server| Family::BOTH.map(|family| (server, family)))
    {
        let target = server.at(family);
        let tcp = Requests::new(target, 200).tcp(&bed.client)?;
        let udp = Requests::new(target, 200).udp(&bed.client)?;
        tcp.all_answered()?;
        udp.all_answered()?;
        ensure!(tcp.of(&server.name) == 200 && udp.of(&server.name) == 200, "{tcp:?} {udp:?}");
    }
    for family in Family::BOTH {
        let mut session = Session::open(&bed.client, bed.servers[0].at(family))?;
        session.upload(5_000_003)?;
        session.download(5_000_003)?;
    }
    Ok(())
}

#[test]
fn datagrams_of_every_size_come_back() -> Result<()> {
    let bed = Bed::new(Layout { servers: 1, ..Layout::new(Arms::One, Forward::Nat) })?;
    for family in Family::BOTH {
        let target = bed.servers[0].at(family);
        datagrams::echo_series(&bed.client, target, layout::MTU)?;
        let socket = datagrams::connected(&bed.client, target)?;
        ensure!(datagrams::sum(&socket, 8_000)? == "web1");
        datagrams::echo(&socket, 8_000)?;
    }
    Ok(())
}

/// What the client learns about its path: the segment size, the MTU, and where a packet ended.
#[test]
fn paths_tell_their_limits() -> Result<()> {
    let bed = Bed::new(Layout { servers: 1, ..Layout::new(Arms::Two, Forward::Nat) })?;
    for (family, network) in [(Family::V4, "10.77.2.0/24"), (Family::V6, "fd00:77:2::/64")] {
        let router = bed.router.as_ref().context("a router")?;
        let route = |more| {
            let via = router.address(family);
            bed.client.namespace.ip(&format!("route replace {network} via {via} {more}\n"))
        };
        let target = bed.servers[0].at(family);
        route("")?;
        let mss = Session::open(&bed.client, target)?.mss()?;
        ensure!(usize::from(mss) == layout::MTU - family.header() - 20, "{family:?}: {mss}");
        ensure!(datagrams::path_mtu(&bed.client, target)? == 1_500);
        ensure!(datagrams::error_met(&bed.client, target, 2)?.is_none(), "two hops are enough");
        let error = datagrams::error_met(&bed.client, target, 1)?.context("one hop is too few")?;
        ensure!(error.kind() == ErrorKind::HostUnreachable, "{family:?}: {error}");
        route("mtu 1400 advmss 1200")?;
        ensure!(Session::open(&bed.client, target)?.mss()? == 1_200);
        ensure!(datagrams::path_mtu(&bed.client, target)? == 1_400);
    }
    Ok(())
}

#[test]
fn gateway_servers_answer_through_the_balancer() -> Result<()> {
    for arms in [Arms::One, Arms::Two] {
        let bed = Bed::new(Layout { servers: 1, ..Layout::new(arms, Forward::Gateway) })?;
        let server = &bed.servers[0].host.namespace;
        for family in Family::BOTH {
            let client = bed.client.address(family).to_string();
            let route = server.ip_json(&["route", "get", &client])?;
            let via = route[0]["gateway"].as_str().context("no gateway")?.parse()?;
            let addresses = bed.balancer.namespace.ip_json(&["address"])?.to_string();
            ensure!(addresses.contains(&format!("\"{via}\"")), "{arms:?}: {via} is not the balancer");
            ensure!(Family::of(via) == family);
        }
    }
    Ok(())
}

#[test]
fn a_client_has_as_many_addresses_as_it_needs() -> Result<()> {
    for family in Family::BOTH {
        let layout = Layout { servers: 1, ..Layout::new(Arms::One, Forward::Nat) };
        let bed = Bed::new(layout.over(family, family))?;
        let target = bed.servers[0].own();
        for last in [30, 31] {
            let local = SocketAddr::new(bed.add_client_address(last)?, 0);
            ensure!(tcp_from(&bed.client, local, target)? == "web1");
            ensure!(udp_from(&bed.client, local, target)? == "web1");
            ensure!(knock_from(&bed.client, local, target, Duration::from_secs(2))?.0 == Knock::Open);
        }
    }
    Ok(())
}

#[test]
fn a_killed_peer_refuses_and_a_started_one_answers() -> Result<()> {
    let bed = Bed::new(Layout { servers: 1, ..Layout::new(Arms::One, Forward::Nat) })?;
    let server = &bed.servers[0];
    let ask = || knock(&bed.client, server.listens[0], Duration::from_secs(2)).map(|(outcome, _)| outcome);
    ensure!(ask()? == Knock::Open);
    server.kill();
    ensure!(ask()? == Knock::Refused);
    server.start()?;
    ensure!(ask()? == Knock::Open);
    let nobody = SocketAddr::new(bed.nobody(), 80);
    ensure!(knock(&bed.client, nobody, Duration::from_millis(50))?.0 == Knock::Silent);
    Ok(())
}

/// The balancer becomes a wire between its two interfaces: what `Program::Redirect` sends is delivered only
/// if the peers run a program and the senders finish their checksums, as `steelyard` needs it.
#[test]
fn redirected_frames_arrive_whole() -> Result<()> {
    let bed = Bed::new(Layout { servers: 1, ..Layout::new(Arms::Two, Forward::Nat) })?;
    let balancer = &bed.balancer.namespace;
    let (front, back) = (interface_index(balancer, "eth0")?, interface_index(balancer, "eth1")?);
    let _there = attach(balancer, "eth0", Program::Redirect(back))?;
    let _back = attach(balancer, "eth1", Program::Redirect(front))?;
    // With the balancer as a wire, the servers' network is on the client's segment too.
    bed.client.namespace.ip("addr add 10.77.2.200/24 dev eth0\n")?;
    let server = &bed.servers[0];
    ping(&bed.client, server.own().ip(), Duration::from_secs(2))?;
    Requests::new(server.listens[0], 200).udp(&bed.client)?.all_answered()?;
    let mut session = Session::open(&bed.client, server.listens[0])?;
    session.upload(20_000_000)?;
    session.download(20_000_000)
}

/// The path that answers of `dsr` servers take: their own router, the VIP as source, past the balancer.
#[test]
fn a_dsr_server_has_the_vip_in_silence() -> Result<()> {
    let layouts = [Arms::One, Arms::Two].map(|arms| Layout::new(arms, Forward::Dsr));
    for layout in
        layouts.into_iter().flat_map(|layout| Family::BOTH.map(|family| layout.over(family, family)))
    {
        let bed = Bed::new(layout)?;
        // Nobody listens on the balancer: an answer would come from a server that said it has the VIP.
        let (outcome, _) = knock(&bed.client, bed.service(), Duration::from_secs(2))?;
        ensure!(outcome == Knock::Refused, "{layout:?}: {outcome:?}");
        let client = bed.client_port(9_000);
        let ears = bed.client.namespace.enter(|| UdpSocket::bind(client))??;
        let answer = bed.vip_port(9_000);
        let mouth = bed.servers[0].host.namespace.enter(|| UdpSocket::bind(answer))??;
        mouth.send_to(b"answer", client)?;
        ears.set_read_timeout(Some(Duration::from_secs(2)))?;
        ensure!(ears.recv_from(&mut [0; 16])?.1 == answer, "{layout:?}");
    }
    Ok(())
}

/// What `steelyard` does with `dsr`, done by the routes of the balancer's kernel: packets to the VIP go to a
/// server, its answers go past the balancer, and news of a narrow link comes to the VIP, too.
#[test]
fn a_server_with_the_vip_answers_past_the_balancer() -> Result<()> {
    for family in Family::BOTH {
        let layout = Layout { servers: 1, ..Layout::new(Arms::Two, Forward::Dsr) };
        let bed = Bed::new(layout.over(family, family))?;
        let (vip, server) = (bed.vip(), bed.servers[0].own().ip());
        let balancer = &bed.balancer.namespace;
        balancer.set(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        balancer.ip(&format!("addr del {vip}/{} dev eth0\nroute add {vip} via {server}\n", family.bits()))?;
        ping(&bed.client, vip, Duration::from_secs(2))?;
        datagrams::echo_series(&bed.client, bed.service(), layout.packet_max())?;
        let socket = datagrams::connected(&bed.client, bed.service())?;
        datagrams::echo(&socket, 8_000)?;
        let mut session = Session::open(&bed.client, bed.service())?;
        session.upload(5_000_000)?;

        let router = &bed.router.as_ref().context("a router")?.namespace;
        let via = bed.balancer.address(family);
        router.ip(&format!("link set eth0 mtu 1320\nroute add {vip} via {via}\n"))?;
        session.download(5_000_000)?;
        ensure!(datagrams::path_mtu(&bed.servers[0].host, bed.client_port(9))? == 1_320);
    }
    Ok(())
}

#[test]
fn a_bed_leaves_nothing_behind_even_when_a_test_panics() -> Result<()> {
    let (sender, names) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let bed = Bed::new(Layout { servers: 1, ..Layout::new(Arms::One, Forward::Nat) }).expect("a bed");
        sender.send(bed.client.namespace.name().to_owned()).expect("a receiver");
        panic!("as a failed test does");
    });
    ensure!(panicked.join().is_err());
    let client = names.recv()?;
    let tag = client.strip_suffix("client").expect("a role");
    let left: Vec<_> = fs::read_dir("/run/netns")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(tag))
        .collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Keepalived and FRR, without the program under test.
#[test]
fn nodes_of_others_share_an_address() -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(10);
    const QUIET: Duration = Duration::from_millis(400);
    let pair = Pair::new(2, 0)?;
    let observer = Observer::start(&pair)?;
    let tcpdump = Tcpdump::start(&pair, "ip proto 112 or ip6 proto 112")?;
    let router = Virtual::new(1, Family::V4, &[150, 100]);
    let both = [router.clone(), Virtual::new(1, Family::V6, &[150, 100])];
    let mut keepalived = Keepalived::running(&pair, 0, &keepalived_config(&pair, 0, &both))?;
    pair.wait_for_holders(router.address(), &[0], LIMIT)?;
    let addresses = [both[0].address(), both[1].address()];
    let frr = Frr::running(&pair, 1, &[FrrRouter { vrid: 1, priority: 100, interval_ms: 100, addresses }])?;
    keepalived.stop()?;
    for family in Family::BOTH {
        observer.wait_for(1, family, 1, QUIET, LIMIT).with_context(|| frr.log())?;
    }
    keepalived.start()?;
    pair.cut(0)?;
    pair.wait_for_holders(router.address(), &[0, 1], LIMIT).context("each is alone")?;
    pair.mend(0)?;
    for family in Family::BOTH {
        observer.wait_for(1, family, 0, QUIET, LIMIT).with_context(|| frr.log())?;
    }
    ensure!(tcpdump.stop()?.contains("VRRPv3, Advertisement, vrid 1, prio 150"), "tcpdump saw no advert");
    ensure!(observer.stop()?.iter().any(|advert| advert.priority == 0), "nobody resigned");
    Ok(())
}
