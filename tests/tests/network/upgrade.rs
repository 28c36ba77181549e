//! Other versions and other sizes: what is recorded moves along, or the start says that it cannot and the program that
//! is attached goes on.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use lb_common::{LAYOUT, flow_table};
use lb_tests::bed::{
    Arms, Bed, Check, Config, Forward, Steelyard,
    client::{Load, Requests, Session},
    steelyard::all_up,
};

use super::bed;

/// Pairs by `nat`, single records by a scheduler.
#[test]
fn recorded_flows_move_to_a_table_of_another_size() -> Result<()> {
    for forward in [Forward::Nat, Forward::Dsr] {
        let (bed, mut config) = bed(Arms::Two, forward)?;
        config.services[0].balance = Some("roundrobin");
        let mut steelyard = Steelyard::running(&bed, &config)?;
        let mut open = Open::new(&bed, 12)?;
        let load = Load::start(&bed.client, bed.service(), 2);
        for flows in [4_096, 400_000] {
            steelyard.kill9()?;
            config.flows = Some(flows);
            restart(&mut steelyard, &config)?;
            ensure!(entries(&steelyard, "flow_tags4")? == flow_table::buckets(flows));
            ensure!(!maps(&steelyard, "maps-old").exists(), "the old maps are left");
            open.check().with_context(|| format!("{forward:?} with {flows} flows"))?;
            open.more(&bed, 4)?;
        }
        load.stop()?.all_answered()?;
    }
    Ok(())
}

#[test]
fn a_ring_map_grows_with_the_configuration() -> Result<()> {
    let (bed, mut config) = bed(Arms::One, Forward::Dsr)?;
    let mut steelyard = Steelyard::running(&bed, &config)?;
    let before = entries(&steelyard, "ring")?;
    let mut open = Open::new(&bed, 12)?;
    let load = Load::start(&bed.client, bed.service(), 2);
    let large = config.add("large", 81);
    large.slots = Some(1 << 20);
    large.check = Check::None;
    steelyard.terminate()?;
    restart(&mut steelyard, &config)?;
    ensure!(entries(&steelyard, "ring")? > before);
    open.check()?;
    load.stop()?.all_answered()
}

/// The daemon ends between the move and its attachment: the old program goes on, and what it records meanwhile
/// follows.
#[test]
fn a_move_that_was_interrupted_is_completed() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Nat)?;
    let mut steelyard = Steelyard::running(&bed, &config)?;
    let mut open = Open::new(&bed, 6)?;
    steelyard.terminate()?;
    let other = Config { mode: "generic", flows: Some(4_096), ..config.clone() };
    steelyard.configure(&other)?;
    let refused = steelyard.cli(&["run"])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("native"), "{refused:?}");
    ensure!(maps(&steelyard, "maps-old").exists(), "nothing was moved");
    open.check()?;
    open.more(&bed, 6)?;
    restart(&mut steelyard, &Config { flows: Some(8_192), ..config })?;
    ensure!(!maps(&steelyard, "maps-old").exists(), "the old maps are left");
    ensure!(entries(&steelyard, "flow_tags4")? == flow_table::buckets(4_096), "one move at a time");
    open.check()
}

#[test]
fn the_state_of_another_version_goes_on_forwarding() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Nat)?;
    let mut steelyard = Steelyard::running(&bed, &config)?;
    let mut open = Open::new(&bed, 6)?;
    steelyard.terminate()?;
    let (ours, theirs) = (steelyard.pin().join(LAYOUT), steelyard.pin().join("v1"));
    fs::rename(&ours, &theirs)?;
    refused(&steelyard, &["`v1`", "goes on forwarding", "steelyard detach"])?;
    open.check()?;
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()?;
    let detached = steelyard.cli(&["detach"])?;
    ensure!(detached.code == Some(0) && !steelyard.pin().exists(), "{detached:?}");
    restart(&mut steelyard, &config)?;
    Requests::new(bed.service(), 50).tcp(&bed.client)?.all_answered()
}

#[test]
fn a_map_of_another_shape_is_refused() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Nat)?;
    let mut steelyard = Steelyard::running(&bed, &config)?;
    let mut open = Open::new(&bed, 6)?;
    steelyard.terminate()?;
    let (turns, kept) = (maps(&steelyard, "maps").join("turns"), maps(&steelyard, "maps").join("kept"));
    fs::rename(&turns, &kept)?;
    MapData::from_pin(maps(&steelyard, "maps").join("load"))?.pin(&turns)?;
    for flows in [None, Some(4_096)] {
        steelyard.configure(&Config { flows, ..config.clone() })?;
        refused(&steelyard, &["turns", "capacity", "steelyard detach"])?;
        open.check()?;
    }
    fs::rename(&kept, &turns)?;
    restart(&mut steelyard, &config)?;
    open.check()
}

fn refused(steelyard: &Steelyard, words: &[&str]) -> Result<()> {
    let done = steelyard.cli(&["run"])?;
    let last = done.stderr.lines().last().unwrap_or_default();
    ensure!(done.code == Some(1) && words.iter().all(|word| last.contains(word)), "{done:?}");
    Ok(())
}

fn maps(steelyard: &Steelyard, directory: &str) -> PathBuf {
    steelyard.pin().join(LAYOUT).join(directory)
}

fn entries(steelyard: &Steelyard, name: &str) -> Result<u32> {
    Ok(MapData::from_pin(maps(steelyard, "maps").join(name))?.info()?.max_entries())
}

fn restart(steelyard: &mut Steelyard<'_>, config: &Config) -> Result<()> {
    steelyard.configure(config)?;
    steelyard.start()?;
    steelyard.wait("every server to be up", all_up)?;
    Ok(())
}

/// Connections that stay.
struct Open(Vec<Session>);

impl Open {
    fn new(bed: &Bed, count: usize) -> Result<Open> {
        let mut open = Open(Vec::new());
        open.more(bed, count)?;
        Ok(open)
    }

    fn more(&mut self, bed: &Bed, count: usize) -> Result<()> {
        for _ in 0..count {
            self.0.push(Session::open(&bed.client, bed.service())?);
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        for session in &mut self.0 {
            let server = session.who().with_context(|| format!("a connection to {}", session.server))?;
            ensure!(server == session.server, "{} became {server}", session.server);
        }
        Ok(())
    }
}
