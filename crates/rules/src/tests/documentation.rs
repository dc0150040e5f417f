//! Tests of docs/writing-rules.md: its files load and pass their tests, and its outputs are the real ones.

use vmgate_facts::Forecast;

use super::*;

const PAGE: &str = include_str!("../../../../docs/writing-rules.md");

/// Fenced blocks after comments that begin with `what`, each with the rest of its comment.
fn blocks(what: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in PAGE.split("<!-- ").skip(1) {
        let (comment, rest) = part.split_once(" -->").unwrap();
        if let Some(argument) = comment.strip_prefix(what) {
            let block = rest.split_once("```").unwrap().1;
            let (_, block) = block.split_once('\n').unwrap();
            found.push((argument.trim().to_owned(), block.split("```").next().unwrap().to_owned()));
        }
    }
    assert!(!found.is_empty(), "no {what} in the page");
    found
}

/// The page's files, with one text of one of them replaced.
fn site(change: Option<(&str, &str, &str)>) -> (TempDir, RuleSource) {
    let mut files = blocks("file:");
    if let Some((name, old, new)) = change {
        let file = files.iter_mut().find(|(file, _)| file == name).unwrap();
        assert!(file.1.contains(old), "{old}");
        file.1 = file.1.replacen(old, new, 1);
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    folder(&files)
}

/// Output without the path of the temporary folder.
fn plain(text: &str, dir: &TempDir) -> String {
    text.replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn the_examples_load_pass_their_tests_and_are_good_style() {
    let (_dir, source) = site(None);
    let sources = [source];
    let pack = Pack::load(&sources).unwrap_or_else(|errors| panic!("{errors}"));
    let catalogues = Catalogues::load(&sources).unwrap_or_else(|errors| panic!("{errors}"));
    let report = test::run(&pack, &catalogues, &sources, None);
    assert!(report.passed() && report.rules.len() == 3, "{}", report.render(false, true));
    let mut found = lint(&pack);
    found.extend(catalogues.lint());
    assert!(found.is_empty(), "{}", found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    let shown = test::run(&pack, &catalogues, &sources, Some("vcpus-leave-headroom")).render(false, false);
    for line in shown.lines().filter(|line| !line.starts_with("test result")) {
        assert!(PAGE.contains(line), "{line}");
    }
    let result = shown.lines().last().unwrap().split("; finished").next().unwrap();
    assert!(PAGE.contains(result), "{result}");
}

#[test]
fn the_mistakes_look_as_shown() {
    for (change, expected) in blocks("breaks:") {
        let (file, change) = change.split_once(": ").unwrap();
        let (old, new) = change.split_once(" | ").unwrap();
        let (dir, source) = site(Some((file, old, new)));
        let errors = Pack::load(&[source]).unwrap_err();
        assert_eq!(plain(&errors.problems[0].to_string(), &dir).trim(), expected.trim());
    }
}

#[test]
fn the_surviving_mutant_is_reported_as_shown() {
    for (change, expected) in blocks("survives:") {
        let (file, change) = change.split_once(": ").unwrap();
        let (case, set) = change.split_once(" | ").unwrap();
        let old = format!("  - name: {case}\n    given: four-cpus\n");
        let (dir, source) = site(Some((file, &old, &format!("{old}    {set}\n"))));
        let sources = [source];
        let catalogues = Catalogues::load(&sources).unwrap();
        let report = test::run(&Pack::load(&sources).unwrap(), &catalogues, &sources, None);
        assert!(!report.passed());
        let text = plain(&report.render(false, false), &dir);
        assert!(text.contains(expected.trim()), "{text}");
    }
}

#[test]
fn the_outcome_is_as_shown() {
    for (of, expected) in blocks("outcome:") {
        let (id, _) = of.split_once(": ").unwrap();
        let (dir, source) = site(None);
        let pack = Pack::load(&[source]).unwrap();
        let text = fs::read_to_string(dir.path().join("fixtures/four-cpus.yaml")).unwrap();
        let mut facts: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        facts["vm"]["nics"][0]["link_up"] = false.into();
        let facts: vmgate_facts::Facts = serde_json::from_value(facts).unwrap();
        let outcomes = pack.evaluate(&facts, &Forecast::default(), facts.collected_at);
        let outcome = outcomes.iter().find(|outcome| &*outcome.rule == id).unwrap();
        assert_eq!(serde_json::to_string_pretty(outcome).unwrap(), expected.trim());
    }
}

#[test]
fn parameters_are_set_as_shown() {
    let (settings, shown) = (blocks("settings:"), blocks("shown:"));
    for ((id, text), (_, table)) in settings.iter().zip(&shown) {
        let (_dir, source) = site(None);
        let settings: serde_json::Value = serde_yaml::from_str(text).unwrap();
        let parameters = serde_json::from_value(settings["parameters"].clone()).unwrap();
        let pack = Pack::load(&[source]).unwrap().with_parameters(None, &parameters).unwrap();
        let explained = explain_rule(pack.rule(id).unwrap());
        assert!(explained.contains(table.trim()), "{explained}");
    }
}
