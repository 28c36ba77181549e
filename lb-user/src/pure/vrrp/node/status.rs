//! What operators see of the routers.

use std::time::Instant;

use super::{Instance, Node, instance::Shown};
use crate::pure::{
    config::model::vrrp::{Address, Preempt},
    status::{GroupStatus, RouterStatus, TimersStatus, VrrpStatus},
    vrrp::group,
};

pub(super) fn of(node: &Node, now: Instant) -> VrrpStatus {
    let routers = node.instances.values().map(|instance| router(node, instance, now)).collect();
    let groups = node.groups.keys().map(|name| {
        let members = node.members(name);
        GroupStatus {
            name: name.clone(),
            state: group::common(&members).map_or("mixed", |state| state.name()).to_owned(),
            members: members.iter().map(|member| member.name.to_owned()).collect(),
        }
    });
    let refused = node.refused.iter().map(|(refusal, &count)| (refusal.name().to_owned(), count)).collect();
    VrrpStatus { routers, groups: groups.collect(), peers: node.peers.pulse.status(now), refused }
}

fn router(node: &Node, instance: &Instance, now: Instant) -> RouterStatus {
    let config = &instance.config;
    let Shown { reason, since, transitions, timer, next, senders, counters } = instance.shown(now);
    let addresses = config.addresses.iter().chain(&config.excluded);
    RouterStatus {
        name: config.name.clone(),
        interface: config.interface.clone(),
        vrid: config.vrid,
        family: config.family.name().to_owned(),
        version: config.version.number(),
        state: instance.state().name().to_owned(),
        reason,
        state_ms: now.saturating_duration_since(since).as_millis() as u64,
        transitions,
        priority: config.priority,
        priority_effective: instance.priority(),
        preempt: config.preempt != Preempt::Never,
        addresses: addresses.map(|Address { address, prefix, .. }| format!("{address}/{prefix}")).collect(),
        group: instance.group.clone(),
        timers: TimersStatus {
            interval_ms: config.interval.as_millis() as u64,
            master_interval_ms: timer.interval.as_millis() as u64,
            skew_us: timer.skew().as_micros() as u64,
            master_down_us: timer.master_down().as_micros() as u64,
            next_us: next.map(|next| next.saturating_duration_since(now).as_micros() as u64),
        },
        senders,
        tracked: instance.counted(&node.world).iter().map(|counted| counted.status()).collect(),
        counters,
    }
}
