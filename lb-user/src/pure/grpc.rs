//! The messages of `grpc.health.v1.Health/Check`, as gRPC frames them, and the words for gRPC's status.
//!
//! Owns the bytes. Must not know how they travel.

use std::fmt;

/// The path of the method.
pub const CHECK: &str = "/grpc.health.v1.Health/Check";

/// What a server says of itself (`HealthCheckResponse.ServingStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Unknown,
    Serving,
    NotServing,
    ServiceUnknown,
    Other(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("its answer holds no message")]
    Missing,
    #[error("its message is compressed, which nobody asked for")]
    Compressed,
    #[error("its message is cut short")]
    Cut,
    #[error("its answer holds more than one message")]
    Trailing,
    #[error("its message is no HealthCheckResponse")]
    Malformed,
}

/// `HealthCheckRequest { service }`; an empty name asks for the server as a whole.
pub fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(SERVICE << 3 | LENGTH_DELIMITED);
        push_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![NOT_COMPRESSED];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.append(&mut message);
    frame
}

/// The one message of an answer.
pub fn reply(frame: &[u8]) -> Result<Health, ReplyError> {
    let (&flag, rest) = frame.split_first().ok_or(ReplyError::Missing)?;
    if flag != NOT_COMPRESSED {
        return Err(ReplyError::Compressed);
    }
    let (length, message) = rest.split_first_chunk().ok_or(ReplyError::Cut)?;
    let length = u32::from_be_bytes(*length) as usize;
    match message.len() {
        had if had < length => Err(ReplyError::Cut),
        had if had > length => Err(ReplyError::Trailing),
        _ => health(message).ok_or(ReplyError::Malformed),
    }
}

/// `HealthCheckResponse`: of a field that stands twice the last counts, and unknown fields are passed over
/// (Protocol Buffers, "Encoding").
fn health(mut message: &[u8]) -> Option<Health> {
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match (key >> 3, (key & 7) as u8) {
            (0, _) => return None,
            (STATUS, VARINT) => status = varint(&mut message)?,
            (_, VARINT) => drop(varint(&mut message)?),
            (_, FIXED_64) => message = message.get(8..)?,
            (_, FIXED_32) => message = message.get(4..)?,
            (_, LENGTH_DELIMITED) => {
                let length = varint(&mut message)?;
                message = message.get(usize::try_from(length).ok()?..)?;
            }
            _ => return None,
        }
    }
    Some(match status {
        0 => Health::Unknown,
        1 => Health::Serving,
        2 => Health::NotServing,
        3 => Health::ServiceUnknown,
        other => Health::Other(other),
    })
}

/// Seven bits a byte, the lowest first; at most ten bytes.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// The name of a `grpc-status`, if it has one.
pub fn code_name(code: u32) -> Option<&'static str> {
    CODES.get(code as usize).copied()
}

/// A `grpc-message`, which is percent-encoded UTF-8.
pub fn status_message(encoded: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match (byte, after) {
            (b'%', &[high, low, ..]) => hexadecimal(high).zip(hexadecimal(low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Health::Unknown => "UNKNOWN",
            Health::Serving => "SERVING",
            Health::NotServing => "NOT_SERVING",
            Health::ServiceUnknown => "SERVICE_UNKNOWN",
            Health::Other(number) => return write!(f, "{number}"),
        })
    }
}

const NOT_COMPRESSED: u8 = 0;
/// `HealthCheckRequest.service`.
const SERVICE: u8 = 1;
/// `HealthCheckResponse.status`.
const STATUS: u64 = 1;

/// Wire types.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED_32: u8 = 5;

/// By number (gRPC, "Status codes and their use").
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
    }

    #[test]
    fn a_request_names_its_service() {
        let long = "x".repeat(200);
        let cases: [(&str, Vec<u8>); 3] = [
            ("", vec![]),
            ("web", b"\x0a\x03web".to_vec()),
            (&long, [b"\x0a\xc8\x01", long.as_bytes()].concat()),
        ];
        for (service, message) in cases {
            assert_eq!(request(service), framed(&message), "{service}");
        }
    }

    #[test]
    fn replies_say_how_the_server_is() {
        let cases: [(&str, &[u8], Option<Health>); 14] = [
            ("nothing said", b"", Some(Health::Unknown)),
            ("serving", b"\x08\x01", Some(Health::Serving)),
            ("not serving", b"\x08\x02", Some(Health::NotServing)),
            ("service unknown", b"\x08\x03", Some(Health::ServiceUnknown)),
            ("a status to come", b"\x08\x96\x01", Some(Health::Other(150))),
            ("the last of two", b"\x08\x02\x08\x01", Some(Health::Serving)),
            (
                "unknown fields of every type",
                b"\x10\x05\x19........\x22\x02hi\x2d....\x08\x01",
                Some(Health::Serving),
            ),
            ("cut in the key", b"\x88", None),
            ("cut in the value", b"\x08\x80", None),
            ("longer than 64 bits", b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", None),
            ("field 0", b"\x00\x01", None),
            ("a group", b"\x0b\x0c", None),
            ("a length beyond the end", b"\x22\x05hi", None),
            ("a length beyond memory", b"\x22\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01hi", None),
        ];
        for (name, message, expected) in cases {
            assert_eq!(reply(&framed(message)), expected.ok_or(ReplyError::Malformed), "{name}");
        }
    }

    #[test]
    fn a_frame_holds_one_plain_message() {
        let cases: [(&[u8], ReplyError); 6] = [
            (b"", ReplyError::Missing),
            (b"\x01\0\0\0\x02\x08\x01", ReplyError::Compressed),
            (b"\0\0\0", ReplyError::Cut),
            (b"\0\0\0\0\x02\x08", ReplyError::Cut),
            (b"\0\xff\xff\xff\xff\x08\x01", ReplyError::Cut),
            (b"\0\0\0\0\x02\x08\x01\0", ReplyError::Trailing),
        ];
        for (frame, expected) in cases {
            assert_eq!(reply(frame), Err(expected), "{frame:?}");
        }
    }

    #[test]
    fn status_messages_are_percent_encoded() {
        for (encoded, expected) in [
            ("plain text", "plain text"),
            ("caf%C3%A9 100%25", "café 100%"),
            ("100% sure, 5%zz, %", "100% sure, 5%zz, %"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(status_message(encoded.as_bytes()), expected);
        }
        assert_eq!(code_name(5), Some("NOT_FOUND"));
        assert_eq!(code_name(16), Some("UNAUTHENTICATED"));
        assert_eq!(code_name(17), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..64)) {
            let _ = reply(&bytes);
            let _ = reply(&framed(&bytes));
            let _ = status_message(&bytes);
        }
    }
}
