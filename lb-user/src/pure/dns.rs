//! A question to a DNS server, and what an answer is worth.

use std::net::IpAddr;

use hickory_proto::{
    op::{Header, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
    serialize::binary::BinDecodable,
};
use thiserror::Error;

use super::config::model::check::Dns;

#[derive(Debug, Clone)]
pub struct Question {
    id: u16,
    query: Query,
    expect: Option<IpAddr>,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// With what came.
    Passed(String),
    /// With why.
    Failed(String),
    /// The rest is to be had over TCP.
    Truncated,
    /// No answer to this question, and what it is instead.
    Stray(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot ask for `{name}`: {reason}; correct the check's query")]
pub struct QuestionError {
    name: String,
    reason: String,
}

impl Question {
    pub fn new(dns: &Dns, id: u16) -> Result<Question, QuestionError> {
        let fault = |reason: String| QuestionError { name: dns.query.clone(), reason };
        let mut name = Name::from_str_relaxed(&dns.query).map_err(|error| fault(error.to_string()))?;
        name.set_fqdn(true);
        let query = Query::query(name, RecordType::from(dns.record));
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        let bytes = message.to_vec().map_err(|error| fault(error.to_string()))?;
        Ok(Question { id, query, expect: dns.expect, bytes })
    }

    /// As it goes into a datagram.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn judge(&self, answer: &[u8]) -> Verdict {
        let Ok(header) = Header::from_bytes(answer) else {
            return Verdict::Stray("bytes that are no DNS message");
        };
        if header.metadata.message_type != MessageType::Response || header.metadata.id != self.id {
            return Verdict::Stray("an answer with another id");
        }
        // Before the rest, which may have been cut anywhere.
        if header.metadata.truncation {
            return Verdict::Truncated;
        }
        match Message::from_vec(answer) {
            Ok(message) => self.judge_message(&message),
            Err(error) => Verdict::Failed(format!("a message that cannot be read: {error}")),
        }
    }

    fn judge_message(&self, message: &Message) -> Verdict {
        let code = message.metadata.response_code;
        // A server that did not understand the question may leave it out.
        let is_ours = match message.queries.as_slice() {
            [] => code != ResponseCode::NoError,
            [query] => *query == self.query,
            _ => false,
        };
        if !is_ours {
            return Verdict::Stray("an answer to another question");
        }
        if code != ResponseCode::NoError {
            return Verdict::Failed(format!("response code {}: {code}", u16::from(code)));
        }
        let Some(expected) = self.expect else {
            return Verdict::Passed(format!("{} records", message.answers.len()));
        };
        let addresses = || message.answers.iter().filter_map(|record| record.data.ip_addr());
        if addresses().any(|address| address == expected) {
            return Verdict::Passed(format!("{expected} among {} records", message.answers.len()));
        }
        let first: Vec<String> =
            addresses().take(ADDRESSES_SHOWN).map(|address| address.to_string()).collect();
        let came = if first.is_empty() { "no address".to_owned() } else { first.join(", ") };
        Verdict::Failed(format!("expected {expected}, and {came} came"))
    }
}

const ADDRESSES_SHOWN: usize = 4;

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{
        RData, Record,
        rdata::{A, CNAME},
    };
    use proptest::prelude::*;

    use super::*;

    const ID: u16 = 0x4711;

    fn question(expect: Option<&str>) -> Question {
        let expect = expect.map(|address| address.parse().unwrap());
        Question::new(&Dns { query: "www.example.com".into(), record: 1, expect }, ID).unwrap()
    }

    /// What a server says to the question, with two records.
    fn answer() -> Message {
        let mut message = Message::from_vec(question(None).bytes()).unwrap();
        message.metadata.message_type = MessageType::Response;
        let name = message.queries[0].name().clone();
        let alias = RData::CNAME(CNAME(Name::from_ascii("web.example.com.").unwrap()));
        message.add_answer(Record::from_rdata(name.clone(), 60, alias));
        message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1))));
        message
    }

    #[test]
    fn a_question_is_one_query_with_recursion_desired() {
        let message = Message::from_vec(question(None).bytes()).unwrap();
        assert_eq!((message.metadata.id, message.metadata.recursion_desired), (ID, true));
        assert_eq!(message.queries.len(), 1);
        assert_eq!(message.queries[0].to_string(), "www.example.com. IN A");
    }

    #[test]
    fn a_name_that_cannot_be_asked_for_is_named() {
        let long = "a".repeat(64);
        for name in [long.as_str(), "a..b"] {
            let dns = Dns { query: name.into(), record: 1, expect: None };
            let error = Question::new(&dns, ID).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot ask for `{name}`: ")), "{error}");
        }
    }

    #[track_caller]
    fn check(expect: Option<&str>, change: impl FnOnce(&mut Message), verdict: Verdict) {
        let mut message = answer();
        change(&mut message);
        assert_eq!(question(expect).judge(&message.to_vec().unwrap()), verdict);
    }

    fn passed(text: &str) -> Verdict {
        Verdict::Passed(text.to_owned())
    }

    fn failed(text: &str) -> Verdict {
        Verdict::Failed(text.to_owned())
    }

    #[test]
    fn answers_are_judged_by_code_and_address() {
        let code = |code| move |message: &mut Message| message.metadata.response_code = code;
        check(None, |_| (), passed("2 records"));
        check(None, |message| message.answers.clear(), passed("0 records"));
        check(Some("192.0.2.1"), |_| (), passed("192.0.2.1 among 2 records"));
        check(Some("192.0.2.9"), |_| (), failed("expected 192.0.2.9, and 192.0.2.1 came"));
        check(Some("2001:db8::1"), |message| message.answers.truncate(1), {
            failed("expected 2001:db8::1, and no address came")
        });
        check(None, code(ResponseCode::ServFail), failed("response code 2: Server Failure"));
        check(None, code(ResponseCode::NXDomain), failed("response code 3: Non-Existent Domain"));
    }

    #[test]
    fn only_an_answer_to_the_question_counts() {
        check(None, |message| message.metadata.id ^= 1, Verdict::Stray("an answer with another id"));
        check(None, |message| message.metadata.message_type = MessageType::Query, {
            Verdict::Stray("an answer with another id")
        });
        let other = Verdict::Stray("an answer to another question");
        check(None, |message| message.queries.clear(), other.clone());
        check(
            None,
            |message| {
                message.queries[0].set_name(Name::from_ascii("evil.example.com.").unwrap());
            },
            other.clone(),
        );
        check(
            None,
            |message| {
                message.queries[0].set_query_type(RecordType::TXT);
            },
            other,
        );
        // Not the same letters: a server may keep the case of its zone.
        check(
            None,
            |message| {
                message.queries[0].set_name(Name::from_ascii("WWW.Example.com.").unwrap());
            },
            passed("2 records"),
        );
        check(
            None,
            |message| {
                message.queries.clear();
                message.metadata.response_code = ResponseCode::FormErr;
            },
            failed("response code 1: Form Error"),
        );
    }

    #[test]
    fn a_cut_answer_is_to_be_had_over_tcp() {
        check(None, |message| message.metadata.truncation = true, Verdict::Truncated);
        let mut cut = answer();
        cut.metadata.truncation = true;
        let bytes = cut.to_vec().unwrap();
        assert_eq!(question(None).judge(&bytes[..bytes.len() - 3]), Verdict::Truncated);
    }

    #[test]
    fn garbage_is_named() {
        let bytes = answer().to_vec().unwrap();
        assert_eq!(question(None).judge(b"short"), Verdict::Stray("bytes that are no DNS message"));
        let verdict = question(None).judge(&bytes[..bytes.len() - 3]);
        assert!(matches!(&verdict, Verdict::Failed(why) if why.starts_with("a message that cannot be read")));
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(answer: Vec<u8>) {
            let _ = question(None).judge(&answer);
        }

        #[test]
        fn nor_is_one_that_is_nearly_right(at in 0..64_usize, byte: u8, cut in 0..64_usize) {
            let mut bytes = answer().to_vec().unwrap();
            let length = bytes.len();
            bytes[at % length] = byte;
            let _ = question(Some("192.0.2.1")).judge(&bytes[..length - cut % length]);
        }
    }
}
