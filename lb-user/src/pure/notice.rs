//! What an operator should read: every change of state, as a value and in words.
//!
//! ```text
//! Notice ─ event(time, node) ─► Event ─┬─► the log, `history` (the admin API's stream)
//!                                      └─► `outbox` of each sink ─► command, `letter`, JSON
//! ```
//!
//! Must not know where notices go: only how much of them at once, and in which shape.

mod event;
mod history;
mod letter;
mod outbox;
mod services;

use std::{
    fmt::{self, Display},
    net::IpAddr,
};

pub use self::{
    event::{Event, Level},
    history::{EVENTS_KEPT, History, Replay},
    letter::{Letter, letter},
    outbox::{Delivery, Limit, Outbox},
    services::Services,
};
use super::{config::model::Admin, vrrp::happening::Happening};

/// Something an operator should read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Up {
        server: ServerName,
        detail: String,
    },
    Down {
        server: ServerName,
        detail: String,
    },
    Unreachable {
        address: IpAddr,
        servers: Vec<ServerName>,
        reason: &'static str,
    },
    NotChecked {
        server: ServerName,
        detail: String,
    },
    /// A passive sign: its connections fail, and it is checked at once.
    Suspect {
        server: ServerName,
        detail: String,
    },
    Administered {
        server: ServerName,
        from: Admin,
        to: Admin,
        by: By,
    },
    Weighted {
        server: ServerName,
        from: u16,
        to: u16,
        by: By,
    },
    Added {
        server: ServerName,
        by: By,
    },
    Removed {
        server: ServerName,
        by: By,
    },
    /// A first usable server after there was none.
    ServiceUp {
        service: String,
        detail: String,
    },
    /// The last usable server is gone.
    ServiceDown {
        service: String,
        detail: String,
    },
    /// So few servers of a service are usable that all are used.
    Panic {
        service: String,
        usable: u32,
        servers: u32,
    },
    /// No longer.
    Calm {
        service: String,
        usable: u32,
        servers: u32,
    },
    Reloaded {
        detail: String,
    },
    ReloadRefused {
        detail: String,
    },
    /// A flow table is nearly full.
    FlowsCrowded {
        records: u64,
        max: u64,
    },
    FlowsEased {
        records: u64,
        max: u64,
    },
    InterfaceGone {
        interface: String,
        detail: String,
    },
    InterfaceBack {
        interface: String,
        detail: String,
    },
    /// The kernel held something else than what was written, and was corrected.
    Healed {
        detail: String,
    },
    Started {
        detail: String,
    },
    Stopping,
    /// Of the virtual routers.
    Vrrp(Happening),
    /// Something that virtual routers track succeeds: "script chk_haproxy".
    TrackerUp {
        what: String,
        detail: String,
    },
    TrackerDown {
        what: String,
        detail: String,
    },
    /// It hangs, or cannot be asked: it counts as failed, and somebody has to mend it.
    TrackerBroken {
        what: String,
        detail: String,
    },
    /// So many could not be told one by one.
    Suppressed {
        count: u64,
    },
    /// A reader of the stream was slower than the events.
    Lagged {
        count: u64,
    },
}

/// A server, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName {
    /// None: no longer configured.
    pub service: Option<String>,
    pub server: String,
    pub address: String,
}

/// Who changed something on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Operator,
    /// The agent on the server.
    Agent,
}

impl By {
    pub fn name(self) -> &'static str {
        match self {
            By::Operator => "operator",
            By::Agent => "agent",
        }
    }
}

impl Display for ServerName {
    /// "web/web1"
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{service}/{}", self.server),
            None => f.write_str(&self.server),
        }
    }
}

impl Display for Notice {
    /// One sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Up { server, detail } => write!(f, "{server} is up: {detail}"),
            Notice::Down { server, detail } => write!(f, "{server} is down: {detail}"),
            Notice::Unreachable { address, servers, reason } => {
                write!(f, "{address} ({}) cannot be reached: {reason}", listed(servers))
            }
            Notice::NotChecked { server, detail } => write!(f, "{server}: {detail}"),
            Notice::Suspect { server, detail } => {
                write!(f, "{server} is suspect: {detail}; checking it now")
            }
            Notice::Administered { server, from, to, by } => {
                write!(f, "{server} is set to {}, it was {}, by the {}", to.name(), from.name(), by.name())
            }
            Notice::Weighted { server, from, to, by } => {
                write!(f, "{server} has weight {to}, it was {from}, by the {}", by.name())
            }
            Notice::Added { server, by } => {
                write!(f, "{server} ({}) was added by the {}", server.address, by.name())
            }
            Notice::Removed { server, by } => {
                write!(f, "{server} ({}) was removed by the {}", server.address, by.name())
            }
            Notice::ServiceUp { service, detail } => write!(f, "service {service} is up: {detail}"),
            Notice::ServiceDown { service, detail } => write!(f, "service {service} is down: {detail}"),
            Notice::Panic { service, usable, servers } => {
                write!(
                    f,
                    "{service}: {usable} of {servers} servers usable, below its panic threshold: all are used"
                )
            }
            Notice::Calm { service, usable, servers } => {
                write!(f, "{service}: {usable} of {servers} servers usable: only those are used")
            }
            Notice::Reloaded { detail } => write!(f, "reloaded: {detail}"),
            Notice::ReloadRefused { detail } => {
                write!(f, "the configuration was not reloaded, nothing was changed: {detail}")
            }
            Notice::FlowsCrowded { records, max } => {
                write!(f, "the flow table holds {records} records of {max}: raise [datapath] flows")
            }
            Notice::FlowsEased { records, max } => {
                write!(f, "the flow table has room again: {records} records of {max}")
            }
            Notice::InterfaceGone { interface, detail } | Notice::InterfaceBack { interface, detail } => {
                write!(f, "interface {interface} {detail}")
            }
            Notice::Healed { detail } => write!(f, "the kernel's tables were put right: {detail}"),
            Notice::Started { detail } => write!(f, "ready: {detail}"),
            Notice::Stopping => f.write_str("stopping"),
            Notice::Vrrp(happening) => write!(f, "{happening}"),
            Notice::TrackerUp { what, detail } => write!(f, "{what} is up: {detail}"),
            Notice::TrackerDown { what, detail } => write!(f, "{what} is down: {detail}"),
            Notice::TrackerBroken { what, detail } => {
                write!(f, "{what} cannot tell, and counts as failed: {detail}")
            }
            Notice::Suppressed { count } => write!(f, "and {count} more: see `steelyard status`"),
            Notice::Lagged { count } => {
                write!(f, "events that passed too fast for this reader: {count}; see `steelyard events`")
            }
        }
    }
}

/// "web/web1, other/x"
fn listed(servers: &[ServerName]) -> String {
    let names: Vec<_> = servers.iter().take(NAMES_SHOWN).map(ToString::to_string).collect();
    match servers.len().saturating_sub(NAMES_SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

const NAMES_SHOWN: usize = 5;

#[cfg(test)]
mod tests;
