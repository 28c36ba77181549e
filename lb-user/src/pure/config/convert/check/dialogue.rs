//! A dialogue: moves in turn, each of which says one thing or waits for one.

use super::payload;
use crate::pure::config::{
    error::{Findings, Spanned},
    model::check::Exchange,
    raw::{Field, Said},
};

pub(super) fn moves(raw: Field<Vec<Spanned<Said>>>, findings: &mut Findings) -> Option<Vec<Exchange>> {
    raw.or(Vec::new(), |items| {
        if let Some(over) = items.get(MOVES_MAX) {
            let message = format!("`dialogue` has {} moves", items.len());
            findings.error(over.at, message, format!("keep at most {MOVES_MAX}"));
            return None;
        }
        let moves: Vec<_> = items.into_iter().map(|item| exchange(item, findings)).collect();
        moves.into_iter().collect()
    })
}

fn exchange(item: Spanned<Said>, findings: &mut Findings) -> Option<Exchange> {
    let Spanned { at, value: said } = item;
    let is_empty = said.is_empty;
    let sent = payload::bytes(said.send, said.send_hex, findings);
    let awaited = payload::pattern("expect", said.expect, said.expect_regex, findings);
    let (message, remedy) = match (sent?, awaited?) {
        (Some(sent), None) if !sent.is_empty() => return Some(Exchange::Send(sent)),
        (None, Some(pattern)) => return Some(Exchange::Expect(pattern.value)),
        (Some(_), None) => ("this move sends nothing", "write what it sends, or remove it"),
        (Some(_), Some(_)) => {
            ("this move both sends and waits", "write two moves: `{ send = .. }, { expect = .. }`")
        }
        (None, None) if is_empty => ("this move is empty", "write `{ send = .. }` or `{ expect = .. }`"),
        // It has unknown keys only, which are reported.
        (None, None) => return None,
    };
    findings.error(at, message, remedy);
    None
}

const MOVES_MAX: usize = 32;
