//! What virtual routers tell of: changes of state, and what looks like a split brain.

use std::{
    fmt::{self, Display},
    net::IpAddr,
};

use super::{advert::Refusal, node::State};

/// Something that operators, notify programs and the stream of events hear of, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// A router changed its state.
    Became {
        router: String,
        from: State,
        to: State,
        priority: u8,
        why: String,
    },
    /// All members of a group are in this state.
    GroupBecame {
        group: String,
        to: State,
    },
    /// A router left the configuration, or the daemon stops.
    Ended {
        router: String,
        how: End,
    },
    GroupEnded {
        group: String,
        how: End,
    },
    /// The effective priority changed.
    Priority {
        router: String,
        state: State,
        from: u8,
        to: u8,
        why: String,
    },
    /// Active heard an advert of lower priority: two were Active for a moment.
    LowerPriority {
        router: String,
        peer: IpAddr,
        priority: u8,
    },
    /// Adverts for our VRID differ: once when they begin, and when that changes.
    Mismatch {
        router: String,
        peer: IpAddr,
        refusal: Refusal,
        detail: String,
        /// They count all the same.
        is_taken: bool,
    },
    /// And when they are over.
    Agreement {
        router: String,
        peer: IpAddr,
    },
    /// Somebody else uses VRRP here, or CARP: once for each sender.
    Foreign {
        interface: String,
        peer: IpAddr,
        detail: String,
    },
    /// Somebody else answers for an address that we hold, or are about to take.
    Conflict {
        router: String,
        address: IpAddr,
        mac: [u8; 6],
    },
    /// An address of ours was removed behind our back, and is there again.
    Restored {
        router: String,
        what: String,
    },
    /// The thread slept past the master-down time, and stepped down.
    Overslept {
        router: String,
        late_ms: u64,
    },
    /// A node of the cluster that sent heartbeats is silent.
    PeerLost {
        peer: IpAddr,
    },
    PeerFound {
        peer: IpAddr,
    },
    /// It stops, and said so.
    PeerLeft {
        peer: IpAddr,
    },
    /// Its heartbeats are not believed.
    PeerRefused {
        peer: IpAddr,
        detail: String,
    },
    /// An operator's order, or a hand-over to a peer, and how it ended.
    HandOver {
        router: String,
        to: Option<IpAddr>,
        detail: String,
    },
    /// The system did not do what was asked of it.
    Failed {
        router: String,
        what: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The daemon stops.
    Stopped,
    /// A reload left it out.
    Deleted,
}

impl Display for Happening {
    /// One sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::Became { router, from, to, priority, why } => {
                write!(f, "{router} is {} with priority {priority}, it was {}: {why}", to.name(), from.name())
            }
            Happening::GroupBecame { group, to } => {
                write!(f, "every router of group {group} is {}", to.name())
            }
            Happening::Ended { router: name, how } | Happening::GroupEnded { group: name, how } => {
                match how {
                    End::Stopped => write!(f, "{name} stopped"),
                    End::Deleted => write!(f, "{name} was removed"),
                }
            }
            Happening::Priority { router, from, to, why, .. } => {
                write!(f, "{router} has priority {to}, it was {from}: {why}")
            }
            Happening::LowerPriority { router, peer, priority } => write!(
                f,
                "{router}: {peer} sent an advert of priority {priority} though this node is active: two nodes were"
            ),
            Happening::Mismatch { router, peer, refusal, detail, is_taken } => {
                let (verdict, end) = match is_taken {
                    true => ("differ", "they are taken, make both the same"),
                    false => ("are refused", "both nodes may hold the addresses"),
                };
                write!(f, "{router}: adverts of {peer} {verdict} ({}): {detail}; {end}", refusal.name())
            }
            Happening::Agreement { router, peer } => write!(f, "{router}: adverts of {peer} agree again"),
            Happening::Foreign { interface, peer, detail } => {
                write!(f, "{interface}, from {peer}: {detail}")
            }
            Happening::Conflict { router, address, mac } => {
                let [a, b, c, d, e, g] = mac;
                write!(
                    f,
                    "{router}: {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x} answers for {address}, too"
                )
            }
            Happening::Restored { router, what } => {
                write!(f, "{router}: {what} was removed by somebody else, and is there again")
            }
            Happening::Overslept { router, late_ms } => write!(
                f,
                "{router}: woke up {late_ms} ms late, past the time in which others take over: stepped down"
            ),
            Happening::PeerLost { peer } => write!(f, "node {peer} is silent"),
            Happening::PeerFound { peer } => write!(f, "node {peer} is alive"),
            Happening::PeerLeft { peer } => write!(f, "node {peer} stops"),
            Happening::PeerRefused { peer, detail } => {
                write!(f, "heartbeats of node {peer} are refused: {detail}")
            }
            Happening::HandOver { router, to: Some(to), detail } => {
                write!(f, "{router} is handed over to {to}: {detail}")
            }
            Happening::HandOver { router, to: None, detail } => write!(f, "{router}: {detail}"),
            Happening::Failed { router, what } => write!(f, "{router}: {what}"),
        }
    }
}
