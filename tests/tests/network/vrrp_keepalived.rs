//! Virtual routers shared with Keepalived, in both roles: `steelyard` on the first node, Keepalived on the second.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Family::{V4, V6},
    Pair, Steelyard,
    keepalived::Keepalived,
    observer::Observer,
    poll,
    tcpdump::Tcpdump,
    vrrp::{FLAG, Virtual, keepalived_config, steelyard_config},
};

#[test]
fn addresses_follow_the_elections() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let routers = every_kind();
    let tcpdump = Tcpdump::start(&pair, "ip proto 112 or ip6 proto 112")?;
    let mut ours = ours(&pair, &routers)?;
    let mut theirs = Keepalived::new(&pair, THEIRS, &keepalived_config(&pair, THEIRS, &routers))?;

    ours.start()?;
    theirs.start()?;
    held(&pair, &routers, Virtual::favourite).context("both run")?;
    ours.terminate()?;
    held(&pair, &routers, |_| THEIRS).context("steelyard stopped")?;
    ours.start()?;
    held(&pair, &routers, Virtual::favourite).context("steelyard started again")?;
    theirs.stop()?;
    held(&pair, &routers, |_| OURS).context("keepalived stopped")?;

    nobody_complains(&tcpdump.stop()?, &theirs.log())
}

/// Version 2 without and with a password, version 3 over both families, multicast and unicast: each with either node
/// as the favourite.
fn every_kind() -> Vec<Virtual> {
    let kinds = [
        Virtual::old(1, &[]),
        Virtual { pass: Some("1111"), ..Virtual::old(3, &[]) },
        Virtual { pass: Some("longest8"), unicast: true, ..Virtual::old(5, &[]) },
        Virtual::new(11, V4, &[]),
        Virtual { unicast: true, ..Virtual::new(13, V4, &[]) },
        Virtual::new(15, V6, &[]),
        Virtual { unicast: true, ..Virtual::new(17, V6, &[]) },
    ];
    let both = |kind: Virtual| {
        let reversed = Virtual { vrid: kind.vrid + 1, priorities: vec![100, 150], ..kind.clone() };
        [Virtual { priorities: vec![150, 100], ..kind }, reversed]
    };
    kinds.into_iter().flat_map(both).collect()
}

#[test]
fn who_does_not_preempt_waits() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let routers = [
        Virtual { no_preempt: Some(OURS), ..Virtual::new(21, V4, &[150, 100]) },
        Virtual { no_preempt: Some(THEIRS), ..Virtual::new(22, V4, &[100, 150]) },
    ];
    let observer = Observer::start(&pair)?;
    let mut ours = ours(&pair, &routers)?;
    let mut theirs = Keepalived::running(&pair, THEIRS, &keepalived_config(&pair, THEIRS, &routers))?;

    held(&pair, &routers, |_| THEIRS).context("keepalived alone")?;
    ours.start()?;
    stays(&observer, 21, THEIRS).context("steelyard came")?;
    theirs.stop()?;
    held(&pair, &routers, |_| OURS).context("steelyard alone")?;
    theirs.start()?;
    stays(&observer, 22, OURS).context("keepalived came back")?;
    held(&pair, &routers, |_| OURS)
}

#[test]
fn scripts_change_priorities() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let routers = [
        Virtual { track: Some((OURS, -80)), ..Virtual::new(23, V4, &[150, 100]) },
        Virtual { track: Some((THEIRS, -80)), ..Virtual::new(24, V4, &[100, 150]) },
    ];
    let mut ours = ours(&pair, &routers)?;
    let _theirs = Keepalived::running(&pair, THEIRS, &keepalived_config(&pair, THEIRS, &routers))?;
    ours.start()?;
    held(&pair, &routers, Virtual::favourite).context("all scripts succeed")?;
    for node in [OURS, THEIRS] {
        fs::write(pair.folder(node).join(FLAG), "")?;
    }
    held(&pair, &routers, |router| 1 - router.favourite()).context("all scripts fail")?;
    for node in [OURS, THEIRS] {
        fs::remove_file(pair.folder(node).join(FLAG))?;
    }
    held(&pair, &routers, Virtual::favourite).context("all scripts succeed again")
}

/// Both hold the address then, and only we say why.
#[test]
fn a_password_that_differs_is_named() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let router = |pass| [Virtual { pass: Some(pass), ..Virtual::old(25, &[150, 100]) }];
    let mut ours = ours(&pair, &router("1111"))?;
    let _theirs = Keepalived::running(&pair, THEIRS, &keepalived_config(&pair, THEIRS, &router("2222")))?;
    ours.start()?;
    let refused = poll("a refused sender in the status", ELECTED, || {
        let status = ours.status().ok()?.vrrp;
        status.routers.iter().flat_map(|router| &router.senders).find_map(|sender| sender.refused.clone())
    })?;
    ensure!(refused.contains("password"), "the refusal is {refused}");
    Ok(())
}

fn ours<'a>(pair: &'a Pair, routers: &[Virtual]) -> Result<Steelyard<'a>> {
    let steelyard = pair.steelyard(OURS)?;
    steelyard.write_config(&steelyard_config(pair, &steelyard, OURS, &[], routers))?;
    Ok(steelyard)
}

/// Returns once every address is on the node named, and there alone.
fn held(pair: &Pair, routers: &[Virtual], by: impl Fn(&Virtual) -> usize) -> Result<()> {
    let end = Instant::now() + ELECTED;
    routers.iter().try_for_each(|router| {
        let left = end.saturating_duration_since(Instant::now());
        pair.wait_for_holders(router.address(), &[by(router)], left).with_context(|| format!("{router:?}"))
    })
}

/// For longer than an election takes, only `node` advertises.
fn stays(observer: &Observer, vrid: u8, node: usize) -> Result<()> {
    observer.wait_for(vrid, V4, node, Duration::from_millis(1_500), Duration::from_secs(10))
}

/// tcpdump calls what it doubts bad, and Keepalived names what it refuses.
fn nobody_complains(decoded: &str, log: &str) -> Result<()> {
    for version in ["VRRPv2", "VRRPv3"] {
        ensure!(decoded.contains(version), "tcpdump saw no {version}");
    }
    for (what, words, text) in [
        ("tcpdump", &["bad ", "invalid", "truncated", "[|vrrp"][..], decoded),
        ("keepalived", &["nvalid", "ncorrect", "mismatch", "bogus"][..], log),
    ] {
        let complaint = text.lines().find(|line| words.iter().any(|word| line.contains(word)));
        ensure!(complaint.is_none(), "{what} complains: {complaint:?}");
    }
    Ok(())
}

const OURS: usize = 0;
const THEIRS: usize = 1;
/// Longer than the slowest election.
const ELECTED: Duration = Duration::from_secs(10);
