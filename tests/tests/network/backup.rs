//! Backup servers take over when nobody else can, and give back.

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Steelyard,
    client::{Histogram, Requests, Session},
    steelyard::{is_down, server},
};
use lb_user::pure::status::Status;

use super::{bed_of, each_forward};

#[test]
fn a_backup_serves_only_when_every_other_is_down() -> Result<()> {
    for mode in each_forward() {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        config.services[0].servers[2].backup = true;
        let mut steelyard = Steelyard::new(&bed, &config)?;
        steelyard.start()?;
        steelyard.wait("web1 and web2", |status| serve(status, &["web1", "web2"]))?;
        ensure!(ask(&bed, mode.name)?.of("web3") == 0);

        bed.servers[0].kill();
        steelyard.wait("web2 alone", |status| is_down(status, "web", "web1") && serve(status, &["web2"]))?;
        let seen = ask(&bed, mode.name)?;
        ensure!(seen.of("web2") == seen.answered(), "{}: {seen:?}", mode.name);

        bed.servers[1].kill();
        steelyard.wait("the backup", |status| serve(status, &["web3"]))?;
        let seen = ask(&bed, mode.name)?;
        ensure!(seen.of("web3") == seen.answered(), "{}: {seen:?}", mode.name);
        let mut session = Session::open(&bed.client, bed.service()).with_context(|| mode.name)?;

        bed.servers[0].start()?;
        steelyard.wait("web1 again", |status| serve(status, &["web1"]))?;
        let seen = ask_new(&bed, mode.name)?;
        ensure!(seen.of("web1") == seen.answered(), "{}: {seen:?}", mode.name);
        ensure!(session.who()? == "web3", "{}: the backup's connection moved", mode.name);
    }
    Ok(())
}

/// These servers have slots, and no others.
fn serve(status: &Status, names: &[&str]) -> bool {
    ["web1", "web2", "web3"].iter().all(|name| {
        server(status, "web", name)
            .is_some_and(|server| (server.slots > 0 && server.neighbour.is_some()) == names.contains(name))
    })
}

fn ask(bed: &Bed, mode: &str) -> Result<Histogram> {
    let datagrams = Requests::new(bed.service(), 50).udp(&bed.client)?;
    datagrams.all_answered().with_context(|| format!("{mode} udp"))?;
    ask_new(bed, mode)
}

/// By TCP alone: datagrams have no beginning, and stay with who had them before.
fn ask_new(bed: &Bed, mode: &str) -> Result<Histogram> {
    let seen = Requests::new(bed.service(), 100).tcp(&bed.client)?;
    seen.all_answered().with_context(|| format!("{mode} tcp"))?;
    Ok(seen)
}
