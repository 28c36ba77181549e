//! What a tracked file says.

/// The number in a file, and that in words. A file that is not there counts as 0, one without a number as 1: so
/// `touch`ing one is enough.
pub fn number(content: Option<&[u8]>) -> (i32, String) {
    let Some(content) = content else { return (0, "not there".to_owned()) };
    match str::from_utf8(content).ok().and_then(|text| text.trim().parse::<i64>().ok()) {
        Some(number) => {
            let bound = i64::from(NUMBER_MAX);
            (number.clamp(-bound, bound) as i32, format!("holds {number}"))
        }
        None => (1, "there, without a number".to_owned()),
    }
}

/// Times the largest weight, it does not overflow.
const NUMBER_MAX: i32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_number_whatever_is_in_it() {
        for (content, expected) in [
            (None, 0),
            (Some(&b""[..]), 1),
            (Some(b"0\n"), 0),
            (Some(b" -20 \n"), -20),
            (Some(b"+7"), 7),
            (Some(b"under maintenance\n"), 1),
            (Some(b"\xff"), 1),
            (Some(b"9999999999999"), NUMBER_MAX),
            (Some(b"-9999999999999"), -NUMBER_MAX),
            (Some(b"99999999999999999999999999"), 1),
        ] {
            assert_eq!(number(content).0, expected, "{content:?}");
        }
    }
}
