//! What an operator should read: every change of state, as a value.
//!
//! Must not know where notices go, nor how fast.

/// Something an operator should read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Up {
        server: String,
        detail: String,
    },
    Down {
        server: String,
        detail: String,
    },
    Unreachable {
        server: String,
        reason: &'static str,
    },
    NotChecked {
        server: String,
        detail: String,
    },
    /// A flow table is nearly full.
    FlowsCrowded {
        records: u64,
        max: u64,
    },
    FlowsEased {
        records: u64,
        max: u64,
    },
}
