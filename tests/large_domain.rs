//! Domains as nobody should write them: megabytes, thousands of devices, absurd numbers, names in every script. Reading and judging
//! them ends, in work that grows with their size, and what was not read is never GO.
#![cfg(feature = "libvirt")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "corpus/ideal.rs"]
mod ideal;

use std::fmt::Write as _;

use vmgate_collect::fuzz;
use vmgate_facts::{Fact, Facts};
use vmgate_forecast::derive;
use vmgate_libvirt::domain_xml;
use vmgate_rules::{Pack, ParamOverrides, RuleSource, catalogue::Catalogues};
use vmgate_verdict::{Effect, Outcome};

/// A domain with this number of devices of every kind that has a name of its own on the host; libvirt itself allows few displays.
fn domain_with(devices: usize) -> String {
    domain_of(devices, devices.min(8))
}

fn domain_of(devices: usize, displays: usize) -> String {
    let mut xml = "<domain type='kvm'><name>many</name><memory unit='GiB'>4</memory><vcpu>4</vcpu>
        <os><type arch='x86_64' machine='pc-q35-10.0'>hvm</type></os><devices>"
        .to_owned();
    for at in 0..devices {
        let _ = write!(
            xml,
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='/srv/{at}.qcow2'/>
            <backingStore type='file'><format type='qcow2'/><source file='/srv/base{at}.qcow2'/></backingStore>
            <target dev='vd{at}' bus='virtio'/><alias name='disk{at}'/></disk>
            <interface type='bridge'><mac address='52:54:00:00:{:02x}:{:02x}'/><source bridge='br{at}'/>
            <target dev='vnet{at}'/><model type='virtio'/></interface>
            <serial type='unix'><source mode='connect' path='/run/serial{at}.sock'/></serial>",
            at / 256 % 256,
            at % 256
        );
    }
    for at in 0..displays {
        let _ = write!(xml, "<graphics type='vnc' listen='10.0.{}.{}'/>", at / 256 % 256, at % 256);
    }
    xml + "</devices></domain>"
}

fn evaluate(facts: Facts) -> Vec<Outcome> {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    let pack = pack.with_parameters(Some("standard"), &ParamOverrides::new()).unwrap();
    let now = facts.collected_at;
    let (facts, forecast) = derive(facts, &Catalogues::shipped().unwrap());
    pack.evaluate(&facts, &forecast, now)
}

fn obstacles(xml: &str) -> Vec<Outcome> {
    let outcomes = evaluate(ideal::facts_of(&domain_xml::parse(xml).unwrap()));
    outcomes.into_iter().filter(|outcome| outcome.effect_now() == Some(Effect::Block)).collect()
}

/// Allocations that `work` makes: a measure of its work that no other program on this machine changes.
fn allocations<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let mut done = None;
    let counted = allocation_counter::measure(|| done = Some(work()));
    (done.unwrap(), counted.count_total)
}

#[test]
fn reading_grows_with_the_number_of_devices_and_no_faster() {
    let of = |devices| allocations(|| domain_xml::parse(&domain_with(devices)).unwrap()).1;
    let (once, four_times) = (of(250), of(1000));
    assert!(four_times < 5 * once, "{once} allocations, and {four_times} for four times the devices");
    let bytes = allocation_counter::measure(|| drop(domain_xml::parse(&domain_with(1000)))).bytes_max;
    assert!(bytes < 64 << 20, "{bytes} bytes for a domain of {}", domain_with(1000).len());
}

#[test]
fn live_and_migratable_configuration_meet_in_work_that_grows_with_the_devices() {
    // With a comparison of each with each, this would take minutes.
    let config = domain_xml::parse(&domain_with(4000)).unwrap();
    let both = config.clone().with_live(&config);
    assert_eq!(both, config);
}

#[test]
fn thousands_of_disks_and_interfaces_are_judged_in_work_that_grows_with_them() {
    let judged = |devices| {
        let facts = ideal::facts_of(&domain_xml::parse(&domain_with(devices)).unwrap());
        allocations(|| evaluate(facts))
    };
    let blocks = |outcomes: &[Outcome]| {
        outcomes.iter().filter(|outcome| outcome.effect_now() == Some(Effect::Block)).count()
    };
    let (few, once) = judged(500);
    let (many, four_times) = judged(2000);
    assert_eq!((blocks(&few), blocks(&many)), (0, 0));
    println!("{once} allocations for 500 disks and 500 interfaces, {four_times} for four times as many");
    assert!(four_times < 6 * once, "{once} allocations, and {four_times} for four times the devices");
}

#[test]
fn a_rule_without_a_look_up_takes_bounded_work_and_is_no_go() {
    // The rule on addresses of displays compares beginnings of texts: each with each.
    let (found, work) = allocations(|| obstacles(&domain_of(2000, 2000)));
    let told = found
        .iter()
        .any(|outcome| outcome.missing.iter().any(|missing| missing.reason.contains("too many steps")));
    assert!(told, "{:?}", found.first());
    // A rule stops after ten million steps; 2000 times 2000 comparisons in each of eighty rules would be many more.
    assert!(work < 40_000_000, "{work} allocations");
}

#[test]
fn what_libvirt_itself_would_not_carry_is_not_read_and_no_go() {
    let text = format!("<domain type='kvm'><description>{}</description></domain>", "x".repeat(10 << 20));
    let (vm, work) = allocations(|| fuzz::vm_of_xml(&text));
    assert!(work < 2_000, "{work} allocations");
    let Fact::Unknown(why) = &vm.disks else { panic!("{:?}", vm.disks) };
    assert!(why.reason.contains("(10240 KiB) cannot be read"), "{}", why.reason);
    let mut facts = ideal::facts_of(&domain_xml::parse("<domain type='kvm'/>").unwrap());
    facts.vm = Fact::Known(vm);
    assert!(evaluate(facts).iter().any(|outcome| outcome.effect_now() == Some(Effect::Block)));
}

#[test]
fn text_that_multiplies_itself_or_nests_without_end_is_refused_or_told() {
    let bomb = "<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><domain><name>&b;</name></domain>";
    assert!(domain_xml::parse(bomb).is_err());
    // In the metadata anything may stand; elsewhere only the first unknown element is told, and nothing below it.
    let deep = |element: &str| {
        format!("<domain><{element}>{}{}</{element}></domain>", "<a>".repeat(50_000), "</a>".repeat(50_000))
    };
    assert!(domain_xml::parse(&deep("metadata")).unwrap().components.is_empty());
    let told = domain_xml::parse(&deep("devices")).unwrap().components;
    assert_eq!(told.iter().map(|component| component.kind.as_str()).collect::<Vec<_>>(), ["devices/a"]);
    let chain = format!(
        "<domain><devices><disk type='file'><source file='/a'/>{}{}</disk></devices></domain>",
        "<backingStore type='file'><source file='/b'/>".repeat(20_000),
        "</backingStore>".repeat(20_000)
    );
    let (config, work) = allocations(|| domain_xml::parse(&chain).unwrap());
    assert_eq!(config.disks[0].backing_files.len(), 200, "libvirt's own limit");
    assert!(work < 1_000_000, "{work} allocations");
}

#[test]
fn names_in_every_script_reach_no_fact_with_control_characters() {
    let name = "ж\u{202e}中\u{200f}ا😀é&#x9;&#xA;\u{85}\u{9b}2J";
    let xml = format!(
        "<domain type='kvm'><name>{name}</name><os><type machine='{name}'>hvm</type><kernel>/{name}</kernel></os><{n}/>
        <devices><disk type='{name}' device='disk'><source file='/{name}'/><target dev='{name}' bus='{name}'/></disk>
        <interface type='{name}'><mac address='{name}'/><source bridge='{name}'/></interface><sound model='{name}'/>
        <graphics type='vnc' listen='{name}'/><hostdev type='{name}'/></devices><seclabel model='{name}' type='x'/></domain>",
        n = "элемент",
    );
    let vm = fuzz::vm(&domain_xml::parse(&xml).unwrap());
    for text in serde_json::to_string(&vm).unwrap().chars() {
        assert!(!text.is_control() && !('\u{202a}'..='\u{202e}').contains(&text), "{text:?}");
    }
    assert!(serde_json::to_string(&vm).unwrap().contains("элемент"));
}

#[test]
fn absurd_numbers_and_units_are_unknown_or_as_libvirt_reads_them() {
    let memory =
        |text: &str| domain_xml::parse(&format!("<domain>{text}</domain>")).unwrap().memory_max_bytes;
    assert_eq!(memory("<memory unit='EiB'>1</memory>"), Some(1 << 60));
    assert_eq!(memory("<memory unit='TB'>2</memory>"), Some(2_000_000_000_000));
    for text in [
        "<memory unit='EiB'>99999999999999999999</memory>",
        "<memory unit='EiB'>16</memory>",
        "<memory unit='parsec'>1</memory>",
        "<memory>-1</memory>",
        "<memory>1e9</memory>",
        "<memory/>",
    ] {
        assert_eq!(memory(text), None, "{text}");
    }
    let absurd =
        "<domain type='kvm'><memory>18446744073709551615</memory><vcpu current='4294967296'>4294967295</vcpu>
        <cpu><topology sockets='4294967295' cores='4294967295' threads='4294967295'/></cpu>
        <cputune><vcpupin vcpu='0' cpuset='0-4294967295'/></cputune></domain>";
    assert!(!obstacles(absurd).is_empty());
}

#[test]
fn elements_of_a_libvirt_to_come_are_told_by_name_with_a_way_out() {
    let xml = domain_with(1)
        .replace("<devices>", "<quantum entangled='yes'/><devices><warpdrive model='x'/>")
        .replace("cache='none'", "cache='none' teleport='on'");
    let found = obstacles(&xml);
    let subjects: Vec<&str> =
        found.iter().filter_map(|outcome| outcome.subject.as_deref()).map(str::trim).collect();
    assert_eq!(subjects, ["devices/disk/driver/@teleport", "devices/warpdrive", "quantum"]);
    for outcome in &found {
        assert_eq!(outcome.status, vmgate_verdict::Status::Unknown);
        assert!(outcome.remediation.as_deref().unwrap().contains("accept the component"), "{outcome:?}");
    }
}
