//! keepalived.conf files of operators, as they stand but for names and addresses: `steelyard run --keepalived` on one
//! node, the twin with Keepalived on the other, and then the other way round.

use std::{fs, net::IpAddr, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{Family, Pair, Steelyard, keepalived::Keepalived, vrrp::steelyard_config};

macro_rules! file {
    ($name:literal) => {
        include_str!(concat!("../../../lb-user/src/pure/import/keepalived/tests/files/", $name))
    };
}

/// The two files of a pair, and what is in them of the operator's network.
struct Seed {
    name: &'static str,
    /// The favourite's first.
    files: [&'static str; 2],
    interface: &'static str,
    address: &'static str,
}

const SEEDS: [Seed; 4] = [
    Seed {
        name: "000",
        files: [file!("000-ds1.conf"), file!("000-ds2.conf")],
        interface: "eno1",
        address: "10.0.5.96/20",
    },
    Seed {
        name: "001",
        files: [file!("001-node1.conf"), file!("001-node2.conf")],
        interface: "ens33",
        address: "192.168.0.123",
    },
    Seed {
        name: "003",
        files: [file!("003-lvs1.conf"), file!("003-lvs2.conf")],
        interface: "eth0",
        address: "192.168.4.15",
    },
    Seed {
        name: "004",
        files: [file!("004-162-tracked.conf"), file!("004-163.conf")],
        interface: "eth0",
        address: "172.20.0.248/16",
    },
];

/// All at once: most of the time is spent waiting for elections.
#[test]
fn a_node_can_be_swapped_in_a_running_pair() -> Result<()> {
    thread::scope(|scope| {
        let pairs: Vec<_> = SEEDS.iter().map(|seed| (seed.name, scope.spawn(|| swap(seed)))).collect();
        pairs.into_iter().try_for_each(|(name, pair)| {
            pair.join().map_err(|_| anyhow::anyhow!("{name} failed"))?.with_context(|| name)
        })
    })
}

/// Keepalived on the second node all along, Steelyard in the place of the first; then the other way round.
fn swap(seed: &Seed) -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let vip = Pair::vip(Family::V4, VIP);
    let files = [0, 1].map(|node| seed.mapped(&pair, node, vip));
    ensure!(files.iter().all(|file| !file.contains(seed.address)), "an address is not mapped");
    let mut first = Keepalived::new(&pair, 0, &files[0])?;
    let mut second = Keepalived::running(&pair, 1, &files[1])?;
    let held = |node: usize| pair.wait_for_holders(vip, &[node], ELECTED);

    held(1).context("the second of Keepalived alone")?;
    let mut favourite = ours(&pair, 0)?;
    favourite.start()?;
    held(0).context("steelyard is the favourite")?;
    favourite.terminate()?;
    held(1).context("steelyard stopped")?;

    first.start()?;
    held(0).context("the first of Keepalived came")?;
    second.stop()?;
    let mut other = ours(&pair, 1)?;
    other.start()?;
    other.wait("a router that takes part", |status| {
        status.vrrp.routers.iter().any(|router| router.state == "backup")
    })?;
    first.stop()?;
    held(1).context("steelyard takes over")
}

/// It reads the file that Keepalived reads.
fn ours(pair: &Pair, node: usize) -> Result<Steelyard<'_>> {
    let mut steelyard = pair.steelyard(node)?;
    steelyard.write_config(&steelyard_config(pair, &steelyard, node, &[], &[]))?;
    let file = pair.folder(node).join("keepalived.conf");
    steelyard.flags = vec!["--keepalived".to_owned(), file.display().to_string()];
    Ok(steelyard)
}

impl Seed {
    /// Scripts are there, and succeed; as fast as may be, since the pairs share a machine.
    fn mapped(&self, pair: &Pair, node: usize, vip: IpAddr) -> String {
        let prefix = if self.address.contains('/') { "/24" } else { "" };
        let scripts = pair.folder(node).display().to_string();
        for name in ["haproxy_check.sh", "vrrp_script.sh"] {
            // A file that cannot be written is a script that fails, which the scenario sees.
            let _ = fs::copy("/bin/true", pair.folder(node).join(name));
        }
        self.files[node]
            .replace(self.address, &format!("{vip}{prefix}"))
            .replace(&format!("interface {}", self.interface), "interface eth0")
            .replace("/etc/keepalived/scripts", &scripts)
            .replace("/etc/keepalived", &scripts)
    }
}

const VIP: u8 = 40;
const ELECTED: Duration = Duration::from_secs(15);
