//! Tasks and wiring: what runs, in which order it starts and stops.
//!
//! ```text
//! checks ─┐                                 ┌─► kernel (tables, links)
//! net    ─┼─ Event, bounded ─► control ─────┤
//! sweep  ─┘                                 └─► watch<Arc<Snapshot>> ─► admin
//! ```
//!
//! Everything runs on one current-thread runtime.

mod answers;
mod checks;
mod control;
pub mod decap;
mod drift;
mod interfaces;
mod start;

pub use self::start::{Options, RunError, run};
