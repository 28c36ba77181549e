//! Configurations of other programs, as ours: each line that is changed, defaulted or dropped gets a diagnostic.

pub mod keepalived;
pub mod toml;
