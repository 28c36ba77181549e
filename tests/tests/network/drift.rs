//! Somebody else writes to the maps: the daemon puts back what it installed, and no connection ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData, xdp::DevMapHash};
use lb_tests::bed::{
    Arms, Forward, Steelyard,
    client::{Requests, Session},
    poll,
    topology::interface_index,
};

use super::bed;

#[test]
fn what_somebody_changed_is_mended() -> Result<()> {
    let (bed, config) = bed(Arms::Two, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let mut sessions: Vec<_> =
        (0..12).map(|_| Session::open(&bed.client, bed.service())).collect::<Result<_>>()?;
    let mut servers = Words::<SERVER>::open(&steelyard, "servers")?;
    let mut services = Words::<SERVICE>::open(&steelyard, "services4")?;
    let mut ring = Words::<1>::open(&steelyard, "ring")?;
    let mut devices = DevMapHash::try_from(Map::DevMapHash(pinned(&steelyard, "devices")?))?;
    let back = interface_index(&bed.balancer.namespace, "eth1")?;

    let server = servers.change(|words| words[0] ^= 0xff)?;
    let service = services.change(|words| *words = [0; SERVICE])?;
    let slot = ring.change(|words| *words = [0])?;
    devices.remove(back)?;

    poll("every table to be as it was", ROUND * 2, || {
        let words = servers.holds(server) && services.holds(service) && ring.holds(slot);
        (words && devices.get(back, 0).is_ok()).then_some(())
    })?;
    for word in ["server web/web", "a slot of service web", "service ", &format!("device {back}")] {
        ensure!(steelyard.log().contains(word), "the log does not name {word}");
    }
    for session in &mut sessions {
        ensure!(session.who()? == session.server);
    }
    Requests::new(bed.service(), 100).tcp(&bed.client)?.all_answered()
}

/// An array map, and what one of its values was.
struct Words<const N: usize>(Array<MapData, [u64; N]>);

impl<const N: usize> Words<N> {
    fn open(steelyard: &Steelyard, name: &str) -> Result<Self> {
        Ok(Words(Array::try_from(Map::Array(pinned(steelyard, name)?))?))
    }

    /// Damages the first value that is in use; returns where it stands, and as what.
    fn change(&mut self, damage: impl FnOnce(&mut [u64; N])) -> Result<(u32, [u64; N])> {
        let used = (0..self.0.len()).find_map(|index| {
            let words = self.0.get(&index, 0).ok()?;
            (words != [0; N]).then_some((index, words))
        });
        let (index, before) = used.context("a map in use has values")?;
        let mut words = before;
        damage(&mut words);
        self.0.set(index, words, 0)?;
        Ok((index, before))
    }

    fn holds(&self, (index, words): (u32, [u64; N])) -> bool {
        self.0.get(&index, 0).is_ok_and(|found| found == words)
    }
}

fn pinned(steelyard: &Steelyard, name: &str) -> Result<MapData> {
    let path = steelyard.pin().join(lb_common::LAYOUT).join("maps").join(name);
    MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))
}

/// Words of a value.
const SERVER: usize = size_of::<lb_common::entry::ServerEntry>() / 8;
const SERVICE: usize = size_of::<lb_common::entry::ServiceEntry<lb_common::net::V4>>() / 8;
const ROUND: Duration = Duration::from_secs(10);
