//! Servers drained, disabled, weighed, added and removed while traffic flows, and what of it outlives a restart.

use std::fs;

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Forward, Layout, Steelyard,
    client::{Load, Requests, Session},
    steelyard::{all_up, server},
};

use super::{bed, bed_of, keep_their_servers, sessions};

#[test]
fn a_drained_server_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    for forward in [Forward::Nat, Forward::Dsr] {
        let (bed, config) = bed(Arms::One, forward)?;
        let steelyard = Steelyard::running(&bed, &config)?;
        let mut open = sessions(&bed, 30)?;
        steelyard.done(&["server", "drain", "web/web1"])?;
        let status = steelyard.status()?;
        let web1 = server(&status, "web", "web1").context("web1")?;
        ensure!(web1.admin == "drain" && web1.slots == 0 && web1.health == "up", "{web1:?}");
        ensure!(status.changes == ["web/web1: drain"], "{:?}", status.changes);
        let new = Requests::new(bed.service(), 200).tcp(&bed.client)?;
        new.all_answered()?;
        ensure!(new.of("web1") == 0, "{forward:?}: {new:?}");
        keep_their_servers(&mut open, None)?;
        steelyard.done(&["server", "enable", "web/web1"])?;
        keep_their_servers(&mut open, None)?;
        let again = Requests::new(bed.service(), 200).tcp(&bed.client)?;
        ensure!(again.of("web1") > 30, "{forward:?}: {again:?}");
        ensure!(steelyard.status()?.changes.is_empty());
    }
    Ok(())
}

#[test]
fn a_drain_waits_for_the_last_connection() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Nat)?;
    config.services[0].idle_timeout = Some("2s");
    let steelyard = Steelyard::running(&bed, &config)?;
    let open = sessions(&bed, 10)?;
    ensure!(open.iter().any(|session| session.server == "web1"));
    let short = steelyard.cli(&["server", "drain", "web/web1", "--wait", "--timeout", "1s"])?;
    ensure!(short.code == Some(1) && short.stderr.contains("recorded flows"), "{short:?}");
    drop(open);
    let text = steelyard.done(&["server", "drain", "web/web1", "--wait"])?;
    ensure!(text.contains("drained after"), "{text}");
    Ok(())
}

#[test]
fn a_disabled_server_is_cut_and_comes_back() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let mut open = sessions(&bed, 30)?;
    steelyard.done(&["server", "disable", "web/web2"])?;
    keep_their_servers(&mut open, Some("web2"))?;
    let without = Requests::new(bed.service(), 200).tcp(&bed.client)?;
    without.all_answered()?;
    ensure!(without.of("web2") == 0, "{without:?}");
    steelyard.done(&["server", "enable", "web/web2"])?;
    steelyard.wait("web2 to take connections", all_up)?;
    keep_their_servers(&mut open, Some("web2"))
}

#[test]
fn servers_are_weighed_added_and_removed_under_load() -> Result<()> {
    for forward in [Forward::Nat, Forward::Dsr] {
        let (bed, mut config) = bed_of(Layout::new(Arms::Two, forward))?;
        let third = config.services[0].servers.remove(2);
        let steelyard = Steelyard::running(&bed, &config)?;
        let mut open = sessions(&bed, 30)?;
        let load = Load::start(&bed.client, bed.service(), 2);
        steelyard.done(&["server", "weight", "web/web1", "3"])?;
        let address = third.address.to_string();
        steelyard.done(&["server", "add", "web/web3", &address])?;
        steelyard.wait("web3 to be up", all_up)?;
        keep_their_servers(&mut open, None)?;
        let new = Requests::new(bed.service(), 500).tcp(&bed.client)?;
        new.all_answered()?;
        ensure!((new.share("web1") - 0.6).abs() < 0.1 && new.of("web3") > 50, "{new:?}");
        steelyard.done(&["server", "remove", "web/web2"])?;
        keep_their_servers(&mut open, None)?;
        let without = Requests::new(bed.service(), 200).tcp(&bed.client)?;
        ensure!(without.of("web2") == 0, "{without:?}");
        load.stop()?.all_answered()?;
    }
    Ok(())
}

#[test]
fn changes_outlive_a_kill_and_a_reload() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let mut steelyard = Steelyard::running(&bed, &config)?;
    steelyard.done(&["server", "drain", "web/web1"])?;
    steelyard.done(&["server", "weight", "web/web2", "7"])?;
    steelyard.done(&["server", "remove", "web/web3"])?;
    let expected = ["web/web3 was removed", "web/web1: drain", "web/web2: weight 7 (the file says weight 1)"];
    let in_force = |steelyard: &Steelyard<'_>| -> Result<()> {
        let status = steelyard.status()?;
        ensure!(status.changes == expected, "{:?}", status.changes);
        let slots: Vec<u32> = status.services[0].servers.iter().map(|server| server.slots).collect();
        ensure!(slots.len() == 2 && slots[0] == 0 && slots[1] > 0, "{slots:?}");
        Ok(())
    };
    in_force(&steelyard)?;
    steelyard.kill9()?;
    steelyard.start()?;
    in_force(&steelyard)?;
    steelyard.done(&["reload"])?;
    in_force(&steelyard)?;
    let text = steelyard.done(&["status"])?;
    ensure!(text.contains("not in the file: web/web1: drain"), "{text}");
    Ok(())
}

#[test]
fn a_change_that_cannot_be_kept_is_in_force_and_says_so() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Nat)?;
    let mut steelyard = Steelyard::new(&bed, &config)?;
    // Nothing can be written below a device that is always full.
    std::os::unix::fs::symlink("/dev/full", steelyard.state())?;
    steelyard.start()?;
    steelyard.wait("every server to be up", all_up)?;
    let told = steelyard.done(&["server", "drain", "web/web1"])?;
    ensure!(told.contains("a restart would lose it"), "{told}");
    let status = steelyard.status()?;
    ensure!(server(&status, "web", "web1").is_some_and(|server| server.slots == 0));
    ensure!(status.warnings.iter().any(|warning| warning.contains("is not kept")), "{:?}", status.warnings);
    Requests::new(bed.service(), 100).tcp(&bed.client)?.all_answered()?;
    // Room again: the next change is kept, and the one before with it.
    fs::remove_file(steelyard.state())?;
    let told = steelyard.done(&["server", "weight", "web/web2", "2"])?;
    ensure!(!told.contains("lose"), "{told}");
    steelyard.kill9()?;
    steelyard.start()?;
    ensure!(steelyard.status()?.changes.len() == 2);
    Ok(())
}

#[test]
fn wrong_changes_are_refused_with_the_next_step() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    for (args, code, expected) in [
        (&["server", "drain", "web/web9"][..], 1, "no server named `web9`: there are web1, web2, web3"),
        (&["server", "drain", "mail/web1"], 1, "no service named `mail`: there are web"),
        (&["server", "drain", "web1"], 2, "expected SERVICE/SERVER"),
        (&["server", "add", "web/web4", "10.9.9.9:81"], 1, "cannot change the port"),
        (&["server", "add", "web/web1", "10.9.9.9"], 1, "choose another name"),
        (&["server", "add", "web/web4", "nonsense"], 1, "nonsense"),
        (&["server", "weight", "web/web1", "70000"], 2, "70000"),
        (&["reload", "--max-moved", "300"], 2, "expected a share such as 30%"),
    ] {
        let done = steelyard.cli(args)?;
        ensure!(done.code == Some(code) && done.stderr.contains(expected), "{args:?}: {done:?}");
    }
    ensure!(steelyard.status()?.changes.is_empty());
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()
}

/// An idle client's connection is not forgotten by the balancer while its server lives.
#[test]
fn an_undone_drain_moves_nobody() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let mut idle = sessions(&bed, 40)?;
    for _ in 0..3 {
        steelyard.done(&["server", "drain", "web/web1"])?;
        let _between = Session::open(&bed.client, bed.service())?;
        steelyard.done(&["server", "enable", "web/web1"])?;
    }
    keep_their_servers(&mut idle, None)?;
    steelyard.wait("a sweep", |status| status.datapath.sweeps > 2)?;
    keep_their_servers(&mut idle, None)
}
