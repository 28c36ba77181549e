//! clippy's half of the fence around pure: the list in clippy.toml, and the attribute that arms it.

use toml::{Table, Value};

use super::{File, Finding};

pub(super) fn judge(files: &[File]) -> Vec<Finding> {
    let find = |path: &str| files.iter().find(|file| file.path == path);
    let mut findings = Vec::new();
    let finding =
        |file: &str, what: String, rule, remedy| Finding { file: file.into(), line: 1, what, rule, remedy };
    if find(PURE).is_none_or(|file| !file.text.lines().any(|line| line == ARMED)) {
        let rule = "clippy guards pure against clocks, tasks and files";
        findings.push(finding(PURE, format!("no `{ARMED}`"), rule, "put it below the module's head"));
    }
    let listed = find(LIST).map_or_else(Vec::new, |file| forbidden(&file.text));
    for missing in MUST_LIST.iter().filter(|name| !listed.iter().any(|listed| listed == *name)) {
        let rule = "what pure must not call is listed there";
        findings.push(finding(LIST, format!("no `{missing}`"), rule, "list it again"));
    }
    findings
}

fn forbidden(text: &str) -> Vec<String> {
    let Ok(table) = text.parse::<Table>() else {
        return Vec::new();
    };
    let entries =
        ["disallowed-methods", "disallowed-types"].map(|key| table.get(key).and_then(Value::as_array));
    let path = |entry: &Value| entry.as_str().or_else(|| entry.get("path")?.as_str()).map(String::from);
    entries.into_iter().flatten().flatten().filter_map(path).collect()
}

const PURE: &str = "lb-user/src/pure/mod.rs";
const ARMED: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";
const LIST: &str = "clippy.toml";
/// One of each kind; the file lists more.
const MUST_LIST: [&str; 8] = [
    "std::env::var",
    "std::fs::File",
    "std::fs::read",
    "std::net::TcpStream",
    "std::thread::spawn",
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "tokio::spawn",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    #[test]
    fn the_projects_own_list_is_complete() {
        let files = [file(LIST, include_str!("../../../clippy.toml")), file(PURE, ARMED)];
        assert_eq!(judge(&files), []);
    }

    #[test]
    fn a_disarmed_pure_is_found() {
        let list = include_str!("../../../clippy.toml");
        let commented = format!("// {ARMED}");
        for text in ["", "#![deny(clippy::disallowed_methods)]", &commented] {
            assert_eq!(judge(&[file(LIST, list), file(PURE, text)]).len(), 1, "{text}");
        }
    }

    #[test]
    fn a_shorter_list_is_found() {
        let list = include_str!("../../../clippy.toml").replace("\"std::time::Instant::now\"", "\"x::y\"");
        assert_eq!(judge(&[file(LIST, &list), file(PURE, ARMED)]).len(), 1);
        assert_eq!(judge(&[file(PURE, ARMED)]).len(), MUST_LIST.len());
    }
}
