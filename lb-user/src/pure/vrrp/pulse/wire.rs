//! Datagrams between the nodes of a cluster as values and as bytes, and the signature on them.
//!
//! ```text
//! magic 4 | kind 1 | flags 1 | 0 2 | incarnation 8 | token 8 | echo 8 | sequence 8 | body | HMAC-SHA256 32
//! ```
//!
//! Must not know who sends what when, nor what is believed of a datagram that is signed.

use std::hash::Hasher;

use aws_lc_rs::hmac;
use siphasher::sip::SipHasher24;

use crate::pure::{
    config::{
        model::vrrp::{Router, Version},
        network::Family,
    },
    status::PeerRouterStatus,
    vrrp::node::State,
};

/// What is signed. Numbers are big-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Of the sender: another one for each start of its daemon.
    pub incarnation: u64,
    /// What the receiver is to echo.
    pub token: u64,
    /// The receiver's token as the sender knows it; 0: not yet.
    pub echo: u64,
    /// Counts up with each datagram to this receiver.
    pub sequence: u64,
    pub message: Message,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Nothing but tokens.
    Hello,
    Beat {
        /// Digest of the sender's roster.
        mine: u64,
        /// Digest of the receiver's roster as the sender has it.
        yours: u64,
        /// Whether the sender hears the receiver.
        hears: bool,
    },
    /// A part of the sender's routers.
    Roster {
        /// Of the whole.
        digest: u64,
        part: u8,
        /// 1 to `PARTS_MAX`.
        parts: u8,
        entries: Vec<Entry>,
    },
    /// Are you there?
    Probe,
    Answer,
    /// The daemon stops: silence from now on means nothing.
    Bye,
    /// The sender is Active, and wants the receiver to be.
    Resign(Call),
    /// The receiver resigned, and the sender is Active.
    Claimed(Call),
    /// The receiver resigned, and the sender cannot take over.
    Refused(Call),
    /// The receiver is Active, and the sender wants to be: it is to resign.
    Take(Call),
}

/// About one router, in one round of a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub key: Key,
    pub round: u32,
    /// Of the sender, effective.
    pub priority: u8,
}

/// What one virtual router is called by several nodes: names and interfaces are each node's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub vrid: u8,
    pub family: Family,
    /// Digest of its addresses: tells routers of one VRID on several interfaces apart.
    pub addresses: u32,
}

/// One router of a node, as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    pub version: Version,
    pub state: State,
    /// Effective.
    pub priority: u8,
    /// It handed over on an operator's behalf, and does not want the addresses back.
    pub is_held: bool,
}

impl Entry {
    pub fn status(&self) -> PeerRouterStatus {
        PeerRouterStatus {
            vrid: self.key.vrid,
            family: self.key.family.name().to_owned(),
            version: self.version.number(),
            state: self.state.name().to_owned(),
            priority: self.priority,
        }
    }
}

/// Why bytes are no datagram of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("it is no heartbeat")]
    Foreign,
    #[error("its version {0} is unknown here: run the same release on every node")]
    Version(u8),
    #[error("its signature is wrong: the nodes have different [cluster] secrets")]
    Signature,
    /// Signed by a node of ours: nothing an attacker can reach.
    #[error("it is malformed: run the same release on every node")]
    Malformed,
}

/// Made from the cluster's secret.
pub struct SigningKey {
    datagrams: hmac::Key,
    tokens: hmac::Key,
}

impl SigningKey {
    /// Other keys than those of the flow hash: what one learns of these says nothing of those.
    pub fn new(secret: &[u8]) -> SigningKey {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derive =
            |label: &str| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, label.as_bytes()).as_ref());
        SigningKey { datagrams: derive("steelyard heartbeat 1"), tokens: derive("steelyard token 1") }
    }

    /// Nobody without the secret can tell it; never 0.
    pub fn token(&self, parts: &[&[u8]]) -> u64 {
        let mut context = hmac::Context::with_key(&self.tokens);
        for part in parts {
            context.update(part);
        }
        let tag = context.sign();
        tag.as_ref().first_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes).max(1))
    }

    pub fn encode(&self, datagram: &Datagram) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + SIGNATURE + 32);
        let (kind, flags) = kind_of(&datagram.message);
        bytes.extend(MAGIC);
        bytes.extend([VERSION, kind, flags, 0, 0]);
        for number in [datagram.incarnation, datagram.token, datagram.echo, datagram.sequence] {
            bytes.extend(number.to_be_bytes());
        }
        put_body(&datagram.message, &mut bytes);
        let signature = hmac::sign(&self.datagrams, &bytes);
        bytes.extend(signature.as_ref());
        bytes
    }

    /// The signature is looked at before anything behind the magic number.
    pub fn decode(&self, bytes: &[u8]) -> Result<Datagram, WireError> {
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE>().ok_or(WireError::Foreign)?;
        let Some([version, kind, flags, _, _, rest @ ..]) = signed.strip_prefix(&MAGIC) else {
            return Err(WireError::Foreign);
        };
        if *version != VERSION {
            return Err(WireError::Version(*version));
        }
        if hmac::verify(&self.datagrams, signed, signature).is_err() {
            return Err(WireError::Signature);
        }
        read(*kind, *flags, rest).ok_or(WireError::Malformed)
    }
}

impl Key {
    pub fn of(router: &Router) -> Key {
        let mut addresses: Vec<_> = router.addresses.iter().map(|address| address.address).collect();
        addresses.sort_unstable();
        let mut hasher = SipHasher24::new();
        for address in addresses {
            hasher.write(address.to_string().as_bytes());
            hasher.write_u8(0);
        }
        Key { vrid: router.vrid, family: router.family, addresses: (hasher.finish() >> 32) as u32 }
    }

    /// The one of `keys` that means the same router: by its addresses, or because no other has the VRID. Nodes whose
    /// address lists differ for a while still hand over to each other.
    pub fn counterpart<T>(self, keys: impl Iterator<Item = (Key, T)>) -> Option<T> {
        let mut namesakes = 0;
        let mut only = None;
        for (key, value) in keys {
            if key == self {
                return Some(value);
            }
            if (key.vrid, key.family) == (self.vrid, self.family) {
                namesakes += 1;
                only = Some(value);
            }
        }
        only.filter(|_| namesakes == 1)
    }
}

/// Tells whether two rosters are the same: on every node and in every version alike.
pub fn digest(entries: &[Entry]) -> u64 {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
    entries.iter().for_each(|entry| put_entry(entry, &mut bytes));
    let mut hasher = SipHasher24::new();
    hasher.write(&bytes);
    hasher.finish()
}

fn kind_of(message: &Message) -> (u8, u8) {
    match message {
        Message::Hello => (0, 0),
        Message::Beat { hears, .. } => (1, u8::from(*hears)),
        Message::Roster { .. } => (2, 0),
        Message::Probe => (3, 0),
        Message::Answer => (4, 0),
        Message::Bye => (5, 0),
        Message::Resign(_) => (6, 0),
        Message::Claimed(_) => (7, 0),
        Message::Refused(_) => (8, 0),
        Message::Take(_) => (9, 0),
    }
}

fn put_body(message: &Message, bytes: &mut Vec<u8>) {
    match message {
        Message::Hello | Message::Probe | Message::Answer | Message::Bye => {}
        Message::Beat { mine, yours, .. } => {
            bytes.extend(mine.to_be_bytes());
            bytes.extend(yours.to_be_bytes());
        }
        Message::Roster { digest, part, parts, entries } => {
            bytes.extend(digest.to_be_bytes());
            bytes.extend([*part, *parts]);
            entries.iter().for_each(|entry| put_entry(entry, bytes));
        }
        Message::Resign(call) | Message::Claimed(call) | Message::Refused(call) | Message::Take(call) => {
            put_key(call.key, bytes);
            bytes.extend(call.round.to_be_bytes());
            bytes.push(call.priority);
        }
    }
}

fn put_key(key: Key, bytes: &mut Vec<u8>) {
    let family = match key.family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    bytes.extend([key.vrid, family]);
    bytes.extend(key.addresses.to_be_bytes());
}

fn put_entry(entry: &Entry, bytes: &mut Vec<u8>) {
    let state = match entry.state {
        State::Initialize => 0,
        State::Backup => 1,
        State::Active => 2,
        State::Fault => 3,
    };
    put_key(entry.key, bytes);
    bytes.extend([entry.version.number() << 4 | state, entry.priority, u8::from(entry.is_held)]);
}

fn read(kind: u8, flags: u8, rest: &[u8]) -> Option<Datagram> {
    let (incarnation, rest) = number(rest)?;
    let (token, rest) = number(rest)?;
    let (echo, rest) = number(rest)?;
    let (sequence, body) = number(rest)?;
    Some(Datagram { incarnation, token, echo, sequence, message: read_body(kind, flags, body)? })
}

fn read_body(kind: u8, flags: u8, body: &[u8]) -> Option<Message> {
    let bare = |message| body.is_empty().then_some(message);
    match kind {
        0 => bare(Message::Hello),
        1 => {
            let (mine, body) = number(body)?;
            let (yours, body) = number(body)?;
            body.is_empty().then_some(Message::Beat { mine, yours, hears: flags & 1 == 1 })
        }
        2 => read_roster(body),
        3 => bare(Message::Probe),
        4 => bare(Message::Answer),
        5 => bare(Message::Bye),
        6 => read_call(body).map(Message::Resign),
        7 => read_call(body).map(Message::Claimed),
        8 => read_call(body).map(Message::Refused),
        9 => read_call(body).map(Message::Take),
        _ => None,
    }
}

fn read_roster(body: &[u8]) -> Option<Message> {
    let (digest, body) = number(body)?;
    let [part, parts, entries @ ..] = body else { return None };
    let (entries, []) = entries.as_chunks::<ENTRY>() else { return None };
    let is_sound = part < parts && usize::from(*parts) <= PARTS_MAX && entries.len() <= PART_MAX;
    let entries = entries.iter().map(read_entry).collect::<Option<_>>()?;
    is_sound.then_some(Message::Roster { digest, part: *part, parts: *parts, entries })
}

fn read_call(body: &[u8]) -> Option<Call> {
    let (key, rest) = body.split_first_chunk::<KEY>()?;
    let (round, rest) = rest.split_first_chunk()?;
    let [priority] = rest else { return None };
    Some(Call { key: read_key(key)?, round: u32::from_be_bytes(*round), priority: *priority })
}

fn read_key(bytes: &[u8; KEY]) -> Option<Key> {
    let [vrid, family, addresses @ ..] = bytes;
    let family = match family {
        4 => Family::V4,
        6 => Family::V6,
        _ => return None,
    };
    Some(Key { vrid: *vrid, family, addresses: u32::from_be_bytes(*addresses) })
}

fn read_entry(bytes: &[u8; ENTRY]) -> Option<Entry> {
    let (key, rest) = bytes.split_first_chunk::<KEY>()?;
    let [kind, priority, flags] = rest else { return None };
    let version = match kind >> 4 {
        2 => Version::V2,
        3 => Version::V3,
        _ => return None,
    };
    let state = match kind & 0xf {
        0 => State::Initialize,
        1 => State::Backup,
        2 => State::Active,
        3 => State::Fault,
        _ => return None,
    };
    Some(Entry { key: read_key(key)?, version, state, priority: *priority, is_held: flags & 1 == 1 })
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    bytes.split_first_chunk().map(|(number, rest)| (u64::from_be_bytes(*number), rest))
}

const MAGIC: [u8; 3] = *b"SYH";
const VERSION: u8 = 1;
/// Magic number, version, kind, flags, two spare bytes and four numbers.
const HEADER: usize = 3 + 5 + 4 * 8;
const SIGNATURE: usize = 32;
const KEY: usize = 6;
const ENTRY: usize = KEY + 3;
/// Entries in a part: a datagram stays below 1280 bytes with its headers, so that no path fragments it (RFC 8200).
pub const PART_MAX: usize = 120;
/// Routers beyond take part in elections, but not in hand-overs.
pub const PARTS_MAX: usize = 32;

const _: () = assert!(40 + 8 + HEADER + 10 + PART_MAX * ENTRY + SIGNATURE <= 1_280);

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn key() -> SigningKey {
        SigningKey::new(b"hush")
    }

    fn call() -> impl Strategy<Value = Call> {
        (router_key(), any::<u32>(), any::<u8>()).prop_map(|(key, round, priority)| Call {
            key,
            round,
            priority,
        })
    }

    fn router_key() -> impl Strategy<Value = Key> {
        (any::<u8>(), prop_oneof![Just(Family::V4), Just(Family::V6)], any::<u32>())
            .prop_map(|(vrid, family, addresses)| Key { vrid, family, addresses })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let state = prop_oneof![
            Just(State::Initialize),
            Just(State::Backup),
            Just(State::Active),
            Just(State::Fault)
        ];
        (router_key(), prop_oneof![Just(Version::V2), Just(Version::V3)], state, any::<u8>(), any::<bool>())
            .prop_map(|(key, version, state, priority, is_held)| Entry {
                key,
                version,
                state,
                priority,
                is_held,
            })
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            prop_oneof![
                Just(Message::Hello),
                Just(Message::Probe),
                Just(Message::Answer),
                Just(Message::Bye)
            ],
            (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(mine, yours, hears)| Message::Beat {
                mine,
                yours,
                hears
            }),
            (any::<u64>(), 0..32_u8, vec(entry(), 0..PART_MAX)).prop_map(|(digest, part, entries)| {
                Message::Roster { digest, part, parts: PARTS_MAX as u8, entries }
            }),
            call().prop_map(Message::Resign),
            call().prop_map(Message::Claimed),
            call().prop_map(Message::Refused),
            call().prop_map(Message::Take),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_sent_arrives(message in message(), numbers: [u64; 4]) {
            let [incarnation, token, echo, sequence] = numbers;
            let datagram = Datagram { incarnation, token, echo, sequence, message };
            let bytes = key().encode(&datagram);
            prop_assert!(bytes.len() <= 1_232);
            prop_assert_eq!(key().decode(&bytes), Ok(datagram));
        }

        #[test]
        fn nothing_but_what_was_signed_is_read(message in message(), at: usize, bit in 0..8_u32) {
            let datagram = Datagram { incarnation: 1, token: 2, echo: 3, sequence: 4, message };
            let bytes = key().encode(&datagram);
            let mut other = bytes.clone();
            other[at % bytes.len()] ^= 1_u8 << bit;
            prop_assert!(key().decode(&other).is_err());
            prop_assert!(key().decode(&bytes[..at % bytes.len()]).is_err());
        }

        #[test]
        fn signed_nonsense_is_malformed(kind: u8, flags: u8, body in vec(any::<u8>(), 0..200)) {
            let mut bytes = [&MAGIC[..], &[VERSION, kind, flags, 0, 0], &body].concat();
            let signature = hmac::sign(&key().datagrams, &bytes);
            bytes.extend(signature.as_ref());
            let _ = key().decode(&bytes);
        }
    }

    #[test]
    fn another_secret_and_another_version_are_told_apart() {
        let datagram = Datagram { incarnation: 1, token: 2, echo: 3, sequence: 4, message: Message::Probe };
        let mut bytes = SigningKey::new(b"other").encode(&datagram);
        assert_eq!(key().decode(&bytes), Err(WireError::Signature));
        bytes[MAGIC.len()] = 2;
        assert_eq!(key().decode(&bytes), Err(WireError::Version(2)));
        assert_eq!(key().decode(&[0; 100]), Err(WireError::Foreign));
    }

    #[test]
    fn a_router_is_found_by_its_addresses_or_as_the_only_one_of_its_vrid() {
        let key = |vrid, addresses| Key { vrid, family: Family::V4, addresses };
        let find = |keys: &[Key]| key(51, 1).counterpart(keys.iter().map(|key| (*key, key.addresses)));
        assert_eq!(find(&[key(51, 2), key(51, 1)]), Some(1));
        assert_eq!(find(&[key(51, 2), key(50, 1)]), Some(2));
        assert_eq!(find(&[key(51, 2), key(51, 3)]), None);
        assert_eq!(find(&[key(50, 1)]), None);
    }
}
