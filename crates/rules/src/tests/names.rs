//! Tests of what a rule does with names that its author did not think of, and with values that are not known in its texts.

use jiff::Timestamp;
use serde_json::json;
use vmgate_facts::{Cause, Facts, Forecast};

use super::*;

/// A rule about a name; tests give it its conditions.
const RULE: &str = r#"schema: vmgate/rule/v1
id: fits
title: The VM fits the destination
step: resume
severity: high
effect: block
CONDITIONS
message: the machine type is {vm.machine_type}
rationale: A rule that an unknown name switches off says nothing about the machine that has that name.
remediation: Choose another destination, or write a rule that knows the name of the machine.
references: [{title: "virsh(1)", url: "https://libvirt.org/manpages/virsh.html"}]
tags: [hosts]
"#;

const MET: &str = "assert: destination.libvirt_version >= source.libvirt_version";

fn linted(conditions: &str) -> Vec<Problem> {
    let text = RULE
        .replace("CONDITIONS", conditions)
        .replace("{vm.machine_type}", "{destination.libvirt_version}, {source.libvirt_version}");
    let (_dir, source) = folder(&[("5-resume/fits.yaml", &text)]);
    let pack = Pack::load(&[source]).unwrap_or_else(|errors| panic!("{conditions}\n{errors}"));
    let about_names = |problem: &Problem| problem.message().starts_with("another ");
    lint(&pack).into_iter().filter(about_names).collect()
}

#[test]
fn a_condition_that_an_unknown_name_turns_off_is_found_with_its_place() {
    for (when, fact, column) in [
        (r#"vm.machine_type.startsWith("pc-q35-")"#, "machine_type", 3),
        (r#"source.kernel_release.matches("^6[.]")"#, "kernel_release", 3),
        (r#"vm.vcpus > 1 && vm.cpu_model in ["Nehalem", "Skylake-Client"]"#, "cpu_model", 19),
        (r#"!(vm.machine_type != "q35" || vm.vcpus > 1)"#, "machine_type", 5),
        (r#"vm.nics.exists(n, n.model == "virtio")"#, "model", 21),
        (r#"vm.nics.filter(n, n.model == "virtio").size() > 0"#, "model", 21),
        (r#"!vm.nics.all(n, !(n.model in ["virtio"]))"#, "model", 21),
        (r#"(vm.machine_type == "q35" ? true : false) || vm.vcpus > 8"#, "machine_type", 4),
    ] {
        let found = linted(&format!("when: >-\n  {when}\n{MET}"));
        let messages: Vec<&str> = found.iter().map(Problem::message).collect();
        let expected = format!("another {fact} switches the rule off, also one that nobody has thought of");
        assert_eq!(messages, [expected.as_str()], "{when}");
        let text = found[0].to_string();
        assert!(text.contains("only these names") && text.contains("help: name the exceptions"), "{text}");
        assert!(text.contains(&format!("fits.yaml:8:{column}\n")), "{text}");
    }
    let found = linted(&format!(
        "foreach: {{n: 'vm.nics.filter(n, n.model != null && n.model.startsWith(\"e1000\"))'}}\nsubject: \"{{n.mac}}\"\n{MET}"
    ));
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().contains("fits.yaml:7:52"), "{}", found[0]);
    let named = "let:\n  old: 'source.kernel_release.startsWith(\"5.\")'\nwhen: old\n";
    let found = linted(&format!("{named}{MET}"));
    assert!(found[0].to_string().contains("fits.yaml:8:9"), "{}", found[0]);
}

#[test]
fn an_assertion_that_an_unknown_name_passes_is_found() {
    for (assert, expected) in [
        (r#"'!destination.kernel_release.startsWith("5.")'"#, 1),
        (r#"destination.kernel_release != "5.10.0" && vm.vcpus > 1"#, 1),
        (r#"vm.nics.filter(n, n.model == "ne2k").size() == 0"#, 1),
        (r#"vm.nics.all(n, !(n.model in ["ne2k"]))"#, 1),
        // What is known to be good passes, and nothing else.
        (r#"destination.kernel_release.startsWith("6.")"#, 0),
        (r#"vm.nics.all(n, n.model in ["virtio", "e1000e"])"#, 0),
        (r#"vm.nics.filter(n, !(n.model in ["virtio"])).size() == 0"#, 0),
    ] {
        let found = linted(&format!("assert: {assert}"));
        assert_eq!(found.len(), expected, "{assert}");
        assert!(found.iter().all(|problem| problem.message().contains("passes the rule")));
    }
}

#[test]
fn a_condition_that_an_unknown_name_leaves_on_is_fine() {
    for when in [
        r#"'!(vm.machine_type in ["q35", "pc"])'"#,
        r#"'vm.machine_type == "q35" ? false : true'"#,
        // Names that the facts list, and texts that name no kind.
        r#"vm.nics.exists(n, n.kind == "bridge")"#,
        r#"vm.name.startsWith("db-")"#,
        r#"vm.state == "running""#,
        // A machine's answer.
        "vm.machine_type in source.cpu_models",
    ] {
        assert!(linted(&format!("when: {when}\n{MET}")).is_empty(), "{when}");
    }
}

fn facts(change: impl FnOnce(&mut serde_json::Value)) -> Facts {
    let text = include_str!("../../../../rules/fixtures/idle-vm.yaml");
    let mut document =
        serde_json::to_value(serde_yaml::from_str::<serde_yaml::Value>(text).unwrap()).unwrap();
    change(&mut document);
    serde_json::from_value(document).unwrap()
}

fn outcomes_of(pack: &Pack, facts: &Facts, rule: &str) -> Vec<Outcome> {
    let now = "2026-11-23T01:05:00Z".parse::<Timestamp>().unwrap();
    let found = pack.evaluate(facts, &Forecast::default(), now);
    found.into_iter().filter(|outcome| &*outcome.rule == rule).collect()
}

#[test]
fn a_kind_that_nobody_listed_is_unknown_by_its_name_in_every_rule_that_asks() {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    for (change, rules, name) in [
        (
            "/vm/nics/0/kind",
            &[
                "destination-networks-exist",
                "destination-bridge-kind-agrees",
                "guest-connections-follow-the-vm",
            ][..],
            "kind `wormhole`",
        ),
        (
            "/vm/disks/0/kind",
            &["destination-storage-reachable", "disk-filesystem-shared"][..],
            "kind `wormhole`",
        ),
        ("/vm/disks/0/cache", &["disk-cache-safe"][..], "cache `wormhole`"),
    ] {
        let facts = facts(|document| *document.pointer_mut(change).unwrap() = json!("wormhole"));
        for rule in rules {
            let found = outcomes_of(&pack, &facts, rule);
            let open = found.iter().find(|outcome| outcome.status == Status::Unknown);
            let open = open.unwrap_or_else(|| panic!("{rule}: {found:?}"));
            assert!(open.message.contains(name), "{rule}: {}", open.message);
            assert!(open.missing.iter().any(|missing| missing.cause == Cause::NotListed), "{rule}");
        }
    }
}

#[test]
fn what_nobody_asked_for_is_unknown_and_not_absent() {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    let facts = facts(|document| document["vm"]["migration_blockers"] = json!(null));
    let found = outcomes_of(&pack, &facts, "no-migration-blocker");
    assert_eq!((found[0].status, found[0].on_unknown), (Status::Unknown, Effect::Note));
    assert_eq!(found[0].missing[0].cause, Cause::NotAllowed);
    let text = RULE.replace("CONDITIONS", &format!("when: vm.migration_blockers != null\n{MET}"));
    let (_dir, source) = folder(&[("fits.yaml", &text)]);
    let Err(refused) = Pack::load(&[source]) else { panic!("a rule may not take it for absent") };
    assert!(refused.to_string().contains("`vm.migration_blockers` is never absent"), "{refused}");
}

#[test]
fn a_message_leaves_out_what_is_not_known() {
    let said = |message: &str| {
        let text = RULE
            .replace("CONDITIONS", "assert: vm.vcpus > 100")
            .replace("the machine type is {vm.machine_type}", &json!(message).to_string());
        let (_dir, source) = folder(&[("fits.yaml", &text)]);
        let pack = Pack::load(&[source]).unwrap();
        let facts = facts(|document| {
            document["vm"]["machine_type"] = json!({"unknown": "no answer"});
            document["vm"]["accelerator"] = json!({"unknown": "no answer"});
        });
        outcomes_of(&pack, &facts, "fits")[0].message.to_string()
    };
    assert_eq!(
        said("it has {vm.vcpus} vCPUs; its type is {vm.machine_type}; at most 100"),
        "it has 4 vCPUs; at most 100"
    );
    assert_eq!(
        said("it has {vm.vcpus} vCPUs (type {vm.machine_type}; old), at most 100"),
        "it has 4 vCPUs, at most 100"
    );
    assert_eq!(
        said("it has {vm.vcpus} vCPUs{vm.accelerator == \"kvm\" ? \" in KVM\" : \"\"} (at most {50 + 50})"),
        "it has 4 vCPUs (at most 100)"
    );
    assert_eq!(said("its type is {vm.machine_type}"), "this does not hold: The VM fits the destination");
    assert_eq!(said("types: {[vm.machine_type, vm.name]}"), "types: web1, and 1 not known");
}

#[test]
fn a_message_of_which_nothing_may_be_left_is_found() {
    let found = |assert: &str, message: &str| {
        let text = RULE
            .replace("CONDITIONS", &format!("assert: {assert}"))
            .replace("the machine type is {vm.machine_type}", &json!(message).to_string());
        let (_dir, source) = folder(&[("5-resume/fits.yaml", &text)]);
        let found = lint(&Pack::load(&[source]).unwrap());
        found.iter().any(|problem| problem.message().starts_with("nothing of the message is left"))
    };
    let newer = "destination.qemu_version >= vm.qemu_version";
    assert!(found(newer, "{destination.qemu_version} and {vm.qemu_version}, of {vm.machine_type}"));
    assert!(!found(newer, "{destination.qemu_version} and {vm.qemu_version}; of {vm.machine_type}"));
    assert!(!found(newer, "{destination.qemu_version} and {vm.qemu_version} (of {vm.machine_type})"));
    // Either decides, and the other may be unknown.
    let both = "vm.vcpus > 1 && destination.load_ratio < 1.0";
    assert!(found(both, "{vm.vcpus} vCPUs and a load of {destination.load_ratio}"));
    assert!(!found(both, "{vm.vcpus} vCPUs; a load of {destination.load_ratio}"));
}
