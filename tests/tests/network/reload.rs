//! The configuration is read again: whole, or not at all.

use std::fs;

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Forward, Steelyard,
    client::{Load, Requests},
    steelyard::{all_up, server, service_of},
};
use lb_user::pure::status::PlanStatus;
use nix::sys::signal::Signal;

use super::{bed, keep_their_servers, sessions};

#[test]
fn a_reload_moves_no_connection() -> Result<()> {
    for forward in [Forward::Nat, Forward::Dsr, Forward::Ipip] {
        let (bed, mut config) = bed(Arms::Two, forward)?;
        let third = config.services[0].servers.pop().context("three servers")?;
        let steelyard = Steelyard::running(&bed, &config)?;
        let mut open = sessions(&bed, 30)?;
        let load = Load::start(&bed.client, bed.service(), 2);

        config.services[0].servers.push(third);
        steelyard.reload(&config)?;
        steelyard.wait("web3 to be up", all_up)?;
        keep_their_servers(&mut open, None)?;
        config.services[0].servers[0].weight = 5;
        steelyard.reload(&config)?;
        keep_their_servers(&mut open, None)?;
        config.services[0].servers.remove(1);
        steelyard.reload(&config)?;
        keep_their_servers(&mut open, None)?;
        let new = Requests::new(bed.service(), 300).tcp(&bed.client)?;
        new.all_answered()?;
        ensure!(new.of("web2") == 0 && new.of("web3") > 10, "{forward:?}: {new:?}");
        load.stop()?.all_answered().with_context(|| format!("{forward:?}"))?;
    }
    Ok(())
}

#[test]
fn services_come_and_go_by_a_reload() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Nat)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let mut open = sessions(&bed, 10)?;
    config.add("other", 8_081);
    steelyard.reload(&config)?;
    steelyard.wait("both services", |status| status.services.len() == 2 && all_up(status))?;
    let mut target = bed.service();
    target.set_port(8_081);
    Requests::new(target, 50).tcp(&bed.client)?.all_answered()?;
    keep_their_servers(&mut open, None)?;
    config.services.remove(1);
    steelyard.reload(&config)?;
    ensure!(service_of(&steelyard.status()?, "other").is_none());
    let gone = Requests::new(target, 3).tcp(&bed.client)?;
    ensure!(gone.answered() == 0, "{gone:?}");
    keep_their_servers(&mut open, None)
}

#[test]
fn signals_reload() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    for (signal, weight) in [(Signal::SIGHUP, 4), (Signal::SIGUSR2, 9)] {
        config.services[0].servers[0].weight = weight;
        steelyard.configure(&config)?;
        steelyard.signal(signal)?;
        steelyard.wait("the new weight", |status| {
            server(status, "web", "web1").is_some_and(|server| server.weight == weight)
        })?;
    }
    Ok(())
}

#[test]
fn a_faulty_file_changes_nothing() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let mut open = sessions(&bed, 20)?;
    let before = steelyard.status()?.services;
    let good = fs::read_to_string(steelyard.config_file())?;

    for (text, code, expected) in [
        (good.replace("weight", "wieght"), 2, "did you mean `weight`?"),
        (good.replace("of the bed", "of another"), 1, "--force"),
        (good.replace("[\"eth0\"]", "[\"eth0\", \"eth7\"]"), 1, "eth7"),
    ] {
        steelyard.write_config(&text)?;
        let refused = steelyard.cli(&["reload"])?;
        ensure!(refused.code == Some(code) && refused.stderr.contains(expected), "{expected}: {refused:?}");
        let planned = steelyard.cli(&["plan"])?;
        ensure!(planned.code == Some(if code == 2 { 2 } else { 0 }), "{planned:?}");
        let after = steelyard.status()?.services;
        let slots = |services: &[lb_user::pure::status::ServiceStatus]| -> Vec<u32> {
            services.iter().flat_map(|service| service.servers.iter().map(|server| server.slots)).collect()
        };
        ensure!(slots(&after) == slots(&before), "{expected}");
    }
    steelyard.write_config("nonsense")?;
    steelyard.signal(Signal::SIGHUP)?;
    config.services[0].servers[0].weight = 2;
    steelyard.wait("the refusal in the log", |_| steelyard.log().contains("was not reloaded"))?;
    keep_their_servers(&mut open, None)?;
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()
}

#[test]
fn a_plan_says_what_a_reload_would_do() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Nat)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let open = sessions(&bed, 12)?;
    steelyard.wait("the flows to be counted", |status| status.datapath.flows >= 12)?;
    config.services[0].servers.pop();
    config.services[0].servers[0].weight = 2;
    steelyard.configure(&config)?;
    let plan: PlanStatus = steelyard.json(&["plan", "--json"])?;
    let web = plan.services.first().context("one service")?;
    ensure!(web.servers_removed == ["web3"] && web.servers_changed == ["web1: weight 1 to 2"], "{web:?}");
    ensure!((33.0..70.0).contains(&web.percent_moved) && web.flows >= 12, "{web:?}");
    let text = steelyard.done(&["plan"])?;
    ensure!(text.contains("-web3; web1: weight 1 to 2"), "{text}");
    let refused = steelyard.cli(&["reload", "--max-moved", "10%"])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("more than 10 %"), "{refused:?}");
    ensure!(steelyard.status()?.services[0].servers.len() == 3);
    steelyard.done(&["reload", "--max-moved", "80%"])?;
    ensure!(steelyard.status()?.services[0].servers.len() == 2);
    drop(open);
    Ok(())
}

#[test]
fn interfaces_follow_a_reload() -> Result<()> {
    let (bed, mut config) = bed(Arms::Two, Forward::Nat)?;
    let all = config.interfaces.clone();
    let steelyard = Steelyard::running(&bed, &config)?;
    ensure!(all.len() == 2, "{all:?}");
    config.interfaces.pop();
    steelyard.reload(&config)?;
    ensure!(steelyard.attached(&all[0])? && !steelyard.attached(&all[1])?);
    config.interfaces.clone_from(&all);
    steelyard.reload(&config)?;
    ensure!(steelyard.attached(&all[1])?);
    steelyard.wait("every server", all_up)?;
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()
}
