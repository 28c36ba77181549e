//! All files of a configuration: our own, those of other programs, and those that they include.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{ConfigText, FileError, config, read};
use crate::pure::{
    config::{Parsed, Source, error::Diagnostic, parse_with},
    import::keepalived::{Foreign, includes},
};

/// Where a configuration stands: what a daemon was started with, and what a reload reads again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// A file, or a directory of them.
    pub own: Option<PathBuf>,
    pub keepalived: Vec<PathBuf>,
}

/// The texts of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    pub own: Vec<ConfigText>,
    /// Each before those that it includes.
    pub keepalived: Vec<ForeignText>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignText {
    pub file: ConfigText,
    /// What lines for one host only ask for.
    pub config_id: String,
    /// The file, as an index, and its line, from 1, that includes it.
    pub included: Option<(usize, usize)>,
}

impl Inputs {
    /// The same from any working directory.
    pub fn absolute(self) -> io::Result<Inputs> {
        let own = self.own.map(std::path::absolute).transpose()?;
        let keepalived = self.keepalived.iter().map(std::path::absolute).collect::<io::Result<_>>()?;
        Ok(Inputs { own, keepalived })
    }

    pub fn read(&self) -> Result<Texts, FileError> {
        let own = match &self.own {
            Some(path) => config(path)?,
            None => Vec::new(),
        };
        let config_id = config_id();
        let mut texts = Vec::new();
        for path in &self.keepalived {
            let text = foreign(path, &config_id, None)?;
            texts.push(text);
            include(path, texts.len() - 1, &mut texts, 0);
        }
        Ok(Texts { own, keepalived: texts })
    }
}

impl Texts {
    pub fn parse(&self) -> Result<Parsed, Vec<Diagnostic>> {
        let own: Vec<_> = self.own.iter().map(source).collect();
        let foreign = self.keepalived.iter().map(|text| Foreign {
            source: source(&text.file),
            config_id: &text.config_id,
            included: text.included,
        });
        parse_with(&own, &foreign.collect::<Vec<_>>())
    }
}

fn source(text: &ConfigText) -> Source<'_> {
    Source { name: &text.name, text: &text.text }
}

/// Keepalived's: the host's name up to its first dot.
fn config_id() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().split('.').next().unwrap_or_default().to_owned()
}

/// Whatever its encoding: comments may be in any.
fn foreign(path: &Path, config_id: &str, included: Option<(usize, usize)>) -> Result<ForeignText, FileError> {
    let io = |source| FileError::Foreign { path: path.to_owned(), source };
    let bytes = read(path).map_err(io)?.ok_or_else(|| FileError::TooLarge { path: path.to_owned() })?;
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    let file = ConfigText { name: path.display().to_string(), text };
    Ok(ForeignText { file, config_id: config_id.to_owned(), included })
}

/// What cannot be read is left out: the line that names it gets a warning.
fn include(path: &Path, index: usize, texts: &mut Vec<ForeignText>, depth: usize) {
    if depth == INCLUDE_DEPTH_MAX {
        return;
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    let parent = &texts[index];
    let config_id = parent.config_id.clone();
    let named: Vec<(usize, String)> =
        includes(&parent.file.text).map(|(line, pattern)| (line, pattern.to_owned())).collect();
    for (line, pattern) in named {
        let mut seen = HashSet::new();
        for path in matching(&directory.join(pattern)) {
            if texts.len() >= FILES_MAX || !seen.insert(path.clone()) {
                continue;
            }
            if let Ok(text) = foreign(&path, &config_id, Some((index, line))) {
                texts.push(text);
                include(&path, texts.len() - 1, texts, depth + 1);
            }
        }
    }
}

/// The files that a path names; its last part may have wildcards. In the order of their names.
fn matching(path: &Path) -> Vec<PathBuf> {
    let Some(pattern) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    if !pattern.contains(['*', '?']) {
        return vec![path.to_owned()];
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let hidden = pattern.starts_with('.');
    let mut names: Vec<_> = names
        .filter(|name| (hidden || !name.starts_with('.')) && fits(pattern.as_bytes(), name.as_bytes()))
        .collect();
    names.sort();
    names.into_iter().map(|name| directory.join(name)).filter(|path| path.is_file()).collect()
}

/// `*` and `?`, as a shell has them.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut star) = ((0, 0), None);
    loop {
        let (pattern_at, name_at) = at;
        match (pattern.get(pattern_at), name.get(name_at)) {
            (Some(b'*'), _) => {
                star = Some(at);
                at.0 += 1;
            }
            (Some(b'?'), Some(_)) => at = (pattern_at + 1, name_at + 1),
            (Some(wanted), Some(byte)) if wanted == byte => at = (pattern_at + 1, name_at + 1),
            (None, None) => return true,
            // The last star takes one more byte.
            _ => match star {
                Some((pattern_at, name_at)) if name_at < name.len() => {
                    star = Some((pattern_at, name_at + 1));
                    at = (pattern_at + 1, name_at + 1);
                }
                _ => return false,
            },
        }
    }
}

/// Files that include files.
const INCLUDE_DEPTH_MAX: usize = 16;
const FILES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        let cases = [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("*", "", true),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("?.conf", "a.conf", true),
            ("?.conf", "ab.conf", false),
            ("a", "a", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn included_files_come_behind_those_that_name_them() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(directory.path().join(name), text).unwrap();
        fs::create_dir(directory.path().join("more")).unwrap();
        write("main.conf", b"include more/*.conf\n! include gone.conf\ninclude \"main.conf\"\n");
        write("more/b.conf", b"b \xff\n");
        write("more/a.conf", b"include ../c.conf\n");
        write("c.conf", b"c\n");
        let inputs = Inputs { own: None, keepalived: vec![directory.path().join("main.conf")] };
        let texts = inputs.read().unwrap();
        let shape: Vec<_> = texts
            .keepalived
            .iter()
            .take(5)
            .map(|text| (text.file.text.lines().next().unwrap(), text.included))
            .collect();
        let expected = [
            ("include more/*.conf", None),
            ("include ../c.conf", Some((0, 1))),
            ("c", Some((1, 1))),
            ("b \u{fffd}", Some((0, 1))),
            ("include more/*.conf", Some((0, 3))),
        ];
        assert_eq!(shape, expected);
        assert!(texts.keepalived.len() <= FILES_MAX, "a file that includes itself ends");
    }

    #[test]
    fn a_file_that_is_not_there_is_told() {
        let inputs = Inputs { own: None, keepalived: vec!["/nonexistent/keepalived.conf".into()] };
        let error = inputs.read().unwrap_err().to_string();
        assert!(error.contains("/nonexistent/keepalived.conf"), "{error}");
    }
}
