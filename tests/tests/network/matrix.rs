//! Every mode, family and layout moves data over TCP and UDP, whole.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Config, Layout, Steelyard,
    client::{Requests, Session},
    datagrams, layout,
};

use super::{every_layout, every_mode, forwarded};

#[test]
fn every_mode_moves_data() -> Result<()> {
    let rows = every_mode().flat_map(|mode| [Arms::One, Arms::Two].map(|arms| (mode, arms)));
    let failures: Vec<String> = rows
        .filter_map(|(mode, arms)| {
            let start = Instant::now();
            let moved = move_data(mode.layout(arms));
            eprintln!("{} {arms:?}: {:.1} s", mode.name, start.elapsed().as_secs_f64());
            Some(format!("{} {arms:?}: {:#}", mode.name, moved.err()?))
        })
        .collect();
    ensure!(failures.is_empty(), "{} rows failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

fn move_data(layout: Layout) -> Result<()> {
    let bed = Bed::new(layout)?;
    let mut steelyard = Steelyard::running(&bed, &Config::of(&bed))?;
    steelyard.show_log = false;
    let mut session = Session::open(&bed.client, bed.service()).context("tcp")?;
    session.download(DOWNLOAD).context("tcp, to the client")?;
    session.upload(UPLOAD).context("tcp, to the server")?;
    datagrams::echo_series(&bed.client, bed.service(), layout.packet_max()).context("udp")?;
    let packets = UPLOAD / layout::MTU as u64 + datagrams::COUNT as u64;
    let counted = forwarded(&steelyard)?;
    ensure!(counted > packets, "of {packets} packets only {counted} went through XDP");
    Ok(())
}

#[test]
fn requests_reach_every_server() -> Result<()> {
    for layout in every_layout() {
        let bed = Bed::new(layout)?;
        let _steelyard = Steelyard::running(&bed, &Config::of(&bed))?;
        for (protocol, seen) in [
            ("tcp", Requests::new(bed.service(), 600).tcp(&bed.client)?),
            ("udp", Requests::new(bed.service(), 600).udp(&bed.client)?),
        ] {
            seen.all_answered().with_context(|| format!("{layout:?} {protocol}"))?;
            for server in &bed.servers {
                // 600 requests over three equal servers: 200 on average, with a deviation of 12.
                ensure!(seen.of(&server.name) > 120, "{layout:?} {protocol}: {seen:?}");
            }
        }
    }
    Ok(())
}

const DOWNLOAD: u64 = 100_000_000;
const UPLOAD: u64 = 30_000_000;
