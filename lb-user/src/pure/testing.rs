//! What tests of pure code need from outside.

use std::time::Instant;

/// `Instant` has no constructor of its own; which moment it is does not matter.
#[expect(clippy::disallowed_methods, reason = "a value to count from, read once")]
pub(in crate::pure) fn an_instant() -> Instant {
    Instant::now()
}
