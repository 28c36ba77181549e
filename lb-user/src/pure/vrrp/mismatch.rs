//! Who sends adverts for one router, and who of them does not agree with it: what a split brain is seen by.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    advert::{Advert, Refusal},
    happening::Happening,
    receive::{Heard, Rejected},
};
use crate::pure::status::SenderStatus;

/// The last advert of each sender; at most `SENDERS_MAX`.
#[derive(Debug, Clone, Default)]
pub struct Rivals {
    senders: BTreeMap<IpAddr, Sender>,
    quota: Quota,
}

#[derive(Debug, Clone)]
struct Sender {
    at: Instant,
    /// Its last one that was whole.
    advert: Option<Advert>,
    /// Priority of its last one that counted; None: it resigned, or is gone.
    rivals_with: Option<u8>,
    /// How it differs, since when it last did, and whether that was told.
    refused: Option<(Refusal, String)>,
    /// It counts all the same.
    is_taken: bool,
    refused_at: Option<Instant>,
    told: bool,
    differs_since: Option<Instant>,
}

/// How much is told: whoever forges sources must not fill the log.
#[derive(Debug, Clone, Default)]
pub struct Quota {
    spent: u32,
    refilled: Option<Instant>,
}

impl Rivals {
    /// An advert that counts.
    pub fn heard(&mut self, now: Instant, router: &str, peer: IpAddr, heard: &Heard) -> Option<Happening> {
        let priority = heard.advert.priority;
        let sender = self.sender(now, peer);
        sender.advert = Some(heard.advert.clone());
        sender.rivals_with = Some(priority).filter(|&priority| priority != 0);
        match &heard.difference {
            Some(difference) => {
                self.differs(now, router, peer, (Refusal::Addresses, difference.clone()), true)
            }
            None => {
                sender.differs_since = None;
                // Not between two that are refused: those may be forged in its name.
                let quiet = heard.advert.interval * ADVERTS_AGREED;
                if sender.refused_at.is_some_and(|at| now < at + quiet) {
                    return None;
                }
                sender.refused = None;
                sender.refused_at = None;
                let was_told = std::mem::take(&mut sender.told);
                was_told.then(|| Happening::Agreement { router: router.to_owned(), peer })
            }
        }
    }

    /// One that does not.
    pub fn refused(
        &mut self,
        now: Instant,
        router: &str,
        peer: IpAddr,
        rejected: Rejected,
    ) -> Option<Happening> {
        let sender = self.sender(now, peer);
        if rejected.advert.is_some() {
            sender.advert = rejected.advert;
        }
        self.differs(now, router, peer, (rejected.refusal, rejected.detail), false)
    }

    fn differs(
        &mut self,
        now: Instant,
        router: &str,
        peer: IpAddr,
        how: (Refusal, String),
        is_taken: bool,
    ) -> Option<Happening> {
        let sender = self.senders.get_mut(&peer)?;
        if how.0 == Refusal::Addresses {
            sender.differs_since.get_or_insert(now);
        }
        let is_news = !sender.told || (sender.refused.as_ref(), sender.is_taken) != (Some(&how), is_taken);
        sender.refused = Some(how.clone());
        sender.is_taken = is_taken;
        sender.refused_at = Some(now);
        if !is_news {
            return None;
        }
        sender.told = self.quota.allows(now);
        if !sender.told {
            return None;
        }
        let (refusal, detail) = how;
        Some(Happening::Mismatch { router: router.to_owned(), peer, refusal, detail, is_taken })
    }

    fn sender(&mut self, now: Instant, peer: IpAddr) -> &mut Sender {
        if self.senders.len() >= SENDERS_MAX && !self.senders.contains_key(&peer) {
            let oldest = self.senders.iter().min_by_key(|(_, sender)| sender.at).map(|(peer, _)| *peer);
            oldest.and_then(|peer| self.senders.remove(&peer));
        }
        let sender = self.senders.entry(peer).or_insert(Sender {
            at: now,
            advert: None,
            rivals_with: None,
            refused: None,
            is_taken: false,
            refused_at: None,
            told: false,
            differs_since: None,
        });
        sender.at = now;
        sender
    }

    /// For how long this sender's addresses have differed.
    pub fn differs_for(&self, now: Instant, peer: IpAddr) -> Duration {
        let since = self.senders.get(&peer).and_then(|sender| sender.differs_since);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The highest priority of those that were heard and did not resign.
    pub fn best(&self) -> Option<u8> {
        self.senders.values().filter_map(|sender| sender.rivals_with).max()
    }

    /// This node became Active: whoever outranks it and was silent is gone.
    pub fn won(&mut self, priority: u8) {
        for sender in self.senders.values_mut() {
            sender.rivals_with = sender.rivals_with.filter(|&theirs| theirs <= priority);
        }
    }

    /// Whether one more thing that others cause may be told.
    pub fn may_tell(&mut self, now: Instant) -> bool {
        self.quota.allows(now)
    }

    pub fn status(&self, now: Instant) -> Vec<SenderStatus> {
        self.senders.iter().map(|(peer, sender)| sender.status(now, *peer)).collect()
    }
}

impl Refusal {
    /// Whether such an advert is likely a rival's that does not agree, and not noise, our own or a replay.
    pub fn is_of_a_rival(self) -> bool {
        match self {
            Refusal::Ttl
            | Refusal::Version
            | Refusal::AuthType
            | Refusal::AuthMismatch
            | Refusal::Password
            | Refusal::Hmac
            | Refusal::Interval
            | Refusal::Addresses
            | Refusal::Cast
            | Refusal::Source
            | Refusal::Owner => true,
            Refusal::Length
            | Refusal::Type
            | Refusal::Checksum
            | Refusal::Vrid
            | Refusal::Replay
            | Refusal::Duplicate
            | Refusal::Own
            | Refusal::Carp
            | Refusal::Flood => false,
        }
    }
}

impl Sender {
    fn status(&self, now: Instant, peer: IpAddr) -> SenderStatus {
        let mut status = SenderStatus {
            address: peer.to_string(),
            age_ms: now.saturating_duration_since(self.at).as_millis() as u64,
            refused: self.refused.as_ref().map(|(refusal, _)| refusal.name().to_owned()),
            detail: self.refused.as_ref().map(|(_, detail)| detail.clone()),
            ..SenderStatus::default()
        };
        if let Some(advert) = &self.advert {
            status.priority = advert.priority;
            status.version = advert.version.number();
            status.interval_ms = advert.interval.as_millis() as u64;
            status.addresses = advert.addresses.iter().map(IpAddr::to_string).collect();
        }
        status
    }
}

impl Quota {
    /// `QUOTA` at once, and one more each second.
    pub fn allows(&mut self, now: Instant) -> bool {
        let since = *self.refilled.get_or_insert(now);
        let refill = now.saturating_duration_since(since).as_secs();
        if refill > 0 {
            self.spent = self.spent.saturating_sub(u32::try_from(refill).unwrap_or(u32::MAX));
            self.refilled = Some(since + Duration::from_secs(refill));
        }
        let allows = self.spent < QUOTA;
        self.spent += u32::from(allows);
        allows
    }
}

/// That count, in a row, before a sender is said to agree again.
const ADVERTS_AGREED: u32 = 3;
const SENDERS_MAX: usize = 16;
const QUOTA: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::{
        config::model::vrrp::Version,
        testing::an_instant,
        vrrp::advert::{AuthField, ChecksumForm},
    };

    fn heard(priority: u8) -> Heard {
        let advert = Advert {
            version: Version::V3,
            vrid: 51,
            priority,
            interval: Duration::from_secs(1),
            addresses: Vec::new(),
            auth: AuthField::None,
            checksum: ChecksumForm::PseudoHeader,
        };
        Heard { advert, difference: None }
    }

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn the_best_rival_is_one_that_lives() {
        let (now, mut rivals) = (an_instant(), Rivals::default());
        assert_eq!(rivals.best(), None);
        for (n, priority) in [(1, 90), (2, 150), (3, 200), (3, 0)] {
            rivals.heard(now, "r", peer(n), &heard(priority));
        }
        assert_eq!(rivals.best(), Some(150), "200 has resigned");
        rivals.won(100);
        assert_eq!(rivals.best(), Some(90), "150 let us win");
    }

    #[test]
    fn the_oldest_sender_makes_room() {
        let (now, mut rivals) = (an_instant(), Rivals::default());
        for n in 0..20 {
            rivals.heard(now + Duration::from_millis(n.into()), "r", peer(n), &heard(100));
        }
        let known: Vec<_> = rivals.status(now).into_iter().map(|sender| sender.address).collect();
        let expected: Vec<_> = (4..20).map(|n| peer(n).to_string()).collect();
        assert_eq!(known, expected);
    }

    /// The grace for other addresses may end: then both nodes may hold them, and that is news.
    #[test]
    fn an_advert_that_is_taken_is_not_said_to_be_refused() {
        let (now, mut rivals) = (an_instant(), Rivals::default());
        let detail = "the addresses differ".to_owned();
        let differing = Heard { difference: Some(detail.clone()), ..heard(100) };
        let said = |told: Option<Happening>| told.map(|told| told.to_string()).unwrap_or_default();
        assert_eq!(
            said(rivals.heard(now, "r", peer(1), &differing)),
            "r: adverts of 10.0.0.1 differ (addresses): the addresses differ; they are taken, make both the same"
        );
        assert_eq!(said(rivals.heard(now, "r", peer(1), &differing)), "");
        let rejected = Rejected { refusal: Refusal::Addresses, detail, advert: None };
        assert_eq!(
            said(rivals.refused(now, "r", peer(1), rejected)),
            "r: adverts of 10.0.0.1 are refused (addresses): the addresses differ; both nodes may hold the addresses"
        );
    }

    #[test]
    fn a_sender_agrees_only_when_nothing_in_its_name_is_refused() {
        let (start, mut rivals) = (an_instant(), Rivals::default());
        let refused = |rivals: &mut Rivals, at| {
            let detail = "the checksum is wrong".to_owned();
            let rejected = Rejected { refusal: Refusal::Checksum, detail, advert: None };
            rivals.refused(at, "r", peer(1), rejected).is_some()
        };
        let mut told = 0;
        for second in 0..100 {
            let at = start + Duration::from_secs(second);
            told += u32::from(rivals.heard(at, "r", peer(1), &heard(100)).is_some());
            told += u32::from(refused(&mut rivals, at));
        }
        assert_eq!(told, 1, "forged ones between good ones are told once");
        let later = start + Duration::from_secs(103);
        assert!(matches!(rivals.heard(later, "r", peer(1), &heard(100)), Some(Happening::Agreement { .. })));
    }
}
