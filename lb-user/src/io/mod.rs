//! Adapters: `pure` and the outside world. They know neither each other nor `daemon`; `process` serves all of them.

pub mod admin;
pub mod decap;
pub mod file;
pub mod host;
pub mod kernel;
pub mod net;
pub mod notify;
pub mod probe;
pub mod process;
pub mod replica;
#[cfg(test)]
mod testbed;
pub mod track;
pub mod vrrp;
