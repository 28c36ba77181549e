//! Slow start: the share of a server that grows after its recovery, in few steps, since each moves slots.

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ramp {
    since: Instant,
    over: Duration,
}

/// 10 %, 20 %, ... 100 %: the first at once, the last when the time is over.
const STEPS: u32 = 10;
const PAUSES: u32 = STEPS - 1;

impl Ramp {
    pub(super) fn new(since: Instant, over: Duration) -> Ramp {
        Ramp { since, over }
    }

    /// Percent.
    pub(super) fn share(self, now: Instant) -> u8 {
        let steps = 1 + (0..PAUSES).filter(|&pause| self.end_of(pause) <= now).count();
        (steps * 100 / STEPS as usize) as u8
    }

    /// When the share grows next; None: it is whole.
    pub(super) fn deadline(self, now: Instant) -> Option<Instant> {
        (0..PAUSES).map(|pause| self.end_of(pause)).find(|&end| end > now)
    }

    fn end_of(self, pause: u32) -> Instant {
        self.since + self.over * (pause + 1) / PAUSES
    }
}

const _: () = assert!(100 % STEPS == 0 && STEPS > 1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::testing::an_instant;

    #[test]
    fn a_share_grows_by_equal_steps() {
        let start = an_instant();
        let ramp = Ramp::new(start, Duration::from_secs(90));
        for (after_s, share, next_s) in [
            (0, 10, Some(10)),
            (9, 10, Some(10)),
            (10, 20, Some(20)),
            (55, 60, Some(60)),
            (89, 90, Some(90)),
            (90, 100, None),
            (1_000, 100, None),
        ] {
            let now = start + Duration::from_secs(after_s);
            assert_eq!(ramp.share(now), share, "after {after_s} s");
            let next = next_s.map(|next_s| start + Duration::from_secs(next_s));
            assert_eq!(ramp.deadline(now), next, "after {after_s} s");
        }
    }
}
