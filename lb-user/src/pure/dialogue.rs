//! Ready-made dialogues of checks: what a client says to a server that speaks a known protocol, and what it answers.
//!
//! Must not know how bytes travel.

use crate::pure::config::model::check::{Exchange, Pattern};

/// Greeting and EHLO, both answered with success (RFC 5321).
pub fn smtp(name: &str) -> Vec<Exchange> {
    vec![
        expect("(?m)^220[ -]"),
        Exchange::Send(format!("EHLO {name}\r\n").into_bytes()),
        expect("(?m)^250 "),
        Exchange::Send(b"QUIT\r\n".to_vec()),
    ]
}

pub fn redis() -> Vec<Exchange> {
    vec![Exchange::Send(b"PING\r\n".to_vec()), expect(r"\+PONG\r\n")]
}

/// The handshake of protocol version 10.
pub fn mysql(_user: Option<&str>) -> Vec<Exchange> {
    vec![expect(r"(?s-u)^...\x00\x0a")]
}

/// A startup message of protocol 3.0 is answered with a request to authenticate.
pub fn postgresql(user: &str) -> Vec<Exchange> {
    let body = [&[0, 3, 0, 0][..], b"user\0", user.as_bytes(), b"\0\0"].concat();
    let len = u32::try_from(body.len() + size_of::<u32>()).unwrap_or(u32::MAX);
    vec![Exchange::Send([&len.to_be_bytes()[..], &body].concat()), expect("(?-u)^R")]
}

fn expect(expression: &'static str) -> Exchange {
    Exchange::Expect(Pattern::new(expression).expect("an expression of this file, which its test compiles"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expression_compiles() {
        for dialogue in [smtp("lb1"), redis(), mysql(None), postgresql("lb")] {
            assert!(!dialogue.is_empty());
        }
    }
}
