//! What an agent says of its server: the text protocol of HAProxy's `agent-check` (2.6).
//!
//! One line of words between blanks and commas, in any order, in any case; of two that speak of the same thing the
//! last one counts. What follows a `#` is for people.
//!
//! ```text
//! up 75% #warming up          maint, maxconn:30          down #disk full
//! ```

use thiserror::Error;

use super::{
    excerpt::excerpt,
    report::{Advice, AgentAdmin},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub advice: Advice,
    /// What was passed over, and why.
    pub note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AgentError {
    #[error("the agent says nothing: let it answer with a line such as \"up 75%\"")]
    Empty,
    #[error("the agent says {0}: let it answer with words such as \"up 75%\", \"drain\" or \"down\"")]
    Unknown(String),
}

/// Reads the first line; it may lack its end.
pub fn parse(answer: &[u8]) -> Result<Answer, AgentError> {
    let line = answer.split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
    let mut advice = Advice::default();
    let (mut understood, mut note) = (false, None);
    for word in words(line) {
        match understand(word, &mut advice) {
            Ok(()) => understood = true,
            Err(Passed::Limit) => {
                understood = true;
                note.get_or_insert_with(|| "its maxconn counts for layer 7 only".to_owned());
            }
            Err(Passed::Unknown) => {
                note.get_or_insert_with(|| format!("{} is no word of the protocol", excerpt(word)));
            }
        }
    }
    match (understood, note) {
        (true, note) => Ok(Answer { advice, note }),
        (false, Some(_)) => Err(AgentError::Unknown(excerpt(line))),
        (false, None) => Err(AgentError::Empty),
    }
}

/// Why a word changes nothing.
enum Passed {
    /// Connections are limited where they are proxied, and the kernel's half proxies none.
    Limit,
    Unknown,
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = line.split(|byte| b" \t,".contains(byte)).filter(|word| !word.is_empty());
    // Only at the start of a word: HAProxy takes `up#x` for one word, too.
    words.take_while(|word| !word.starts_with(b"#"))
}

fn understand(word: &[u8], advice: &mut Advice) -> Result<(), Passed> {
    match word.to_ascii_lowercase().as_slice() {
        b"up" => advice.up = Some(true),
        b"down" | b"failed" | b"fail" | b"stopped" => advice.up = Some(false),
        b"ready" => advice.admin = Some(AgentAdmin::Ready),
        b"drain" => advice.admin = Some(AgentAdmin::Drain),
        b"maint" => advice.admin = Some(AgentAdmin::Maintenance),
        limit if limit.starts_with(b"maxconn:") => return Err(Passed::Limit),
        other => advice.weight = Some(percent(other).ok_or(Passed::Unknown)?),
    }
    Ok(())
}

/// HAProxy bounds the weight that results; here, the share of it that can be asked for is bounded.
fn percent(word: &[u8]) -> Option<u8> {
    let digits = word.strip_suffix(b"%")?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0_u32, |value, digit| value.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
    Some(u8::try_from(value).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOTHING: Advice = Advice { weight: None, admin: None, up: None };
    const UP: Advice = Advice { up: Some(true), ..NOTHING };
    const DOWN: Advice = Advice { up: Some(false), ..NOTHING };

    #[track_caller]
    fn check(answer: &str, advice: Advice, note: Option<&str>) {
        let expected = Answer { advice, note: note.map(str::to_owned) };
        assert_eq!(parse(answer.as_bytes()), Ok(expected), "{answer:?}");
    }

    fn admin(admin: AgentAdmin) -> Advice {
        Advice { admin: Some(admin), ..NOTHING }
    }

    fn weight(percent: u8) -> Advice {
        Advice { weight: Some(percent), ..NOTHING }
    }

    #[test]
    fn every_word_has_its_meaning() {
        for (word, advice) in [
            ("up", UP),
            ("down", DOWN),
            ("failed", DOWN),
            ("fail", DOWN),
            ("stopped", DOWN),
            ("ready", admin(AgentAdmin::Ready)),
            ("drain", admin(AgentAdmin::Drain)),
            ("maint", admin(AgentAdmin::Maintenance)),
            ("75%", weight(75)),
            ("0%", weight(0)),
            ("100%", weight(100)),
            ("99999999999999999999%", weight(255)),
        ] {
            check(&format!("{word}\n"), advice, None);
            check(&word.to_uppercase(), advice, None);
            check(&format!(" ,\t{word},\t \r\n"), advice, None);
        }
    }

    #[test]
    fn words_of_different_meaning_add_up_and_the_last_of_one_meaning_counts() {
        let warming = Advice { weight: Some(75), up: Some(true), admin: Some(AgentAdmin::Ready) };
        check("ready up 75%\n", warming, None);
        check("75%,up,ready", warming, None);
        check("up 10% drain down 75% ready up", warming, None);
    }

    #[test]
    fn what_people_read_and_what_follows_the_line_changes_nothing() {
        check("down #up again soon, 75%\n", DOWN, None);
        check("up\ndown\n", UP, None);
        check("up\rdown\n", UP, None);
        check("up # \n", UP, None);
    }

    #[test]
    fn what_is_passed_over_is_noted() {
        check("up maxconn:30", UP, Some("its maxconn counts for layer 7 only"));
        check("maxconn:30", NOTHING, Some("its maxconn counts for layer 7 only"));
        check("up 75", UP, Some("\"75\" is no word of the protocol"));
        check("up 7x5% -3%", UP, Some("\"7x5%\" is no word of the protocol"));
        check("up% up", UP, Some("\"up%\" is no word of the protocol"));
    }

    #[test]
    fn an_answer_without_advice_is_a_failure() {
        for empty in ["", "\n", " \t,\r\n", "#up", "\nup"] {
            assert_eq!(parse(empty.as_bytes()), Err(AgentError::Empty), "{empty:?}");
        }
        for (unknown, shown) in [("HTTP/1.1 400 Bad", "\"HTTP/1.1 400 Bad\""), ("up#x\n", "\"up#x\"")] {
            assert_eq!(parse(unknown.as_bytes()), Err(AgentError::Unknown(shown.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(answer: Vec<u8>) {
            let _ = parse(&answer);
        }

        #[test]
        fn words_are_found_among_others(before in "[a-z0-9%:]{0,9}", percent in 0..=255_u8) {
            let answer = parse(format!("{before} {percent}%\t#{before}").as_bytes()).unwrap();
            prop_assert_eq!(answer.advice.weight, Some(percent));
        }
    }
}
