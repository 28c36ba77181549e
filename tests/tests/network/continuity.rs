//! Restarts with the same and with other files: no connection ends whose server lives.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{Arms, Bed, Config, Forward, Steelyard, client::Session};
use lb_user::pure::status::{ServerStatus, ServiceStatus};

use super::{bed_of, each_forward, every_mode};

#[test]
fn a_connection_outlives_kill_9_in_every_mode() -> Result<()> {
    for mode in every_mode() {
        let (bed, config) = bed_of(mode.layout(Arms::Two))?;
        let mut steelyard = Steelyard::running(&bed, &config)?;
        let mut open = Open::new(&bed).with_context(|| mode.name)?;
        steelyard.kill9()?;
        open.check().with_context(|| mode.name)?;
        restart(&mut steelyard, &config)?;
        open.check().with_context(|| mode.name)?;
    }
    Ok(())
}

#[test]
fn a_connection_outlives_every_change_of_servers_and_balance() -> Result<()> {
    for mode in each_forward() {
        let (bed, config) = bed_of(mode.layout(Arms::Two))?;
        let mut fewer = config.clone();
        fewer.services[0].servers.truncate(2);
        let mut steelyard = Steelyard::running(&bed, &fewer)?;
        let mut open = Open::new(&bed).with_context(|| mode.name)?;
        for (name, config) in changes(&config, &fewer) {
            steelyard.terminate()?;
            restart(&mut steelyard, &config).with_context(|| format!("{}: {name}", mode.name))?;
            open.check().with_context(|| format!("{}: {name}", mode.name))?;
            open.more(&bed).with_context(|| format!("{}: new after {name}", mode.name))?;
        }
    }
    Ok(())
}

/// The servers of a service with `ipip` or `gue` open both.
#[test]
fn a_connection_outlives_another_encapsulation() -> Result<()> {
    for mode in every_mode().filter(|mode| mode.forward == Forward::Ipip) {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        let mut steelyard = Steelyard::running(&bed, &config)?;
        let mut open = Open::new(&bed).with_context(|| mode.name)?;
        for forward in [Forward::Gue, Forward::Ipip] {
            config.services[0].forward = forward;
            steelyard.terminate()?;
            restart(&mut steelyard, &config)?;
            open.check().with_context(|| format!("{} to {}", mode.name, forward.name()))?;
            open.more(&bed).with_context(|| format!("{} to {}", mode.name, forward.name()))?;
        }
    }
    Ok(())
}

/// A NAT source that left the configuration still has flows.
#[test]
fn a_connection_outlives_its_nat_source() -> Result<()> {
    for mode in every_mode().filter(|mode| mode.forward == Forward::Nat) {
        let (bed, mut config) = bed_of(mode.layout(Arms::Two))?;
        let sources = [60, 61, 62].map(|last| bed.add_nat_source(last)).into_iter();
        let sources: Vec<_> = sources.collect::<Result<_>>()?;
        config.nat_source.clone_from(&sources);
        let mut steelyard = Steelyard::running(&bed, &config)?;
        let mut open = Open::new(&bed).with_context(|| mode.name)?;
        for now in [&sources[1..], &sources[..1], &[]] {
            config.nat_source = now.to_vec();
            steelyard.terminate()?;
            restart(&mut steelyard, &config)?;
            open.check().with_context(|| format!("{} with {now:?}", mode.name))?;
            open.more(&bed).with_context(|| format!("{} with {now:?}", mode.name))?;
        }
    }
    Ok(())
}

/// Each a step from the one before.
fn changes(config: &Config, fewer: &Config) -> Vec<(&'static str, Config)> {
    let mut weighted = config.clone();
    for (server, weight) in weighted.services[0].servers.iter_mut().zip([1, 20, 0]) {
        server.weight = weight;
    }
    let balanced = |balance| {
        let mut config = config.clone();
        config.services[0].balance = Some(balance);
        config
    };
    let mut backup = config.clone();
    backup.services[0].servers[0].backup = true;
    vec![
        ("a server added", config.clone()),
        ("other weights", weighted),
        ("roundrobin", balanced("roundrobin")),
        ("leastconn", balanced("leastconn")),
        ("maglev again", balanced("maglev")),
        ("a backup", backup),
        ("a server removed", fewer.clone()),
        ("it is back", config.clone()),
    ]
}

/// Connections that stay, and who answers them.
struct Open {
    sessions: Vec<Session>,
    target: SocketAddr,
}

impl Open {
    fn new(bed: &Bed) -> Result<Open> {
        let mut open = Open { sessions: Vec::new(), target: bed.service() };
        open.more(bed)?;
        Ok(open)
    }

    fn more(&mut self, bed: &Bed) -> Result<()> {
        for _ in 0..6 {
            self.sessions.push(Session::open(&bed.client, self.target)?);
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        let mut broken = Vec::new();
        let all = self.sessions.len();
        for (at, session) in self.sessions.iter_mut().enumerate() {
            match session.who() {
                Ok(server) if server == session.server => {}
                Ok(server) => broken.push(format!("{at}: {} became {server}", session.server)),
                Err(error) => broken.push(format!("{at}: {}: {error:#}", session.server)),
            }
        }
        ensure!(broken.is_empty(), "{} of {all} ended: {broken:?}", broken.len());
        Ok(())
    }
}

fn restart(steelyard: &mut Steelyard<'_>, config: &Config) -> Result<()> {
    steelyard.configure(config)?;
    steelyard.start()?;
    let up = |server: &ServerStatus| {
        ["up", "no-check"].contains(&server.health.as_str()) && server.neighbour.is_some()
    };
    let ready = |service: &ServiceStatus| service.servers.iter().all(up);
    steelyard.wait("every server to be up", |status| status.services.iter().all(ready))?;
    Ok(())
}
