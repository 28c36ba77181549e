//! How the servers of a `[[service]]` come and go beside their checks: its values and defaults.

use std::time::Duration;

use super::{DAY, number, or_never, within};
use crate::pure::{
    config::{
        error::{Findings, Spanned},
        model::{Damping, Forward},
        raw::{self, Field, Text},
    },
    suspect,
};

pub(super) struct Life {
    pub(super) slow_start: Option<Duration>,
    pub(super) panic: u8,
    pub(super) damping: Option<Damping>,
    /// None: as the forward mode has it.
    pub(super) suspect_after: Option<Spanned<u32>>,
}

impl Life {
    pub(super) fn new(raw: raw::Life, findings: &mut Findings) -> Option<Life> {
        let slow_start = raw
            .slow_start
            .or(None, |typed| or_never(&typed, "slow_start", ("1s", SECOND), ("24h", DAY), findings));
        let panic = raw.panic.or(0, |typed| number(&typed, "panic", 0, 100, findings));
        let damping = raw.damping.map_or(Some(None), |table| damping(table.value, findings).map(Some));
        let suspect_after = raw.suspect_after.or(None, |typed| {
            let count = number(&typed, "suspect_after", 0, SUSPECT_AFTER_MAX, findings)?;
            Some(Some(Spanned::new(typed.at, count)))
        });
        Some(Life {
            slow_start: slow_start?,
            panic: panic?,
            damping: damping?,
            suspect_after: suspect_after?,
        })
    }

    pub(super) fn suspect_after(&self, forward: Forward) -> u32 {
        let default = if sees_replies(forward) { SUSPECT_AFTER } else { 0 };
        self.suspect_after.as_ref().map_or(default, |typed| typed.value)
    }
}

/// Whether the answers of servers pass here.
pub(super) fn sees_replies(forward: Forward) -> bool {
    match forward {
        Forward::Nat | Forward::Gateway => true,
        Forward::Dsr | Forward::Ipip | Forward::Gue => false,
    }
}

fn damping(raw: raw::Damping, findings: &mut Findings) -> Option<Damping> {
    let changes =
        raw.changes.or(DAMPING.changes, |typed| number(&typed, "changes", 1, CHANGES_MAX, findings));
    let mut time = |field: Field<Text>, key, default| {
        field.or(default, |typed| within(&typed, key, ("1s", SECOND), ("24h", DAY), findings))
    };
    let within = time(raw.within, "within", DAMPING.within);
    let hold = time(raw.hold, "hold", DAMPING.hold);
    Some(Damping { changes: changes?, within: within?, hold: hold? })
}

const SECOND: Duration = Duration::from_secs(1);
/// What `damping` leaves out.
const DAMPING: Damping =
    Damping { changes: 4, within: Duration::from_secs(60), hold: Duration::from_secs(2 * 60) };
const CHANGES_MAX: u32 = 255;
const SUSPECT_AFTER: u32 = 5;
/// As many as are kept of each server.
const SUSPECT_AFTER_MAX: u32 = suspect::FAILURES_MAX as u32;
