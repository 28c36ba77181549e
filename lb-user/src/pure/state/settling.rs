//! Which slots may settle: the state's side of `settle`.

use lb_common::{
    entry::Mode,
    flow::{FlowKey, Ticks, Tuple},
    hash::{self, FlowTuple},
    net::{Be16, Family as _, V6},
    slot::ServerId,
};

use super::{
    State,
    entries::{client_ticks, idle_ticks, mode},
};
use crate::pure::{
    config::model,
    notice::Notice,
    settle::{self, Records, Site, Survey, Terms},
};

/// Slots that one round's end looks at; the others wait for the next.
const SLOTS_PER_ROUND: usize = 1 << 20;

impl State {
    /// Time passes.
    pub fn clock(&mut self, now: Ticks) {
        self.now = now;
    }

    /// Time passes. `refused`: when a flow of a service, given by its id, last went without a record.
    pub fn advance(&mut self, now: Ticks, refused: impl Fn(u32) -> Option<Ticks>) {
        self.now = now;
        let stamped = |id: u32| Some((id, refused(id)?));
        self.refused = self.services.iter().filter_map(|service| stamped(service.place.id)).collect();
    }

    /// A round over the flow tables ended: the next plan lets slots go on that may.
    pub(super) fn surveyed(&mut self, survey: Survey) -> Option<Notice> {
        let notice = self.watch_flows(survey.fullest);
        self.survey = survey;
        let services = self.services.len();
        let first = self.settle_from;
        let mut looked_at = 0;
        for index in (0..services).map(|step| (first + step) % services) {
            if looked_at >= SLOTS_PER_ROUND {
                break;
            }
            for ring in 0..self.services[index].rings.len() {
                looked_at += self.find_due(index, ring);
            }
            self.settle_from = index + 1;
        }
        notice
    }

    /// Marks a ring with slots that may go on; returns how many it looked at.
    fn find_due(&mut self, index: usize, ring: usize) -> usize {
        let service = &self.services[index];
        let state = &service.rings[ring];
        if state.slots.unsettled == 0 {
            return 0;
        }
        let base = service.place.rings[ring];
        let Some(slots) = self.installed.rings.get(&base) else { return 0 };
        let terms = self.terms(index, base);
        let mut ages = (0u32..).zip(slots.iter().zip(&state.since));
        let due = ages.any(|(position, (&slot, &since))| settle::next(slot, since, position, &terms) != slot);
        let looked_at = slots.len();
        self.services[index].rings[ring].due |= due;
        self.stale |= due;
        looked_at
    }

    /// What the slots of a service's ring are judged by.
    pub(super) fn terms(&self, index: usize, ring: u32) -> Terms<'_> {
        let idle_ticks = self.longest_idle(index);
        let refused = self.refused.get(&self.services[index].place.id);
        Terms {
            began: self.survey.began,
            idle_ticks,
            refused: refused.is_some_and(|&at| self.now.since(at) < idle_ticks),
            records: records(&self.config.services[index]),
            others: self.survey.others(ring),
        }
    }

    /// T of a service with two protocols is the longer one: a slot does not know its connections'.
    pub(super) fn longest_idle(&self, index: usize) -> u32 {
        let service = &self.config.services[index];
        if service.by_client() {
            return client_ticks(service);
        }
        service.protocols.iter().map(|&protocol| idle_ticks(service, protocol)).max().unwrap_or(0)
    }

    /// The slot that a client's record stands beside; None: none asks for it.
    pub fn site<F: lb_common::net::Family>(
        &self,
        id: ServerId,
        key: &FlowKey<F>,
        now: Ticks,
    ) -> Option<Site> {
        let index = self.servers.get(&id)?.index?;
        let (service, configured) = (&self.services[index], &self.config.services[index]);
        let by_client = configured.by_client();
        if by_client != key.is_of_client() {
            return None;
        }
        // In the order of `Service::rings`.
        let ring = if service.rings.len() > 1 && F::ICMP == V6::ICMP { 1 } else { 0 };
        let (&base, state) = (service.place.rings.get(ring)?, service.rings.get(ring)?);
        let records = records(configured);
        if records == Records::Always && state.slots.unsettled == 0 {
            return None;
        }
        let slots = self.installed.rings.get(&base)?;
        let Tuple { source, source_port, destination_port, .. } = key.tuple();
        let hashed = match by_client {
            true => FlowTuple { source, source_port: Be16(0), destination_port: Be16(0) },
            false => FlowTuple { source, source_port, destination_port },
        };
        let position = hash::flow::<F>(self.hash_key, hashed) & (slots.len() as u32).wrapping_sub(1);
        let slot = *slots.get(position as usize)?;
        let since = state.since.get(position as usize).copied().unwrap_or(now);
        let is_due = slot.lookup() && now.since(since) >= self.longest_idle(index);
        Some(Site { ring: base, position, slot, records, is_due })
    }

    /// Tells once that a flow table fills, and once that it has room again.
    fn watch_flows(&mut self, fullest: u64) -> Option<Notice> {
        let max = u64::from(self.flows_max);
        let crowded = fullest * 100 >= max * if self.crowded { CROWDED_UNTIL } else { CROWDED_FROM };
        let changed = std::mem::replace(&mut self.crowded, crowded) != crowded;
        changed.then_some(match crowded {
            true => Notice::FlowsCrowded { records: fullest, max },
            false => Notice::FlowsEased { records: fullest, max },
        })
    }
}

/// Who looks up the records of a service's flows.
pub(super) fn records(service: &model::Service) -> Records {
    let pairs = matches!(mode(service.forward), Mode::Nat | Mode::Gateway) && !service.by_client();
    if pairs || !service.balance.is_hash() { Records::Always } else { Records::Unsettled }
}

/// Percent of the records configured; between the two nothing changes.
const CROWDED_FROM: u64 = 80;
const CROWDED_UNTIL: u64 = 70;

#[cfg(test)]
mod tests;
