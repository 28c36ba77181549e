//! The fences: what the compiler does not enforce and the architecture depends on.
//!
//! `source` turns a Rust file into facts, `rules` judges facts, `manifests`, `links` and `lints` read the other
//! files. Nothing here changes a file.
//!
//! ```text
//! lb-common <- lb-ebpf (lib) <- lb-ebpf (bin)
//! lb-common <- pure <- io <- daemon <- cli, main
//! ```

mod links;
mod lints;
mod manifests;
mod rules;
mod source;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use source::Source;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    file: String,
    line: usize,
    what: String,
    rule: &'static str,
    remedy: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, what, rule, remedy } = self;
        write!(f, "{file}:{line}: {what}: {rule}; {remedy}")
    }
}

/// Prints every finding; an error if there is one.
pub(crate) fn run(root: &Path) -> Result<()> {
    let files = read_tree(root)?;
    let findings = judge(&files);
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings in {} files", findings.len(), files.len());
    }
    Ok(())
}

/// A file with its path below the root, separated by `/`.
struct File {
    path: String,
    text: String,
}

fn judge(files: &[File]) -> BTreeSet<Finding> {
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let adapters = rules::adapters(&paths);
    let mut findings = BTreeSet::new();
    for file in files {
        match Path::new(&file.path).extension().and_then(|extension| extension.to_str()) {
            Some("rs") => match Source::parse(&file.path, &file.text) {
                Ok(source) => findings.extend(rules::judge(&source, &adapters)),
                Err(finding) => findings.extend([finding]),
            },
            Some("toml") if file.path.ends_with("Cargo.toml") => {
                findings.extend(manifests::judge(&file.path, &file.text));
            }
            Some("md") => findings.extend(links::judge(&file.path, &file.text, &paths)),
            _ => (),
        }
    }
    findings.extend(lints::judge(files));
    findings
}

fn read_tree(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if !NOT_OURS.contains(&name.as_ref()) {
                    folders.push(path);
                }
            } else {
                // What is not text has no rules; it is listed because a link may lead to it.
                let text = fs::read_to_string(&path).unwrap_or_default();
                let below = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                files.push(File { path: below, text });
            }
        }
    }
    Ok(files)
}

const NOT_OURS: [&str; 5] = [".git", "target", "artifacts", "corpus", "coverage"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_where_what_why_and_what_to_do() {
        let finding = Finding {
            file: "a.rs".into(),
            line: 7,
            what: "`x`".into(),
            rule: "no x here",
            remedy: "move it",
        };
        assert_eq!(finding.to_string(), "a.rs:7: `x`: no x here; move it");
    }

    #[test]
    fn each_kind_of_file_meets_its_rules() {
        let fence = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";
        let files = [
            ("lb-user/src/pure/mod.rs", format!("{fence}\nuse tokio::net;")),
            ("lb-common/Cargo.toml", "[dependencies]\nlb-user = 1\n[lints]\nworkspace = true".into()),
            ("README.md", "[x](nowhere.md)".into()),
            ("clippy.toml", String::new()),
        ]
        .map(|(path, text)| File { path: path.into(), text });
        let found: BTreeSet<String> = judge(&files).into_iter().map(|finding| finding.file).collect();
        let expected = ["README.md", "clippy.toml", "lb-common/Cargo.toml", "lb-user/src/pure/mod.rs"];
        assert_eq!(found, expected.map(String::from).into());
    }
}
