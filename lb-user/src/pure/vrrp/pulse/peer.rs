//! Another node of the cluster: what is believed of its datagrams, and whether it lives.
//!
//! A datagram counts if it is signed, echoes the token that this node gave to that address, and is newer than the last.
//! A node that starts anew has other tokens: what was recorded before is worth nothing to it. And whoever starts
//! anew gets the pending token, which becomes the current one when it comes back: what was recorded of its
//! predecessor echoes an old one. So a replay needs the receiver's memory only, no clock and no file.
//!
//! ```text
//! unknown ── first that counts ──► alive ── nothing for `patience`, probes unanswered ──► silent
//!                                   │ ▲ ◄──────────── anything that counts ─────────────────┘
//!                                   ▼ └── anything ── left (it said that it stops)
//! ```

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Event,
    wire::{Datagram, Entry, Key, Message, SigningKey, WireError, digest},
};
use crate::pure::{status::PeerStatus, vrrp::node::State};

pub(super) struct Peer {
    pub address: IpAddr,
    pub presence: Presence,
    /// When something that counts came last.
    pub heard: Option<Instant>,
    pub session: Option<Session>,
    /// What it echoes now, and what it will echo if it starts anew.
    current: u64,
    pending: u64,
    sequence: u64,
    greeted: Option<Instant>,
    pub beat_at: Instant,
    pub probe_at: Instant,
    /// Its routers, as far as they are known whole.
    pub roster: Vec<Entry>,
    pub roster_digest: u64,
    partial: Option<Partial>,
    /// The digest of our roster that it has.
    pub acknowledged: Option<u64>,
    /// Since when it says that it does not hear us.
    pub deaf_since: Option<Instant>,
    /// Why its datagrams are not believed, and when that was told.
    refusal: Option<(WireError, Instant)>,
}

pub(super) struct Session {
    pub incarnation: u64,
    /// What it wants echoed.
    token: u64,
    /// The newest that counted.
    newest: u64,
    /// Bit by bit backwards from the newest: those that count no more. What waits behind work is overtaken by beats.
    seen: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Not heard since this node knows of it.
    Unknown,
    Alive,
    Silent,
    /// It said that it stops.
    Left,
}

/// What a signed datagram is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Belief {
    Known,
    /// The first of a session.
    Fresh {
        /// It has another daemon than before: its routers that were Active.
        restarted: Option<Vec<Entry>>,
    },
    /// It does not know our token: it may be a replay, or have just started.
    Unproven,
    /// Seen before, or overtaken.
    Stale,
}

/// A roster of which parts have come.
struct Partial {
    digest: u64,
    parts: Vec<Option<Vec<Entry>>>,
}

/// Makes tokens that nobody can guess, each once.
pub(super) struct Mint {
    incarnation: u64,
    made: u64,
}

impl Mint {
    pub(super) fn new(incarnation: u64) -> Mint {
        Mint { incarnation, made: 0 }
    }

    fn token(&mut self, key: &SigningKey, peer: IpAddr) -> u64 {
        self.made += 1;
        let peer = peer.to_string();
        key.token(&[&self.incarnation.to_be_bytes(), &self.made.to_be_bytes(), peer.as_bytes()])
    }
}

impl Session {
    /// Once.
    fn counts(&mut self, sequence: u64) -> bool {
        if let Some(ahead) = sequence.checked_sub(self.newest).filter(|ahead| *ahead > 0) {
            let moved = u32::try_from(ahead).ok().and_then(|ahead| self.seen.checked_shl(ahead));
            self.seen = moved.unwrap_or(0) | 1;
            self.newest = sequence;
            return true;
        }
        let behind = u32::try_from(self.newest - sequence).ok().and_then(|behind| 1_u128.checked_shl(behind));
        let Some(bit) = behind.filter(|bit| self.seen & bit == 0) else { return false };
        self.seen |= bit;
        true
    }
}

impl Peer {
    pub(super) fn new(now: Instant, address: IpAddr, key: &SigningKey, mint: &mut Mint) -> Peer {
        Peer {
            address,
            presence: Presence::Unknown,
            heard: None,
            session: None,
            current: mint.token(key, address),
            pending: mint.token(key, address),
            sequence: 0,
            greeted: None,
            beat_at: now,
            probe_at: now,
            roster: Vec::new(),
            roster_digest: digest(&[]),
            partial: None,
            acknowledged: None,
            deaf_since: None,
            refusal: None,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.presence == Presence::Alive
    }

    /// It never was there, or left.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.presence, Presence::Unknown | Presence::Left)
    }

    /// Heartbeats from one to the next. One that is silent may hear us, though we do not hear it; one that is not there
    /// speaks first when it starts.
    pub(super) fn pace(&self) -> u32 {
        match self.presence {
            Presence::Alive => 1,
            Presence::Silent => 2,
            Presence::Unknown | Presence::Left => 10,
        }
    }

    pub(super) fn is_deaf(&self, now: Instant, long: Duration) -> bool {
        self.deaf_since.is_some_and(|since| now >= since + long)
    }

    /// What it says of its router of this name.
    pub(super) fn entry(&self, key: Key) -> Option<Entry> {
        key.counterpart(self.roster.iter().map(|entry| (entry.key, *entry)))
    }

    pub(super) fn active(&self) -> Vec<Entry> {
        self.roster.iter().filter(|entry| entry.state == State::Active).copied().collect()
    }

    /// Judges a signed datagram, and remembers what follows from it.
    pub(super) fn judge(&mut self, datagram: &Datagram, key: &SigningKey, mint: &mut Mint) -> Belief {
        let (token, newest) = (datagram.token, datagram.sequence);
        let fresh = Session { incarnation: datagram.incarnation, token, newest, seen: u128::MAX };
        if datagram.echo == self.pending {
            self.current = self.pending;
            self.pending = mint.token(key, self.address);
            let before = self.session.replace(fresh);
            let restarted = before
                .is_some_and(|session| session.incarnation != datagram.incarnation)
                .then(|| self.roster.extract_if(.., |entry| entry.state == State::Active).collect());
            self.forget();
            return Belief::Fresh { restarted };
        }
        match &mut self.session {
            Some(session) if datagram.echo == self.current && session.incarnation == datagram.incarnation => {
                if session.counts(datagram.sequence) {
                    Belief::Known
                } else {
                    Belief::Stale
                }
            }
            _ => Belief::Unproven,
        }
    }

    fn forget(&mut self) {
        self.roster.clear();
        self.roster_digest = digest(&[]);
        self.partial = None;
        self.acknowledged = None;
        self.deaf_since = None;
    }

    /// A datagram to it; before it was heard it can only be a greeting.
    pub(super) fn address_to(&mut self, incarnation: u64, message: Message) -> Datagram {
        self.sequence += 1;
        let (token, echo, message) = match &self.session {
            Some(session) => (self.current, session.token, message),
            None => (self.pending, 0, Message::Hello),
        };
        Datagram { incarnation, token, echo, sequence: self.sequence, message }
    }

    /// What proves to an unproven sender who we are, and asks it to do the same; at most one in `pace`.
    pub(super) fn greet(
        &mut self,
        now: Instant,
        pace: Duration,
        incarnation: u64,
        echo: u64,
    ) -> Option<Datagram> {
        if self.greeted.is_some_and(|greeted| now < greeted + pace) {
            return None;
        }
        self.greeted = Some(now);
        self.sequence += 1;
        let message = Message::Hello;
        Some(Datagram { incarnation, token: self.pending, echo, sequence: self.sequence, message })
    }

    /// Takes a part of its roster in; true when that made another whole of it.
    pub(super) fn take_part(&mut self, of: u64, part: u8, parts: u8, entries: Vec<Entry>) -> bool {
        if of == self.roster_digest {
            return false;
        }
        let partial = match &mut self.partial {
            Some(partial) if partial.digest == of && partial.parts.len() == usize::from(parts) => partial,
            other => other.insert(Partial { digest: of, parts: vec![None; usize::from(parts)] }),
        };
        if let Some(place) = partial.parts.get_mut(usize::from(part)) {
            *place = Some(entries);
        }
        if partial.parts.iter().any(Option::is_none) {
            return false;
        }
        let whole: Vec<_> = partial.parts.drain(..).flatten().flatten().collect();
        self.partial = None;
        let is_whole = digest(&whole) == of;
        if is_whole {
            self.roster = whole;
            self.roster_digest = of;
        }
        is_whole
    }

    /// Tells of datagrams that are not believed: not while others are, when it is a forger that sends them, and not
    /// more than once in a minute.
    pub(super) fn refuse(&mut self, now: Instant, error: WireError) -> Option<Event> {
        if self.is_alive() || self.refusal.is_some_and(|(_, told)| now < told + REFUSAL_AGAIN) {
            return None;
        }
        self.refusal = Some((error, now));
        Some(Event::Refused { peer: self.address, detail: error.to_string() })
    }

    pub(super) fn agree(&mut self) {
        self.refusal = None;
    }

    pub(super) fn status(&self, now: Instant) -> PeerStatus {
        let state = match (self.presence, self.refusal) {
            (Presence::Alive, _) => "alive",
            (_, Some(_)) => "refused",
            (Presence::Unknown, None) => "unknown",
            (Presence::Silent, None) => "silent",
            (Presence::Left, None) => "stopped",
        };
        PeerStatus {
            address: self.address.to_string(),
            state: state.to_owned(),
            age_ms: self.heard.map(|heard| now.saturating_duration_since(heard).as_millis() as u64),
            detail: self.refusal.map(|(error, _)| error.to_string()),
            routers: self.roster.iter().map(Entry::status).collect(),
        }
    }
}

const REFUSAL_AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_datagram_counts_once_and_not_when_it_is_old() {
        let mut session = Session { incarnation: 1, token: 2, newest: 1_000, seen: u128::MAX };
        for (sequence, counts) in [
            (1_000, false),
            (999, false),
            (1_005, true),
            (1_003, true),
            (1_003, false),
            (1_005, false),
            (1_132, true),
            (1_004, false),
            (1_006, true),
            (1_006, false),
            (9_000_000_000, true),
            (8_999_999_999, true),
            (0, false),
            (u64::MAX, true),
        ] {
            assert_eq!(session.counts(sequence), counts, "{sequence}");
        }
    }
}
