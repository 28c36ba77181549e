//! How adverts are authenticated.

use std::path::PathBuf;

use super::{Either, PATH_MAX, Typed, checked, choice, either, number, required, unique};
use crate::pure::config::{
    error::{Findings, Spanned},
    model::vrrp::{Auth, Hmac, HmacKey, HmacMode, Version},
    raw::{Field, Text, vrrp as raw},
    secret::{self, Part},
    value::{self, fault},
};

type Files = Vec<(Part, PathBuf)>;

/// What stands in files is put into `files`, and its place left empty.
pub(super) fn auth(
    raw: raw::Auth,
    version: Option<Version>,
    typed: &Typed,
    files: &mut Files,
    findings: &mut Findings,
) -> Option<Auth> {
    let pass = pass(raw.pass, raw.pass_file, files, findings);
    let is_typed = typed.at("auth_hmac").is_some();
    let mode =
        raw.hmac_mode.or(HmacMode::Enforce, |typed| choice(&typed, "auth_hmac_mode", &MODES, &[], findings));
    let keys = raw.hmac.or(Vec::new(), |list| hmac_keys(list, files, findings));
    let pass_at = typed.at("auth_pass").or(typed.at("auth_pass_file"));
    if let Some(at) = typed.at("auth_hmac_mode").filter(|_| !is_typed) {
        findings.error(at, "`auth_hmac_mode` without `auth_hmac`", "add a key, or remove the mode");
    }
    if let Some(at) = pass_at.filter(|_| is_typed) {
        findings.error(at, "a password and `auth_hmac` are both given", "keep one of the two");
        return None;
    }
    let (pass, mode, keys) = (pass?, mode?, keys?);
    if let (Some(at), Some(Version::V3)) = (pass_at, version) {
        findings.warning(
            at,
            "the password is not used: version 3 has none",
            "write `version = 2` on all routers, or use `auth_hmac`, or remove it",
        );
        files.retain(|(part, _)| *part != Part::Pass);
        return Some(Auth::None);
    }
    match (is_typed, pass) {
        (true, _) => Some(Auth::Hmac(Hmac { keys, mode })),
        (false, Some(pass)) => Some(Auth::Pass(pass)),
        (false, None) => Some(Auth::None),
    }
}

fn pass(
    inline: Field<Text>,
    file: Field<Text>,
    files: &mut Files,
    findings: &mut Findings,
) -> Option<Option<[u8; 8]>> {
    match either(("auth_pass", inline), ("auth_pass_file", file), findings)? {
        Either::Neither => Some(None),
        Either::First(typed) => match secret::password(typed.value.as_bytes()) {
            Ok(pass) => Some(Some(pass)),
            Err(error) => {
                let remedy = "write 1 to 8 bytes; Keepalived sends the first 8 of a longer one";
                findings.error(typed.at, format!("`auth_pass`: {error}"), remedy);
                None
            }
        },
        Either::Second(typed) => {
            let path = checked(&typed, findings, |text| value::path(text, PATH_MAX))?;
            files.push((Part::Pass, path));
            Some(Some([0; 8]))
        }
    }
}

fn hmac_keys(
    list: Vec<Spanned<raw::HmacKey>>,
    files: &mut Files,
    findings: &mut Findings,
) -> Option<Vec<HmacKey>> {
    let mut keys = Vec::new();
    let mut ids = Vec::new();
    let mut is_whole = !list.is_empty();
    for (index, Spanned { at, value: raw }) in list.into_iter().enumerate() {
        let id = required(raw.id, "id", "1", at, findings)
            .and_then(|typed| Some(Spanned::new(typed.at, number(&typed, "id", 1, u8::MAX, findings)?)));
        let key = match either(("key", raw.key), ("key_file", raw.key_file), findings) {
            Some(Either::Neither) => {
                findings.missing(
                    at,
                    "key",
                    "`key` is missing here",
                    "add `key_file = \"/etc/steelyard/vrrp\"`",
                );
                None
            }
            Some(Either::First(typed)) => checked(&typed, findings, |text| {
                secret::key(text.as_bytes()).map_err(|error| fault(error, "write another, or a `key_file`"))
            }),
            Some(Either::Second(typed)) => {
                checked(&typed, findings, |text| value::path(text, PATH_MAX)).map(|path| {
                    files.push((Part::Key(index), path));
                    Vec::new()
                })
            }
            None => None,
        };
        ids.extend(id.clone());
        match id.zip(key) {
            Some((id, key)) => keys.push(HmacKey { id: id.value, key }),
            None => is_whole = false,
        }
    }
    unique(ids.iter(), findings, |id| format!("the key id {id}"));
    is_whole.then_some(keys)
}

const MODES: [(&str, HmacMode); 3] = [
    ("enforce", HmacMode::Enforce),
    ("permissive", HmacMode::Permissive),
    ("receive_only", HmacMode::ReceiveOnly),
];
