//! Bytes from outside, in words for people.

/// The first bytes in quotation marks: printable, on one line, and with `…` where they were cut.
pub fn excerpt(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(BYTES_MAX)];
    let cut = if shown.len() < bytes.len() { "…" } else { "" };
    format!("\"{}\"{cut}", shown.escape_ascii())
}

/// A line of a mail server, or the error packet of a database.
const BYTES_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_comes_is_shown_on_one_short_line() {
        for (bytes, expected) in [
            (&b""[..], r#""""#),
            (b"220 mail\r\n", r#""220 mail\r\n""#),
            (b"say \"hi\"\x1b[2J\0\xff", r#""say \"hi\"\x1b[2J\x00\xff""#),
        ] {
            assert_eq!(excerpt(bytes), expected);
        }
        let long = excerpt(&[0xff; 100_000]);
        assert!(long.ends_with("\\xff\"…") && long.len() < 5 * BYTES_MAX, "{long}");
    }
}
