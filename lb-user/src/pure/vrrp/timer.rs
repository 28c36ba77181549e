//! How long Backup waits for the one that is Active (RFC 9568, section 6.1; RFC 3768, section 6.1).

use std::time::Duration;

use crate::pure::config::model::vrrp::Version;

/// What a router's times are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    pub version: Version,
    /// With what is tracked.
    pub priority: u8,
    /// Between two adverts of the one that is Active.
    pub interval: Duration,
    /// That may be missed; 3 in the RFCs.
    pub adverts: u8,
}

impl Timer {
    /// Lets the best of several in Backup be first. Version 2 does not scale it by the interval.
    pub fn skew(&self) -> Duration {
        let unit = match self.version {
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.interval,
        };
        unit * (256 - u32::from(self.priority)) / 256
    }

    /// After so long without an advert nobody is Active.
    pub fn master_down(&self) -> Duration {
        self.missed() + self.skew()
    }

    /// Nobody who takes over by the RFCs does it earlier than this after the last advert.
    pub fn missed(&self) -> Duration {
        self.interval * u32::from(self.adverts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_rfcs_and_of_keepalived() {
        use Version::{V2, V3};
        for (version, priority, interval_ms, adverts, skew_us, master_down_us) in [
            (V2, 100, 1_000, 3, 609_375, 3_609_375),
            (V2, 254, 1_000, 3, 7_812, 3_007_812),
            (V2, 100, 10_000, 3, 609_375, 30_609_375),
            (V2, 1, 1_000, 3, 996_093, 3_996_093),
            (V3, 100, 1_000, 3, 609_375, 3_609_375),
            (V3, 100, 10, 3, 6_093, 36_093),
            (V3, 255, 100, 3, 390, 300_390),
            (V3, 80, 40_950, 3, 28_153_125, 151_003_125),
            (V3, 80, 100, 1, 68_750, 168_750),
            (V3, 1, 10, 100, 9_960, 1_009_960),
        ] {
            let timer = Timer { version, priority, interval: Duration::from_millis(interval_ms), adverts };
            assert_eq!(
                (timer.skew().as_micros(), timer.master_down().as_micros()),
                (skew_us, master_down_us),
                "{timer:?}"
            );
        }
    }
}
