//! How the kernel runs the program: natively, or generically where the driver cannot.

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{Arms, Forward, Steelyard, client::Requests};

use super::{bed, bed_of, each_forward};

#[test]
fn generic_mode_forwards_too() -> Result<()> {
    for layout in each_forward().flat_map(|mode| [Arms::One, Arms::Two].map(|arms| mode.layout(arms))) {
        let (bed, mut config) = bed_of(layout)?;
        config.mode = "generic";
        let steelyard = Steelyard::running(&bed, &config)?;
        let interfaces = steelyard.status()?.datapath.interfaces;
        ensure!(interfaces.iter().all(|interface| interface.mode == "generic"), "{interfaces:?}");
        Requests::new(bed.service(), 200)
            .tcp(&bed.client)?
            .all_answered()
            .with_context(|| format!("{layout:?}"))?;
        Requests::new(bed.service(), 50)
            .udp(&bed.client)?
            .all_answered()
            .with_context(|| format!("{layout:?}"))?;
    }
    Ok(())
}

/// The loopback's driver has no XDP of its own.
#[test]
fn auto_falls_back_aloud() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Nat)?;
    config.mode = "auto";
    config.interfaces.push("lo".to_owned());
    let mut steelyard = Steelyard::running(&bed, &config)?;
    for start in ["the first", "after a restart"] {
        let status = steelyard.status()?;
        let mode = |name: &str| {
            let found = status.datapath.interfaces.iter().find(|interface| interface.name == name);
            found.map(|interface| interface.mode.clone())
        };
        ensure!(mode("eth0").as_deref() == Some("native"), "{start}: {status:?}");
        ensure!(mode("lo").as_deref() == Some("generic"), "{start}: {status:?}");
        let warned = |text: &str| text.contains("lo") && text.contains("generic");
        ensure!(status.warnings.iter().any(|text| warned(text)), "{start}: {:?}", status.warnings);
        let log = steelyard.log();
        ensure!(log.lines().any(|line| line.contains("WARN") && warned(line)), "{start}: {log}");
        Requests::new(bed.service(), 100).tcp(&bed.client)?.all_answered()?;
        steelyard.terminate()?;
        steelyard.start()?;
    }
    Ok(())
}

#[test]
fn native_refuses_where_the_driver_cannot() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Nat)?;
    config.interfaces.push("lo".to_owned());
    let steelyard = Steelyard::new(&bed, &config)?;
    let done = steelyard.cli(&["run"])?;
    ensure!(done.code == Some(1) && done.stderr.contains("interface lo"), "{done:?}");
    ensure!(!steelyard.attached("eth0")? && !steelyard.pin().exists(), "eth0 is half attached");
    Ok(())
}
