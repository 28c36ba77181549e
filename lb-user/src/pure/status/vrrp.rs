//! What readers see of the virtual routers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VrrpStatus {
    pub routers: Vec<RouterStatus>,
    #[serde(default)]
    pub groups: Vec<GroupStatus>,
    /// The nodes of the cluster.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
    /// Packets that concern no router here, by reason: see docs/vrrp.md.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterStatus {
    pub name: String,
    pub interface: String,
    pub vrid: u8,
    /// IPv4 | IPv6
    pub family: String,
    pub version: u8,
    /// initialize | backup | active | fault
    pub state: String,
    /// Why it is in this state.
    pub reason: String,
    /// Since when, in milliseconds.
    pub state_ms: u64,
    /// Times that it changed its state since the daemon started.
    pub transitions: u64,
    /// As configured.
    pub priority: u8,
    /// With what is tracked.
    pub priority_effective: u8,
    pub preempt: bool,
    pub addresses: Vec<String>,
    #[serde(default)]
    pub group: Option<String>,
    pub timers: TimersStatus,
    /// Whose adverts are heard: the last of each.
    #[serde(default)]
    pub senders: Vec<SenderStatus>,
    #[serde(default)]
    pub tracked: Vec<TrackedStatus>,
    pub counters: RouterCounters,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TimersStatus {
    pub interval_ms: u64,
    /// Learned from the one that is Active (version 3).
    pub master_interval_ms: u64,
    pub skew_us: u64,
    pub master_down_us: u64,
    /// Until the master counts as down, or the next advert is sent.
    pub next_us: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SenderStatus {
    pub address: String,
    pub priority: u8,
    /// Since its last advert, in milliseconds.
    pub age_ms: u64,
    pub version: u8,
    pub interval_ms: u64,
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Why its last advert was refused, and what differs.
    #[serde(default)]
    pub refused: Option<String>,
    #[serde(default)]
    pub detail: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrackedStatus {
    /// "script chk_haproxy", "interface eth1", "service web"
    pub what: String,
    /// up | down | unknown, or a file's number
    pub state: String,
    /// "fault", "weight -20", "weight 20 reverse"
    pub effect: String,
    /// The last result, in words: "exit code 1", "timeout after 10s", "2 processes".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl VrrpStatus {
    /// Adds what the trackers said last, by what they track.
    pub fn explain(&mut self, results: &BTreeMap<String, String>) {
        for tracked in self.routers.iter_mut().flat_map(|router| &mut router.tracked) {
            tracked.detail = results.get(&tracked.what).cloned();
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterCounters {
    pub adverts_sent: u64,
    pub adverts_received: u64,
    pub priority_zero_sent: u64,
    pub priority_zero_received: u64,
    pub became_active: u64,
    pub released_active: u64,
    /// While Active.
    pub lower_priority_received: u64,
    /// By reason: see docs/vrrp.md.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    pub name: String,
    pub state: String,
    pub members: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub address: String,
    /// alive | silent | stopped | refused | unknown
    pub state: String,
    /// Since its last heartbeat, in milliseconds.
    pub age_ms: Option<u64>,
    /// Why its heartbeats are refused.
    #[serde(default)]
    pub detail: Option<String>,
    /// Its routers, as it told last.
    #[serde(default)]
    pub routers: Vec<PeerRouterStatus>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerRouterStatus {
    pub vrid: u8,
    /// IPv4 | IPv6
    pub family: String,
    pub version: u8,
    /// initialize | backup | active | fault
    pub state: String,
    /// With what it tracks.
    pub priority: u8,
}
