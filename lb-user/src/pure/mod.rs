//! Logic. Takes `now`, bytes and configuration; returns values. No socket, clock, task, file or random source.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod config;
pub mod flows;
pub mod hop;
pub mod ids;
pub mod plan;
pub mod status;
