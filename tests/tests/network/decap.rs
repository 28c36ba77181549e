//! `steelyard decap` on a server: what a balancer sends arrives at a real socket on the VIP.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::{
    bed::{
        decap::{DecapBed, bind},
        poll,
        topology::attach,
        xdp::Program,
    },
    decap::{
        VIP4, VIP6,
        tunnel::{Carrier, Tunnel, datagram},
    },
};
use lb_user::pure::{decap::Finding, status::Counters};
use nix::sys::signal::Signal;

#[test]
fn every_mix_reaches_the_service_and_is_answered() -> Result<()> {
    for mode in ["native", "generic"] {
        let bed = prepared()?;
        let decap = bed.start(&with(&["--mode", mode, "--json"]))?;
        let mut sent = 0;
        for (client, vip) in [(CLIENT4, IpAddr::from(VIP4)), (CLIENT6, VIP6.into())] {
            let (client, service) = (SocketAddr::new(client.parse()?, 40_000), SocketAddr::new(vip, 53));
            let (server_socket, client_socket) = (bind(&bed.server, service)?, bind(&bed.balancer, client)?);
            for outer in [true, false] {
                for carrier in CARRIERS {
                    sent += 1;
                    let question = format!("question {sent} by {carrier:?}, outer v4 {outer}");
                    let inner = datagram(client, service, question.as_bytes());
                    bed.send(&Tunnel::new(outer, carrier, inner).bytes())?;
                    let mut buffer = [0; 128];
                    let (size, from) = server_socket
                        .recv_from(&mut buffer)
                        .with_context(|| format!("{mode}: {question}"))?;
                    ensure!(buffer[..size] == *question.as_bytes() && from == client, "{question}: {from}");
                    server_socket.send_to(&buffer[..size], from)?;
                    let (size, from) = client_socket
                        .recv_from(&mut buffer)
                        .with_context(|| format!("{mode}: the answer to {question}"))?;
                    ensure!(buffer[..size] == *question.as_bytes() && from == service, "{question}: {from}");
                }
            }
        }
        let code = decap.end(Signal::SIGINT)?;
        let (log, out) = bed.said()?;
        ensure!(code.success(), "{code}: {log}");
        ensure!(log.contains(&format!("eth0 ({mode} mode)")), "{log}");
        let counters: Counters = serde_json::from_str(&out).with_context(|| out.clone())?;
        ensure!(counters["open_ipip"] == 4 && counters["open_gue"] == 8, "{counters:?}");
        ensure!(counters["drop_malformed"] == 0, "{counters:?}");
    }
    Ok(())
}

/// The kernel knows no ipip here: without the program nothing arrives, and with it only what is listed.
#[test]
fn what_is_not_listed_is_not_opened() -> Result<()> {
    let bed = prepared()?;
    let decap = bed.start(&["--interface", "eth0", "--vip", &VIP6.to_string(), "--json"])?;
    let (listed, other) = (SocketAddr::new(VIP6.into(), 53), SocketAddr::new(VIP4.into(), 53));
    let (listed_socket, other_socket) = (bind(&bed.server, listed)?, bind(&bed.server, other)?);
    for (client, service) in [(CLIENT4, other), (CLIENT6, listed)] {
        let inner = datagram(SocketAddr::new(client.parse()?, 40_000), service, b"question");
        bed.send(&Tunnel::new(true, Carrier::Ipip, inner).bytes())?;
    }
    let mut buffer = [0; 16];
    ensure!(listed_socket.recv(&mut buffer)? == 8);
    other_socket.set_nonblocking(true)?;
    ensure!(other_socket.recv(&mut buffer).is_err(), "one was opened that is not listed");
    ensure!(decap.end(Signal::SIGTERM)?.success());
    let counters: Counters = serde_json::from_str(&bed.said()?.1)?;
    ensure!(counters["open_ipip"] == 1 && counters["pass_no_vip"] == 1, "{counters:?}");
    Ok(())
}

#[test]
fn the_check_finds_what_is_missing_and_its_commands_mend_it() -> Result<()> {
    let bed = DecapBed::new()?;
    bed.server.set(&[("ipv4/conf/all/rp_filter", "1"), ("ipv6/conf/all/disable_ipv6", "1")])?;
    bed.server.ip("addr add 192.0.2.10/24 dev eth0\n")?;
    let before = findings(&bed, &[], 1)?;
    let missing = |word: &str| before.iter().any(|finding| !finding.ok && finding.found.contains(word));
    for word in ["/24 on eth0", "not an address", "arp_ignore", "arp_announce", "rp_filter", "ipv6", "mtu"] {
        ensure!(missing(word), "{word} is not missed: {before:?}");
    }
    let text = bed.cli(&with(&["--check"]))?;
    for finding in &before {
        let mark = if finding.ok { "ok     " } else { "MISSING" };
        let line = format!("{mark}  {}: {}", finding.about, finding.found);
        ensure!(text.stdout.lines().any(|shown| shown.starts_with(&line)), "no `{line}` in {text:?}");
    }
    ensure!(text.stderr.lines().count() == 1 && text.stderr.contains("lacks"), "{text:?}");
    for fix in before.iter().filter_map(|finding| finding.fix.as_ref()) {
        bed.shell(fix)?;
    }
    let after = findings(&bed, &[], 0)?;
    ensure!(after.len() == before.len(), "{after:?}");
    ensure!(!bed.attached("eth0")?, "a check attaches nothing");

    bed.shell("ip link set dev eth0 mtu 1500")?;
    let clamps = findings(&bed, &[], 1)?;
    let clamp = clamps.iter().filter_map(|finding| finding.instead.as_ref()).next_back();
    let mss = clamp.and_then(|text| text.split_whitespace().nth(2)).context("no clamp is named")?;
    findings(&bed, &["--mss", mss], 0).map(drop)
}

#[test]
fn the_recipe_of_the_documentation_is_complete() -> Result<()> {
    let bed = prepared()?;
    findings(&bed, &[], 0)?;
    Ok(())
}

#[test]
fn nothing_is_left_however_it_ends() -> Result<()> {
    let bed = DecapBed::new()?;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let decap = bed.start(&with(&[]))?;
        ensure!(bed.attached("eth0")?, "nothing is attached before {signal}");
        let code = decap.end(signal)?;
        ensure!(code.success() == (signal != Signal::SIGKILL), "{signal}: {code}");
        // The kernel takes a program off a moment after its last reference.
        poll("the end of the attachment", Duration::from_secs(5), || {
            bed.attached("eth0").ok().filter(|attached| !attached)
        })?;
    }
    Ok(())
}

/// Nobody would notice that nothing is opened any more.
#[test]
fn a_lost_interface_ends_it() -> Result<()> {
    let bed = DecapBed::new()?;
    let mut decap = bed.start(&with(&[]))?;
    bed.server.ip("link delete eth0\n")?;
    let code = decap.ended()?;
    let (log, _) = bed.said()?;
    ensure!(code.code() == Some(1) && log.contains("interface eth0 is gone"), "{code}: {log}");
    Ok(())
}

#[test]
fn a_fallback_is_told_aloud() -> Result<()> {
    let bed = DecapBed::new()?;
    let decap = bed.start(&["--interface", "eth0", "lo", "--vip", "192.0.2.10"])?;
    ensure!(decap.end(Signal::SIGTERM)?.success());
    let (log, out) = bed.said()?;
    ensure!(log.contains("eth0 (native mode)") && log.contains("lo (generic mode)"), "{log}");
    let warned = |line: &str| line.contains("WARN") && line.contains("lo") && line.contains("generic");
    ensure!(log.lines().any(warned), "{log}");
    ensure!(out.contains("open_gue"), "{out}");
    Ok(())
}

#[test]
fn bad_input_attaches_nothing() -> Result<()> {
    let bed = DecapBed::new()?;
    let vip = ["--vip", "192.0.2.10"];
    let on = |interfaces: &[&'static str], more: &[&'static str]| {
        [&["--interface"], interfaces, &vip, more].concat()
    };
    for (args, words) in [
        (on(&["eth7"], &[]), &["eth7", "eth0", "--interface"][..]),
        (on(&["eth7"], &["--check"]), &["eth7", "eth0", "--interface"]),
        (on(&["eth0", "eth7"], &[]), &["eth7"]),
        (on(&["eth0", "lo"], &["--mode", "native"]), &["interface lo", "--mode auto"]),
    ] {
        one_line_names(&bed.cli(&args)?, words)?;
        ensure!(!bed.attached("eth0")?, "{args:?}: eth0 is left attached");
    }
    one_line_names(&bed.cli_as_nobody(&on(&["eth0"], &[]))?, &["root"])?;
    let foreign = attach(&bed.server, "eth0", Program::Pass)?;
    one_line_names(&bed.cli(&on(&["lo", "eth0"], &["--mode", "auto"]))?, &["eth0", "already", "xdp off"])?;
    ensure!(bed.attached("eth0")? && !bed.attached("lo")?);
    drop(foreign);

    let many: Vec<_> = (1..=65).map(|last| format!("192.0.2.{last}")).collect();
    let many: Vec<_> =
        ["--interface", "eth0", "--vip"].into_iter().chain(many.iter().map(String::as_str)).collect();
    for args in [
        &["--interface", "eth0"][..],
        &["--vip", "192.0.2.10"],
        &["--interface", "eth0", "--vip", "0.0.0.0"],
        &["--interface", "eth0", "--vip", "web"],
        &["--interface", "eth0", "--vip", "192.0.2.10", "--mode", "fast"],
        &["--interface", "eth0", "--vip", "192.0.2.10", "--mss", "1400"],
        &many,
    ] {
        let done = bed.cli(args)?;
        ensure!(done.code == Some(2) && !done.stderr.is_empty(), "{args:?}: {done:?}");
    }
    Ok(())
}

/// Exit code 1, and an error of one line that names `words`. Log lines before it are their own.
fn one_line_names(done: &lb_tests::bed::steelyard::Finished, words: &[&str]) -> Result<()> {
    ensure!(done.code == Some(1) && !done.stderr.contains("panicked"), "{done:?}");
    let line = done.stderr.lines().last().unwrap_or_default();
    for word in words {
        ensure!(line.contains(word), "the error does not name {word}: {}", done.stderr);
    }
    Ok(())
}

fn findings(bed: &DecapBed, more: &[&str], code: i32) -> Result<Vec<Finding>> {
    let done = bed.cli(&[&with(&["--check", "--json"])[..], more].concat())?;
    ensure!(done.code == Some(code), "{done:?}");
    serde_json::from_str(&done.stdout).with_context(|| done.stdout.clone())
}

/// A server as the documentation makes one, and clients beside the balancer.
fn prepared() -> Result<DecapBed> {
    let bed = DecapBed::new()?;
    let commands: Vec<_> =
        RECIPE.lines().filter(|line| line.starts_with("ip ") || line.starts_with("sysctl ")).collect();
    ensure!(commands.len() > 5, "the recipe has other commands now: {commands:?}");
    for command in commands {
        bed.shell(command)?;
    }
    bed.server.ip(&format!("route add {CLIENT6}/128 dev eth0\n"))?;
    bed.balancer.ip(&format!(
        "addr add {CLIENT4}/32 dev eth0\naddr add {CLIENT6}/128 dev eth0\n\
         route add {VIP4}/32 dev eth0\nroute add {VIP6}/128 dev eth0\n"
    ))?;
    Ok(bed)
}

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--interface", "eth0", "--vip", "192.0.2.10", "2001:db8::10"], more].concat()
}

const RECIPE: &str = include_str!("../../../docs/decap.md");
const CLIENT4: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:7::7";
const CARRIERS: [Carrier; 3] = [Carrier::Ipip, Carrier::Gue { checksum: 0 }, Carrier::GueHeader { words: 1 }];
