//! What another configuration would do, before it is done: a plan of a copy of the state, and its difference in words.

use std::{collections::BTreeMap, sync::Arc};

use lb_common::slot::Slot;

use super::{
    config::model::{Config, Server, Service},
    place::PlaceError,
    plan::Step,
    state::State,
    status::{PlanStatus, ServicePlan},
};

/// A configuration tried on a copy.
pub struct Tried {
    /// As it will be once the steps are carried out.
    pub state: State,
    pub steps: Vec<Step>,
    pub plan: PlanStatus,
}

impl State {
    /// Plans with another configuration; this state stays as it is.
    pub fn tried(&self, config: Config, secret: &[u8]) -> Result<Tried, PlaceError> {
        let mut state = self.clone();
        state.reconfigure(config, secret)?;
        let breaks = state.breaks();
        let steps = state.plan();
        let plan = self.compared(&state, breaks);
        Ok(Tried { state, steps, plan })
    }

    fn compared(&self, next: &State, breaks: Vec<String>) -> PlanStatus {
        let flows = self.flows_by_service();
        let before: BTreeMap<_, _> = self.by_name().collect();
        let after: BTreeMap<_, _> = next.by_name().collect();
        let changed = after.iter().map(|(name, &index)| match before.get(name) {
            Some(&old) => self.kept(next, old, index, &flows),
            None => next.appeared(index),
        });
        let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
        let services: Vec<_> = changed.chain(gone.map(|(_, &index)| self.gone(index, &flows))).collect();
        // Nobody is moved by a service that is new.
        let standing = services.iter().filter(|service| service.change != NEW);
        let slots: u64 = standing.map(|service| u64::from(service.slots)).sum();
        let moved: u64 = services.iter().map(|service| u64::from(service.slots_moved)).sum();
        PlanStatus {
            percent_moved: percent(moved, slots),
            services,
            breaks,
            ends: self.ends(next, &flows),
            next_start: next_start(&self.at_start, &next.config),
        }
    }

    /// Services that no longer take the packets they took.
    fn ends(&self, next: &State, flows: &Flows) -> Vec<String> {
        let kept: Vec<_> = next.services.iter().map(|service| service.place.id).collect();
        let services = self.services.iter().zip(&self.config.services).enumerate();
        let gone = services.filter(|(_, (state, _))| !kept.contains(&state.place.id));
        gone.map(|(index, (_, service))| {
            let flows = self.flows_of(index, flows);
            format!("the connections of service {} end: nothing takes its address and port ({flows} flows are recorded)", service.name)
        })
        .collect()
    }

    fn by_name(&self) -> impl Iterator<Item = (&str, usize)> {
        self.config.services.iter().enumerate().map(|(index, service)| (service.name.as_str(), index))
    }

    fn kept(&self, next: &State, old: usize, new: usize, flows: &Flows) -> ServicePlan {
        let (before, after) = (&self.config.services[old], &next.config.services[new]);
        let (slots, slots_moved) = moved(&self.rings_of(old), &next.rings_of(new));
        let (added, removed, changed) = servers(before, after);
        let same = before == after;
        ServicePlan {
            name: after.name.clone(),
            change: if same { "unchanged" } else { "changed" }.to_owned(),
            slots,
            slots_moved,
            percent_moved: percent(slots_moved.into(), slots.into()),
            flows: self.flows_of(old, flows),
            servers_added: added,
            servers_removed: removed,
            servers_changed: changed,
        }
    }

    fn appeared(&self, index: usize) -> ServicePlan {
        let service = &self.config.services[index];
        let slots = count(&self.rings_of(index));
        ServicePlan {
            name: service.name.clone(),
            change: NEW.to_owned(),
            slots,
            servers_added: service.servers.iter().map(|server| server.name.clone()).collect(),
            ..ServicePlan::default()
        }
    }

    fn gone(&self, index: usize, flows: &Flows) -> ServicePlan {
        let service = &self.config.services[index];
        let slots = count(&self.rings_of(index));
        ServicePlan {
            name: service.name.clone(),
            change: "removed".to_owned(),
            slots,
            slots_moved: slots,
            percent_moved: 100.0,
            flows: self.flows_of(index, flows),
            servers_removed: service.servers.iter().map(|server| server.name.clone()).collect(),
            ..ServicePlan::default()
        }
    }

    /// The rings of a service, as they are installed.
    fn rings_of(&self, index: usize) -> Vec<Arc<Vec<Slot>>> {
        let bases = self.services[index].place.rings.iter();
        bases.filter_map(|base| self.installed.rings.get(base).cloned()).collect()
    }

    /// Recorded ones, by service id.
    fn flows_by_service(&self) -> Flows {
        let mut flows = Flows::new();
        for (id, server) in &self.servers {
            *flows.entry(server.service).or_default() += self.records.get(id).copied().unwrap_or(0);
        }
        flows
    }

    fn flows_of(&self, index: usize, flows: &Flows) -> u64 {
        flows.get(&self.services[index].place.id).copied().unwrap_or(0)
    }
}

/// By service id.
type Flows = BTreeMap<u32, u64>;

/// All slots, and those that give new connections to another server; all of them when their number changes.
fn moved(old: &[Arc<Vec<Slot>>], new: &[Arc<Vec<Slot>>]) -> (u32, u32) {
    let slots = count(new);
    if !old.iter().map(|ring| ring.len()).eq(new.iter().map(|ring| ring.len())) {
        return (slots, slots);
    }
    let changed = old.iter().zip(new).filter(|(old, new)| !Arc::ptr_eq(old, new));
    let pairs = changed.flat_map(|(old, new)| old.iter().zip(new.iter()));
    (slots, pairs.filter(|(old, new)| old.current() != new.current()).count() as u32)
}

fn count(rings: &[Arc<Vec<Slot>>]) -> u32 {
    rings.iter().map(|ring| ring.len() as u32).sum()
}

/// Servers that come, that go, and that change, the last ones with what changes.
fn servers(before: &Service, after: &Service) -> (Vec<String>, Vec<String>, Vec<String>) {
    let find = |servers: &[Server], wanted: &Server| {
        servers.iter().find(|server| server.address == wanted.address).cloned()
    };
    let names = |servers: Vec<&Server>| servers.into_iter().map(|server| server.name.clone()).collect();
    let added = after.servers.iter().filter(|server| find(&before.servers, server).is_none());
    let removed = before.servers.iter().filter(|server| find(&after.servers, server).is_none());
    let changed = after.servers.iter().filter_map(|new| {
        let what = changes(&find(&before.servers, new)?, new);
        (!what.is_empty()).then(|| format!("{}: {}", new.name, what.join(", ")))
    });
    (names(added.collect()), names(removed.collect()), changed.collect())
}

fn changes(old: &Server, new: &Server) -> Vec<String> {
    let mut changes = Vec::new();
    if old.name != new.name {
        changes.push(format!("was {}", old.name));
    }
    if old.weight != new.weight {
        changes.push(format!("weight {} to {}", old.weight, new.weight));
    }
    if old.admin != new.admin {
        changes.push(format!("{} to {}", old.admin.name(), new.admin.name()));
    }
    if old.backup != new.backup {
        changes.push(if new.backup { "now a backup" } else { "no longer a backup" }.to_owned());
    }
    changes
}

/// Settings that a running daemon does not change.
fn next_start(old: &Config, new: &Config) -> Vec<String> {
    let differs = [
        ("[global] node", old.global.node != new.global.node),
        ("[global] admin_socket", old.global.admin_socket != new.global.admin_socket),
        ("[global] state", old.global.state != new.global.state),
        ("[datapath] mode", old.datapath.mode != new.datapath.mode),
        ("[datapath] flows", old.datapath.flows != new.datapath.flows),
        ("[datapath] pin", old.datapath.pin != new.datapath.pin),
        ("[log] level", old.log != new.log),
    ];
    let differing = differs.iter().filter(|(_, differs)| *differs);
    differing.map(|(name, _)| format!("{name} changes at the next start")).collect()
}

const NEW: &str = "new";

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}
