//! The soak: many connections that stay open while everything that can change does.
//!
//! Owns the crowd of connections, the sequence of changes and the report. Must not know why a connection should
//! survive a change: it asks every one of them, and counts.
//!
//! ```text
//! bed ─► crowd: TCP sessions, UDP flows ─► one step after the other ─► ask ─► row of the report
//! ```
//!
//! `vrrp` is one of its own: nodes that share addresses.

mod crowd;
mod death;
mod report;
mod steps;
pub mod vrrp;

pub use self::{
    crowd::{Asked, Crowd},
    death::{Death, Deaths, time_to_the_last},
    report::{Report, Row},
    steps::{Plan, run},
};
