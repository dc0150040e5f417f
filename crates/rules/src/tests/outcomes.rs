//! Tests of outcomes: their order, their evidence, missing facts, and facts that are too old.

use jiff::Timestamp;
use serde_json::json;
use vmgate_facts::{Cause, Facts, Forecast};

use super::*;

const NICS: &str = r#"schema: vmgate/rule/v1
id: nic-up
title: Every interface is up
step: switch
severity: low
effect: warn
on_unknown: note
when: vm.state == "running"
foreach: {n: 'vm.nics.filter(n, n.kind != "user")'}
subject: "{n.mac}"
assert: n.link_up
message: "{n.tap} of {n.mac} is down"
rationale: An interface that is down carries nothing, before the move and after it.
remediation: Set it up with `virsh domif-setlink {vm.name} {n.mac} up`.
"#;

fn facts(change: impl FnOnce(&mut serde_json::Value)) -> Facts {
    let nic = |mac: &str, up: bool| json!({"mac": mac, "kind": "bridge", "source": "br0", "tap": null, "model": null, "link_up": up});
    let mut document = json!({
        "schema": "vmgate/facts/v1", "collected_at": "2026-11-23T01:00:00Z",
        "provenance": {
            "vm": {"collector": "libvirt", "method": "virDomainGetXMLDesc", "at": "2026-11-23T01:00:00Z"},
            "destination.memory": {"collector": "probe", "method": "/proc/meminfo", "at": "2026-11-23T00:00:00Z"}
        },
        "vm": {"name": "web1", "state": "running", "memory_max_bytes": 1_048_576, "nics": [nic("b", false), nic("a", true)]},
        "destination": {"memory": {"total_bytes": 4_194_304, "available_bytes": 2_097_152}}
    });
    change(&mut document);
    serde_json::from_value(document).unwrap()
}

fn outcomes(rules: &[&str], facts: &Facts) -> Vec<Outcome> {
    let files: Vec<(String, &str)> =
        rules.iter().enumerate().map(|(at, text)| (format!("r{at}.yaml"), *text)).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let (_dir, source) = folder(&files);
    let pack = Pack::load(&[source]).unwrap();
    pack.evaluate(facts, &Forecast::default(), "2026-11-23T01:10:00Z".parse::<Timestamp>().unwrap())
}

#[test]
fn outcomes_come_by_step_severity_id_and_subject() {
    let other =
        FITS.replace("id: memory-fits", "id: also-fits").replace("severity: high", "severity: critical");
    let found = outcomes(&[NICS, FITS, &other], &facts(|_| ()));
    let order: Vec<_> = found.iter().map(|outcome| (&*outcome.rule, outcome.subject.as_deref())).collect();
    assert_eq!(
        order,
        [("also-fits", None), ("memory-fits", None), ("nic-up", Some("a")), ("nic-up", Some("b"))]
    );
}

#[test]
fn a_value_in_a_command_is_one_word_and_a_value_beside_it_begins_none() {
    let rule = NICS.replace("Set it up", "Of {vm.name} - set it up").replace(
        "{n.mac} up`",
        "{n.mac} up`, or `virsh edit {vm.name}` or `virsh dumpxml {vm.name} > {vm.name}.xml`",
    );
    let said = |name: &str| {
        let found = outcomes(&[&rule], &facts(|facts| facts["vm"]["name"] = json!(name)));
        found[1].remediation.clone().unwrap()
    };
    assert_eq!(
        said("x'; $(touch pwned) \""),
        r#"Of x'; $(touch pwned) " - set it up with `virsh domif-setlink 'x'\''; $(touch pwned) "' b up`, or `virsh edit 'x'\''; $(touch pwned) "'` or `virsh dumpxml 'x'\''; $(touch pwned) "' > 'x'\''; $(touch pwned) "'.xml`."#
    );
    assert!(
        said("a`b`")
            .starts_with(r#"Of a'b' - set it up with `virsh domif-setlink "$(printf 'a\140b\140')" b up`"#)
    );
    assert!(said("-x").contains("`virsh edit -- -x`"), "{}", said("-x"));
}

#[test]
fn an_outcome_names_what_decided_it_and_where_that_is_from() {
    let found = outcomes(&[NICS], &facts(|_| ()));
    let down = &found[1];
    assert_eq!((down.status, down.effect, down.on_unknown), (Status::Fail, Effect::Warn, Effect::Note));
    assert_eq!(&*down.message, "none of b is down");
    assert_eq!(down.remediation.as_deref(), Some("Set it up with `virsh domif-setlink web1 b up`."));
    let evidence: Vec<_> = down
        .evidence
        .iter()
        .map(|fact| (fact.path.as_str(), fact.value.clone(), fact.source.as_deref()))
        .collect();
    assert_eq!(evidence, [("vm.nics[0].link_up", json!(false), Some("libvirt: virDomainGetXMLDesc"))]);
    assert_eq!(down.evidence[0].at, "2026-11-23T01:00:00Z".parse().ok());
    assert_eq!((found[0].status, &*found[0].message), (Status::Pass, "Every interface is up"));
    assert_eq!(found[0].remediation, None);
}

#[test]
fn what_is_not_known_makes_one_outcome_and_not_silence() {
    let found = outcomes(
        &[NICS],
        &facts(|document| document["vm"]["nics"] = json!({"unknown": "no answer", "cause": "timed-out"})),
    );
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].status, found[0].subject.as_deref()), (Status::Unknown, None));
    assert_eq!(
        found[0].missing,
        [Missing { path: "vm.nics".into(), reason: "no answer".into(), cause: Cause::TimedOut }]
    );
    assert_eq!(
        &*found[0].message,
        "cannot tell the items of `vm.nics.filter(n, n.kind != \"user\")`: vm.nics is not known (no answer)"
    );

    let found =
        outcomes(&[NICS], &facts(|document| document["vm"]["state"] = json!({"unknown": "no answer"})));
    assert_eq!((found.len(), found[0].status), (1, Status::Unknown));
    assert!(found[0].message.starts_with("cannot tell whether the rule applies"));

    let found = outcomes(&[NICS], &facts(|document| document["vm"] = json!({"unknown": "no VM"})));
    assert_eq!(
        found[0].missing,
        [Missing { path: "vm.state".into(), reason: "no VM".into(), cause: Cause::NotCollected }]
    );
}

#[test]
fn what_does_not_apply_is_not_a_pass() {
    let found = outcomes(&[NICS], &facts(|document| document["vm"]["nics"] = json!([])));
    assert_eq!((found.len(), found[0].status), (1, Status::NotApplicable));
    assert_eq!(&*found[0].message, "nothing to check: `vm.nics.filter(n, n.kind != \"user\")` is empty");
    let found = outcomes(&[NICS], &facts(|document| document["vm"]["state"] = json!("paused")));
    assert_eq!((found.len(), found[0].status), (1, Status::NotApplicable));
    assert_eq!(found[0].evidence[0].path, "vm.state");
}

#[test]
fn facts_older_than_the_rule_accepts_are_missing() {
    let rule = |age: &str| FITS.replace("tags: [memory]", &format!("max_age: {age}"));
    let fresh = outcomes(&[&rule("4200")], &facts(|_| ()));
    assert_eq!(fresh[0].status, Status::Pass);
    let stale = outcomes(&[&rule("600.5")], &facts(|_| ()));
    assert_eq!(stale[0].status, Status::Unknown);
    assert_eq!(
        stale[0].missing,
        [Missing {
            path: "destination.memory.available_bytes".into(),
            reason: "measured 70 min ago; the rule accepts at most 10 min".into(),
            cause: Cause::TooOld,
        }]
    );
}

#[test]
fn the_same_facts_give_the_same_outcomes() {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    let facts = facts(|_| ());
    let now = "2026-11-23T01:10:00Z".parse::<Timestamp>().unwrap();
    let first = serde_json::to_string(&pack.evaluate(&facts, &Forecast::default(), now)).unwrap();
    let again = Pack::load(&[RuleSource::Builtin]).unwrap();
    assert_eq!(first, serde_json::to_string(&again.evaluate(&facts, &Forecast::default(), now)).unwrap());
    assert_eq!(pack.digest(), again.digest());
}

#[test]
fn what_a_rule_writes_out_is_no_evidence() {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    let text = include_str!("../../../../rules/fixtures/busy-cluster-member.yaml");
    let facts: Facts = serde_yaml::from_str(text).unwrap();
    let found = pack.evaluate(&facts, &Forecast::default(), facts.collected_at);
    let nameless = found.iter().filter(|one| one.evidence.iter().any(|fact| fact.path.is_empty()));
    assert_eq!(nameless.map(|one| &*one.rule).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn an_accepted_trial_settles_what_the_facts_leave_unknown_and_nothing_else() {
    let trial = |answer: &str| json!({"at": "2026-11-23T01:05:00Z", "answer": answer, "total_seconds": 0.6, "guest_stopped_seconds": 0.0});
    let settled = FITS.replace("severity: high", "severity: high\nsettled_by: trial");
    let status = |rule: &str, memory: serde_json::Value, trial: serde_json::Value| {
        let facts = facts(|document| {
            document["destination"]["memory"] = memory;
            document["trial"] = trial;
        });
        outcomes(&[rule], &facts).remove(0)
    };
    let (unknown, small) =
        (json!({"unknown": "no answer"}), json!({"total_bytes": 10, "available_bytes": 10}));
    let passed = status(&settled, unknown.clone(), trial("accepted"));
    assert_eq!((passed.status, passed.missing.len()), (Status::Pass, 0));
    assert!(passed.message.contains("trial at 2026-11-23T01:05:00Z"), "{}", passed.message);
    assert_eq!(passed.evidence[0].path, "trial.answer");
    // What is known to fail fails, and other rules ask for more than the start.
    assert_eq!(status(&settled, small, trial("accepted")).status, Status::Fail);
    assert_eq!(status(FITS, unknown.clone(), trial("accepted")).status, Status::Unknown);
    assert_eq!(status(&settled, unknown.clone(), trial("refused")).status, Status::Unknown);
    let without = status(&settled, unknown.clone(), json!(null));
    assert!(without.remediation.unwrap().contains("`--trial`"));
    assert!(!status(FITS, unknown, json!(null)).remediation.unwrap().contains("--trial"));
}
