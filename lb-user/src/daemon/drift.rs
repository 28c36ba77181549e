//! Mends what somebody else changed in the kernel's tables: all of them once in a round, a share at every tick.

use super::control::Control;
use crate::pure::{notice::Notice, plan::Part};

/// Ticks of a round: 10 s.
const ROUND_TICKS: usize = 20;
/// Differences that one warning names.
const NAMED_MAX: usize = 5;

/// How far a round is.
#[derive(Default)]
pub(super) struct Patrol {
    parts: Vec<Part>,
    tick: usize,
}

impl Patrol {
    /// What is due at this tick.
    fn due(&mut self, parts: impl FnOnce() -> Vec<Part>) -> &[Part] {
        if self.tick == 0 {
            self.parts = parts();
        }
        let share = |tick: usize| self.parts.len() * tick / ROUND_TICKS;
        let due = share(self.tick)..share(self.tick + 1);
        self.tick = (self.tick + 1) % ROUND_TICKS;
        &self.parts[due]
    }
}

impl Control {
    /// Compares a share of the tables with what was installed, and puts that back where it is missing.
    pub(super) fn patrol(&mut self, patrol: &mut Patrol) {
        let mut mended = Vec::new();
        for &part in patrol.due(|| self.state.parts()) {
            let Some(found) = self.kernel.differing(part, self.state.installed()) else { continue };
            for step in self.state.mend(part, &found) {
                match self.kernel.apply(&step) {
                    Ok(()) => mended.push(self.state.mended(&step)),
                    // A device that is gone, say: what failed is planned again.
                    Err(_) => self.state.failed(&step),
                }
            }
        }
        if mended.is_empty() {
            return;
        }
        let more = mended.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        mended.truncate(NAMED_MAX);
        let detail = format!(
            "{}{more}; somebody else changed them: see who writes to the maps below [datapath] pin",
            mended.join(", ")
        );
        self.notices.tell(&Notice::Healed { detail });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_looks_at_every_part_once() {
        for count in [0, 1, 7, 20, 1_006] {
            let all: Vec<_> = (0..count).map(Part::Ring).collect();
            let mut patrol = Patrol::default();
            for round in 0..2 {
                let mut seen = Vec::new();
                for _ in 0..ROUND_TICKS {
                    let due = patrol.due(|| all.clone());
                    assert!(due.len() <= all.len().div_ceil(ROUND_TICKS), "round {round}: {}", due.len());
                    seen.extend_from_slice(due);
                }
                assert_eq!(seen, all, "round {round}");
            }
        }
    }
}
