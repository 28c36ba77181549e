//! The VRRP part of keepalived.conf, as our configuration.
//!
//! ```text
//! files ─► text (comments, include, definitions) ─► parser (words, braces) ─► global, track, instance, group
//!            └──────────────── findings: what Keepalived does, what is done here ────────────────┘
//!                                                              router (one keyword against another) ─► Imported
//! ```
//!
//! What Keepalived would run is run: a bad value falls back as it does there, and each line that is changed,
//! defaulted or dropped gets a warning. Must not read files: the caller does, those that they include, too.

mod address;
mod garp;
mod global;
mod group;
mod instance;
mod leftover;
mod notify;
mod parser;
mod router;
#[cfg(test)]
mod tests;
mod text;
mod track;
mod value;

use std::{collections::HashMap, net::IpAddr, path::PathBuf, time::Duration};

pub use self::text::includes;
use self::{
    global::Globals,
    parser::{Statement, parse},
    router::{Around, router},
    track::{Trackers, tracked},
    value::{TOP, unknown},
};
use crate::pure::config::{
    Source,
    error::{Findings, Spanned, quote},
    model::{
        Config, Mail,
        vrrp::{Group, Process, Router, Script, TrackFile},
    },
    secret::{Part, SecretFile},
};

/// One file of Keepalived.
#[derive(Clone, Copy)]
pub struct Foreign<'a> {
    pub source: Source<'a>,
    /// What lines that begin with `@` ask for: the host's name up to its first dot.
    pub config_id: &'a str,
    /// The file, as an index, and the line, from 1, that includes it.
    pub included: Option<(usize, usize)>,
}

/// All that the files hold, with where each stands.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub node: Option<Spanned<String>>,
    pub mail: Option<Mail>,
    pub mail_timeout: Option<Duration>,
    pub routers: Vec<Spanned<Router>>,
    pub groups: Vec<Spanned<Group>>,
    pub scripts: Vec<Spanned<Script>>,
    pub processes: Vec<Spanned<Process>>,
    pub files: Vec<Spanned<TrackFile>>,
    pub fifos: Vec<PathBuf>,
    /// Keys that stand in files of their own: of which router, which key, where.
    pub keys: Vec<(String, usize, PathBuf)>,
}

/// `first`: the index of the first of these files among all sources.
pub(in crate::pure) fn read(files: &[Foreign<'_>], first: usize, findings: &mut Findings) -> Imported {
    let lines = text::lines(files, first, findings);
    let statements = parse(&lines, findings);
    let mut blocks = Blocks::default();
    for (order, statement) in statements.iter().enumerate() {
        if statement.keyword() == "global_defs" {
            blocks.globals.read(statement, findings);
        }
        blocks.add(statement, order, findings);
    }
    blocks.finish(findings)
}

#[derive(Default)]
struct Blocks {
    globals: Globals,
    trackers: Trackers,
    instances: Vec<instance::Draft>,
    groups: Vec<group::Draft>,
}

impl Blocks {
    fn add(&mut self, statement: &Statement, order: usize, findings: &mut Findings) {
        match statement.keyword() {
            "global_defs" => {}
            "vrrp_script" => self.trackers.script(statement, order, findings),
            "vrrp_track_process" | "track_process" => self.trackers.process(statement, order, findings),
            "track_file" | "vrrp_track_file" => self.trackers.file(statement, order, findings),
            "vrrp_instance" => self.instances.extend(instance::Draft::read(statement, order, findings)),
            "vrrp_sync_group" => self.groups.extend(group::Draft::read(statement, order, findings)),
            _ if leftover::top(statement, findings) => {}
            _ => unknown(statement, TOP, &BLOCKS, findings),
        }
    }

    fn finish(self, findings: &mut Findings) -> Imported {
        let Blocks { mut globals, mut trackers, instances, groups } = self;
        let first = instances.first().map(|instance| instance.name.at);
        let (mut routers, mut keys): (Vec<Spanned<Router>>, _) = (Vec::new(), Vec::new());
        for draft in instances {
            if let Some(known) = routers.iter().find(|known| known.value.name == draft.name.value) {
                let message = format!(
                    "{} exists already ({}): this block is ignored, as in Keepalived",
                    quote(&draft.name.value),
                    findings.place(known.at)
                );
                findings.warning(draft.name.at, message, "give it another name");
                continue;
            }
            let is_member =
                |group: &&group::Draft| group.members.iter().any(|member| member.value == draft.name.value);
            let is_grouped = groups.iter().find(is_member).is_some_and(|group| !group.has_weights);
            let around = Around { globals: &globals, trackers: &mut trackers, is_grouped };
            let files = draft.hmac.as_ref().map(|hmac| hmac.value.files.clone()).unwrap_or_default();
            let Some(router) = router(draft, around, findings) else { continue };
            if is_alone(&router, &routers, findings) {
                let name = &router.value.name;
                keys.extend(files.into_iter().map(|(key, path)| (name.clone(), key, path)));
                routers.push(router);
            }
        }
        if let (Some(at), true) = (first, routers.is_empty()) {
            let message = "no vrrp_instance of these files can run";
            findings.error(at, message, "mend what the warnings of each one say");
        }
        let is_known = |name: &str| routers.iter().any(|router| router.value.name == name);
        let mut taken = Vec::new();
        let groups: Vec<_> = groups
            .into_iter()
            .filter_map(|group| group.finish(&globals, &mut trackers, is_known, &mut taken, findings))
            .collect();
        let Trackers { scripts, processes, files } = trackers;
        let mut scripts = tracked(scripts, findings);
        run_as(&mut scripts, globals.script_user.as_deref(), findings);
        let mail = std::mem::take(&mut globals.mail);
        Imported {
            node: globals.node,
            mail_timeout: mail.timeout,
            mail: mail.finish(findings),
            routers,
            groups,
            scripts,
            processes: tracked(processes, findings),
            files: tracked(files, findings),
            fifos: globals.fifos,
            keys,
        }
    }
}

/// One router for a VRID on an interface in a family.
fn is_alone(router: &Spanned<Router>, before: &[Spanned<Router>], findings: &mut Findings) -> bool {
    let place = |router: &Router| (router.interface.clone(), router.vrid, router.family);
    let Some(first) = before.iter().find(|first| place(&first.value) == place(&router.value)) else {
        return true;
    };
    let message = format!(
        "{} has the VRID {} on {} already ({}): this block is ignored, as in Keepalived",
        quote(&first.value.name),
        router.value.vrid,
        router.value.interface,
        findings.place(first.at)
    );
    findings.warning(router.at, message, "give it another virtual_router_id");
    false
}

fn run_as(scripts: &mut [Spanned<Script>], user: Option<&str>, findings: &mut Findings) {
    let mut is_told = false;
    for script in scripts.iter_mut().filter(|script| script.value.user.is_none()) {
        script.value.user = user.map(str::to_owned);
        if user.is_none() && !is_told {
            let message = "this script runs as the daemon's user: Keepalived runs it as keepalived_script, where there is such a user";
            findings.warning(script.at, message, "add `script_user USER` to global_defs");
            is_told = true;
        }
    }
}

impl Imported {
    /// Puts all of it into a configuration. A name or a VRID that is taken there is an error.
    pub(in crate::pure) fn merge(
        self,
        config: &mut Config,
        secrets: &mut Vec<SecretFile>,
        findings: &mut Findings,
    ) {
        let Imported { node, mail, mail_timeout, routers, groups, scripts, processes, files, fifos, keys } =
            self;
        if let Some(node) = node {
            match &config.global.node {
                None => config.global.node = Some(node.value),
                Some(own) if *own != node.value => {
                    let message = format!("the node is called {own}: router_id is not used");
                    findings.warning(node.at, message, "remove it, or `node` in [global]");
                }
                Some(_) => {}
            }
        }
        if let (Some(mail), None) = (mail, &config.notify.mail) {
            config.notify.mail = Some(mail);
            let is_alone = config.notify.command.is_empty() && config.notify.webhook.is_none();
            if let (Some(timeout), true) = (mail_timeout, is_alone) {
                config.notify.timeout = timeout;
            }
        }
        let vrrp = &mut config.vrrp;
        for router in &routers {
            let place = |router: &Router| (router.interface.clone(), router.vrid, router.family);
            if let Some(own) = vrrp.routers.iter().find(|own| place(own) == place(&router.value)) {
                let message = format!(
                    "[[vrrp]] {} has the VRID {} on {} already",
                    quote(&own.name),
                    own.vrid,
                    own.interface
                );
                findings.error(router.at, message, "change or remove one of the two");
            }
        }
        shared(&vrrp.routers, &routers, findings);
        add(&mut vrrp.routers, routers, "[[vrrp]]", |router| &router.name, findings);
        add(&mut vrrp.groups, groups, "[[vrrp_group]]", |group| &group.name, findings);
        add(&mut vrrp.scripts, scripts, "[[track_script]]", |script| &script.name, findings);
        add(&mut vrrp.processes, processes, "[[track_process]]", |process| &process.name, findings);
        add(&mut vrrp.files, files, "[[track_file]]", |file| &file.name, findings);
        for (name, key, path) in keys {
            if let Some(router) = vrrp.routers.iter().position(|router| router.name == name) {
                secrets.push(SecretFile { router, part: Part::Key(key), path });
            }
        }
        let new: Vec<_> = fifos.into_iter().filter(|fifo| !vrrp.fifos.contains(fifo)).collect();
        vrrp.fifos.extend(new);
    }
}

/// What one router takes away when it steps back, another may hold.
fn shared(own: &[Router], imported: &[Spanned<Router>], findings: &mut Findings) {
    let addresses = |router: &Router| -> Vec<IpAddr> {
        let all = router.addresses.iter().chain(&router.excluded);
        all.map(|address| address.address).filter(|address| !is_link_local(*address)).collect()
    };
    let mut holders: HashMap<IpAddr, &str> = HashMap::new();
    for router in own {
        holders.extend(addresses(router).into_iter().map(|address| (address, router.name.as_str())));
    }
    for Spanned { at, value: router } in imported {
        for address in addresses(router) {
            if let Some(first) = holders.insert(address, &router.name) {
                let message = format!(
                    "`{address}` is an address of {}, too: it stays while either is Active",
                    quote(first)
                );
                findings.warning(*at, message, "keep it in one place, on all nodes");
            }
        }
        let longest = router.excluded.len().max(router.routes.len()).max(router.rules.len());
        if longest > LIST_MAX {
            findings.error(
                *at,
                format!("{longest} entries are too many"),
                format!("keep at most {LIST_MAX} of a kind"),
            );
        }
    }
    if let Some(over) = imported.get(ROUTERS_MAX.saturating_sub(own.len())) {
        let message = format!("there are {} routers", own.len() + imported.len());
        findings.error(over.at, message, format!("keep at most {ROUTERS_MAX}"));
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn add<T>(
    own: &mut Vec<T>,
    imported: Vec<Spanned<T>>,
    table: &str,
    name: fn(&T) -> &String,
    findings: &mut Findings,
) {
    for Spanned { at, value } in imported {
        if own.iter().any(|own| name(own) == name(&value)) {
            let message = format!("{table} {} has this name already", quote(name(&value)));
            findings.error(at, message, "rename or remove one of the two");
        } else {
            own.push(value);
        }
    }
}

/// The adverts of each of them are sent by one thread.
const ROUTERS_MAX: usize = 1_024;
const LIST_MAX: usize = 1_024;

const BLOCKS: [&str; 7] = [
    "global_defs",
    "vrrp_script",
    "vrrp_track_process",
    "track_file",
    "vrrp_instance",
    "vrrp_sync_group",
    "virtual_server",
];
