//! Whether somebody else has a router's addresses: probes before and after a take-over, and what answers them
//! (RFC 5227 in spirit: these addresses are taken over on purpose).

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::pure::hop::Mac;

/// Who claimed which of a router's addresses.
#[derive(Debug, Clone, Default)]
pub struct Conflicts {
    /// By our own addresses, so no longer than these.
    claims: BTreeMap<IpAddr, Claimed>,
    /// In Backup, since the one that is Active fell silent.
    probed_at: Option<Instant>,
    /// After the take-over.
    probe_at: Option<Instant>,
    active_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Claimed {
    mac: Mac,
    at: Instant,
    told: Option<(Mac, Instant)>,
}

impl Conflicts {
    /// Somebody else is Active.
    pub fn heard(&mut self) {
        self.probed_at = None;
    }

    /// No longer Active, or not any more about to be.
    pub fn stop(&mut self) {
        *self = Conflicts::default();
    }

    /// Returns who answered the probe of a moment ago.
    pub fn begin(&mut self, now: Instant) -> Vec<(IpAddr, Mac)> {
        let answered = |claimed: &Claimed| self.probed_at.is_some_and(|probed| claimed.at >= probed);
        let found: Vec<_> = self
            .claims
            .iter()
            .filter(|(_, claimed)| answered(claimed))
            .map(|(address, claimed)| (*address, claimed.mac))
            .collect();
        self.probed_at = None;
        self.probe_at = Some(now + PROBE_AFTER);
        self.active_since = Some(now);
        for (address, mac) in &found {
            if let Some(claimed) = self.claims.get_mut(address) {
                claimed.told = Some((*mac, now));
            }
        }
        found
    }

    /// `silent_from`: when the one that is Active is about to be given up, in Backup.
    pub fn deadline(&self, silent_from: Option<Instant>) -> Option<Instant> {
        let before = silent_from.filter(|_| self.probed_at.is_none());
        [before, self.probe_at].into_iter().flatten().min()
    }

    /// Whether to probe now.
    pub fn due(&mut self, now: Instant, silent_from: Option<Instant>) -> bool {
        if self.probe_at.is_some_and(|at| at <= now) {
            self.probe_at = None;
            return true;
        }
        let is_silent = self.probed_at.is_none() && silent_from.is_some_and(|from| from <= now);
        if is_silent {
            self.probed_at = Some(now);
        }
        is_silent
    }

    /// A claim of one of our addresses by somebody else.
    pub fn claimed(&mut self, now: Instant, address: IpAddr, mac: Mac) -> Claim {
        let claimed = self.claims.entry(address).or_insert(Claimed { mac, at: now, told: None });
        claimed.mac = mac;
        claimed.at = now;
        // Whoever was Active until now lets go of them when it hears of us.
        if self.active_since.is_none_or(|since| now < since + GRACE) {
            return Claim::Normal;
        }
        if claimed.told.is_some_and(|(told, at)| told == mac && now < at + TOLD_AGAIN) {
            return Claim::Known;
        }
        if claimed.told.is_some_and(|(_, at)| now < at + TOLD_OTHER) {
            return Claim::Known;
        }
        claimed.told = Some((mac, now));
        Claim::Conflict
    }
}

/// What a claim means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Somebody else is Active.
    Normal,
    /// To be told.
    Conflict,
    /// Told already.
    Known,
}

const GRACE: Duration = Duration::from_millis(500);
const PROBE_AFTER: Duration = Duration::from_secs(1);
const TOLD_AGAIN: Duration = Duration::from_secs(600);
/// Of another MAC: whoever makes them up must not fill the log.
const TOLD_OTHER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::testing::an_instant;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn claims_are_conflicts_only_while_active() {
        let (start, address) = (an_instant(), IpAddr::from([10, 0, 0, 1]));
        let mut conflicts = Conflicts::default();
        for (at, mac, expected) in [(0, MAC, Claim::Normal), (5, OTHER, Claim::Normal)] {
            assert_eq!(conflicts.claimed(start + ms(at), address, mac), expected, "backup, at {at} ms");
        }
        assert_eq!(conflicts.begin(start + ms(10)), []);
        for (at, mac, expected) in [
            (20, MAC, Claim::Normal),
            (1_000, MAC, Claim::Conflict),
            (2_000, MAC, Claim::Known),
            (3_000, OTHER, Claim::Known),
            (12_000, OTHER, Claim::Conflict),
            (13_000, OTHER, Claim::Known),
            (700_000, OTHER, Claim::Conflict),
        ] {
            assert_eq!(conflicts.claimed(start + ms(at), address, mac), expected, "active, at {at} ms");
        }
        conflicts.stop();
        assert_eq!(conflicts.claimed(start + ms(800_000), address, MAC), Claim::Normal);
    }

    #[test]
    fn who_answers_the_probe_of_a_silent_master_is_told_at_the_take_over() {
        let (start, address) = (an_instant(), IpAddr::from([10, 0, 0, 1]));
        let mut conflicts = Conflicts::default();
        conflicts.claimed(start, address, OTHER);
        let silent_from = Some(start + ms(100));
        assert_eq!(conflicts.deadline(silent_from), silent_from);
        assert!(!conflicts.due(start + ms(99), silent_from));
        assert!(conflicts.due(start + ms(100), silent_from));
        assert!(!conflicts.due(start + ms(101), silent_from), "once for one silence");
        conflicts.claimed(start + ms(102), address, MAC);
        assert_eq!(conflicts.begin(start + ms(200)), [(address, MAC)]);
        assert_eq!(conflicts.deadline(None), Some(start + ms(1_200)), "and again when it is Active");
        assert!(conflicts.due(start + ms(1_200), None));
        assert_eq!(conflicts.deadline(None), None);
    }
}
