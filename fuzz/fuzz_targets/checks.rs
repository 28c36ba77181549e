//! Any bytes as the answer of a checked server: no panic, and no text longer than a line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lb_user::pure::{
    agent,
    config::model::check::{Dns, Exchange},
    dialogue,
    dns::{Question, Verdict},
    echo::{Echo, Family},
    excerpt::excerpt,
    grpc,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(answer) = agent::parse(bytes) {
        short(&format!("{answer:?}"));
    }
    for (query, record) in [("example.org", 1), ("example.org", 28), ("_sip._tcp.example.org", 33)] {
        let dns = Dns { query: query.to_owned(), record, expect: None };
        let Ok(question) = Question::new(&dns, 0x5359) else { continue };
        let whole = [&question.bytes()[..2], bytes].concat();
        for answer in [bytes, &whole] {
            match question.judge(answer) {
                Verdict::Passed(text) | Verdict::Failed(text) => short(&text),
                Verdict::Truncated | Verdict::Stray(_) => {}
            }
        }
    }
    for family in [Family::V4, Family::V6] {
        let echo = Echo { family, id: 1, sequence: 2, payload: [7; 16] };
        let _ = echo.is_answered_by(bytes);
    }
    if let Err(error) = grpc::reply(bytes) {
        short(&error.to_string());
    }
    short(&excerpt(bytes));
    short(&grpc::status_message(bytes));
    let exchanges = [dialogue::smtp("lb"), dialogue::redis(), dialogue::mysql(Some("lb")), dialogue::postgresql("lb")];
    for exchange in exchanges.iter().flatten() {
        match exchange {
            Exchange::Expect(pattern) | Exchange::SendIf(pattern, _) => drop(pattern.is_in(bytes)),
            Exchange::Send(_) | Exchange::Finish => {}
        }
    }
});

/// What an operator reads stands in one line of bounded length.
fn short(text: &str) {
    assert!(text.len() < 4_096, "{} bytes", text.len());
}
