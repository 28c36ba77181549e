//! `cargo xtask bench datapath`: nanoseconds of CPU per packet through the XDP program.
//!
//! Owns the method, the cases and the report. Must not know how the program works inside: it fills the
//! tables as the daemon does and reads the counters as it does.
//!
//! ```text
//! case ─► tables ─► program (lb_user::io::kernel)
//!    └──► packet ─► driver ─► tail call ─► program, pass, program, pass, ...   one pinned CPU
//!                                  └─► rounds ─► report: table, JSON
//! ```

mod case;
mod cpu;
mod driver;
mod machine;
mod measure;
mod packet;
mod reference;
mod report;
mod rig;
mod spread;

pub use self::{
    case::{Case, cases},
    cpu::pin,
    measure::{Measured, Plan, measure},
    report::Report,
};
