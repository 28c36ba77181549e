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
    /// Its connections fail, which its check may not know yet.
    Suspect {
        server: String,
        detail: String,
    },
    /// So few servers of a service are usable that all are used.
    Panic {
        service: String,
        usable: u32,
        servers: u32,
    },
    /// No longer.
    Calm {
        service: String,
        usable: u32,
        servers: u32,
    },
}
