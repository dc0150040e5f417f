//! Ordinary VMs stay quiet: domains as common tools write them, as libvirt sends them, between two healthy hosts.
//!
//! Each file beside this one is a domain as `virsh dumpxml --migratable` prints it; the table below has what a check without
//! options says of it beyond GO, with the reason for which that is right.
#![cfg(feature = "libvirt")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../corpus/ideal.rs"]
mod ideal;

use std::{collections::BTreeSet, fs, path::PathBuf};

use vmgate_facts::{Fact, Facts, Guest};
use vmgate_forecast::derive;
use vmgate_libvirt::domain_xml;
use vmgate_rules::{Pack, ParamOverrides, RuleSource, catalogue::Catalogues};
use vmgate_verdict::{Effect, Outcome, Status};

/// Outcome beyond GO: the file that it concerns, its rule, its effect, and the reason for which it is right.
struct Expected {
    file: &'static str,
    rule: &'static str,
    effect: Effect,
    reason: &'static str,
}

const fn warns(file: &'static str, rule: &'static str, reason: &'static str) -> Expected {
    Expected { file, rule, effect: Effect::Warn, reason }
}

const fn stops(file: &'static str, rule: &'static str, reason: &'static str) -> Expected {
    Expected { file, rule, effect: Effect::Block, reason }
}

/// Cache mode of a disk without `cache=`: what is not written yet lies in the host's page cache, and lengthens the blackout.
const WRITES_BACK: &str =
    "the default cache mode writes back, and the data must reach the storage while the guest is stopped";
const BEHIND_NAT: &str =
    "libvirt's NAT network hides the guest behind the source host: its connections end with the move";
const FOREIGN: &str =
    "nothing looks into a guest that is not Linux: only a person knows what runs there and may be cut off";

const MANAGED: &str =
    "a manager keeps the VM's record: libvirt alone would move it behind the manager's back";

const TABLE: &[Expected] = &[
    stops("cloudstack", "vm-moved-by-its-manager", MANAGED),
    stops("kubevirt", "vm-moved-by-its-manager", MANAGED),
    stops("nova", "vm-moved-by-its-manager", MANAGED),
    stops("opennebula", "vm-moved-by-its-manager", MANAGED),
    stops("ovirt", "vm-moved-by-its-manager", MANAGED),
    warns("coreos-ignition", "disk-bypasses-host-cache", WRITES_BACK),
    warns("terraform", "disk-bypasses-host-cache", WRITES_BACK),
    warns("virt-install-debian", "disk-bypasses-host-cache", WRITES_BACK),
    warns("virt-install-rhel8", "disk-bypasses-host-cache", WRITES_BACK),
    warns("virt-install-rhel9", "disk-bypasses-host-cache", WRITES_BACK),
    warns("virt-install-ubuntu", "disk-bypasses-host-cache", WRITES_BACK),
    warns("virt-manager-desktop", "disk-bypasses-host-cache", WRITES_BACK),
    warns("virt-manager-desktop", "guest-connections-follow-the-vm", BEHIND_NAT),
    warns("virt-install-ubuntu", "guest-connections-follow-the-vm", BEHIND_NAT),
    warns("virt-install-windows11", "disk-bypasses-host-cache", WRITES_BACK),
    warns(
        "virt-install-windows11",
        "guest-announces-itself",
        "an e1000e asks no guest to announce its VLANs and bridges",
    ),
    stops(
        "cloudstack",
        "destination-has-listen-addresses",
        "its display listens at the source's own address; CloudStack's agent changes that on its moves, libvirt alone is refused",
    ),
];

fn files() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/typical");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "xml")).collect();
    files.sort();
    files
}

fn outcomes(facts: Facts) -> Vec<Outcome> {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    let pack = pack.with_parameters(Some("standard"), &ParamOverrides::new()).unwrap();
    let now = facts.collected_at;
    let (facts, forecast) = derive(facts, &Catalogues::shipped().unwrap());
    pack.evaluate(&facts, &forecast, now)
}

/// Facts of a domain between the healthy hosts.
fn facts_of(name: &str, xml: &str) -> Facts {
    let mut facts = ideal::facts_of(&domain_xml::parse(xml).unwrap());
    let Fact::Known(destination) = &mut facts.destination else { panic!("the fixture has a destination") };
    let Fact::Known(nics) = &mut destination.nics else { panic!("and its interfaces") };
    // A host has addresses of its own, and not the other's.
    for nic in nics.iter_mut().filter(|nic| nic.name == "br0") {
        nic.addresses = vec!["10.0.0.2/24".to_owned()];
    }
    if name.contains("windows") {
        facts.guest = Fact::Known(Guest::default());
    }
    facts
}

#[test]
fn ordinary_vms_are_quiet() {
    let files = files();
    assert!(files.len() >= 15, "{} files", files.len());
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let told: BTreeSet<(String, String)> = outcomes(facts_of(&name, &fs::read_to_string(&file).unwrap()))
            .iter()
            .filter(|outcome| matches!(outcome.effect_now(), Some(Effect::Block | Effect::Warn)))
            // Of a guest that nothing looks into, all that its guest would tell is unknown.
            .filter(|outcome| !(name.contains("windows") && is_of_guest(outcome)))
            .map(|outcome| (outcome.rule.to_string(), outcome.effect_now().unwrap().word().to_owned()))
            .collect();
        let expected: BTreeSet<(String, String)> = TABLE
            .iter()
            .filter(|expected| expected.file == name)
            .map(|expected| (expected.rule.to_owned(), expected.effect.word().to_owned()))
            .collect();
        assert_eq!(told, expected, "{name}");
    }
    assert!(TABLE.iter().all(|expected| !expected.reason.is_empty()));
}

fn is_of_guest(outcome: &Outcome) -> bool {
    outcome.status == Status::Unknown
        && outcome.missing.iter().all(|missing| missing.path.starts_with("guest."))
}

/// Marks of managers as they write them, and what is read of them.
#[test]
fn managers_are_known_by_their_marks_and_nobody_else_is_one() {
    let expected = [
        ("cloudstack", "cloudstack", "14", Some("2")),
        ("kubevirt", "kubevirt", "vm-fedora", Some("default")),
        ("nova", "nova", "web-7", Some("web")),
        ("opennebula", "opennebula", "42", None),
        ("ovirt", "ovirt", "ovirt", None),
    ];
    for file in files() {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let xml = fs::read_to_string(&file).unwrap();
        let mut facts = facts_of(&name, &xml);
        let Fact::Known(vm) = &mut facts.vm else { panic!("a VM") };
        vm.name = Fact::Known(domain_xml::parse(&xml).unwrap().name.unwrap());
        let (facts, _) = derive(facts, &Catalogues::shipped().unwrap());
        let vm = facts.vm.known().unwrap();
        let manager = vm.manager.known().unwrap_or_else(|| panic!("{name}: {:?}", vm.manager)).as_ref();
        let told = manager.map(|one| (one.kind.as_str(), one.vm.as_str(), one.project.as_deref()));
        let wanted = expected
            .iter()
            .find(|(file, ..)| *file == name)
            .map(|(_, kind, vm, project)| (*kind, *vm, *project));
        assert_eq!(told, wanted, "{name}");
    }
}

#[test]
fn of_a_windows_guest_the_unknown_is_what_only_the_guest_knows() {
    let xml = fs::read_to_string(
        files().into_iter().find(|file| file.ends_with("virt-install-windows11.xml")).unwrap(),
    );
    let unknown: Vec<Outcome> = outcomes(facts_of("windows", &xml.unwrap()))
        .into_iter()
        .filter(|outcome| outcome.status == Status::Unknown && outcome.effect_now() == Some(Effect::Block))
        .collect();
    assert!(!unknown.is_empty(), "{FOREIGN}");
    for outcome in &unknown {
        assert!(is_of_guest(outcome), "{}: {}", outcome.rule, outcome.message);
    }
}

#[test]
fn every_element_of_ordinary_vms_is_known_to_migrate() {
    for file in files() {
        let facts = facts_of("", &fs::read_to_string(&file).unwrap());
        let (facts, _) = derive(facts, &Catalogues::shipped().unwrap());
        let Fact::Known(vm) = facts.vm else { panic!("a VM") };
        for component in vm.components.known().unwrap() {
            assert_eq!(component.migrates.known(), Some(&true), "{}: {component:?}", file.display());
        }
    }
}
