//! Logic. Takes `now`, bytes and configuration; returns values. No socket, clock, task, file or random source.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod agent;
pub mod config;
pub mod decap;
pub mod dialogue;
pub mod dns;
pub mod echo;
pub mod excerpt;
pub mod explain;
pub mod flows;
pub mod grpc;
pub mod health;
pub mod hop;
pub mod ids;
pub mod import;
pub mod lint;
pub mod notice;
pub mod overlay;
pub mod place;
pub mod plan;
pub mod preview;
pub mod record;
pub mod replica;
pub mod report;
pub mod ring;
pub mod schedule;
pub mod settle;
pub mod snapshot;
pub mod state;
pub mod status;
pub mod suspect;
#[cfg(test)]
mod testing;
pub mod vrrp;
