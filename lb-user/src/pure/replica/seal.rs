//! Frames that only a node with the cluster's secret can make and read.
//!
//! One direction, one connection: the key is HMAC-SHA256 of both ends' nonces and addresses under the secret, the frame's
//! number is its nonce (AES-256-GCM, RFC 5116), so nothing can be repeated, left out, sent back or moved to another connection. Must not
//! know where nonces come from.

use std::net::{IpAddr, Ipv6Addr};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hmac,
};

/// Of each end, random.
pub const NONCE_LENGTH: usize = 32;
pub const TAG_LENGTH: usize = 16;
/// Bytes of a sealed frame.
pub const FRAME_MAX: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the frame was not made with this cluster's secret, or was changed on its way")]
    Foreign,
    #[error("a frame of {0} bytes is longer than any that is sent")]
    Length(usize),
    #[error("the connection has carried as many frames as one key may seal")]
    Spent,
}

/// Who made the connection, and who took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub connecting: (IpAddr, [u8; NONCE_LENGTH]),
    pub accepting: (IpAddr, [u8; NONCE_LENGTH]),
}

/// The sending end.
pub struct Sealer(Keyed);

/// The receiving end.
pub struct Opener(Keyed);

struct Keyed {
    key: LessSafeKey,
    frames: u64,
}

impl Sealer {
    pub fn new(secret: &[u8], ends: &Ends) -> Option<Self> {
        Keyed::new(secret, ends).map(Sealer)
    }

    /// Seals in place, and adds the tag.
    pub fn seal(&mut self, frame: &mut Vec<u8>) -> Result<(), SealError> {
        if frame.len() + TAG_LENGTH > FRAME_MAX {
            return Err(SealError::Length(frame.len()));
        }
        let nonce = self.0.next()?;
        let sealed = self.0.key.seal_in_place_append_tag(nonce, Aad::empty(), frame);
        sealed.map_err(|_| SealError::Length(frame.len()))
    }
}

impl Opener {
    pub fn new(secret: &[u8], ends: &Ends) -> Option<Self> {
        Keyed::new(secret, ends).map(Opener)
    }

    /// Opens in place; the content.
    pub fn open<'a>(&mut self, frame: &'a mut [u8]) -> Result<&'a [u8], SealError> {
        let nonce = self.0.next()?;
        let opened = self.0.key.open_in_place(nonce, Aad::empty(), frame);
        opened.map(|content| &*content).map_err(|_| SealError::Foreign)
    }
}

impl Keyed {
    fn new(secret: &[u8], ends: &Ends) -> Option<Self> {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
        context.update(LABEL);
        for (address, nonce) in [&ends.connecting, &ends.accepting] {
            context.update(&mapped(*address).octets());
            context.update(nonce);
        }
        let key = UnboundKey::new(&AES_256_GCM, context.sign().as_ref()).ok()?;
        Some(Keyed { key: LessSafeKey::new(key), frames: 0 })
    }

    fn next(&mut self) -> Result<Nonce, SealError> {
        if self.frames >= FRAMES_MAX {
            return Err(SealError::Spent);
        }
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.frames.to_be_bytes());
        self.frames += 1;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// One form for both families.
fn mapped(address: IpAddr) -> Ipv6Addr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

const LABEL: &[u8] = b"steelyard replication 1";
/// A connection is made anew, with another key, long before GCM's bound of 2^32 frames.
const FRAMES_MAX: u64 = 1 << 31;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ENDS: Ends = Ends {
        connecting: (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), [1; NONCE_LENGTH]),
        accepting: (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), [2; NONCE_LENGTH]),
    };

    fn ends(secret: &[u8]) -> (Sealer, Opener) {
        let sealer = Sealer::new(secret, &ENDS).unwrap();
        (sealer, Opener::new(secret, &ENDS).unwrap())
    }

    fn sealed(sealer: &mut Sealer, content: &[u8]) -> Vec<u8> {
        let mut frame = content.to_vec();
        sealer.seal(&mut frame).unwrap();
        frame
    }

    #[test]
    fn frames_arrive_in_their_order_only() {
        let (mut sealer, mut opener) = ends(b"secret");
        let mut frames = [sealed(&mut sealer, b"first"), sealed(&mut sealer, b"second")];
        assert_eq!(opener.open(&mut frames[0].clone()), Ok(&b"first"[..]));
        assert_eq!(opener.open(&mut frames[0]), Err(SealError::Foreign), "repeated");
        let (_, mut late) = ends(b"secret");
        assert_eq!(late.open(&mut frames[1]), Err(SealError::Foreign), "one was left out");
    }

    #[test]
    fn another_secret_connection_or_bit_is_refused() {
        let (mut sealer, _) = ends(b"secret");
        let frame = sealed(&mut sealer, b"content");
        let (_, mut other) = ends(b"another");
        assert_eq!(other.open(&mut frame.clone()), Err(SealError::Foreign));
        let later = (ENDS.accepting.0, [3; NONCE_LENGTH]);
        let back = (ENDS.accepting.0, ENDS.connecting.1);
        let forth = (ENDS.connecting.0, ENDS.accepting.1);
        for ends in [Ends { accepting: later, ..ENDS }, Ends { connecting: back, accepting: forth }] {
            let mut elsewhere = Opener::new(b"secret", &ends).unwrap();
            assert_eq!(elsewhere.open(&mut frame.clone()), Err(SealError::Foreign), "{ends:?}");
        }
        for bit in 0..frame.len() * 8 {
            let (_, mut opener) = ends(b"secret");
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opener.open(&mut changed), Err(SealError::Foreign), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_has_a_longest() {
        let (mut sealer, _) = ends(b"secret");
        assert_eq!(sealer.seal(&mut vec![0; FRAME_MAX]), Err(SealError::Length(FRAME_MAX)));
        assert_eq!(sealer.seal(&mut vec![0; FRAME_MAX - TAG_LENGTH]), Ok(()));
    }
}
