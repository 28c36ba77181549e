//! Which programs are told of what, in Keepalived's words, and which of them wait.
//!
//! ```text
//! Happening ─► Teller ─► Telling ─┬─► line of the FIFOs
//!                                 └─► Backlog, one queue each router and group ─► programs, in order
//! ```
//!
//! Must not know how a program is run or a FIFO written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    happening::{End, Happening},
    node::State,
};
use crate::pure::config::model::vrrp::{Hook, Hooks, Vrrp};

/// Whose hooks run one after the other; those of different owners run side by side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Router(String),
    Group(String),
}

/// What is told of one happening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    pub owner: Owner,
    /// As Keepalived writes it to FIFOs, with its end.
    pub line: String,
    /// Whole commands, in the order in which they run.
    pub programs: Vec<Hook>,
    /// A state, which the next one supersedes.
    is_state: bool,
}

/// Knows everybody's hooks.
#[derive(Debug, Default)]
pub struct Teller {
    known: BTreeMap<Owner, Known>,
}

#[derive(Debug)]
struct Known {
    hooks: Hooks,
    /// As it was last told; a group's is 0.
    priority: u8,
    /// It is configured. What was taken out has a last word.
    stays: bool,
}

/// Keepalived's names of what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Master,
    Backup,
    Fault,
    Stop,
    Deleted,
    LowerPriority,
}

impl Teller {
    pub fn configure(&mut self, vrrp: &Vrrp) {
        // Whoever was taken out by the reload before this one has had its last word.
        self.known.retain(|_, known| std::mem::replace(&mut known.stays, false));
        let routers = vrrp
            .routers
            .iter()
            .map(|router| (Owner::Router(router.name.clone()), router.notify.clone(), router.priority));
        let groups =
            vrrp.groups.iter().map(|group| (Owner::Group(group.name.clone()), group.notify.clone(), 0));
        for (owner, hooks, configured) in routers.chain(groups) {
            let priority = self.known.get(&owner).map_or(configured, |known| known.priority);
            self.known.insert(owner, Known { hooks, priority, stays: true });
        }
    }

    /// None: nobody is told of it.
    pub fn tell(&mut self, happening: &Happening) -> Option<Telling> {
        let (owner, word) = self.heard(happening)?;
        let known = self.known.get(&owner)?;
        let (kind, name) = owner.words();
        let (state, priority) = (word.name(), known.priority);
        let of_word = known.hooks.of(word).cloned();
        // Keepalived tells its general program of states only.
        let of_any = known.hooks.any.iter().filter(|_| word.is_state()).map(|any| {
            let words = [kind, name, state].map(str::to_owned);
            let command = any.command.iter().cloned().chain(words).chain([priority.to_string()]).collect();
            Hook { command, user: any.user.clone() }
        });
        Some(Telling {
            line: format!("{kind} \"{name}\" {state} {priority}\n"),
            programs: of_word.into_iter().chain(of_any).collect(),
            is_state: word.is_state(),
            owner,
        })
    }

    /// Changes of state are mailed where `smtp_alert` says so, and everything else always is.
    pub fn is_mailed(&self, happening: &Happening) -> bool {
        let owner = match happening {
            // An alarm, whoever wants to know of changes.
            Happening::Became { to: State::Fault, .. } => return true,
            Happening::Became { router, .. } | Happening::Ended { router, .. } => {
                Owner::Router(router.clone())
            }
            Happening::Priority { router, .. } => Owner::Router(router.clone()),
            Happening::GroupBecame { group, .. } | Happening::GroupEnded { group, .. } => {
                Owner::Group(group.clone())
            }
            _ => return true,
        };
        self.known.get(&owner).is_some_and(|known| known.hooks.mail)
    }

    fn heard(&mut self, happening: &Happening) -> Option<(Owner, Word)> {
        match happening {
            Happening::Became { router, to, priority, .. } => {
                let owner = self.priced(router, *priority);
                Some((owner, Word::of(*to)?))
            }
            Happening::Priority { router, to, .. } => {
                self.priced(router, *to);
                None
            }
            Happening::GroupBecame { group, to } => Some((Owner::Group(group.clone()), Word::of(*to)?)),
            Happening::Ended { router, how } => self.ended(Owner::Router(router.clone()), *how),
            Happening::GroupEnded { group, how } => self.ended(Owner::Group(group.clone()), *how),
            Happening::LowerPriority { router, .. } => {
                Some((Owner::Router(router.clone()), Word::LowerPriority))
            }
            Happening::Mismatch { .. }
            | Happening::Agreement { .. }
            | Happening::Conflict { .. }
            | Happening::Restored { .. }
            | Happening::Overslept { .. }
            | Happening::Foreign { .. }
            | Happening::PeerLost { .. }
            | Happening::PeerFound { .. }
            | Happening::PeerLeft { .. }
            | Happening::PeerRefused { .. }
            | Happening::HandOver { .. }
            | Happening::Failed { .. } => None,
        }
    }

    fn priced(&mut self, router: &str, priority: u8) -> Owner {
        let owner = Owner::Router(router.to_owned());
        if let Some(known) = self.known.get_mut(&owner) {
            known.priority = priority;
        }
        owner
    }

    /// As in Keepalived, whoever has no hook for being taken out is told of a fault.
    fn ended(&self, owner: Owner, how: End) -> Option<(Owner, Word)> {
        let hooks = &self.known.get(&owner)?.hooks;
        let word = match how {
            End::Stopped => Word::Stop,
            End::Deleted if hooks.deleted.is_some() => Word::Deleted,
            End::Deleted => Word::Fault,
        };
        Some((owner, word))
    }
}

impl Owner {
    /// Keepalived's word for what it is, and its name.
    fn words(&self) -> (&'static str, &str) {
        match self {
            Owner::Router(name) => ("INSTANCE", name),
            Owner::Group(name) => ("GROUP", name),
        }
    }

    /// "group G1"
    pub fn shown(&self) -> String {
        match self {
            Owner::Router(name) => format!("router {name}"),
            Owner::Group(name) => format!("group {name}"),
        }
    }
}

impl Word {
    fn of(state: State) -> Option<Word> {
        match state {
            State::Initialize => None,
            State::Backup => Some(Word::Backup),
            State::Active => Some(Word::Master),
            State::Fault => Some(Word::Fault),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Word::Master => "MASTER",
            Word::Backup => "BACKUP",
            Word::Fault => "FAULT",
            Word::Stop => "STOP",
            Word::Deleted => "DELETED",
            Word::LowerPriority => "MASTER_RX_LOWER_PRI",
        }
    }

    fn is_state(self) -> bool {
        self != Word::LowerPriority
    }
}

impl Hooks {
    fn of(&self, word: Word) -> Option<&Hook> {
        match word {
            Word::Master => self.master.as_ref(),
            Word::Backup => self.backup.as_ref(),
            Word::Fault => self.fault.as_ref(),
            Word::Stop => self.stop.as_ref(),
            Word::Deleted => self.deleted.as_ref(),
            Word::LowerPriority => self.lower_priority.as_ref(),
        }
    }
}

/// The tellings whose programs have not run yet.
#[derive(Debug, Default)]
pub struct Backlog {
    waiting: BTreeMap<Owner, VecDeque<(u64, Telling)>>,
    running: BTreeSet<Owner>,
    /// Of the last one put in.
    number: u64,
}

impl Backlog {
    /// Returns what had to go in its place: never an owner's last state.
    pub fn put(&mut self, telling: Telling) -> Option<Telling> {
        if telling.programs.is_empty() {
            return None;
        }
        self.number += 1;
        let queue = self.waiting.entry(telling.owner.clone()).or_default();
        queue.push_back((self.number, telling));
        if queue.len() <= WAITING_MAX {
            return None;
        }
        // One that is no state, or else the oldest state: a newer one follows it.
        let goes = queue.iter().position(|(_, telling)| !telling.is_state).unwrap_or(0);
        queue.remove(goes).map(|(_, telling)| telling)
    }

    /// The one that has waited longest, of those whose owner has nothing running; to be followed by `done`.
    pub fn take(&mut self) -> Option<Telling> {
        if self.running.len() >= RUNNING_MAX {
            return None;
        }
        let free = self.waiting.iter().filter(|(owner, _)| !self.running.contains(*owner));
        let (_, owner) = free.filter_map(|(owner, queue)| Some((queue.front()?.0, owner))).min()?;
        let owner = owner.clone();
        let queue = self.waiting.get_mut(&owner)?;
        let (_, telling) = queue.pop_front()?;
        if queue.is_empty() {
            self.waiting.remove(&owner);
        }
        self.running.insert(owner);
        Some(telling)
    }

    pub fn done(&mut self, owner: &Owner) {
        self.running.remove(owner);
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }
}

/// Tellings of one owner that wait for the one that runs.
const WAITING_MAX: usize = 16;
/// Programs that run at the same time.
const RUNNING_MAX: usize = 32;

#[cfg(test)]
mod tests;
