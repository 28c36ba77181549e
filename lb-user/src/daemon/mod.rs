//! Tasks and wiring: what runs, in which order it starts and stops.
//!
//! ```text
//! checks ─┐                                 ┌─► kernel (tables, links)
//! net    ─┼─ Event, bounded ─► control ─────┤
//! sweep  ─┘                                 ├─► watch<Arc<Snapshot>> ─► admin
//!                                           └─► notices ─► log, readers of the stream, sinks
//! ```
//!
//! Everything runs on one current-thread runtime.

mod answers;
mod checks;
mod control;
pub mod decap;
mod drift;
mod interfaces;
mod keeper;
mod notices;
mod orders;
mod replica;
mod start;
mod through;
mod vrrp;

pub use self::start::{Options, RunError, run};
