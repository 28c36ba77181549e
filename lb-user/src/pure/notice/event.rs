//! A notice with its time and node, in plain values: what every way of telling is made from.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Notice, ServerName};
use crate::pure::{
    status::EventStatus,
    vrrp::{happening::Happening, node::State},
};

/// A notice as it is told. Texts hold no control characters and are at most `TEXT_MAX` characters long: a server's
/// answer may be in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub time: Timestamp,
    pub node: Arc<str>,
    /// As docs/notices.md lists them: "server-down".
    pub kind: &'static str,
    pub level: Level,
    pub about: About,
    /// The sentence.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Warning,
}

/// What is known beside the sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    pub service: Option<String>,
    pub server: Option<String>,
    pub address: Option<String>,
    pub interface: Option<String>,
    /// A virtual router's name, or a group's.
    pub router: Option<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    /// operator | agent
    pub by: Option<&'static str>,
    pub detail: Option<String>,
}

impl Notice {
    pub fn event(&self, time: Timestamp, node: &Arc<str>) -> Event {
        let (kind, level) = self.kind();
        let mut about = self.about();
        about.detail = about.detail.map(|detail| clean(&detail));
        Event { time, node: Arc::clone(node), kind, level, about, text: clean(&self.to_string()) }
    }

    fn kind(&self) -> (&'static str, Level) {
        use Level::{Info, Warning};
        match self {
            Notice::Up { .. } => ("server-up", Info),
            Notice::Down { .. } => ("server-down", Warning),
            Notice::Unreachable { .. } => ("server-unreachable", Warning),
            Notice::NotChecked { .. } => ("check-not-run", Warning),
            Notice::Suspect { .. } => ("server-suspect", Warning),
            Notice::Administered { .. } => ("server-admin", Info),
            Notice::Weighted { .. } => ("server-weight", Info),
            Notice::Added { .. } => ("server-added", Info),
            Notice::Removed { .. } => ("server-removed", Info),
            Notice::ServiceUp { .. } => ("service-up", Info),
            Notice::ServiceDown { .. } => ("service-down", Warning),
            Notice::Panic { .. } => ("panic-on", Warning),
            Notice::Calm { .. } => ("panic-off", Info),
            Notice::Reloaded { .. } => ("reloaded", Info),
            Notice::ReloadRefused { .. } => ("reload-refused", Warning),
            Notice::FlowsCrowded { .. } => ("flows-crowded", Warning),
            Notice::FlowsEased { .. } => ("flows-eased", Info),
            Notice::InterfaceGone { .. } => ("interface-gone", Warning),
            Notice::InterfaceBack { .. } => ("interface-back", Info),
            Notice::Healed { .. } => ("drift-healed", Warning),
            Notice::Started { .. } => ("started", Info),
            Notice::Stopping => ("stopping", Info),
            Notice::Vrrp(happening) => vrrp_kind(happening),
            Notice::TrackerUp { .. } => ("tracker-up", Info),
            Notice::TrackerDown { .. } => ("tracker-down", Warning),
            Notice::TrackerBroken { .. } => ("tracker-broken", Warning),
            Notice::Suppressed { .. } => ("suppressed", Warning),
            Notice::Lagged { .. } => ("lagged", Warning),
        }
    }

    fn about(&self) -> About {
        match self {
            Notice::Up { server, detail } => About::server(server).moved("down", "up").because(detail),
            Notice::Down { server, detail } => About::server(server).moved("up", "down").because(detail),
            Notice::Unreachable { address, servers, reason } => {
                let about =
                    if let [server] = &servers[..] { About::server(server) } else { About::default() };
                About { address: about.address.or(Some(address.to_string())), ..about }.because(reason)
            }
            Notice::NotChecked { server, detail } | Notice::Suspect { server, detail } => {
                About::server(server).because(detail)
            }
            Notice::Administered { server, from, to, by } => {
                About { by: Some(by.name()), ..About::server(server).moved(from.name(), to.name()) }
            }
            Notice::Weighted { server, from, to, by } => {
                About { by: Some(by.name()), ..About::server(server).moved(from, to) }
            }
            Notice::Added { server, by } | Notice::Removed { server, by } => {
                About { by: Some(by.name()), ..About::server(server) }
            }
            Notice::ServiceUp { service, detail } => {
                About::service(service).moved("down", "up").because(detail)
            }
            Notice::ServiceDown { service, detail } => {
                About::service(service).moved("up", "down").because(detail)
            }
            Notice::Panic { service, usable, servers } | Notice::Calm { service, usable, servers } => {
                About::service(service).because(&format!("{usable} of {servers} servers usable"))
            }
            Notice::FlowsCrowded { records, max } | Notice::FlowsEased { records, max } => {
                About::default().because(&format!("{records} of {max}"))
            }
            Notice::InterfaceGone { interface, detail } | Notice::InterfaceBack { interface, detail } => {
                About { interface: Some(interface.clone()), ..About::default() }.because(detail)
            }
            Notice::Reloaded { detail }
            | Notice::ReloadRefused { detail }
            | Notice::Healed { detail }
            | Notice::Started { detail } => About::default().because(detail),
            Notice::Suppressed { count } | Notice::Lagged { count } => {
                About::default().because(&count.to_string())
            }
            Notice::Vrrp(happening) => about_vrrp(happening),
            Notice::TrackerUp { detail, .. } => About::default().moved("down", "up").because(detail),
            Notice::TrackerDown { detail, .. } => About::default().moved("up", "down").because(detail),
            Notice::TrackerBroken { detail, .. } => About::default().because(detail),
            Notice::Stopping => About::default(),
        }
    }
}

fn vrrp_kind(happening: &Happening) -> (&'static str, Level) {
    use Level::{Info, Warning};
    match happening {
        Happening::Became { to: State::Fault, .. } => ("vrrp-fault", Warning),
        Happening::Became { to: State::Active, .. } => ("vrrp-active", Info),
        Happening::Became { to: State::Backup, .. } => ("vrrp-backup", Info),
        Happening::Became { to: State::Initialize, .. } => ("vrrp-initialize", Info),
        Happening::GroupBecame { .. } => ("vrrp-group", Info),
        Happening::Ended { .. } => ("vrrp-ended", Info),
        Happening::GroupEnded { .. } => ("vrrp-group-ended", Info),
        Happening::Priority { .. } => ("vrrp-priority", Info),
        Happening::LowerPriority { .. } => ("vrrp-two-active", Warning),
        Happening::Mismatch { .. } => ("vrrp-mismatch", Warning),
        Happening::Agreement { .. } => ("vrrp-agreement", Info),
        Happening::Foreign { .. } => ("vrrp-foreign", Info),
        Happening::Conflict { .. } => ("vrrp-conflict", Warning),
        Happening::Restored { .. } => ("vrrp-restored", Warning),
        Happening::Overslept { .. } => ("vrrp-overslept", Warning),
        Happening::PeerLost { .. } => ("peer-lost", Warning),
        Happening::PeerFound { .. } => ("peer-found", Info),
        Happening::PeerLeft { .. } => ("peer-stopped", Info),
        Happening::PeerRefused { .. } => ("peer-refused", Warning),
        Happening::HandOver { .. } => ("vrrp-hand-over", Info),
        Happening::Failed { .. } => ("vrrp-failed", Warning),
    }
}

fn about_vrrp(happening: &Happening) -> About {
    let of = |router: &String| About { router: Some(router.clone()), ..About::default() };
    match happening {
        Happening::Became { router, from, to, why, .. } => {
            of(router).moved(from.name(), to.name()).because(why)
        }
        Happening::GroupBecame { group, to } => About { to: Some(to.name().to_owned()), ..of(group) },
        Happening::Ended { router: name, .. } | Happening::GroupEnded { group: name, .. } => of(name),
        Happening::Priority { router, from, to, why, .. } => of(router).moved(from, to).because(why),
        Happening::LowerPriority { router, peer, .. } | Happening::Agreement { router, peer } => {
            About { address: Some(peer.to_string()), ..of(router) }
        }
        Happening::Mismatch { router, peer, detail, .. } => {
            About { address: Some(peer.to_string()), ..of(router) }.because(detail)
        }
        Happening::Conflict { router, address, .. } => {
            About { address: Some(address.to_string()), ..of(router) }
        }
        Happening::Restored { router, what } | Happening::Failed { router, what } => of(router).because(what),
        Happening::Overslept { router, late_ms } => of(router).because(&format!("{late_ms} ms late")),
        Happening::PeerLost { peer } | Happening::PeerFound { peer } | Happening::PeerLeft { peer } => {
            About { address: Some(peer.to_string()), ..About::default() }
        }
        Happening::PeerRefused { peer, detail } | Happening::Foreign { peer, detail, .. } => {
            About { address: Some(peer.to_string()), ..About::default() }.because(detail)
        }
        Happening::HandOver { router, to, detail } => {
            About { address: to.map(|to| to.to_string()), ..of(router) }.because(detail)
        }
    }
}

impl About {
    fn service(name: &str) -> About {
        About { service: Some(name.to_owned()), ..About::default() }
    }

    fn server(name: &ServerName) -> About {
        About {
            service: name.service.clone(),
            server: Some(name.server.clone()),
            address: Some(name.address.clone()),
            ..About::default()
        }
    }

    fn moved(self, from: impl ToString, to: impl ToString) -> About {
        About { from: Some(from.to_string()), to: Some(to.to_string()), ..self }
    }

    fn because(self, detail: &str) -> About {
        About { detail: Some(detail.to_owned()), ..self }
    }
}

impl Event {
    /// "2026-11-20T16:50:01.123456Z" (RFC 3339)
    pub fn time(&self) -> String {
        format!("{:.6}", self.time)
    }

    pub fn status(&self) -> EventStatus {
        let About { service, server, address, interface, router, from, to, by, detail } = self.about.clone();
        EventStatus {
            time: self.time(),
            node: self.node.to_string(),
            kind: self.kind.to_owned(),
            level: self.level.name().to_owned(),
            service,
            server,
            address,
            interface,
            router,
            from,
            to,
            by: by.map(str::to_owned),
            detail,
            text: self.text.clone(),
        }
    }

    /// What a notify command finds in its environment: every variable, empty where there is nothing to say.
    pub fn environment(&self) -> [(&'static str, String); 14] {
        let about = &self.about;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        [
            ("STEELYARD_EVENT", self.kind.to_owned()),
            ("STEELYARD_LEVEL", self.level.name().to_owned()),
            ("STEELYARD_TIME", self.time()),
            ("STEELYARD_NODE", self.node.to_string()),
            ("STEELYARD_SERVICE", text(&about.service)),
            ("STEELYARD_SERVER", text(&about.server)),
            ("STEELYARD_ADDRESS", text(&about.address)),
            ("STEELYARD_INTERFACE", text(&about.interface)),
            ("STEELYARD_ROUTER", text(&about.router)),
            ("STEELYARD_FROM", text(&about.from)),
            ("STEELYARD_TO", text(&about.to)),
            ("STEELYARD_BY", about.by.unwrap_or_default().to_owned()),
            ("STEELYARD_DETAIL", text(&about.detail)),
            ("STEELYARD_TEXT", self.text.clone()),
        ]
    }
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
        }
    }
}

/// What stands in logs, headers and environments: one line of bounded length.
fn clean(text: &str) -> String {
    let mut line: String =
        text.chars().take(TEXT_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(TEXT_MAX).is_some() {
        line.push('…');
    }
    line
}

pub(super) const TEXT_MAX: usize = 500;
