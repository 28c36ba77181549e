//! Which servers may get new connections, how much of their share each takes, and what their checks should do.

use std::{collections::BTreeMap, time::Instant};

use lb_common::slot::ServerId;

use super::{ServerState, State};
use crate::pure::{
    config::model::{Admin, Balance},
    health::Change,
    notice::{By, Notice},
    report::Advice,
    schedule::{CheckId, Orders, Pace},
};

/// What decides over a server beside its health.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    /// Used though its checks fail: too few servers of its service pass theirs.
    needed: bool,
    /// So many of its connections failed in a row that its check was called.
    suspect: bool,
    /// As it was last told to the checks.
    pace: Pace,
}

impl Usage {
    pub(super) fn is_needed(&self) -> bool {
        self.needed
    }
}

impl State {
    /// Time passes: whoever was held may be up again, and shares grow.
    pub fn pass(&mut self, now: Instant) {
        self.clock = now;
        if self.wake.is_none_or(|wake| now < wake) {
            return;
        }
        let servers = self.servers.iter_mut();
        let changed: Vec<_> = servers
            .filter_map(|(&id, server)| server.health.advance(now).map(|change| (id, change)))
            .collect();
        for (id, change) in changed {
            let notice = self.changed(id, change, "its time is over".to_owned());
            self.notices.push(notice);
            self.order_pace(id);
        }
        self.wake = self.servers.values().filter_map(|server| server.health.deadline(now)).min();
        self.stale = true;
    }

    /// Whether every check has a first result.
    pub fn is_checked(&self) -> bool {
        self.servers.values().all(|server| server.health.is_known())
    }

    /// When time alone changes something next: `pass` is to be called then.
    pub fn deadline(&self) -> Option<Instant> {
        self.wake
    }

    /// What an operator should read of what no event told.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// What the checks should do other than before.
    pub fn take_orders(&mut self) -> Orders {
        std::mem::take(&mut self.orders)
    }

    /// What an operator reads before the last check's result; None: nothing is under way.
    pub(in crate::pure) fn progress(&self, server: &ServerState) -> Option<String> {
        let suspect = server.usage.suspect.then(|| "suspect".to_owned());
        let share = server.share(self.clock);
        let part = (server.usable() && share < 100).then(|| format!("takes {share} % of its share"));
        let parts: Vec<_> = suspect.into_iter().chain(server.health.detail(self.clock)).chain(part).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Takes the result of a server's check.
    pub(super) fn count(&mut self, id: ServerId, passed: bool) -> Option<Change> {
        let health = &mut self.servers.get_mut(&id)?.health;
        let change = health.handle(self.clock, passed);
        self.wake = self.wake.into_iter().chain(health.deadline(self.clock)).min();
        self.order_pace(id);
        change
    }

    /// What stands of a server's agent's advice.
    pub(super) fn advised(&mut self, id: ServerId, advice: Advice) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        if server.advice == advice {
            return;
        }
        let (before, weighed) = (server.admin(), server.advised_weight());
        server.advice = advice;
        let (after, weighs) = (server.admin(), server.advised_weight());
        self.stale = true;
        if before != after {
            let server = self.name(id);
            self.notices.push(Notice::Administered { server, from: before, to: after, by: By::Agent });
        }
        let configured = self.servers.get(&id).and_then(|server| self.configured_weight(server));
        if let Some(weight) = configured.filter(|_| weighed != weighs) {
            let part = |percent: u8| (u32::from(weight) * u32::from(percent)).div_ceil(100) as u16;
            let (server, from, to) = (self.name(id), part(weighed), part(weighs));
            self.notices.push(Notice::Weighted { server, from, to, by: By::Agent });
        }
    }

    /// That a server which an operator has given back is down, with why.
    pub fn down_though_ready(&self, service: &str, server: &str) -> Option<String> {
        let index = self.config.services.iter().position(|known| known.name == service)?;
        let position = self.config.services[index].servers.iter().position(|known| known.name == server)?;
        let known = self.servers.get(&self.services[index].servers[position])?;
        let usable = known.health.usable();
        (!usable).then(|| format!("{service}/{server} is {}: {}", known.health.name(), known.detail))
    }

    /// What the program compares servers by, with `leastconn` by the share they take; 0: it takes nothing new.
    pub(super) fn entry_weight(&self, server: &ServerState, index: usize, position: usize) -> u16 {
        let service = &self.config.services[index];
        let weight = service.servers[position].weight;
        if service.balance != Balance::LeastConn || weight == 0 {
            return weight;
        }
        let heaviest = service.servers.iter().map(|server| server.weight).max().unwrap_or(0);
        // In hundredths where they fit.
        let parts = if heaviest <= u16::MAX / 100 { 100 } else { 1 };
        let share = u32::from(server.share(self.clock));
        (u32::from(weight) * parts * share / 100).max(1) as u16
    }

    fn configured_weight(&self, server: &ServerState) -> Option<u16> {
        Some(self.config.services[server.index?].servers[server.position?].weight)
    }

    pub(super) fn changed(&mut self, id: ServerId, change: Change, detail: String) -> Notice {
        self.stale = true;
        let server = self.name(id);
        match change {
            Change::WentUp => Notice::Up { server, detail },
            Change::WentDown => Notice::Down { server, detail },
        }
    }

    fn order_pace(&mut self, id: ServerId) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        let pace = server.health.pace();
        if std::mem::replace(&mut server.usage.pace, pace) != pace {
            self.orders.set_pace(CheckId(id.0), pace);
        }
    }

    /// Connections of each server that failed in a row: those with too many are checked at once, and once.
    pub(super) fn suspected(&mut self, in_a_row: &BTreeMap<ServerId, u32>) {
        let mut news = Vec::new();
        for (&id, server) in &mut self.servers {
            let failed = in_a_row.get(&id).copied().unwrap_or(0);
            let limit = server.index.map_or(0, |index| self.config.services[index].suspect_after);
            let suspect = limit > 0 && failed >= limit && server.health.usable();
            if suspect && !server.usage.suspect {
                self.orders.expedite(CheckId(id.0));
                news.push((id, failed));
            }
            server.usage.suspect = suspect;
        }
        for (id, failed) in news {
            let detail = format!("{failed} connections in a row were refused or not answered");
            self.notices.push(Notice::Suspect { server: self.name(id), detail });
        }
    }

    /// Whether each service has so few usable servers that it uses all of them.
    pub(super) fn reconsider(&mut self) {
        for server in self.servers.values_mut().filter(|server| server.position.is_none()) {
            server.usage.needed = false;
        }
        for index in 0..self.services.len() {
            let crowd = self.crowd(index);
            let panics = crowd.panics(self.config.services[index].panic);
            let configured = &self.config.services[index].servers;
            for (id, configured) in self.services[index].servers.iter().zip(configured) {
                if let Some(server) = self.servers.get_mut(id) {
                    server.usage.needed = panics && !configured.backup && server.admin() == Admin::Ready;
                }
            }
            if std::mem::replace(&mut self.services[index].panics, panics) != panics {
                let service = self.config.services[index].name.clone();
                let Crowd { usable, servers, .. } = crowd;
                self.notices.push(if panics {
                    Notice::Panic { service, usable, servers }
                } else {
                    Notice::Calm { service, usable, servers }
                });
            }
        }
    }

    fn crowd(&self, index: usize) -> Crowd {
        let mut crowd = Crowd::default();
        let configured = &self.config.services[index].servers;
        let weighed = self.services[index].servers.iter().zip(configured).filter(|(_, it)| it.weight > 0);
        for (id, configured) in weighed {
            let Some(server) = self.servers.get(id).filter(|server| server.admin() == Admin::Ready) else {
                continue;
            };
            let usable = server.health.usable();
            match configured.backup {
                true => crowd.backup |= usable,
                false => {
                    crowd.servers += 1;
                    crowd.usable += u32::from(usable);
                }
            }
        }
        crowd
    }
}

impl ServerState {
    /// Percent of its share of new connections.
    pub(super) fn share(&self, now: Instant) -> u8 {
        if self.admin() != Admin::Ready {
            return 0;
        }
        if self.usage.needed {
            return 100;
        }
        let weight = u16::from(self.advised_weight());
        (u16::from(self.health.share(now)) * weight).div_ceil(100) as u8
    }

    /// Percent of its weight that its agent leaves it.
    fn advised_weight(&self) -> u8 {
        self.advice.weight.map_or(100, |weight| weight.min(100))
    }
}

/// The servers of a service that an operator leaves to their checks.
#[derive(Debug, Default, Clone, Copy)]
struct Crowd {
    usable: u32,
    servers: u32,
    /// A backup is usable.
    backup: bool,
}

impl Crowd {
    /// `threshold`: percent. A backup that can take over alone is better than servers that are down.
    fn panics(self, threshold: u8) -> bool {
        let few = self.usable * 100 < self.servers * u32::from(threshold);
        few && (self.usable > 0 || !self.backup)
    }
}
