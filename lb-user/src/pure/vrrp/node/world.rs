//! What every router is judged by: interfaces, verdicts, the clock.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use jiff::Timestamp;

use super::{Link, Verdict};
use crate::pure::config::model::vrrp::Tracked;

#[derive(Debug)]
pub(super) struct World {
    pub(super) links: BTreeMap<String, Link>,
    verdicts: BTreeMap<Tracked, Verdict>,
    pub(super) ready: bool,
    pub(super) started: Instant,
    /// What the clock on the wall said, and when.
    pub(super) clock: Option<(Instant, Timestamp)>,
}

impl World {
    pub(super) fn new(started: Instant) -> World {
        World { links: BTreeMap::new(), verdicts: BTreeMap::new(), ready: false, started, clock: None }
    }

    /// Verdicts of what nobody tracks any more are the first to go.
    pub(super) fn learn(&mut self, what: Tracked, verdict: Verdict) {
        if self.verdicts.len() < VERDICTS_MAX || self.verdicts.contains_key(&what) {
            self.verdicts.insert(what, verdict);
        }
    }

    pub(super) fn keep_verdicts(&mut self, is_tracked: impl Fn(&Tracked) -> bool) {
        if self.verdicts.len() >= VERDICTS_MAX / 2 {
            self.verdicts.retain(|what, _| is_tracked(what));
        }
    }

    pub(super) fn verdict(&self, what: &Tracked) -> Verdict {
        match what {
            Tracked::Interface(name) if self.links.get(name).is_some_and(|link| link.is_up) => Verdict::Up,
            Tracked::Interface(_) => Verdict::Down,
            what => self.verdicts.get(what).copied().unwrap_or(Verdict::Unknown),
        }
    }

    /// Whether some interface has this address.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let is_there = |link: &Link| link.addresses.iter().any(|&(there, _)| there == address);
        self.links.values().any(is_there)
    }

    pub(super) fn timestamp(&self, now: Instant) -> Timestamp {
        let (at, timestamp) = self.clock.unwrap_or((now, Timestamp::UNIX_EPOCH));
        timestamp.saturating_add(now.saturating_duration_since(at)).unwrap_or(timestamp)
    }
}

/// More than any configuration tracks.
const VERDICTS_MAX: usize = 4_096;
