//! A program that the daemon runs, with its arguments. No shell reads them.

use super::{PATH_MAX, bounded, checked};
use crate::pure::config::{
    error::{Findings, quote},
    raw::List,
    value::{self, Fault, fault},
};

pub(super) fn command(list: List, key: &str, findings: &mut Findings) -> Option<Vec<String>> {
    words(list, key, |text| value::path(text, PATH_MAX).map(drop), findings)
}

/// The same, or a name that is found in PATH.
pub(super) fn named(list: List, key: &str, findings: &mut Findings) -> Option<Vec<String>> {
    words(list, key, program, findings)
}

/// A path, or a name that is found in PATH.
pub(in crate::pure) fn program(text: &str) -> Result<(), Fault> {
    match text.is_empty() || text.contains(['/', '\0']) {
        true => value::path(text, PATH_MAX).map(drop),
        false => Ok(()),
    }
}

fn words(
    list: List,
    key: &str,
    program: fn(&str) -> Result<(), Fault>,
    findings: &mut Findings,
) -> Option<Vec<String>> {
    let Some(first) = list.value.first() else {
        findings.error(
            list.at,
            format!("`{key}` is empty"),
            "write a program and its arguments, or remove the key",
        );
        return None;
    };
    checked(first, findings, program)?;
    bounded(&list, key, WORDS_MAX, findings);
    list.value.iter().map(|typed| checked(typed, findings, word)).collect()
}

pub(in crate::pure) fn word(text: &str) -> Result<String, Fault> {
    if text.contains('\0') || text.len() > PATH_MAX {
        return Err(fault(
            format!("{} cannot be handed to a program", quote(text)),
            format!("use at most {PATH_MAX} bytes, none of them zero"),
        ));
    }
    Ok(text.into())
}

/// The program and its arguments.
pub(in crate::pure) const WORDS_MAX: usize = 64;
