//! Relative links in Markdown lead to a file that exists.

use std::collections::BTreeSet;

use super::Finding;

/// `paths`: every file of the project, below its root.
pub(super) fn judge(file: &str, text: &str, paths: &BTreeSet<&str>) -> Vec<Finding> {
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            let broken = targets(line).filter(|target| !leads_somewhere(folder, target, paths));
            findings.extend(broken.map(|target| Finding {
                file: file.into(),
                line: index + 1,
                what: format!("the link to {target}"),
                rule: "links lead somewhere",
                remedy: "correct the path, relative to this file",
            }));
        }
    }
    findings
}

/// Of `[text](target)`, `![text](target "title")` and `[label]: target`, outside inline code.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let outside_code = line.split('`').step_by(2);
    let inline = outside_code.flat_map(|text| text.split("](").skip(1)).filter_map(|rest| {
        let (target, _) = rest.split_once(')')?;
        target.split_whitespace().next()
    });
    // A link's text may be code, whose end then begins the next piece.
    let reference =
        line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target.trim());
    inline.chain(reference).filter(|target| is_relative(target))
}

fn is_relative(target: &str) -> bool {
    let scheme = target.split_once(':').is_some_and(|(scheme, _)| scheme.chars().all(char::is_alphanumeric));
    !scheme && !target.starts_with('#')
}

fn leads_somewhere(folder: &str, target: &str, paths: &BTreeSet<&str>) -> bool {
    let target = target.split('#').next().unwrap_or(target).trim_matches(['<', '>']);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => (),
            ".." if parts.pop().is_none() => return false,
            ".." => (),
            name => parts.push(name),
        }
    }
    let wanted = parts.join("/");
    let is_folder =
        || paths.iter().any(|path| path.strip_prefix(&wanted).is_some_and(|rest| rest.starts_with('/')));
    wanted.is_empty() || paths.contains(wanted.as_str()) || is_folder()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(file: &str, text: &str, expected: &[(usize, &str)]) {
        let paths = ["README.md", "docs/a.md", "docs/deep/b.md", "docs/x.png"].into();
        let found: Vec<(usize, String)> =
            judge(file, text, &paths).into_iter().map(|f| (f.line, f.what)).collect();
        let expected: Vec<(usize, String)> =
            expected.iter().map(|(line, target)| (*line, format!("the link to {target}"))).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn broken_links_are_found() {
        check("README.md", "x\nsee [a](docs/z.md)", &[(2, "docs/z.md")]);
        check("docs/a.md", "[a](README.md) and ![b](y.png \"t\")", &[(1, "README.md"), (1, "y.png")]);
        check("README.md", "[a]: nowhere.md", &[(1, "nowhere.md")]);
        check("README.md", "[`code`](gone.md#part)", &[(1, "gone.md#part")]);
        check("README.md", "[a](../outside.md)", &[(1, "../outside.md")]);
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        check("README.md", "[a](docs/a.md) [b](./docs/deep/b.md#part) [c](docs) [d](docs/)", &[]);
        check("docs/deep/b.md", "[a](../a.md) [r](../../README.md) ![x](../x.png)", &[]);
        check("README.md", "[w](https://example.com/x) [m](mailto:a@b) [p](#part)", &[]);
        check("README.md", "```\n[a](nowhere.md)\n```\nuse `[a](nowhere.md)`", &[]);
    }
}
