//! The admin socket: HTTP and JSON over a unix socket, `/v1/...`.

pub mod client;
pub mod events;
pub mod server;

use serde::{Deserialize, Serialize};

/// What every refusal carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Lower case, with the next step.
    pub error: String,
}
