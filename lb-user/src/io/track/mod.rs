//! What virtual routers track beside the network: scripts, processes and files.
//!
//! Each asks once, or hears of one change. Must not know when to ask, nor what an answer means: that is `pure::vrrp`.

pub mod file;
pub mod processes;
pub mod script;
