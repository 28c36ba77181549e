//! The trailer that signs an advert, as Keepalived 2.4 sends it (`auth_hmac`).
//!
//! ```text
//! type:8 key:8 0:16 | seconds:32 fraction:16 counter:16 | first 16 bytes of HMAC-SHA256 over
//!                                  family version vrid 0 source:16, message with a checksum of 0, trailer with 0
//! ```
//!
//! Nothing stands behind a sender's sequence but its clock: it grows from advert to advert, and must be near the
//! receiver's clock. Must not know that clock: it is an argument.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use aws_lc_rs::{constant_time, hmac};
use jiff::Timestamp;

use super::{
    advert::Refusal,
    codec::{CHECKSUM, Flaw},
};
use crate::pure::config::model::vrrp::{Hmac, HmacMode};

/// The length of a trailer.
pub const TRAILER: usize = 28;

/// A sender's place in time: seconds since 1970 in 32 bits, 1/65536 s, a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence(u64);

/// Gives out sequences that grow, unless the clock was set back by more than receivers allow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sequencer {
    last: u64,
}

impl Sequencer {
    pub fn next(&mut self, clock: Timestamp) -> Sequence {
        let clock = sequence_at(clock);
        let is_of_now = is_after(clock, self.last) || is_ahead(self.last, clock, WINDOW_MIN);
        self.last = if is_of_now { clock } else { self.last.wrapping_add(1) };
        Sequence(self.last)
    }
}

/// The trailer of a message; None in the mode that does not sign yet.
pub(super) fn sign(
    hmac: &Hmac,
    message: &[u8],
    source: IpAddr,
    Sequence(sequence): Sequence,
) -> Option<[u8; TRAILER]> {
    let key = match hmac.mode {
        HmacMode::Enforce | HmacMode::Permissive => hmac.keys.first()?,
        HmacMode::ReceiveOnly => return None,
    };
    let mut trailer = [0; TRAILER];
    trailer[0] = HMAC_SHA256;
    trailer[1] = key.id;
    trailer[4..DIGEST].copy_from_slice(&sequence.to_be_bytes());
    let digest = digest(&key.key, message, source, &trailer);
    trailer[DIGEST..].copy_from_slice(&digest);
    Some(trailer)
}

/// Of one router: how far each sender's sequence is.
#[derive(Debug, Clone, Default)]
pub struct Senders {
    last: BTreeMap<IpAddr, Last>,
    verified: u64,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    sequence: u64,
    /// When it was verified, and the same counted in adverts of all senders.
    at: Timestamp,
    turn: u64,
}

/// An advert whose trailer is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    pub(super) message: &'a [u8],
    /// Empty: it is not signed.
    pub(super) trailer: &'a [u8],
    pub(super) source: IpAddr,
    /// The router's own.
    pub(super) interval: Duration,
    pub(super) clock: Timestamp,
}

impl Signed<'_> {
    /// By how much clocks may differ.
    fn window(&self) -> Duration {
        WINDOW_MIN.max(3 * self.interval)
    }
}

impl Senders {
    pub(super) fn verify(&mut self, hmac: &Hmac, signed: &Signed<'_>) -> Result<(), Flaw> {
        if signed.trailer.is_empty() {
            return match hmac.mode {
                HmacMode::Enforce => {
                    Err(forged("the advert is not signed, this router demands it (auth_hmac)"))
                }
                HmacMode::Permissive | HmacMode::ReceiveOnly => Ok(()),
            };
        }
        let Some(&[kind, id, 0, 0]) = signed.trailer.first_chunk() else {
            return Err(forged("the trailer is no signature: its reserved bytes are not 0"));
        };
        if kind != HMAC_SHA256 {
            return Err(forged(format!("the signature has type {kind}, known is {HMAC_SHA256}")));
        }
        let Some(sequence) = signed.trailer[4..].first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else {
            return Err(forged("the trailer is too short"));
        };
        // Before the digest: what is replayed must not cost one each. It only refuses, and so needs no trust.
        check_age(sequence, signed)?;
        let Some(key) = hmac.keys.iter().find(|key| key.id == id) else {
            let known: Vec<_> = hmac.keys.iter().map(|key| key.id.to_string()).collect();
            return Err(forged(format!("the key has the id {id}, this router knows {}", known.join(", "))));
        };
        let expected = digest(&key.key, signed.message, signed.source, signed.trailer);
        if constant_time::verify_slices_are_equal(&expected, &signed.trailer[DIGEST..]).is_err() {
            return Err(forged(format!(
                "the digest of key {id} differs: the keys do, or the advert was changed"
            )));
        }
        // Our clock was set back, and will not reach again for long what the sender said before.
        let ours = sequence_at(signed.clock);
        if self.last.get(&signed.source).is_some_and(|last| is_ahead(last.sequence, ours, signed.window())) {
            self.last.remove(&signed.source);
        }
        self.advance(signed.source, sequence, signed.clock)
    }

    /// Only what is verified moves it, so that nobody can lock a sender out.
    fn advance(&mut self, source: IpAddr, sequence: u64, clock: Timestamp) -> Result<(), Flaw> {
        if let Some(last) = self.last.get(&source)
            && !is_after(sequence, last.sequence)
        {
            // Networks and hosts with several ways in deliver one packet twice.
            if sequence == last.sequence && clock.duration_since(last.at).unsigned_abs() <= TWICE {
                let detail = format!("it came before, as {}", shown(sequence));
                return Err(Flaw { refusal: Refusal::Duplicate, detail });
            }
            let detail = format!(
                "its sequence {} is not after {}: it was sent before",
                shown(sequence),
                shown(last.sequence)
            );
            return Err(Flaw { refusal: Refusal::Replay, detail });
        }
        if self.last.len() >= SENDERS_MAX && !self.last.contains_key(&source) {
            let longest = self.last.iter().min_by_key(|(_, last)| last.turn).map(|(source, _)| *source);
            longest.and_then(|source| self.last.remove(&source));
        }
        self.verified += 1;
        self.last.insert(source, Last { sequence, at: clock, turn: self.verified });
        Ok(())
    }
}

fn check_age(sequence: u64, signed: &Signed<'_>) -> Result<(), Flaw> {
    let window = signed.window();
    let ours = (sequence_at(signed.clock) >> 32) as u32;
    // The seconds wrap in 2106.
    let behind = ours.wrapping_sub((sequence >> 32) as u32).cast_signed();
    if u64::from(behind.unsigned_abs()) <= window.as_secs() {
        return Ok(());
    }
    let direction = if behind < 0 { "ahead of" } else { "behind" };
    let detail = format!(
        "its clock is {} s {direction} ours, {} s are allowed: it was sent before, or the clocks differ",
        behind.unsigned_abs(),
        window.as_secs()
    );
    Err(Flaw { refusal: Refusal::Replay, detail })
}

fn digest(key: &[u8], message: &[u8], source: IpAddr, trailer: &[u8]) -> [u8; TRAILER - DIGEST] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(&pseudo_header(message, source));
    context.update(&message[..CHECKSUM]);
    context.update(&[0; 2]);
    context.update(&message[CHECKSUM + 2..]);
    context.update(&trailer[..DIGEST]);
    context.update(&[0; TRAILER - DIGEST]);
    let mut digest = [0; TRAILER - DIGEST];
    digest.copy_from_slice(&context.sign().as_ref()[..TRAILER - DIGEST]);
    digest
}

fn pseudo_header(message: &[u8], source: IpAddr) -> [u8; 20] {
    let mut header = [0; 20];
    header[1] = message[0] >> 4;
    header[2] = message[1];
    match source {
        IpAddr::V4(address) => {
            header[0] = 4;
            header[4..8].copy_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            header[0] = 6;
            header[4..].copy_from_slice(&address.octets());
        }
    }
    header
}

fn sequence_at(clock: Timestamp) -> u64 {
    let seconds = clock.as_second() as u32;
    let fraction = (u64::from(clock.subsec_nanosecond().unsigned_abs()) << 16) / 1_000_000_000;
    u64::from(seconds) << 32 | fraction << 16
}

/// Of serial numbers (RFC 1982).
fn is_after(one: u64, other: u64) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

/// By more than `window`, which is in whole seconds.
fn is_ahead(one: u64, other: u64, window: Duration) -> bool {
    one.wrapping_sub(other).cast_signed() >> 32 > window.as_secs().cast_signed()
}

fn shown(sequence: u64) -> String {
    format!("{}.{:05}/{}", sequence >> 32, sequence >> 16 & 0xffff, sequence & 0xffff)
}

fn forged(detail: impl Into<String>) -> Flaw {
    Flaw { refusal: Refusal::Hmac, detail: detail.into() }
}

/// The only type of trailer that there is.
const HMAC_SHA256: u8 = 1;
/// Where the digest begins.
const DIGEST: usize = 12;
/// However short the interval is, clocks are allowed to differ by this.
const WINDOW_MIN: Duration = Duration::from_secs(5);
/// A copy of the last advert comes this soon, or is a replay.
const TWICE: Duration = Duration::from_secs(1);
/// Who is heard the longest ago makes room. Unverified ones take none.
const SENDERS_MAX: usize = 64;

#[cfg(test)]
mod tests;
