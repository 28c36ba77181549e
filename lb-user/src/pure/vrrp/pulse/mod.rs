//! Heartbeats: which nodes of the cluster live, what their routers are, and messages among them.
//!
//! ```text
//! datagram ─► signature ─► Peer: fresh? ─► Event ─► hand-over, take-over (node)
//! time ─────► beats, probes, silence ────► Event
//! roster (our routers) ─► parts until the peer has them ─► datagram
//! ```
//!
//! Nothing that is not signed is believed. Must not know what a router does about a peer that is lost.

pub mod handover;
mod peer;
#[cfg(test)]
mod tests;
pub mod trust;
pub mod wire;

use std::{
    collections::BTreeMap,
    mem,
    net::IpAddr,
    time::{Duration, Instant},
};

use self::{
    peer::{Belief, Mint, Peer, Presence},
    wire::{Call, Datagram, Entry, Key, Message, PART_MAX, PARTS_MAX, SigningKey, digest},
};
use super::node::State;
use crate::pure::{config::model::Cluster, status::PeerStatus};

/// What came of datagrams and of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Found {
        peer: IpAddr,
    },
    Lost {
        peer: IpAddr,
        how: Loss,
        /// When it was heard last.
        heard: Instant,
        /// Its routers that were Active.
        active: Vec<Entry>,
    },
    /// It stops, and said so.
    Left {
        peer: IpAddr,
    },
    /// Its routers are others than before.
    Roster {
        peer: IpAddr,
    },
    Asked {
        peer: IpAddr,
        what: Ask,
        call: Call,
    },
    /// Its datagrams are not believed.
    Refused {
        peer: IpAddr,
        detail: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    Silent,
    /// Its daemon died, and another one runs already.
    Restarted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Resign,
    Claimed,
    Refused,
    Take,
}

/// See the module.
pub struct Pulse {
    incarnation: u64,
    mint: Mint,
    signing: Option<Signing>,
    heartbeat: Duration,
    patience: Duration,
    /// As many as the configuration names, and none without a secret.
    peers: BTreeMap<IpAddr, Peer>,
    roster: Vec<Entry>,
    roster_digest: u64,
    outbox: Vec<(IpAddr, Vec<u8>)>,
    answers: Vec<(IpAddr, Vec<u8>)>,
    events: Vec<Event>,
}

struct Signing {
    secret: Vec<u8>,
    key: SigningKey,
}

impl Pulse {
    /// `seed`: another one at each start.
    pub fn new(seed: u64) -> Pulse {
        let incarnation = seed.max(1);
        Pulse {
            incarnation,
            mint: Mint::new(incarnation),
            signing: None,
            heartbeat: Duration::ZERO,
            patience: Duration::ZERO,
            peers: BTreeMap::new(),
            roster: Vec::new(),
            roster_digest: digest(&[]),
            outbox: Vec::new(),
            answers: Vec::new(),
            events: Vec::new(),
        }
    }

    /// A peer that stays is not forgotten, unless the secret is another.
    pub fn configure(&mut self, now: Instant, cluster: &Cluster, secret: Option<&[u8]>) {
        self.heartbeat = cluster.heartbeat;
        self.patience = cluster.patience;
        let is_rekeyed = self.signing.as_ref().map(|signing| &signing.secret[..]) != secret;
        self.say_goodbye(|peer| is_rekeyed || !cluster.peers.contains(&peer));
        if is_rekeyed {
            self.peers.clear();
            self.signing =
                secret.map(|secret| Signing { secret: secret.to_owned(), key: SigningKey::new(secret) });
        }
        let Some(Signing { key, .. }) = &self.signing else { return };
        self.peers.retain(|address, _| cluster.peers.contains(address));
        for address in &cluster.peers {
            let mint = &mut self.mint;
            self.peers.entry(*address).or_insert_with(|| Peer::new(now, *address, key, mint));
        }
    }

    /// Takes a datagram of the heartbeat port in.
    pub fn receive(&mut self, now: Instant, source: IpAddr, bytes: &[u8]) {
        let (Some(Signing { key, .. }), Some(peer)) = (&self.signing, self.peers.get_mut(&source)) else {
            return;
        };
        let datagram = match key.decode(bytes) {
            Ok(datagram) if datagram.incarnation == self.incarnation => return,
            Ok(datagram) => datagram,
            Err(error) => return self.events.extend(peer.refuse(now, error)),
        };
        match peer.judge(&datagram, key, &mut self.mint) {
            Belief::Stale => return,
            Belief::Unproven => {
                let greeting = peer.greet(now, self.heartbeat / 2, self.incarnation, datagram.token);
                return self.outbox.extend(greeting.map(|greeting| (source, key.encode(&greeting))));
            }
            Belief::Known => {}
            Belief::Fresh { restarted } => {
                if let Some(active) = restarted.filter(|_| peer.is_alive()) {
                    let heard = peer.heard.unwrap_or(now);
                    self.events.push(Event::Lost { peer: source, how: Loss::Restarted, heard, active });
                    peer.presence = Presence::Silent;
                }
                peer.beat_at = now;
            }
        }
        self.hear(now, source, datagram);
        self.beat(now);
    }

    /// What a datagram that counts says.
    fn hear(&mut self, now: Instant, source: IpAddr, datagram: Datagram) {
        let Some(peer) = self.peers.get_mut(&source) else { return };
        peer.agree();
        peer.heard = Some(now);
        peer.probe_at = now + self.patience * 3 / 5;
        if !peer.is_alive() && datagram.message != Message::Bye {
            peer.presence = Presence::Alive;
            peer.beat_at = now;
            self.events.push(Event::Found { peer: source });
        }
        let asked = |what, call| Event::Asked { peer: source, what, call };
        match datagram.message {
            Message::Hello | Message::Answer => {}
            Message::Beat { yours, hears, .. } => {
                peer.acknowledged = Some(yours);
                peer.deaf_since = if hears { None } else { peer.deaf_since.or(Some(now)) };
            }
            Message::Roster { digest, part, parts, entries } => {
                if peer.take_part(digest, part, parts, entries) {
                    self.events.push(Event::Roster { peer: source });
                }
            }
            Message::Probe => self.tell(source, Message::Answer),
            Message::Bye => {
                if mem::replace(&mut peer.presence, Presence::Left) != Presence::Left {
                    self.events.push(Event::Left { peer: source });
                }
            }
            Message::Resign(call) => self.events.push(asked(Ask::Resign, call)),
            Message::Claimed(call) => self.events.push(asked(Ask::Claimed, call)),
            Message::Refused(call) => self.events.push(asked(Ask::Refused, call)),
            Message::Take(call) => self.events.push(asked(Ask::Take, call)),
        }
    }

    /// Sends what is due, and finds out who is silent.
    pub fn pass(&mut self, now: Instant) {
        let overslept = self.deadline().is_some_and(|due| now > due + self.patience / 10);
        for peer in self.peers.values_mut().filter(|peer| peer.is_alive()) {
            let Some(heard) = &mut peer.heard else { continue };
            // What came while we slept is still in the socket: nobody is lost before it was read and probes had time.
            if overslept && now > *heard + self.patience * 3 / 5 {
                *heard = now.checked_sub(self.patience * 3 / 5).unwrap_or(now);
                peer.probe_at = now;
            }
            if now >= *heard + self.patience {
                peer.presence = Presence::Silent;
                let (heard, active) = (*heard, peer.active());
                self.events.push(Event::Lost { peer: peer.address, how: Loss::Silent, heard, active });
            }
        }
        self.probe(now);
        self.beat(now);
    }

    fn probe(&mut self, now: Instant) {
        let due = |peer: &Peer| peer.is_alive() && now >= peer.probe_at;
        let due: Vec<_> = self.peers.values().filter(|peer| due(peer)).map(|peer| peer.address).collect();
        for address in due {
            self.tell(address, Message::Probe);
            if let Some(peer) = self.peers.get_mut(&address) {
                peer.probe_at = now + (self.patience / 10).max(PROBE_MIN);
            }
        }
    }

    /// A peer gets our roster with every beat until it says that it has it.
    fn beat(&mut self, now: Instant) {
        let due: Vec<_> =
            self.peers.values().filter(|peer| now >= peer.beat_at).map(|peer| peer.address).collect();
        for address in due {
            let Some(peer) = self.peers.get_mut(&address) else { continue };
            peer.beat_at = now + self.heartbeat.max(PROBE_MIN) * peer.pace();
            let hears = peer.is_alive();
            let peer_is_absent = peer.is_absent();
            let (yours, lacks) = (peer.roster_digest, peer.acknowledged != Some(self.roster_digest));
            self.tell(address, Message::Beat { mine: self.roster_digest, yours, hears });
            if lacks && !peer_is_absent {
                self.send_roster(address);
            }
        }
    }

    fn send_roster(&mut self, address: IpAddr) {
        let parts = self.roster.chunks(PART_MAX).count().max(1);
        for part in 0..parts {
            let entries = self.roster.chunks(PART_MAX).nth(part).unwrap_or_default().to_vec();
            let (digest, part, parts) = (self.roster_digest, part as u8, parts as u8);
            self.tell(address, Message::Roster { digest, part, parts, entries });
        }
    }

    /// What our routers are; the peers learn it at once when it changed.
    pub fn set_roster(&mut self, now: Instant, mut entries: Vec<Entry>) {
        entries.truncate(PART_MAX * PARTS_MAX);
        if entries == self.roster {
            return;
        }
        self.roster_digest = digest(&entries);
        self.roster = entries;
        for peer in self.peers.values_mut() {
            // What it acknowledged last may have been the same long ago.
            peer.acknowledged = None;
            if !peer.is_absent() {
                peer.beat_at = now;
            }
        }
        self.beat(now);
    }

    pub fn tell(&mut self, address: IpAddr, message: Message) {
        let bytes = self.address_to(address, message);
        self.outbox.extend(bytes.map(|bytes| (address, bytes)));
    }

    /// Says it when all is done that is to be done now.
    pub fn answer(&mut self, address: IpAddr, message: Message) {
        let bytes = self.address_to(address, message);
        self.answers.extend(bytes.map(|bytes| (address, bytes)));
    }

    fn address_to(&mut self, address: IpAddr, message: Message) -> Option<Vec<u8>> {
        let (Signing { key, .. }, peer) = (self.signing.as_ref()?, self.peers.get_mut(&address)?);
        Some(key.encode(&peer.address_to(self.incarnation, message)))
    }

    /// Tells those that are `left` that silence from now on means nothing.
    pub fn say_goodbye(&mut self, left: impl Fn(IpAddr) -> bool) {
        let alive = self.peers.values().filter(|peer| peer.is_alive()).map(|peer| peer.address);
        for address in alive.filter(|peer| left(*peer)).collect::<Vec<_>>() {
            self.tell(address, Message::Bye);
        }
    }

    pub fn take_datagrams(&mut self) -> Vec<(IpAddr, Vec<u8>)> {
        mem::take(&mut self.outbox)
    }

    pub fn take_answers(&mut self) -> Vec<(IpAddr, Vec<u8>)> {
        mem::take(&mut self.answers)
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        mem::take(&mut self.events)
    }

    /// When `pass` is due.
    pub fn deadline(&self) -> Option<Instant> {
        let of = |peer: &Peer| match peer.heard {
            Some(heard) if peer.is_alive() => peer.beat_at.min(peer.probe_at).min(heard + self.patience),
            _ => peer.beat_at,
        };
        self.peers.values().map(of).min()
    }

    /// The living peer that has this router Active.
    pub fn holder(&self, key: Key) -> Option<(IpAddr, Entry)> {
        self.living(key)
            .map(|(peer, entry)| (peer.address, entry))
            .find(|(_, entry)| entry.state == State::Active)
    }

    /// The living peer that has all of these in Backup, and would be Active next.
    pub fn successor(&self, keys: &[Key]) -> Option<(IpAddr, Entry)> {
        let waits = |peer: &Peer, key: Key| peer.entry(key).filter(|entry| entry.state == State::Backup);
        let (first, others) = keys.split_first()?;
        self.living(*first)
            .filter(|(_, entry)| entry.state == State::Backup)
            .filter(|(peer, _)| others.iter().all(|key| waits(peer, *key).is_some()))
            .max_by_key(|(peer, entry)| (entry.priority, rank(peer)))
            .map(|(peer, entry)| (peer.address, entry))
    }

    /// Whether a living peer is Active, or would rather be Active than we with this priority.
    pub fn is_better_claimed(&self, key: Key, priority: u8) -> bool {
        self.living(key).any(|(peer, entry)| match entry.state {
            State::Active => true,
            State::Backup => !entry.is_held && (entry.priority, rank(peer)) > (priority, self.incarnation),
            State::Initialize | State::Fault => false,
        })
    }

    /// Whether any living peer has not heard us for `long`, though we hear it.
    pub fn is_unheard(&self, now: Instant, long: Duration) -> bool {
        self.peers.values().any(|peer| peer.is_alive() && peer.is_deaf(now, long))
    }

    /// The peer that has this router Active, and has not heard us for `long`, though we hear it.
    pub fn deaf_holder(&self, now: Instant, key: Key, long: Duration) -> Option<IpAddr> {
        self.living(key)
            .find(|(peer, entry)| entry.state == State::Active && peer.is_deaf(now, long))
            .map(|(peer, _)| peer.address)
    }

    /// Whether the configuration names it.
    pub fn knows(&self, address: IpAddr) -> bool {
        self.peers.contains_key(&address)
    }

    pub fn is_alive(&self, address: IpAddr) -> bool {
        self.peers.get(&address).is_some_and(Peer::is_alive)
    }

    /// Whether this peer takes the router over when nobody has it.
    pub fn waits_on(&self, address: IpAddr, key: Key) -> bool {
        let entry = self.peers.get(&address).and_then(|peer| peer.entry(key));
        entry.is_some_and(|entry| entry.state == State::Backup)
    }

    /// Whether this peer has the router Active.
    pub fn is_active_on(&self, address: IpAddr, key: Key) -> bool {
        let entry = self.peers.get(&address).and_then(|peer| peer.entry(key));
        entry.is_some_and(|entry| entry.state == State::Active)
    }

    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    pub fn status(&self, now: Instant) -> Vec<PeerStatus> {
        self.peers.values().map(|peer| peer.status(now)).collect()
    }

    fn living(&self, key: Key) -> impl Iterator<Item = (&Peer, Entry)> {
        self.peers
            .values()
            .filter(|peer| peer.is_alive())
            .filter_map(move |peer| Some((peer, peer.entry(key)?)))
    }
}

/// Settles ties among nodes; a wrong guess is put right by the adverts, which compare addresses.
fn rank(peer: &Peer) -> u64 {
    peer.session.as_ref().map_or(0, |session| session.incarnation)
}

const PROBE_MIN: Duration = Duration::from_millis(1);
