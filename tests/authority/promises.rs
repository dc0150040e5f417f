//! The list of promises, and the page that tells which tests hold them.

use std::{fmt::Write as _, fs, path::Path};

/// Promises in the order of docs/promises.md.
const PROMISES: &[(u32, &str)] = &[
    (1, "What acts uses the real clock: `--at` is for commands that look."),
    (2, "A verdict admits one migration, for as long as the policy of the destination allows."),
    (
        3,
        "What is read is never run: programs and addresses come from the command line and the site's configuration.",
    ),
    (4, "Reading a change file, an inventory or a ledger runs nothing."),
    (5, "The hook decides in time and writes down every decision."),
    (6, "What the hook admits was judged by the rules and on the facts that the destination demands."),
    (7, "NO-GO leaves no permit behind."),
    (
        8,
        "Configuration, rules, waivers, keys and tokens are believed only from files that nobody else can write.",
    ),
    (9, "A report replaces regular files only."),
    (10, "Nothing that a guest names is obeyed by a terminal, a CI runner, a browser or a spreadsheet."),
    (11, "A command shown to be copied is safe to copy."),
    (12, "A writer of the ledger cannot forge, back-date or block it."),
    (13, "A listener outlives strangers."),
    (14, "Versions may differ: an older hook or probe understands a newer vmgate, and the other way round."),
    (15, "What cannot be known fails closed."),
    (16, "Keys end: they have a validity, a scope and a revocation list."),
    (17, "Parsers of strangers' bytes are bounded and fuzzed."),
];

/// A test, as its documentation presents it.
struct Shown {
    promise: u32,
    tries: String,
    name: String,
    in_lab: bool,
}

/// Tests of one source file, by their documentation.
fn shown_by(source: &str, file: &str) -> Vec<Shown> {
    let mut shown = Vec::new();
    let mut documentation = String::new();
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            let _ = write!(documentation, " {}", text.trim());
        } else if let Some(rest) = line.strip_prefix("fn ") {
            let name = rest.split('(').next().unwrap();
            if let Some((number, tries)) =
                documentation.trim().strip_prefix("Promise ").and_then(|text| text.split_once(": "))
            {
                shown.push(Shown {
                    promise: number.parse().unwrap(),
                    tries: tries.to_owned(),
                    name: format!("{file}::{name}"),
                    in_lab: file == "lab",
                });
            }
            documentation.clear();
        } else if !line.starts_with("#[") {
            documentation.clear();
        }
    }
    shown
}

fn all_shown() -> Vec<Shown> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/authority");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .flat_map(|file| {
            shown_by(&fs::read_to_string(file).unwrap(), file.file_stem().unwrap().to_str().unwrap())
        })
        .collect()
}

fn page() -> String {
    let mut page = String::from(
        "# Promises\n\n\
         The promises of the gate, and the tests that try to break them. Generated from tests/authority by `make generate`; \
         [Security model](security.md)\nexplains them. Tests marked *lab* run on real hosts (`make lab-test`), the others in `make test`.\n",
    );
    let shown = all_shown();
    for (number, promise) in PROMISES {
        let _ = write!(page, "\n## {number}. {promise}\n\n");
        for test in shown.iter().filter(|test| test.promise == *number) {
            let lab = if test.in_lab { " (*lab*)" } else { "" };
            let _ = writeln!(page, "- {} `{}`{lab}", test.tries, test.name);
        }
    }
    page
}

#[test]
fn every_promise_has_a_test_and_every_test_a_promise() {
    let shown = all_shown();
    for (number, promise) in PROMISES {
        assert!(
            shown.iter().any(|test| test.promise == *number),
            "no test shows promise {number}: {promise}"
        );
    }
    for test in &shown {
        assert!(
            PROMISES.iter().any(|(number, _)| *number == test.promise),
            "{} shows promise {}",
            test.name,
            test.promise
        );
    }
}

#[test]
fn the_page_of_promises_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/promises.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, page()).unwrap();
    }
    assert_eq!(
        fs::read_to_string(path).unwrap_or_default(),
        page(),
        "docs/promises.md is stale: run `make generate`"
    );
}
