//! Promise 15: what cannot be known.

use std::{collections::BTreeMap, fs, path::Path};

use rayon::prelude::*;
use serde_json::{Value, json};
use vmgate_facts::{Facts, Uuid};
use vmgate_forecast::derive;
use vmgate_probe::{host::HostProbe, wire};
use vmgate_rules::{Catalogues, Pack, RuleSource};
use vmgate_verdict::{Effect, Outcome, Status};

use crate::said::vmgate_in;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> Value {
    let text = fs::read_to_string(root().join("rules/fixtures").join(name)).unwrap();
    serde_json::to_value(serde_yaml::from_str::<Facts>(&text).unwrap()).unwrap()
}

/// Every place in a document that is a field of an object, down to `depth` fields, as a JSON pointer.
fn fields(document: &Value, depth: usize) -> Vec<String> {
    fn visit(value: &Value, at: &str, depth: usize, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) if depth > 0 => {
                for (name, value) in fields {
                    let at = format!("{at}/{name}");
                    visit(value, &at, depth - 1, found);
                    found.push(at);
                }
            }
            Value::Array(items) => {
                for (number, value) in items.iter().enumerate() {
                    visit(value, &format!("{at}/{number}"), depth, found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for part in ["vm", "guest", "source", "destination", "path", "history"] {
        visit(&document[part], &format!("/{part}"), depth, &mut found);
        found.push(format!("/{part}"));
    }
    found
}

/// The facts without what is at `place`: unknown there, as after an answer that did not come. None where the format says that
/// it cannot be missing.
fn without(document: &Value, place: &str) -> Option<Facts> {
    let mut document = document.clone();
    *document.pointer_mut(place)? = json!({ "unknown": "no answer", "cause": "timed-out" });
    serde_json::from_value(document).ok()
}

/// The same with the field left out, as by a program that does not know it.
fn left_out(document: &Value, place: &str) -> Option<Facts> {
    let mut document = document.clone();
    let (parent, name) = place.rsplit_once('/')?;
    document.pointer_mut(parent)?.as_object_mut()?.remove(name)?;
    serde_json::from_value(document).ok()
}

struct Rules {
    pack: Pack,
    catalogues: Catalogues,
}

impl Rules {
    fn shipped() -> Self {
        Self { pack: Pack::load(&[RuleSource::Builtin]).unwrap(), catalogues: Catalogues::shipped().unwrap() }
    }

    fn judge(&self, facts: Facts) -> Vec<Outcome> {
        let now = facts.collected_at;
        let (facts, forecast) = derive(facts, &self.catalogues);
        self.pack.evaluate(&facts, &forecast, now)
    }
}

/// The worst outcome of each rule.
fn by_rule(outcomes: &[Outcome]) -> BTreeMap<&str, Status> {
    let mut worst = BTreeMap::new();
    for outcome in outcomes {
        let rank = |status: Status| match status {
            Status::Fail => 3,
            Status::Unknown => 2,
            Status::Pass => 1,
            Status::NotApplicable => 0,
        };
        let known = worst.entry(&*outcome.rule).or_insert(outcome.status);
        if rank(outcome.status) > rank(*known) {
            *known = outcome.status;
        }
    }
    worst
}

/// Promise 15: makes every single fact of a healthy move and of a refused one unknown in turn, or leaves it out, and no rule
/// passes that did not pass with it.
#[test]
fn no_rule_passes_because_a_fact_is_missing() {
    let rules = Rules::shipped();
    for name in ["idle-vm.yaml", "busy-cluster-member.yaml"] {
        let document = fixture(name);
        let whole = rules.judge(serde_json::from_value(document.clone()).unwrap());
        let whole = by_rule(&whole);
        let tried: usize = fields(&document, 3)
            .par_iter()
            .map(|place| {
                let fewer: Vec<Facts> =
                    without(&document, place).into_iter().chain(left_out(&document, place)).collect();
                let tried = fewer.len();
                for facts in fewer {
                    for (rule, status) in by_rule(&rules.judge(facts)) {
                        let before = whole.get(rule).copied().unwrap_or(Status::NotApplicable);
                        assert!(
                            status != Status::Pass || before == Status::Pass,
                            "{name} without {place}: {rule} was {before:?} and passes"
                        );
                    }
                }
                tried
            })
            .sum();
        assert!(tried > 200, "{name}: only {tried} facts could be left out");
    }
}

/// Promise 15: takes each group of facts from a healthy move: it is not GO without VM, guest, a host or the path, and a rule
/// that still passes shows no fact of that group as its evidence.
#[test]
fn no_rule_passes_on_facts_that_were_taken_away() {
    let rules = Rules::shipped();
    let document = fixture("idle-vm.yaml");
    for place in fields(&document, 1) {
        // Derived again, from the bridges and from the marks.
        if ["/path/guest_network", "/vm/manager"].contains(&&*place) {
            continue;
        }
        let Some(facts) = without(&document, &place) else { continue };
        let group = place[1..].replace('/', ".");
        let is_in_group = |path: &str| {
            path.strip_prefix(&group).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let outcomes = rules.judge(facts);
        for passed in outcomes.iter().filter(|outcome| outcome.status == Status::Pass) {
            let seen = passed.evidence.iter().find(|fact| is_in_group(&fact.path));
            assert!(seen.is_none(), "{} passes without {group} on {seen:?}", passed.rule);
        }
        let blocked = outcomes.iter().any(|outcome| outcome.effect_now() == Some(Effect::Block));
        let whole = ["vm", "guest", "source", "destination", "path"].contains(&&*group);
        assert!(blocked || !whole, "GO without any fact of {group}");
    }
}

/// Promise 15: spells one UUID in several ways and puts other texts in its place: the spellings are one VM, the texts none.
#[test]
fn a_uuid_is_compared_by_value_and_a_text_that_is_none_equals_nothing() {
    let uuid: Uuid = "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11".parse().unwrap();
    for spelling in ["5E7C9B3E-6A0E-4C2E-9A53-0D6F5A5C9D11", "5e7c9b3e6a0e4c2e9a530d6f5a5c9d11"] {
        assert_eq!(spelling.parse(), Ok(uuid.clone()));
        let mut facts = fixture("idle-vm.yaml");
        facts["destination"]["active_vms"] = json!([spelling]);
        facts["vm"]["uuid"] = json!(uuid.as_str());
        let outcomes = Rules::shipped().judge(serde_json::from_value(facts).unwrap());
        assert_eq!(
            by_rule(&outcomes)["vm-runs-once"],
            Status::Fail,
            "the VM already runs there, as {spelling}"
        );
    }
    for text in ["", "web1", "00000000-0000-0000-0000-000000000000", "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d1"] {
        let named: vmgate_verdict::NameAndUuid =
            serde_json::from_value(json!({ "name": "a", "uuid": text })).unwrap();
        assert_eq!(named.uuid, None, "a verdict that names `{text}` names no VM");
        let mut facts = fixture("idle-vm.yaml");
        facts["source"]["uuid"] = json!(text);
        assert!(serde_json::from_value::<Facts>(facts).is_err(), "`{text}` in a facts file is an error");
    }
}

/// Promise 15: cuts the answer of a host short at every byte, empties it, and leaves every fact out of it: nothing of it is
/// believed, and what is left out is unknown.
#[test]
fn a_partial_answer_of_a_host_is_no_answer() {
    let answer = json!({ "vmgate": 1, "program": "0.1.0", "answer": {
        "schema": "vmgate/host-probe/v1", "clock": "2026-11-29T06:00:00Z", "maintenance": null, "cpus": 4,
    }});
    let text = answer.to_string();
    for end in 0..text.len() {
        assert!(
            wire::read_answer::<HostProbe>(&text.as_bytes()[..end]).is_err(),
            "{end} bytes of an answer were believed"
        );
    }
    for text in ["{}", "null", "[]", r#"{"vmgate": 1}"#, r#"{"vmgate": 1, "answer": {}}"#] {
        assert!(wire::read_answer::<HostProbe>(text.as_bytes()).is_err(), "{text}");
    }
    let bare = json!({ "schema": "vmgate/host-probe/v1", "clock": "2026-11-29T06:00:00Z" });
    let probe: HostProbe = wire::read_answer(bare.to_string().as_bytes()).unwrap();
    for (name, fact) in serde_json::to_value(probe).unwrap().as_object().unwrap() {
        let told = ["schema", "clock", "network"].contains(&name.as_str());
        assert!(
            told || fact.get("cause").is_some(),
            "{name} is known although the host did not tell it: {fact}"
        );
    }
}

/// Promise 15: lets rules of a site that ask nothing of the destination judge a move to no host, and every format of the report
/// has an error.
#[test]
fn a_move_to_no_host_is_no_go_whatever_the_rules_ask() {
    let folder = tempfile::tempdir().unwrap();
    let mut facts = fixture("idle-vm.yaml");
    facts["collected_at"] = json!(jiff::Timestamp::now());
    facts["provenance"] = json!({});
    let rule = "schema: vmgate/rule/v1
id: site-vm-runs
title: The VM runs
step: prepare
severity: high
effect: block
assert: vm.state == \"running\"
message: the VM is {vm.state}
rationale: It asks nothing of the destination.
remediation: Start it.
references: [{title: none, url: \"https://example.org\"}]
tags: [site]
";
    fs::create_dir(folder.path().join("rules")).unwrap();
    fs::write(folder.path().join("rules/site-vm-runs.yaml"), rule).unwrap();
    let check = |facts: &Value| {
        fs::write(folder.path().join("facts.json"), facts.to_string()).unwrap();
        let words = ["check", "--facts", "facts.json", "--no-builtin-rules", "--rules", "rules"];
        let formats = ["--output", "github=github", "--output", "junit=junit"];
        vmgate_in(folder.path(), &[&words[..], &formats].concat())
    };
    check(&facts).exits(0);
    facts["destination"] = json!({ "unknown": "no destination was named", "cause": "no-destination" });
    check(&facts).exits(3);
    for (format, error) in [("github", "::error "), ("junit", "<error ")] {
        let report = fs::read_to_string(folder.path().join(format)).unwrap();
        assert!(report.contains(error) && report.contains("the destination was not seen"), "{report}");
    }
}

/// Promise 15: lets a check run with a ledger that cannot be read, or that is something else, and it does not say GO.
#[test]
fn a_ledger_that_cannot_be_read_is_no_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut facts = fixture("idle-vm.yaml");
    facts["collected_at"] = json!(jiff::Timestamp::now());
    facts["provenance"] = json!({});
    fs::write(folder.path().join("facts.json"), facts.to_string()).unwrap();
    let check =
        |ledger: &str| vmgate_in(folder.path(), &["check", "--facts", "facts.json", "--ledger", ledger]);
    check("new.db").exits(0);
    fs::write(
        folder.path().join("other.db"),
        "not a ledger, but longer than a header of SQLite would be".repeat(40),
    )
    .unwrap();
    let mut torn = fs::read(folder.path().join("new.db")).unwrap();
    let half = torn.len() / 2;
    torn[100..half].fill(0xa5);
    fs::write(folder.path().join("torn.db"), torn).unwrap();
    fs::create_dir(folder.path().join("folder.db")).unwrap();
    for ledger in ["other.db", "torn.db", "folder.db", "other.db/ledger.db"] {
        let said = check(ledger);
        assert!(said.code != 0, "{ledger}: GO with exit code {}\n{}", said.code, said.stdout);
    }
}
