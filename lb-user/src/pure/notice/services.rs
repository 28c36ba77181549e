//! Which services have lost their last usable server, and which have one again: told by the snapshots.

use std::collections::BTreeMap;

use super::Notice;
use crate::pure::snapshot::{ServiceView, Snapshot};

/// What was last seen of each service.
#[derive(Debug, Default)]
pub struct Services {
    served: BTreeMap<String, bool>,
}

impl Services {
    /// What changed since the last snapshot. A service that is seen for the first time is no change.
    pub fn compare(&mut self, snapshot: &Snapshot) -> Vec<Notice> {
        let mut notices = Vec::new();
        let mut served = BTreeMap::new();
        for service in &snapshot.services {
            let usable = service.usable();
            match (self.served.get(&service.name), usable > 0) {
                (Some(false), true) => notices.push(up(service, usable)),
                (Some(true), false) => notices.push(down(service)),
                (Some(_) | None, _) => {}
            }
            served.insert(service.name.clone(), usable > 0);
        }
        self.served = served;
        notices
    }
}

fn up(service: &ServiceView, usable: usize) -> Notice {
    let detail = format!("{usable} of {} servers usable", service.servers.len());
    Notice::ServiceUp { service: service.name.clone(), detail }
}

fn down(service: &ServiceView) -> Notice {
    let detail = format!("none of {} servers usable", service.servers.len());
    Notice::ServiceDown { service: service.name.clone(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::{
        config::parse,
        plan::Tables,
        state::{Start, State},
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

    /// A snapshot in which these servers are usable.
    fn snapshot(usable: [bool; 2]) -> Snapshot {
        let config = parse("steelyard.toml", CONFIG).unwrap().config;
        let start = Start {
            config,
            secret: b"hush",
            pinned: Tables::default(),
            ring_slots: 1 << 16,
            flows_max: 262_144,
            now: crate::pure::testing::an_instant(),
        };
        let mut snapshot = State::new(start).unwrap().snapshot();
        for (server, usable) in snapshot.services[0].servers.iter_mut().zip(usable) {
            server.usable = usable;
        }
        snapshot
    }

    #[test]
    fn the_last_server_takes_the_service_down_and_the_first_brings_it_back() {
        let mut services = Services::default();
        let down = Notice::ServiceDown { service: "web".into(), detail: "none of 2 servers usable".into() };
        let up = Notice::ServiceUp { service: "web".into(), detail: "1 of 2 servers usable".into() };
        for (usable, expected) in [
            ([true, true], vec![]),
            ([true, false], vec![]),
            ([false, false], vec![down.clone()]),
            ([false, false], vec![]),
            ([false, true], vec![up]),
            ([true, true], vec![]),
        ] {
            assert_eq!(services.compare(&snapshot(usable)), expected, "{usable:?}");
        }
    }

    #[test]
    fn a_service_that_is_new_is_no_news() {
        let mut services = Services::default();
        assert_eq!(services.compare(&snapshot([false, false])), []);
    }
}
