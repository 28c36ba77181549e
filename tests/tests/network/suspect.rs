//! Connections that fail show that a server is in trouble before its check is due.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Config, Forward, Steelyard,
    client::knock,
    steelyard::{all_up, is_down},
};

use super::bed;

#[test]
fn a_server_that_refuses_connections_is_checked_at_once() -> Result<()> {
    for forward in [Forward::Nat, Forward::Gateway] {
        let (bed, config) = bed(Arms::Two, forward)?;
        let steelyard = seldom_checked(&bed, config)?;
        bed.servers[0].kill();
        knocks_take_it_down(&bed, &steelyard)?;
    }
    Ok(())
}

#[test]
fn a_server_that_answers_no_connection_is_checked_at_once() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Nat)?;
    let steelyard = seldom_checked(&bed, config)?;
    let server = &bed.servers[0].host.namespace;
    server.ip(&format!("route add blackhole {}/32\n", bed.balancer_to_servers()))?;
    knocks_take_it_down(&bed, &steelyard)
}

/// One server, whose next check is a minute away, and whose first failed check takes it down.
fn seldom_checked(bed: &Bed, mut config: Config) -> Result<Steelyard<'_>> {
    config.services[0].servers.truncate(1);
    let mut steelyard = Steelyard::new(bed, &config)?;
    let line = |line: &str| match line.split_once(" = ") {
        Some(("interval", _)) => "interval = \"60s\"\n".to_owned(),
        Some(("fall", _)) => "fall = 1\n".to_owned(),
        _ => format!("{line}\n"),
    };
    let text = config.to_toml(&steelyard.socket(), &steelyard.state(), steelyard.pin());
    steelyard.write_config(&text.lines().map(line).collect::<String>())?;
    steelyard.start()?;
    steelyard.wait("the server to be up", all_up)?;
    Ok(steelyard)
}

fn knocks_take_it_down(bed: &Bed, steelyard: &Steelyard) -> Result<()> {
    for _ in 0..SUSPECT_AFTER {
        knock(&bed.client, bed.service(), Duration::from_millis(100))?;
    }
    steelyard.wait("the check that finds it down", |status| is_down(status, "web", "web1"))?;
    let log = steelyard.log();
    ensure!(log.contains("web/web1 is suspect"), "{log}");
    Ok(())
}

/// By default.
const SUSPECT_AFTER: u32 = 5;
