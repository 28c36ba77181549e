//! What was changed while the daemon ran, beside the configuration file: servers added, removed, drained, weighed.
//!
//! Owns what such a change means for a configuration. Must not know who asked for it, nor where it is kept.
//!
//! ```text
//! file ─► Config ─┐
//! Overlay ────────┴─► apply ─► the Config in force
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::config::{
    added_server,
    model::{Admin, Config, Server, Service},
    network::shown,
};

/// By the name of the service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    services: BTreeMap<String, Changes>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Changes {
    #[serde(default)]
    added: Vec<Added>,
    #[serde(default)]
    removed: BTreeSet<String>,
    /// By the name of the server.
    #[serde(default)]
    servers: BTreeMap<String, Set>,
}

/// A server as it was typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Added {
    pub name: String,
    /// "10.0.5.91:8888"
    pub address: String,
    #[serde(default = "one")]
    pub weight: u16,
    #[serde(default)]
    pub backup: bool,
}

fn one() -> u16 {
    1
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Set {
    admin: Option<AdminWord>,
    weight: Option<u16>,
}

/// `Admin` as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminWord {
    Ready,
    Drain,
    #[serde(rename = "maint")]
    Maintenance,
}

/// One change of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Admin(Admin),
    Weight(u16),
    Add(Added),
    Remove,
}

/// Why a change cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("no {kind} named `{name}`: there are {known}")]
    Unknown { kind: &'static str, name: String, known: String },
    #[error("service {service} has a server {taken} already: choose another {what}")]
    Taken { service: String, taken: String, what: &'static str },
    #[error("{message}: {remedy}")]
    Wrong { message: String, remedy: String },
    #[error(
        "service {0} has {SERVERS_ADDED_MAX} servers that were added at runtime: write them into the file"
    )]
    TooMany(String),
}

impl Overlay {
    /// Enters a change; `file` is the configuration as it was read.
    pub fn change(
        &mut self,
        file: &Config,
        service: &str,
        server: &str,
        change: Change,
    ) -> Result<(), ChangeError> {
        let configured = file.services.iter().find(|known| known.name == service);
        let configured =
            configured.ok_or_else(|| unknown("service", service, file.services.iter().map(|s| &s.name)))?;
        let mut changes = self.services.get(service).cloned().unwrap_or_default();
        let now = changes.servers(configured);
        let known = now.iter().any(|known| known.name == server);
        if !known && !matches!(change, Change::Add(_)) {
            return Err(unknown("server", server, now.iter().map(|known| &known.name)));
        }
        let own = configured.servers.iter().find(|own| own.name == server);
        match change {
            Change::Admin(admin) => {
                changes.servers.entry(server.to_owned()).or_default().admin =
                    (admin != Admin::Ready).then_some(admin.into());
            }
            Change::Weight(weight) => match changes.added.iter_mut().find(|added| added.name == server) {
                Some(added) => added.weight = weight,
                None => {
                    changes.servers.entry(server.to_owned()).or_default().weight =
                        own.is_none_or(|own| own.weight != weight).then_some(weight);
                }
            },
            Change::Add(added) => {
                not_a_service(file, configured, &added)?;
                changes.add(configured, &now, added)?;
            }
            Change::Remove => {
                changes.added.retain(|added| added.name != server);
                changes.servers.remove(server);
                if own.is_some() {
                    changes.removed.insert(server.to_owned());
                }
            }
        }
        changes.servers.retain(|_, set| *set != Set::default());
        self.services.insert(service.to_owned(), changes);
        self.services.retain(|_, changes| *changes != Changes::default());
        Ok(())
    }

    /// The configuration in force.
    pub fn apply(&self, file: &Config) -> Config {
        let mut config = file.clone();
        for service in &mut config.services {
            if let Some(changes) = self.services.get(&service.name) {
                service.servers = changes.servers(service);
            }
        }
        config
    }

    /// Forgets what a new file makes pointless, one sentence for each.
    pub fn prune(&mut self, file: &Config) -> Vec<String> {
        let mut pruned = Vec::new();
        self.services.retain(|name, changes| {
            let Some(service) = file.services.iter().find(|service| service.name == *name) else {
                pruned.push(format!("service {name} is gone from the file, and what was changed in it"));
                return false;
            };
            changes.prune(service, &mut pruned);
            *changes != Changes::default()
        });
        pruned
    }

    /// What is in force and not in the file, one sentence for each.
    pub fn differences(&self, file: &Config) -> Vec<String> {
        let of_service = |(name, changes): (&String, &Changes)| {
            let service = file.services.iter().find(|service| service.name == *name)?;
            Some(changes.differences(service))
        };
        self.services.iter().filter_map(of_service).flatten().collect()
    }
}

/// A server with the address of a service would be sent its own packets.
fn not_a_service(file: &Config, service: &Service, added: &Added) -> Result<(), ChangeError> {
    let Ok(server) = added_server(service, added) else { return Ok(()) };
    let taken =
        |known: &&Service| known.addresses.iter().any(|network| network.contains(server.address.ip()));
    match file.services.iter().find(taken) {
        None => Ok(()),
        Some(known) => Err(ChangeError::Wrong {
            message: format!("{} is an address of service {}", server.address.ip(), known.name),
            remedy: "give the server's own address".to_owned(),
        }),
    }
}

impl Changes {
    fn servers(&self, service: &Service) -> Vec<Server> {
        let kept = service.servers.iter().filter(|server| !self.removed.contains(&server.name)).cloned();
        let added = self.added.iter().filter_map(|added| added_server(service, added).ok());
        kept.chain(added).map(|server| self.set(server)).collect()
    }

    fn set(&self, server: Server) -> Server {
        let Some(set) = self.servers.get(&server.name) else { return server };
        Server {
            admin: set.admin.map_or(server.admin, Admin::from),
            weight: set.weight.unwrap_or(server.weight),
            ..server
        }
    }

    fn add(&mut self, service: &Service, now: &[Server], added: Added) -> Result<(), ChangeError> {
        let server = added_server(service, &added)
            .map_err(|fault| ChangeError::Wrong { message: fault.message, remedy: fault.remedy })?;
        let taken = |taken: String, what| ChangeError::Taken { service: service.name.clone(), taken, what };
        if now.iter().any(|known| known.name == server.name) {
            return Err(taken(server.name, "name"));
        }
        if let Some(known) = now.iter().find(|known| known.address == server.address) {
            return Err(taken(format!("{} ({})", shown(known.address), known.name), "address"));
        }
        // One of the file that was removed, as it was.
        let own = service.servers.iter().find(|own| own.name == server.name);
        if let Some(own) = own.filter(|own| Server { weight: own.weight, ..server.clone() } == **own) {
            self.removed.remove(&server.name);
            let set =
                Set { weight: (own.weight != server.weight).then_some(server.weight), ..Set::default() };
            self.servers.insert(server.name, set);
            return Ok(());
        }
        if self.added.len() >= SERVERS_ADDED_MAX {
            return Err(ChangeError::TooMany(service.name.clone()));
        }
        self.added.push(added);
        Ok(())
    }

    fn prune(&mut self, service: &Service, pruned: &mut Vec<String>) {
        let name = &service.name;
        let in_file = |server: &str| service.servers.iter().any(|own| own.name == server);
        self.removed.retain(|server| in_file(server));
        self.added.retain(|added| {
            let fault = match added_server(service, added) {
                Err(fault) => Some(fault.message),
                Ok(new) => {
                    let own = service.servers.iter().find(|own| {
                        !self.removed.contains(&own.name)
                            && (own.name == new.name || own.address == new.address)
                    });
                    own.map(|own| format!("the file has {} at {}", own.name, shown(own.address)))
                }
            };
            if let Some(fault) = &fault {
                pruned.push(format!("{name}/{}, added at runtime, is no longer: {fault}", added.name));
            }
            fault.is_none()
        });
        let added: BTreeSet<_> = self.added.iter().map(|added| added.name.clone()).collect();
        self.servers.retain(|server, set| {
            let known = in_file(server) && !self.removed.contains(server) || added.contains(server);
            if !known {
                pruned.push(format!("{name}/{server} is gone from the file, and with it: {set}"));
            }
            known
        });
    }

    fn differences(&self, service: &Service) -> Vec<String> {
        let name = &service.name;
        let added =
            self.added.iter().map(|added| format!("{name}/{} was added at {}", added.name, added.address));
        let removed = self.removed.iter().map(|server| format!("{name}/{server} was removed"));
        let set = self.servers.iter().map(|(server, set)| {
            let own = service.servers.iter().find(|own| own.name == *server);
            let file = match (own, set.weight) {
                (Some(own), Some(_)) => format!(" (the file says weight {})", own.weight),
                _ => String::new(),
            };
            format!("{name}/{server}: {set}{file}")
        });
        added.chain(removed).chain(set).collect()
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let admin = self.admin.map(|admin| Admin::from(admin).name().to_owned());
        let weight = self.weight.map(|weight| format!("weight {weight}"));
        f.write_str(&admin.into_iter().chain(weight).collect::<Vec<_>>().join(", "))
    }
}

impl From<Admin> for AdminWord {
    fn from(admin: Admin) -> Self {
        match admin {
            Admin::Ready => AdminWord::Ready,
            Admin::Drain => AdminWord::Drain,
            Admin::Maintenance => AdminWord::Maintenance,
        }
    }
}

impl From<AdminWord> for Admin {
    fn from(word: AdminWord) -> Self {
        match word {
            AdminWord::Ready => Admin::Ready,
            AdminWord::Drain => Admin::Drain,
            AdminWord::Maintenance => Admin::Maintenance,
        }
    }
}

fn unknown<'a>(kind: &'static str, name: &str, known: impl Iterator<Item = &'a String>) -> ChangeError {
    let known: Vec<_> = known.take(NAMES_SHOWN).map(String::as_str).collect();
    ChangeError::Unknown { kind, name: name.to_owned(), known: known.join(", ") }
}

const NAMES_SHOWN: usize = 20;
/// Of one service.
const SERVERS_ADDED_MAX: usize = 4_096;

#[cfg(test)]
mod tests;
