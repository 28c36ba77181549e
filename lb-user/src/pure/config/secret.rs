//! Secrets of virtual routers that stand in files of their own: which they are, and what they may be.
//!
//! Must not read files: the caller does, as it reads the configuration.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
};

use super::{
    Parsed,
    model::vrrp::{Auth, HmacKey},
};

/// A file whose content, without its final newline, belongs into a router's `auth`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// Index of the router.
    pub(in crate::pure) router: usize,
    pub(in crate::pure) part: Part,
    pub path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pure) enum Part {
    Pass,
    /// Index of the key.
    Key(usize),
}

impl Parsed {
    /// Puts every secret where it belongs. An error is a sentence with the next step.
    pub fn read_secrets<E: Display>(
        &mut self,
        mut read: impl FnMut(&Path) -> Result<Vec<u8>, E>,
    ) -> Result<(), String> {
        for SecretFile { router, part, path } in std::mem::take(&mut self.secrets) {
            let Some(router) = self.config.vrrp.routers.get_mut(router) else { continue };
            let wrong = |error: String| format!("[[vrrp]] {}: {error}", router.name);
            let content = read(&path).map_err(|error| wrong(error.to_string()))?;
            let refused = |error: String| wrong(format!("{}: {error}", path.display()));
            match (&mut router.auth, part) {
                (Auth::Pass(place), Part::Pass) => *place = password(&content).map_err(refused)?,
                (Auth::Hmac(hmac), Part::Key(index)) => {
                    let key = key(&content).map_err(refused)?;
                    if let Some(HmacKey { key: place, .. }) = hmac.keys.get_mut(index) {
                        *place = key;
                    }
                }
                (Auth::None | Auth::Pass(_) | Auth::Hmac(_), _) => {}
            }
        }
        Ok(())
    }
}

/// Filled up with zeros (RFC 2338, section 5.3.10).
pub(in crate::pure) fn password(bytes: &[u8]) -> Result<[u8; 8], String> {
    let mut pass = [0; 8];
    let wrong = || format!("a password has 1 to 8 bytes, and this one has {}: shorten it", bytes.len());
    let place = pass.get_mut(..bytes.len()).filter(|place| !place.is_empty()).ok_or_else(wrong)?;
    if bytes.contains(&0) {
        return Err("a password holds no zero byte: choose another".to_owned());
    }
    place.copy_from_slice(bytes);
    Ok(pass)
}

/// Text, or "hex:" and its bytes in hexadecimal digits, as Keepalived takes it.
pub(in crate::pure) fn key(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let key = match bytes.strip_prefix(b"hex:") {
        Some(digits) => {
            from_hex(digits).ok_or("what follows `hex:` is no even number of hexadecimal digits")?
        }
        None => bytes.to_vec(),
    };
    match key.len() {
        32..=64 => Ok(key),
        len => Err(format!(
            "a key has 32 to 64 bytes, and this one has {len}: `openssl rand -hex 32` makes one for `hex:`"
        )),
    }
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords() {
        let cases: [(&[u8], Option<[u8; 8]>); 5] = [
            (b"1111", Some(*b"1111\0\0\0\0")),
            (b"12345678", Some(*b"12345678")),
            (b"", None),
            (b"123456789", None),
            (b"a\0b", None),
        ];
        for (typed, expected) in cases {
            assert_eq!(password(typed).ok(), expected, "{typed:?}");
        }
    }

    #[test]
    fn keys() {
        let cases: [(String, Option<usize>); 7] = [
            ("x".repeat(31), None),
            ("x".repeat(32), Some(32)),
            ("x".repeat(64), Some(64)),
            ("x".repeat(65), None),
            (format!("hex:{}", "0f".repeat(32)), Some(32)),
            (format!("hex:{}0", "0f".repeat(32)), None),
            (format!("hex:{}", "0g".repeat(32)), None),
        ];
        for (typed, expected) in cases {
            assert_eq!(key(typed.as_bytes()).ok().map(|key| key.len()), expected, "{typed}");
        }
        assert_eq!(key(format!("hex:{}", "1F".repeat(32)).as_bytes()), Ok(vec![0x1f; 32]));
    }
}
