//! A configuration as large as they come: with the released program, `cargo build --release -p lb-user` and
//! `STEELYARD_BIN=target/release/steelyard cargo test -p lb-tests --test network -- large --nocapture`.

use std::{env, fmt::Write, time::Instant};

use anyhow::{Result, ensure};
use lb_tests::bed::{Arms, Bed, Forward, Steelyard, client::Requests};

use super::bed;

/// A first start, and one over the state of the one before.
#[test]
fn a_thousand_services_of_twenty_servers_start_within_three_seconds() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Nat)?;
    let mut steelyard = Steelyard::new(&bed, &config)?;
    let small = std::fs::read_to_string(steelyard.config_file())?;
    // A program with debug assertions shows that it starts, not how fast.
    let released = env::var_os("STEELYARD_BIN").is_some();
    let services = if released { 1_000 } else { 10 };
    let text = (0..services).try_fold(small, |text, number| service(&bed, text, number))?;
    steelyard.write_config(&text)?;
    for start in ["first", "second"] {
        let begin = Instant::now();
        steelyard.start()?;
        let taken = begin.elapsed();
        println!("{start} start of {services} services: {taken:?}");
        ensure!(!released || taken.as_secs() < 3, "the {start} start took {taken:?}");
        Requests::new(bed.service(), 20).tcp(&bed.client)?.all_answered()?;
        steelyard.kill9()?;
    }
    Ok(())
}

fn service(bed: &Bed, mut text: String, number: u16) -> Result<String> {
    let (vip, port) = (bed.vip(), 1_000 + number);
    writeln!(
        text,
        "\n[[service]]\nname = \"s{number}\"\naddress = \"{vip}\"\nport = {port}\nforward = \"nat\""
    )?;
    text.push_str("check = { type = \"none\" }\nserver = [\n");
    for server in 0..20 {
        let host = &bed.servers[server % bed.servers.len()];
        let address = host.at(bed.layout.server_family).ip();
        writeln!(text, "  {{ name = \"a{server}\", address = \"{address}:{}\" }},", 2_000 + server)?;
    }
    text.push_str("]\n");
    Ok(text)
}
