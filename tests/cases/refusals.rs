//! The reasons for which libvirt and QEMU refuse a move, and the page that tells which rule says so before, and which test
//! shows it.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use serde::Deserialize;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// One reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    reason: String,
    /// Function that refuses.
    #[serde(rename = "where")]
    place: String,
    #[serde(default)]
    rules: Vec<String>,
    #[serde(default)]
    tests: Vec<String>,
    /// What the rules do not see.
    note: Option<String>,
    only: Option<Only>,
    why: Option<String>,
}

/// What tells a reason that no rule sees.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Only {
    Trial,
    Rehearsal,
    Unknowable,
}

impl Only {
    fn words(self) -> &'static str {
        match self {
            Self::Trial => "only `--trial`",
            Self::Rehearsal => "only a rehearsal",
            Self::Unknowable => "cannot be known",
        }
    }
}

fn reasons() -> Vec<Reason> {
    serde_yaml::from_str(include_str!("refusals.yaml")).unwrap()
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(Path::new(ROOT).join(path)).ok()
}

/// A file of that name below rules/.
fn rule_file(name: &str) -> Option<String> {
    let folders = fs::read_dir(Path::new(ROOT).join("rules")).unwrap();
    folders.filter_map(Result::ok).find_map(|folder| read(folder.path().join(name)))
}

/// Why a test that is named does not show a reason.
fn fault(test: &str, rules: &[String]) -> Option<String> {
    let (kind, name) = test.split_once(' ').unwrap_or((test, ""));
    match kind {
        "lab" => {
            let files = ["tests/lab/refusals.rs", "tests/lab/refusals/destination.rs"];
            let cases = files.map(|file| read(file).unwrap()).concat();
            let case = cases.split("Case {").find(|case| case.contains(&format!("guest: \"{name}\"")));
            match case {
                None => Some(format!("tests/lab/refusals.rs has no guest {name}")),
                Some(case) if !rules.iter().any(|rule| case.contains(&format!("\"{rule}\""))) => {
                    Some(format!("the lab's guest {name} is foretold by none of {rules:?}"))
                }
                Some(_) => None,
            }
        }
        "rule" => {
            let (rule, case) = name.split_once(": ")?;
            let cases = rule_file(&format!("{rule}.test.yaml")).unwrap_or_default();
            let has = cases.lines().any(|line| line.trim().trim_matches('"') == format!("- name: {case}"));
            let of_these = rules.iter().any(|one| one == rule);
            (!has || !of_these).then(|| format!("no case `{case}` of a rule {rule} among {rules:?}"))
        }
        "test" => {
            let (file, function) = name.split_once(": ")?;
            let has = read(file).is_some_and(|text| text.contains(&format!("fn {function}(")));
            (!has).then(|| format!("{file} has no test {function}"))
        }
        _ => Some(format!("`{test}` is no test")),
    }
}

#[test]
fn every_reason_has_a_rule_that_a_test_shows_or_says_why_not() {
    let mut wrong = Vec::new();
    for reason in reasons() {
        let mut say = |what: String| wrong.push(format!("{}: {what}", reason.reason));
        for rule in &reason.rules {
            if rule_file(&format!("{rule}.yaml")).is_none() {
                say(format!("there is no rule {rule}"));
            }
        }
        reason.tests.iter().filter_map(|test| fault(test, &reason.rules)).for_each(&mut say);
        match (&reason.only, &reason.why) {
            (None, None) if reason.rules.is_empty() || reason.tests.is_empty() => {
                say("it needs rules and tests, or `only` and `why`".to_owned());
            }
            (Some(_), Some(_)) if reason.rules.is_empty() && reason.tests.is_empty() => {}
            (None, None) => {}
            _ => say("`only` and `why` belong together, without rules and tests".to_owned()),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_rule_or_a_test_that_is_gone_is_noticed() {
    let rules = ["vm-is-running".to_owned()];
    for test in [
        "lab nobody",
        "lab vdi",
        "rule vm-is-running: gone",
        "rule vm-runs-once: running",
        "test tests/docs.rs: gone",
        "by hand",
    ] {
        assert!(fault(test, &rules).is_some(), "{test}");
    }
    assert_eq!(fault("rule vm-is-running: paused", &rules), None);
    assert!(rule_file("vm-is-gone.yaml").is_none());
}

fn page() -> String {
    let reasons = reasons();
    let seen = reasons.iter().filter(|reason| reason.only.is_none()).count();
    let mut page = format!(
        "# What libvirt and QEMU refuse, and what vmgate says before\n\n\
         Every reason for which libvirt (11.3) or QEMU (10.0) refuses to move a VM, from their sources, with the rule that says so before and \
         the test\nthat shows it. {seen} of {} are seen without touching the VM. The others come out when the migration begins: `vmgate check \
         --trial` begins it and\ntakes it back. Generated from tests/cases/refusals.yaml by `make generate`; a test fails if a rule or test named \
         here does not exist.\n[Foretold and measured](refusals-measured.md) has the answers of two real hosts to the tests marked *lab*.\n\n\
         | reason | refused by | vmgate | shown by |\n|---|---|---|---|\n",
        reasons.len()
    );
    for reason in &reasons {
        let rules: Vec<String> =
            reason.rules.iter().map(|rule| format!("[{rule}](rules.md#{rule})")).collect();
        let vmgate = match (reason.only, &reason.why, &reason.note) {
            (Some(only), Some(why), _) => format!("{}: {why}", only.words()),
            (_, _, Some(note)) => format!("{}; {note}", rules.join(", ")),
            _ => rules.join(", "),
        };
        let tests: Vec<String> = reason.tests.iter().map(|test| shown(test)).collect();
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            cell(&reason.reason),
            cell(&reason.place),
            cell(&vmgate),
            cell(&tests.join("; "))
        );
    }
    page
}

/// A test, for the page.
fn shown(test: &str) -> String {
    match test.split_once(' ') {
        Some(("lab", guest)) => format!("*lab* `{guest}`"),
        Some(("rule", name)) => {
            let (rule, case) = name.split_once(": ").unwrap();
            format!("`{rule}`: {case}")
        }
        Some((_, name)) => {
            let (file, function) = name.split_once(": ").unwrap();
            format!("`{function}` in {file}")
        }
        None => unreachable!("every test is looked at by the test above"),
    }
}

#[test]
fn the_page_of_refusals_is_fresh() {
    let path = Path::new(ROOT).join("docs/refusals.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, page()).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), page(), "run `make generate`");
}

#[test]
fn the_reasons_differ() {
    let reasons = reasons();
    let different: BTreeSet<&str> = reasons.iter().map(|reason| reason.reason.as_str()).collect();
    assert_eq!(different.len(), reasons.len());
}
