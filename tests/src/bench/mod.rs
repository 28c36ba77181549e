//! `cargo xtask bench`: what a packet costs, in the XDP program alone and over links; and what the daemon's work does.
//!
//! Owns the methods, the cases and the reports. Must not know how the program works inside: it fills the
//! tables as the daemon does and reads the counters as it does.
//!
//! ```text
//! case ─► tables ─► program (lb_user::io::kernel)
//!    └──► packet ─► driver ─► tail call ─► program, pass, program, pass, ...   one pinned CPU
//!                                  └─► rounds ─► report: table, JSON
//! ```
//!
//! `veth` sends the same packets over links between namespaces. `checks` and `rings` measure the daemon instead,
//! `failover` two nodes that share an address.

mod case;
pub mod checks;
mod cpu;
mod driver;
pub mod failover;
mod interrupt;
mod machine;
mod measure;
mod packet;
mod program;
mod reference;
mod report;
mod rig;
pub mod rings;
mod spread;
pub mod veth;

pub use self::{
    case::{Case, cases},
    cpu::pin,
    interrupt::{end_when_asked, go_on},
    measure::{Measured, Plan, measure},
    program::{ended, save, show, tell},
    report::Report,
};
