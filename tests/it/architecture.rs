//! Dependencies point one way: what ARCHITECTURE.md promises, held against the `use` lines of the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Each module and what it may use. `clock`, `config` and `shown` are open to all; what isn't listed here may use everything.
const ALLOWED: [(&str, &[&str]); 19] = [
    ("clock", &[]),
    ("shown", &[]),
    ("geo", &[]),
    ("http", &[]),
    ("repo", &[]),
    ("config", &["http", "geo"]),
    ("shares", &[]),
    ("confine", &[]),
    ("permits", &["shares"]),
    ("policy", &["http", "repo", "geo", "shares"]),
    ("listing", &["http", "repo", "geo"]),
    ("plan", &["http", "repo", "geo", "policy", "listing"]),
    ("metrics", &["policy"]),
    ("origin", &["http", "repo"]),
    ("store", &["shares", "permits", "http", "repo", "origin"]),
    ("mirrors", &["http", "repo", "policy", "metrics", "origin", "store"]),
    ("push", &["http", "repo", "policy", "metrics", "origin", "store"]),
    (
        "server",
        &["shares", "permits", "http", "geo", "repo", "policy", "listing", "metrics", "origin", "store"],
    ),
    ("admin", &["http", "geo", "repo", "policy", "listing", "metrics", "store", "push", "server"]),
];

/// Modules without IO: nothing of these may stand in their code.
const PURE: [&str; 8] = ["geo", "http", "repo", "shares", "policy", "listing", "plan", "shown"];
const IMPURE: [&str; 7] =
    ["tokio", "hyper", "std::fs", "std::net::Tcp", "rustix", "socket2", "crate::clock::now"];

fn sources(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "tests") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_stem().is_some_and(|name| name != "tests")
        {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The code before the unit tests, without comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The modules that code names as `crate::x`, also in groups (`crate::{x, y::z}`).
fn used(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut modules = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            modules.insert(word(rest));
            continue;
        };
        let (mut depth, mut start) = (0, true);
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && c.is_alphabetic() => {
                    modules.insert(word(&group[index..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    modules
}

#[test]
fn dependencies_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into();
    let mut wrong = Vec::new();
    for module in allowed.keys() {
        let mut files = Vec::new();
        let (file, dir) = (root.join(format!("{module}.rs")), root.join(module));
        if file.exists() {
            files.push((file.display().to_string(), fs::read_to_string(file).unwrap()));
        } else {
            sources(&dir, &mut files);
        }
        assert!(!files.is_empty(), "no module {module}");
        for (path, text) in files {
            let code = code(&text);
            for other in used(&code) {
                let fine = other == *module
                    || ["clock", "config", "shown"].contains(&other.as_str())
                    || allowed[module].contains(&other.as_str());
                if !fine {
                    wrong.push(format!("{path} uses crate::{other}"));
                }
            }
            if PURE.contains(module) {
                wrong.extend(
                    IMPURE
                        .iter()
                        .filter(|word| code.contains(*word))
                        .map(|word| format!("{path} is pure, but names {word}")),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_reader_of_use_lines_reads() {
    let code = "use crate::a::B;\nuse crate::{c, d::{E, f}, g};\nlet x = crate::h::i();";
    assert_eq!(used(code).into_iter().collect::<Vec<_>>(), ["a", "c", "d", "g", "h"]);
}

/// What docs/caching.md promises, a test holds.
#[test]
fn every_promise_names_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    all_sources(&root.join("src"), &mut files);
    all_sources(&root.join("tests/it"), &mut files);
    let promises = fs::read_to_string(root.join("docs/caching.md")).unwrap();
    let mut named = 0;
    for row in promises
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| promise") && !line.starts_with("| ---"))
    {
        let tests = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            let function = format!("fn {}(", name.rsplit("::").next().unwrap());
            assert!(files.iter().any(|text| text.contains(&function)), "no such test: {name}");
            named += 1;
        }
    }
    assert!(named > 50, "the tables were read: {named}");
}

/// What docs/security.md promises, a test holds: each section has a line of tests.
#[test]
fn every_section_on_security_names_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    all_sources(&root.join("src"), &mut files);
    all_sources(&root.join("tests/it"), &mut files);
    let text = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
    assert!(!sections.is_empty(), "the page was read");
    for section in sections {
        let title = section.lines().next().unwrap();
        let (_, tests) = section.split_once("\nTests: ").unwrap_or_else(|| panic!("no tests: {title}"));
        assert!(section.contains("\nBound: "), "no bound: {title}");
        let tests = tests.split("\n\n").next().unwrap();
        for name in tests.split('`').skip(1).step_by(2) {
            let function = format!("fn {}(", name.rsplit("::").next().unwrap());
            assert!(files.iter().any(|text| text.contains(&function)), "no such test: {name}");
        }
    }
}

fn all_sources(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
}
