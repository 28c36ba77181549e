//! What the commands say is what happens.

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Forward, Steelyard,
    client::{Requests, Session, tcp_from, udp_from},
    steelyard::{all_up, is_down, server, service_of},
};

use super::{bed, bed_of, every_mode};

#[test]
fn explain_agrees_with_a_hundred_connections() -> Result<()> {
    for mode in every_mode().filter(|mode| mode.forward != Forward::Gateway) {
        let (bed, config) = bed_of(mode.layout(Arms::Two))?;
        let steelyard = Steelyard::running(&bed, &config)?;
        for port in 20_000..20_100 {
            let client = bed.client_port(port);
            let explained = steelyard.explain(client, bed.service(), "tcp")?;
            let answered = tcp_from(&bed.client, client, bed.service())?;
            ensure!(explained.new.server.as_deref() == Some(&answered), "{answered} answered: {explained:?}");
            let unrecorded = mode.forward.keeps_vip().then_some(answered);
            ensure!(explained.established.server == unrecorded, "{explained:?}");
        }
        for port in 20_000..20_020 {
            let client = bed.client_port(port);
            let explained = steelyard.explain(client, bed.service(), "udp")?;
            let answered = udp_from(&bed.client, client, bed.service())?;
            ensure!(explained.new.server.as_deref() == Some(&answered), "{answered} answered: {explained:?}");
        }
    }
    Ok(())
}

#[test]
fn explain_agrees_after_a_server_left() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    bed.servers[0].kill();
    steelyard.wait("web1 to leave the ring", |status| is_down(status, "web", "web1"))?;
    for port in 21_000..21_050 {
        let client = bed.client_port(port);
        let explained = steelyard.explain(client, bed.service(), "tcp")?;
        let answered = tcp_from(&bed.client, client, bed.service())?;
        ensure!(explained.new.server.as_deref() == Some(&answered), "{answered} answered: {explained:?}");
    }
    let stranger = steelyard.explain(bed.client_port(1_234), bed.vip_port(81), "tcp")?;
    ensure!(stranger.service.is_none() && stranger.new.server.is_none(), "{stranger:?}");
    Ok(())
}

/// web1 is away while connections open, so that nobody records them; its slots come back unsettled.
#[test]
fn explain_knows_established_connections_that_nobody_recorded() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    bed.servers[0].kill();
    steelyard.wait("web1 to leave the ring", |status| is_down(status, "web", "web1"))?;
    let mut sessions: Vec<_> =
        (0..60).map(|_| Session::open(&bed.client, bed.service())).collect::<Result<_>>()?;
    bed.servers[0].start()?;
    steelyard.wait("web1 to return", all_up)?;
    let mut moved = 0;
    for session in &mut sessions {
        let client = session.client()?;
        let before = steelyard.explain(client, bed.service(), "tcp")?;
        ensure!(before.recorded.is_none(), "{before:?}");
        ensure!(
            before.established.server.as_ref() == Some(&session.server),
            "{}: {before:?}",
            session.server
        );
        moved += u32::from(before.new.server != before.established.server);
        ensure!(session.who()? == session.server, "the connection moved");
        let after = steelyard.explain(client, bed.service(), "tcp")?;
        let lookup = after.slot.as_ref().is_some_and(|slot| slot.lookup);
        let recorded = after.recorded.as_ref().map(|record| &record.server);
        ensure!(recorded == lookup.then_some(&session.server), "{}: {after:?}", session.server);
    }
    ensure!(moved > 5, "of 60 connections about 20 stand in slots that web1 took back, not {moved}");
    Ok(())
}

#[test]
fn traffic_is_counted_by_server_and_service() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Nat)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let seen = Requests::new(bed.service(), 300).tcp(&bed.client)?;
    seen.all_answered()?;
    let status = steelyard.status()?;
    for name in ["web1", "web2", "web3"] {
        let traffic = server(&status, "web", name).context("a server of the bed")?.traffic;
        ensure!(traffic.connections == seen.of(name), "{name}: {traffic:?}, and the client saw {seen:?}");
        // SYN, ACK, question, ACK or RST: at least four packets of at least 40 bytes each.
        ensure!(
            traffic.packets >= 4 * traffic.connections && traffic.bytes >= 40 * traffic.packets,
            "{traffic:?}"
        );
    }
    let web = service_of(&status, "web").context("the service of the bed")?;
    ensure!(web.traffic.connections == 300, "{web:?}");
    Ok(())
}

#[test]
fn listings_name_what_runs() -> Result<()> {
    let (bed, mut config) = bed(Arms::Two, Forward::Dsr)?;
    config.add("other", 81);
    let mut steelyard = Steelyard::new(&bed, &config)?;
    steelyard.start()?;
    for (command, expected) in [
        (&["status"][..], &["web", "other", "eth0"][..]),
        (&["service", "list"], &["web", "other"]),
        (&["service", "show", "web"], &["web1", "web3", "dsr"]),
        (&["server", "list"], &["web1", "web2", "web3"]),
        (&["server", "show", "web/web2"], &["web2"]),
        (&["counters"], &["pass_no_service"]),
    ] {
        let done = steelyard.cli(command)?;
        ensure!(done.code == Some(0), "{command:?}: {done:?}");
        for word in expected {
            ensure!(done.stdout.contains(word), "{command:?} does not name {word}: {}", done.stdout);
        }
        ensure!(!done.stdout.contains('\x1b'), "{command:?} is coloured without a terminal");
    }
    let unknown = steelyard.cli(&["server", "show", "web/nobody"])?;
    ensure!(unknown.code == Some(1) && unknown.stderr.contains("nobody"), "{unknown:?}");
    Ok(())
}
