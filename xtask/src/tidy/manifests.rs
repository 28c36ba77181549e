//! Which package may depend on which.

use toml::{Table, Value};

use super::Finding;

/// Each package with those of ours that it may depend on. Nothing depends on xtask or on the tests.
const EDGES: &[(&str, &[&str])] = &[
    ("lb-common", &[]),
    ("lb-ebpf", &["lb-common"]),
    ("lb-user", &["lb-common"]),
    ("xtask", &[]),
    ("tests", &["lb-common", "lb-ebpf", "lb-user"]),
    ("fuzz", &["lb-common", "lb-ebpf", "lb-user"]),
];

const OURS: [&str; 6] = ["lb-common", "lb-ebpf", "lb-tests", "lb-user", "steelyard-fuzz", "xtask"];

/// What the packet path may be built from, kernel half included.
const PACKET_PATH: [&str; 4] = ["aya-ebpf", "aya-log-ebpf", "lb-common", "network-types"];

pub(super) fn judge(path: &str, text: &str) -> Vec<Finding> {
    let Some(folder) = path.strip_suffix("/Cargo.toml") else {
        return Vec::new();
    };
    let finding = |line, what, rule, remedy| Finding { file: path.into(), line, what, rule, remedy };
    let manifest: Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return vec![finding(1, format!("{error}"), "a manifest is TOML", "correct it")],
    };
    let mut findings = Vec::new();
    let Some((_, allowed)) = EDGES.iter().find(|(package, _)| *package == folder) else {
        let remedy = "say in the fences (EDGES) what it may depend on";
        return vec![finding(1, format!("the package {folder}"), "every package has its place", remedy)];
    };
    for (name, for_tests) in dependencies(&manifest) {
        let line = line_of(text, &name);
        if OURS.contains(&name.as_str()) && !allowed.contains(&name.as_str()) {
            let rule = "packages depend one way: lb-common, lb-ebpf and lb-user, tests";
            findings.push(finding(line, format!("`{name}`"), rule, "move what both need to lb-common"));
        } else if folder == "lb-ebpf" && !for_tests && !PACKET_PATH.contains(&name.as_str()) {
            let rule = "the packet path is built from lb-common, network-types and aya-ebpf alone";
            findings.push(finding(line, format!("`{name}`"), rule, "do without, or move it to lb-user"));
        }
    }
    let inherits = |key| manifest.get("lints").and_then(|lints| lints.get(key)).and_then(Value::as_bool);
    if folder != "fuzz" && inherits("workspace") != Some(true) {
        let rule = "every package has the workspace's lints";
        findings.push(finding(1, "no lints".into(), rule, "add `[lints]` with `workspace = true`"));
    }
    findings
}

/// Names as the registry knows them, and whether tests alone need them.
fn dependencies(manifest: &Table) -> Vec<(String, bool)> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let tables = targets.filter_map(Value::as_table).chain([manifest]);
    let mut found = Vec::new();
    for table in tables {
        for (kind, for_tests) in
            [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
        {
            let entries = table.get(kind).and_then(Value::as_table).into_iter().flatten();
            found.extend(entries.map(|(name, value)| {
                let renamed = value.get("package").and_then(Value::as_str);
                (renamed.unwrap_or(name).to_owned(), for_tests)
            }));
        }
    }
    found
}

fn line_of(text: &str, name: &str) -> usize {
    text.lines().position(|line| line.contains(name) && !line.contains("name =")).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, body: &str, expected: &[&str]) {
        let text = format!("{body}\n[lints]\nworkspace = true\n");
        let found: Vec<String> =
            judge(path, &text).into_iter().map(|f| format!("{} {}", f.line, f.what)).collect();
        assert_eq!(found, expected, "{path}: {body}");
    }

    #[test]
    fn an_edge_against_the_current_is_found() {
        check("lb-common/Cargo.toml", "[dependencies]\nlb-user.workspace = true", &["2 `lb-user`"]);
        check("lb-ebpf/Cargo.toml", "[dev-dependencies]\nlb-user = { path = \"x\" }", &["2 `lb-user`"]);
        check("lb-user/Cargo.toml", "[build-dependencies]\nxtask = { path = \"x\" }", &["2 `xtask`"]);
        check("lb-user/Cargo.toml", "[dependencies]\nx = { package = \"lb-ebpf\" }", &["2 `lb-ebpf`"]);
        check("xtask/Cargo.toml", "[target.'cfg(unix)'.dependencies]\nlb-user = \"1\"", &["2 `lb-user`"]);
        check("lb-ebpf/Cargo.toml", "[dependencies]\nserde = \"1\"", &["2 `serde`"]);
        check("new/Cargo.toml", "", &["1 the package new"]);
    }

    #[test]
    fn edges_with_the_current_pass() {
        check("Cargo.toml", "[workspace]", &[]);
        check("lb-common/Cargo.toml", "[dependencies]\naya = \"0\"", &[]);
        check(
            "lb-ebpf/Cargo.toml",
            "[dependencies]\nlb-common = \"1\"\n[dev-dependencies]\nproptest = \"1\"",
            &[],
        );
        check("lb-user/Cargo.toml", "[package]\nname = \"lb-user\"\n[dependencies]\nlb-common = \"1\"", &[]);
        check("tests/Cargo.toml", "[dependencies]\nlb-user = \"1\"\nlb-ebpf = \"1\"", &[]);
    }

    #[test]
    fn a_package_without_the_lints_is_found() {
        assert_eq!(judge("xtask/Cargo.toml", "[package]").len(), 1);
        assert_eq!(judge("xtask/Cargo.toml", "[lints]\nworkspace = true"), []);
    }
}
