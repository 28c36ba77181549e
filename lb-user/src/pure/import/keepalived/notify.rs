//! Programs that are told of changes of state.

use super::{
    parser::{Statement, Word},
    value::{command_words, flag, only},
};
use crate::pure::config::{
    command,
    error::{Findings, Span, quote},
    model::vrrp::{Hook, Hooks},
    value::{Fault, NAME_MAX},
};

/// Hooks of a router or a group. `mail` None: as everybody's.
#[derive(Default)]
pub(super) struct Told {
    pub hooks: Hooks,
    pub mail: Option<bool>,
}

impl Told {
    /// False: the keyword is none of these.
    pub(super) fn read(&mut self, statement: &Statement, findings: &mut Findings) -> bool {
        let slot = match statement.keyword() {
            "notify" => &mut self.hooks.any,
            "notify_master" => &mut self.hooks.master,
            "notify_backup" => &mut self.hooks.backup,
            "notify_fault" => &mut self.hooks.fault,
            "notify_stop" => &mut self.hooks.stop,
            "notify_deleted" => &mut self.hooks.deleted,
            "notify_master_rx_lower_pri" => &mut self.hooks.lower_priority,
            "smtp_alert" => {
                self.mail = flag(statement, findings).or(self.mail);
                return true;
            }
            _ => return false,
        };
        if slot.is_some() {
            let message =
                format!("`{}` is given already: this one is ignored, as in Keepalived", statement.keyword());
            findings.warning(statement.at(), message, "keep one of the two");
        } else if statement.keyword() != "notify_deleted" || !statement.values().is_empty() {
            *slot = hook(statement, findings);
        }
        true
    }

    pub(super) fn finish(self, mail: bool, user: Option<&str>) -> Hooks {
        let mut hooks = self.hooks;
        let Hooks { any, master, backup, fault, stop, deleted, lower_priority, .. } = &mut hooks;
        for hook in [any, master, backup, fault, stop, deleted, lower_priority].into_iter().flatten() {
            hook.user = hook.user.take().or(user.map(str::to_owned));
        }
        Hooks { mail: self.mail.unwrap_or(mail), ..hooks }
    }
}

/// `SCRIPT [USER [GROUP]]`, the script in quotes where it has arguments.
fn hook(statement: &Statement, findings: &mut Findings) -> Option<Hook> {
    let Some((script, rest)) = statement.values().split_first() else {
        only(statement, findings);
        return None;
    };
    let mut command = split(script);
    let is_argument = |word: &&Word| word.text.starts_with(['/', '-']) || word.is_quoted;
    if let Some(first) = rest.first().filter(is_argument) {
        let message = format!(
            "{} is taken as an argument of the script; Keepalived takes it for a user, and leaves the script out",
            quote(&first.text)
        );
        findings.warning(first.at, message, "put the script and its arguments into quotes");
        command.extend(rest.iter().map(|word| word.text.clone()));
        return Some(Hook { command: runnable(command, script.at, findings)?, user: None });
    }
    let user = user(rest, findings);
    Some(Hook { command: runnable(command, script.at, findings)?, user })
}

/// `[USER [GROUP]]`
pub(super) fn user(rest: &[Word], findings: &mut Findings) -> Option<String> {
    let (user, rest) = rest.split_first()?;
    if let Some(group) = rest.first() {
        let message = format!(
            "the group {} is left out: programs run with the groups of their user",
            quote(&group.text)
        );
        findings.warning(group.at, message, "let that user be in the group");
    }
    let is_name =
        (1..=NAME_MAX).contains(&user.text.len()) && user.text.chars().all(|c| c.is_ascii_graphic());
    if !is_name {
        let message = format!("{} is no user: the daemon's own is taken", quote(&user.text));
        findings.warning(user.at, message, "write the name of a user");
    }
    is_name.then(|| user.text.clone())
}

/// A program and its arguments, as Keepalived splits a quoted string.
pub(super) fn split(script: &Word) -> Vec<String> {
    if script.is_quoted { command_words(&script.text) } else { vec![script.text.clone()] }
}

/// None, and said so: nothing can be run by this.
pub(super) fn runnable(words: Vec<String>, at: Span, findings: &mut Findings) -> Option<Vec<String>> {
    let program = words.first().map_or("", |program| program);
    let fault =
        command::program(program).err().or_else(|| words.iter().find_map(|text| command::word(text).err()));
    if let Some(Fault { message, remedy }) = fault {
        findings.warning(at, format!("{message}: nothing is run"), remedy);
        return None;
    }
    if words.len() > command::WORDS_MAX {
        let message = format!("this command has more than {} words: nothing is run", command::WORDS_MAX);
        findings.warning(at, message, "put it into a script");
        return None;
    }
    Some(words)
}
