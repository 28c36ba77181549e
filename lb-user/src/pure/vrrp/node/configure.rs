//! What a reload changes: routers that stay are not disturbed, and an address that stays never leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{End, Event, Group, Happening, Instance, Node, RouterId, State};
use crate::pure::config::{
    model::vrrp::{Router as Config, Track, Vrrp},
    network::Family,
};

/// What a router is on the wire. Another one is another router, whatever its name.
type Identity = (String, u8, Family, u8);

fn identity(config: &Config) -> Identity {
    (config.interface.clone(), config.vrid, config.family, config.version.number())
}

impl Node {
    pub(super) fn configure(&mut self, now: Instant, vrrp: Vrrp) {
        let wanted: BTreeSet<Identity> = vrrp.routers.iter().map(identity).collect();
        let gone = self.instances.values().filter(|instance| !wanted.contains(&identity(&instance.config)));
        for id in gone.map(|instance| instance.id).collect::<Vec<_>>() {
            self.with(now, id, |instance, hands| instance.end(hands, End::Deleted));
            self.peers.forget(id);
            if let Some(at) = self.instances.remove(&id).and_then(|instance| instance.armed) {
                self.timers.remove(&(at, id));
            }
        }
        let there: BTreeMap<Identity, RouterId> =
            self.instances.values().map(|instance| (identity(&instance.config), instance.id)).collect();
        let ids: BTreeMap<String, RouterId> = vrrp
            .routers
            .iter()
            .map(|config| {
                let id = there.get(&identity(config)).copied();
                (config.name.clone(), id.unwrap_or_else(|| self.add(now, config)))
            })
            .collect();
        self.regroup(now, &vrrp, &ids);
        for config in vrrp.routers {
            let id = ids.get(&config.name).copied();
            let Some(id) = id else { continue };
            if self.instances.get(&id).is_some_and(|instance| instance.config != config) {
                self.with(now, id, |instance, hands| instance.reconfigure(hands, config));
            }
        }
        self.index_addresses();
        self.judge(now, &self.ids());
        self.promote_owners(now);
        self.index_interfaces();
        let instances = &self.instances;
        self.world.keep_verdicts(|what| instances.values().any(|instance| instance.tracks(what)));
    }

    fn add(&mut self, now: Instant, config: &Config) -> RouterId {
        let id = RouterId(self.next_id);
        self.next_id += 1;
        let Node { instances, world, sequencer, pacers, outbox, .. } = self;
        let mut hands = super::Hands { now, world, sequencer, pacers, outbox };
        instances.insert(id, Instance::new(id, config.clone(), &mut hands));
        id
    }

    fn regroup(&mut self, now: Instant, vrrp: &Vrrp, ids: &BTreeMap<String, RouterId>) {
        let mut before = std::mem::take(&mut self.groups);
        let mut member_of: BTreeMap<RouterId, (String, Vec<Track>)> = BTreeMap::new();
        for group in &vrrp.groups {
            let members: BTreeSet<_> =
                group.members.iter().filter_map(|name| ids.get(name).copied()).collect();
            for &id in &members {
                member_of.insert(id, (group.name.clone(), group.track.clone()));
            }
            let told = before.remove(&group.name).and_then(|group| group.told);
            self.groups.insert(group.name.clone(), Group { members, told });
        }
        for group in before.into_keys() {
            self.outbox.told.push(Happening::GroupEnded { group, how: End::Deleted });
        }
        for id in self.ids() {
            let (group, track) = match member_of.remove(&id) {
                Some((group, track)) => (Some(group), track),
                None => (None, Vec::new()),
            };
            self.with(now, id, |instance, hands| instance.join(hands, group, track));
        }
    }

    fn index_addresses(&mut self) {
        self.by_address.clear();
        for (&id, instance) in &self.instances {
            for address in instance.config.addresses.iter().chain(&instance.config.excluded) {
                self.by_address.entry(address.address).or_default().push(id);
            }
        }
    }

    /// Those that a reload made owners.
    fn promote_owners(&mut self, now: Instant) {
        for id in self.ids() {
            let is_due = |instance: &Instance| {
                instance.config.is_owner() && instance.group.is_none() && instance.state() == State::Backup
            };
            if self.instances.get(&id).is_some_and(is_due) {
                self.event(now, id, Event::Claim("it owns the addresses"));
            }
        }
    }
}
