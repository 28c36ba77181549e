//! Adapters: `pure` and the outside world. They know neither each other nor `daemon`.

pub mod admin;
pub mod decap;
pub mod file;
pub mod kernel;
pub mod net;
pub mod probe;
#[cfg(test)]
mod testbed;
