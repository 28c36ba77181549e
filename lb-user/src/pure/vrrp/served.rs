//! Whether this node serves what its routers stand for: services and the data path, as the snapshots show them.

use std::collections::{BTreeMap, BTreeSet};

use super::node::Verdict;
use crate::pure::{
    config::model::{
        Admin,
        vrrp::{Tracked, Vrrp},
    },
    health::UNCHECKED,
    snapshot::{ServerView, ServiceView, Snapshot},
};

/// What was last said of each.
#[derive(Debug, Default)]
pub struct Served {
    told: BTreeMap<Tracked, Verdict>,
}

impl Served {
    /// What changed since it was last asked. `forwards`: every configured interface has the program, and the tables
    /// are as planned.
    pub fn compare(&mut self, vrrp: &Vrrp, snapshot: &Snapshot, forwards: bool) -> Vec<(Tracked, Verdict)> {
        let tracked = tracked(vrrp);
        self.told.retain(|what, _| tracked.contains(what));
        let mut changes = Vec::new();
        for what in tracked {
            let verdict = match what {
                Tracked::Service(name) => {
                    let view = snapshot.services.iter().find(|service| service.name == *name);
                    view.map_or(Verdict::Unknown, service)
                }
                Tracked::Datapath if forwards => Verdict::Up,
                Tracked::Datapath => Verdict::Down,
                Tracked::Interface(_) | Tracked::Script(_) | Tracked::Process(_) | Tracked::File(_) => {
                    continue;
                }
            };
            // What was known stays until something else is: new servers are checked within a moment.
            if verdict != Verdict::Unknown && self.told.insert(what.clone(), verdict) != Some(verdict) {
                changes.push((what.clone(), verdict));
            }
        }
        changes
    }

    /// It could not be said: it is said again.
    pub fn forget(&mut self, what: &Tracked) {
        self.told.remove(what);
    }

    /// All of it is said again.
    pub fn forget_all(&mut self) {
        self.told.clear();
    }
}

/// Everything that some router or group tracks.
pub fn tracked(vrrp: &Vrrp) -> BTreeSet<&Tracked> {
    let routers = vrrp.routers.iter().flat_map(|router| &router.track);
    let groups = vrrp.groups.iter().flat_map(|group| &group.track);
    routers.chain(groups).map(|track| &track.what).collect()
}

/// A server without any result yet says nothing, though it may be used.
fn service(view: &ServiceView) -> Verdict {
    let is_known = |server: &&ServerView| server.health != UNCHECKED;
    let mut usable = view.servers.iter().filter(|server| server.usable && server.weight > 0);
    let mut awaited = view.servers.iter().filter(|server| server.admin == Admin::Ready && server.weight > 0);
    if usable.any(|server| is_known(&server)) {
        Verdict::Up
    } else if awaited.all(|server| is_known(&server)) {
        Verdict::Down
    } else {
        Verdict::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::{
        config::{
            model::vrrp::{Effect, Group, Hooks, Track},
            parse,
        },
        plan::Tables,
        state::{Start, State},
        testing::an_instant,
    };

    const CONFIG: &str = r#"
[cluster]
secret = "hush"
[datapath]
interfaces = ["eth0"]
[[service]]
name = "web"
address = "10.0.5.96"
port = 80
forward = "nat"
server = [{ name = "a", address = "10.0.5.91:80" }, { name = "b", address = "10.0.5.92:80" }]
"#;

    /// Each server's health, and whether it is usable.
    fn snapshot(servers: [(&'static str, bool); 2]) -> Snapshot {
        let start = Start {
            config: parse("steelyard.toml", CONFIG).unwrap().config,
            secret: b"hush",
            pinned: Tables::default(),
            ring_slots: 1 << 16,
            flows_max: 262_144,
            now: an_instant(),
        };
        let mut snapshot = State::new(start).unwrap().snapshot();
        for (server, (health, usable)) in snapshot.services[0].servers.iter_mut().zip(servers) {
            (server.health, server.usable) = (health, usable);
        }
        snapshot
    }

    fn vrrp(tracked: &[Tracked]) -> Vrrp {
        let track = |what: &Tracked| Track { what: what.clone(), effect: Effect::Fault { reverse: false } };
        let group = Group {
            name: "G".to_owned(),
            members: Vec::new(),
            track: tracked.iter().map(track).collect(),
            notify: Hooks::default(),
        };
        Vrrp { groups: vec![group], ..Vrrp::default() }
    }

    fn web() -> Tracked {
        Tracked::Service("web".to_owned())
    }

    #[test]
    fn a_service_is_down_once_it_is_known_that_no_server_is_usable() {
        let vrrp = vrrp(&[web()]);
        let mut served = Served::default();
        for (servers, expected) in [
            ([("unchecked", true), ("unchecked", true)], None),
            ([("down", false), ("unchecked", true)], None),
            ([("up", true), ("unchecked", true)], Some(Verdict::Up)),
            ([("up", true), ("down", false)], None),
            ([("going down", true), ("down", false)], None),
            ([("down", false), ("down", false)], Some(Verdict::Down)),
            ([("down", false), ("going up", false)], None),
            // Others take their place, and what was known stays until they are known.
            ([("unchecked", true), ("unchecked", true)], None),
            ([("down", false), ("no-check", true)], Some(Verdict::Up)),
        ] {
            let changes = served.compare(&vrrp, &snapshot(servers), true);
            let expected: Vec<_> = expected.map(|verdict| (web(), verdict)).into_iter().collect();
            assert_eq!(changes, expected, "{servers:?}");
        }
    }

    #[test]
    fn servers_in_maintenance_are_not_waited_for() {
        let mut snapshot = snapshot([("down", false), ("unchecked", false)]);
        snapshot.services[0].servers[1].admin = Admin::Maintenance;
        let changes = Served::default().compare(&vrrp(&[web()]), &snapshot, true);
        assert_eq!(changes, [(web(), Verdict::Down)]);
    }

    #[test]
    fn only_what_is_tracked_is_said_and_said_again_when_asked() {
        let snapshot = snapshot([("up", true), ("up", true)]);
        let datapath = vrrp(&[Tracked::Datapath]);
        let mut served = Served::default();
        assert_eq!(served.compare(&vrrp(&[]), &snapshot, true), []);
        assert_eq!(served.compare(&datapath, &snapshot, true), [(Tracked::Datapath, Verdict::Up)]);
        assert_eq!(served.compare(&datapath, &snapshot, true), []);
        assert_eq!(served.compare(&datapath, &snapshot, false), [(Tracked::Datapath, Verdict::Down)]);
        served.forget(&Tracked::Datapath);
        assert_eq!(served.compare(&datapath, &snapshot, false).len(), 1);
        let both = vrrp(&[Tracked::Datapath, web()]);
        assert_eq!(served.compare(&both, &snapshot, false), [(web(), Verdict::Up)]);
        served.forget_all();
        assert_eq!(served.compare(&both, &snapshot, false).len(), 2);
    }
}
