//! The admin socket: HTTP and JSON over a unix socket, `/v1/...`.

mod changes;
pub mod client;
pub mod events;
pub mod server;
mod vrrp;

use serde::{Deserialize, Serialize};

use crate::pure::overlay::AdminWord;

/// What every refusal carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Lower case, with the next step.
    pub error: String,
}

/// What a reload may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadRequest {
    /// Percent of all slots.
    pub max_moved: Option<f64>,
    /// Though it ends connections.
    pub force: bool,
}

/// Something was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// In words.
    pub done: String,
}

/// A configuration to plan with, as it would stand in files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    #[serde(default)]
    pub files: Vec<PlanFile>,
    /// Files of Keepalived, each before those that it includes.
    #[serde(default)]
    pub keepalived: Vec<PlanForeign>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    pub name: String,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanForeign {
    pub file: PlanFile,
    /// What lines for one host only ask for; Keepalived's is the host's name up to its first dot.
    #[serde(default)]
    pub config_id: String,
    /// The file, as an index from 0 among these, and its line, from 1, that includes it.
    #[serde(default)]
    pub included: Option<(usize, usize)>,
}

/// A change of a server that is there; one of the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
}
